"""One call to AdRoll's event API, and what its answer means."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit, urlunsplit

from adroll_flask._version import __version__
from adroll_flask.errors import ConfigurationError, DeliveryError
from adroll_flask.hosts import is_loopback
from adroll_flask.interruptions import let_through
from adroll_flask.redaction import identifying_values
from adroll_flask.settings import Account, Settings

from .answers import Answer, answer_from, answer_without_response
from .transport import NoAnswer, RequestsTransport, Transport

#: Events that AdRoll takes in one request.
MAX_BATCH = 100
_MAX_TOKEN = 4096


class TokenUnavailable(DeliveryError):
    """The callable that gives the access token raised, or gave something that is none.

    :param reason: ``"token_failed"`` or ``"token_invalid"``.
    :param kind: the class of what it raised or gave, never the value.
    """

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Credentials:
    """The token of one moment, and the keyed fingerprint of token, EIDs and URL."""

    token: str = field(repr=False)
    fingerprint: str


class Client:
    """Sends batches of an account's events to AdRoll's event API.

    :param settings: the app's configuration.
    :param transport: what sends a POST; by default ``requests``.
    :param account: default: the account of ``ADROLL_ADVERTISABLE_EID``.
    :param clock: epoch seconds.
    :raises ConfigurationError: the API's address is plain http beyond this machine.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport | None = None,
        *,
        account: Account | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(settings.api_url)
        if not (parts.scheme == "https" or settings.sandbox or is_loopback(parts.hostname or "")):
            # Settings check it too; the token's safety does not hang on how they were made.
            raise ConfigurationError(
                "ADROLL_API_URL", "takes an https URL (plain http only to this machine)"
            )
        self.account: Account = settings.account if account is None else account
        self.settings = settings
        self._transport = RequestsTransport() if transport is None else transport
        self.clock = clock
        self._host = parts.hostname or ""

    def __repr__(self) -> str:
        return f"<Client {self._host}>"

    def credentials(self) -> Credentials:
        """Ask for the token of now.

        :raises TokenUnavailable: there is none; nothing of what was given shows in the error.
        """
        source = self.account.access_token
        failed = ""
        token: object = source
        if callable(source):
            try:
                token = source()
            except Exception as error:  # a site's own code: anything can come out of it
                let_through(error)
                failed = type(error).__name__
        if failed:
            # Outside the handler: a chained message could hold the token.
            raise TokenUnavailable("token_failed", failed)
        if not isinstance(token, str) or not _is_token(token):
            raise TokenUnavailable("token_invalid", type(token).__name__)
        return Credentials(token, self._fingerprint(token))

    def _fingerprint(self, token: str) -> str:
        settings = self.settings
        key = settings.secret_key[0] if settings.secret_key else b""
        known = (token, self.account.advertisable_eid, self.account.pixel_eid, settings.api_url)
        return hmac.new(
            b"adroll_flask.hold:" + (key.encode() if isinstance(key, str) else key),
            json.dumps(known).encode(),
            hashlib.sha256,
        ).hexdigest()[:32]

    def send(
        self, payloads: Sequence[bytes], dry_run: bool, *, credentials: Credentials | None = None
    ) -> Answer:
        """Send up to 100 events in one request.

        :param payloads: each one event's JSON object.
        :param dry_run: AdRoll validates and forgets.
        :param credentials: of :meth:`credentials`, which is asked where they are left out.
        :raises TokenUnavailable: there is no token, so nothing was sent.

        Whatever the network and AdRoll do ends in an :class:`Answer`.
        """
        if not 0 < len(payloads) <= MAX_BATCH:
            raise ValueError(f"a request takes 1 to {MAX_BATCH} events")
        if credentials is None:
            credentials = self.credentials()
        # mtime=0: the same events make the same bytes.
        body = gzip.compress(b"[" + b",".join(payloads) + b"]", compresslevel=5, mtime=0)
        try:
            response = self._transport.send(self._url(dry_run), _headers(credentials.token), body)
        except NoAnswer as failure:
            return answer_without_response(failure)
        token = credentials.token
        return answer_from(
            response, now=self.clock(), secrets=lambda: (token, *_identifying(payloads))
        )

    def _url(self, dry_run: bool) -> str:
        parts = urlsplit(self.settings.api_url)
        eid = self.account.advertisable_eid or ""
        asked = f"advertisable={quote(eid, safe='')}{'&dry_run=true' * dry_run}"
        query = f"{parts.query}&{asked}" if parts.query else asked
        return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _is_token(token: str) -> bool:
    # What a header carries unchanged; a line break would start a header of its own.
    return 0 < len(token) <= _MAX_TOKEN and all("!" <= char <= "~" for char in token)


def _headers(token: str) -> dict[str, str]:
    return {
        "Authorization": f"Token {token}",
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        # A compressed answer could unpack to anything.
        "Accept-Encoding": "identity",
        "Accept": "application/json",
        "User-Agent": f"adroll_flask/{__version__}",
    }


def _identifying(payloads: Sequence[bytes]) -> tuple[str, ...]:
    """What names the visitors of a batch: AdRoll's words may repeat it."""
    found: list[str] = []
    for payload in payloads:
        try:
            wire = json.loads(payload)
        except ValueError:
            continue
        if isinstance(wire, dict):
            found += identifying_values(wire)
    return tuple(found)

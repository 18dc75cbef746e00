"""One call to AdRoll's event API, and what its answer means for the events of its request.

AdRoll documents neither its answers nor what becomes of a batch that it refuses, so the status
alone decides and each doubtful one counts as unsure. The words of a body only tell people.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from adroll_flask._version import __version__
from adroll_flask.errors import DeliveryError, let_through
from adroll_flask.outbox.model import Attempt
from adroll_flask.redaction import PLAIN, describe, redact_text
from adroll_flask.settings import Account, Settings

from .transport import NoAnswer, Response, Transport

#: Events that AdRoll takes in one request.
MAX_BATCH = 100
#: What a header carries unchanged; a line break would start a header of its own.
_TOKEN = re.compile("[!-~]{1,4096}")
#: Seconds: no ``Retry-After`` silences us for longer, whatever it says.
MAX_RETRY_AFTER = 3600.0
_MAX_ERRORS = 20
_MAX_WORDS = 300
_HEADERS = {
    "Content-Type": "application/json",
    "Content-Encoding": "gzip",
    # A compressed answer could unpack to anything.
    "Accept-Encoding": "identity",
    "Accept": "application/json",
    "User-Agent": f"adroll_flask/{__version__}",
}

Kind = Literal["accepted", "content", "too_large", "throttled", "denied", "failed_sure", "unsure"]
#: What a status means; of others their hundred says it, and what is in neither is unsure.
_KINDS: dict[int, Kind] = {
    400: "content",
    408: "unsure",
    413: "too_large",
    422: "content",
    429: "throttled",
    503: "throttled",
}
_KINDS_BY_HUNDRED: dict[int, Kind] = {2: "accepted", 3: "denied", 4: "denied"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to.

    :param kind: ``accepted``; ``content`` (400, 422: some event may be at fault); ``too_large``;
        ``throttled`` (429, 503: certainly not taken, later); ``denied`` (the address, the account
        or the token is at fault, no event is); ``failed_sure`` (nothing was sent); ``unsure`` (it
        may have been taken).
    :param reason: a short name from a fixed set: ``"http_401"``, ``"dns"``, ``"read_timeout"``.
    :param status: the HTTP status where one came.
    :param retry_after: seconds that AdRoll asks us to wait, at most an hour.
    :param errors: what AdRoll says is wrong, bounded and redacted.
    """

    kind: Kind
    reason: str
    status: int | None = None
    retry_after: float | None = None
    errors: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The reason and AdRoll's own words on one line, to be kept with a dead letter."""
        said = "; ".join(self.errors)
        text = f"{self.reason}: {said}" if said else self.reason
        return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 1] + "…"

    @property
    def asked(self) -> Attempt:
        """The answer as it is kept with the events of its request."""
        return Attempt(0.0, self.kind, self.status, self.words, self.kind == "unsure")


@dataclass(eq=False, repr=False)
class Client:
    """Sends batches of an account's events to AdRoll's event API.

    :param settings: the app's configuration.
    :param account: whose events.
    :param transport: what sends a POST.
    :param clock: epoch seconds.
    """

    settings: Settings
    account: Account
    transport: Transport
    clock: Callable[[], float] = time.time

    def token(self) -> str:
        """Ask for the token of now.

        :raises DeliveryError: the callable that gives it raised (``token_failed``), or gave what is
            none (``token_invalid``): its class is told, and never the value.
        """
        token: object = self.account.access_token
        failed = ""
        if callable(token):
            try:
                token = token()
            except Exception as error:  # a site's own code: anything can come out of it
                let_through(error)
                failed = f"raised {describe(error)}"
        if failed:
            # Outside the handler: a chained message could hold the token.
            raise DeliveryError("token_failed", f"the callable {failed}")
        if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            did = f"the callable gave no usable token but {type(token).__name__}"
            raise DeliveryError("token_invalid", did)
        return token

    def fingerprint(self, token: str) -> str:
        """A keyed one of *token*, both EIDs and the URL."""
        settings = self.settings
        key = settings.secret_key[0] if settings.secret_key else b""
        known = (token, self.account.advertisable_eid, self.account.pixel_eid, settings.api_url)
        return hmac.new(
            b"adroll_flask.hold:" + (key.encode() if isinstance(key, str) else key),
            json.dumps(known).encode(),
            hashlib.sha256,
        ).hexdigest()[:32]

    def send(self, payloads: Sequence[bytes], dry_run: bool, token: str) -> Answer:
        """Send events in one request, at most :data:`MAX_BATCH`.

        :param payloads: each one event's JSON object.
        :param dry_run: AdRoll validates and forgets.
        :param token: of :meth:`token`.

        Whatever the network and AdRoll do ends in an :class:`Answer`.
        """
        # mtime=0: the same events make the same bytes.
        body = gzip.compress(b"[" + b",".join(payloads) + b"]", compresslevel=5, mtime=0)
        headers = {**_HEADERS, "Authorization": f"Token {token}"}
        try:
            response = self.transport.send(self.url(dry_run), headers, body)
        except NoAnswer as failure:
            return Answer("failed_sure" if failure.sure else "unsure", failure.reason)
        return answer_from(response, now=self.clock(), secrets=lambda: _secrets(token, payloads))

    def url(self, dry_run: bool) -> str:
        """Where requests go."""
        parts = urlsplit(self.settings.api_url)
        eid = self.account.advertisable_eid or ""
        asked = f"advertisable={quote(eid, safe='')}{'&dry_run=true' * dry_run}"
        query = f"{parts.query}&{asked}" if parts.query else asked
        return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _secrets(token: str, payloads: Sequence[bytes]) -> Iterator[str]:
    """The token, and what names the visitors of a batch: AdRoll's words may repeat it."""
    yield token
    for payload in payloads:
        with suppress(ValueError, RecursionError):  # damaged behind its account
            yield from _identifying_values(json.loads(payload))


def _identifying_values(wire: Mapping[str, Any]) -> tuple[str, ...]:
    """Every text of *wire* that names its visitor."""
    found: list[object] = []
    for name, value in wire.items():
        if isinstance(value, Mapping):
            found += _identifying_values(value)
        elif name not in (*PLAIN, "page_location", "products"):
            found += value if isinstance(value, list | tuple) else [value]
    return tuple(value for value in found if isinstance(value, str) and value)


# -- answers ---------------------------------------------------------------------------------------


def answer_from(
    response: Response, *, now: float, secrets: Callable[[], Iterable[str]] = tuple
) -> Answer:
    """Read a response.

    :param now: epoch seconds, used for a ``Retry-After`` date where the answer has no ``Date``.
    :param secrets: gives values that must not survive in the words (the token, the visitors'
        identifiers); asked only where there are words.
    """
    status = response.status
    # "2xx takes the whole batch", whatever the body says; but a body that broke off casts doubt on
    # who wrote the status: AdRoll, or something between that lost AdRoll.
    if 200 <= status <= 299 and response.truncated:
        return Answer("unsure", "truncated", status)
    kind = _KINDS.get(status) or _KINDS_BY_HUNDRED.get(status // 100, "unsure")
    retry_after = _retry_after(response.headers, now) if kind == "throttled" else None
    reason = f"http_{status}" if 100 <= status <= 599 else "http_status"
    return Answer(kind, reason, status, retry_after, _errors(response.body, secrets))


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date, which is read against the sender's clock."""
    text = headers.get("retry-after", "").strip()[:64]
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        # Decimals are not in the RFC but are sent.
        return min(float(text), MAX_RETRY_AFTER)
    until = _date(text)
    if until is None:
        return None
    said = _date(headers.get("date", ""))
    return min(max(until - (now if said is None else said), 0.0), MAX_RETRY_AFTER)


def _date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text[:64])
        # All three forms of RFC 9110, section 5.6.7, are UTC; asctime's does not say so.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _errors(body: bytes, secrets: Callable[[], Iterable[str]]) -> tuple[str, ...]:
    """The entries of ``{"errors": [{"message", "code"?, "field"?}]}``, or of the list alone, each
    in a few words."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    errors = said.get("errors") if isinstance(said, dict) else said
    if not isinstance(errors, list) or not errors:
        return ()
    hidden = tuple(secrets())
    return tuple(_words(entry, hidden) for entry in errors[:_MAX_ERRORS] if entry)


def _words(entry: Any, secrets: Iterable[str]) -> str:
    known = entry if isinstance(entry, dict) else {"message": entry}
    field, message, code = (
        redact_text(str(value)[:2000], secrets=secrets, limit=160)
        if isinstance(value, str | int) and not isinstance(value, bool)
        else ""
        for value in map(known.get, ("field", "message", "code"))
    )
    said = ": ".join(part for part in (field, message) if part)
    return f"{said} ({code})" if said and code else said or code

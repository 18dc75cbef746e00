"""One call to AdRoll's event API, and what its answer means for the events of its request.

AdRoll documents neither its answers nor what becomes of a batch that it refuses, so the status
alone decides, and each doubtful one counts as unsure. The words of a body are for people only. How
long an account pauses after an answer is told by :mod:`.pauses_and_stops`.

The body of a request is made by :meth:`Client.send`: a JSON array of events, compressed with gzip.
The JSON of one event is made by :func:`adroll_flask.events.event.wire_bytes`.
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
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from adroll_flask._version import __version__
from adroll_flask.accounts import Account
from adroll_flask.errors import DeliveryError, let_through
from adroll_flask.outbox.clocks import difference
from adroll_flask.outbox.model import Attempt
from adroll_flask.redaction import PLAIN, describe, redact_text
from adroll_flask.settings import Settings

from .transport import NoAnswer, Response, Transport

#: Events that AdRoll takes in one request.
MAX_BATCH = 100
#: What a header carries unchanged; a line break would start a header of its own.
_TOKEN = re.compile("[!-~]{1,4096}")
#: Seconds for which we heed a ``Retry-After`` at most.
MAX_RETRY_AFTER = 3600.0
#: Errors of an answer that are read, and characters of its words that are kept.
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
#: What these statuses mean. Any other one means what its hundred means, or else it is unsure.
_KINDS: dict[int, Kind] = {
    400: "content",
    408: "unsure",
    413: "too_large",
    422: "content",
    429: "throttled",
    503: "throttled",
}
_KINDS_BY_HUNDRED: dict[int, Kind] = {2: "accepted", 3: "denied", 4: "denied"}


def kind_of(status: int) -> Kind:
    """What an answer with this HTTP status came to; the kinds are those of :class:`Answer`."""
    return _KINDS.get(status, _KINDS_BY_HUNDRED.get(status // 100, "unsure"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request came to.

    :param kind: ``accepted``; ``content`` (400, 422: some event may be at fault); ``too_large``;
        ``throttled`` (429, 503: certainly not taken, it is to come later); ``denied`` (the address,
        the account or the token is at fault, no event is); ``failed_sure`` (nothing was sent);
        ``unsure`` (it may have been taken).
    :param reason: a short name from a fixed set: ``"http_401"``, ``"dns"``, ``"read_timeout"``.
    :param status: the HTTP status where one came.
    :param retry_after: seconds that AdRoll asks us to wait, at most an hour.
    :param errors: what AdRoll says is wrong, bounded and redacted.
    :param clock_ahead: seconds by which this host's clock is ahead of AdRoll's, as the answer
        shows; below 0: it is behind; ``None``: the answer does not show it.
    """

    kind: Kind
    reason: str
    status: int | None = None
    retry_after: float | None = None
    errors: tuple[str, ...] = ()
    clock_ahead: float | None = None

    @property
    def words(self) -> str:
        """The reason and AdRoll's own words on one line, to be kept with a dead letter."""
        errors = "; ".join(self.errors)
        text = f"{self.reason}: {errors}" if errors else self.reason
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
        """The access token; its callable is asked each time.

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
            kind = type(token).__name__
            raise DeliveryError("token_invalid", f"the callable gave no usable token but {kind}")
        return token

    def fingerprint(self, token: str) -> str:
        """A keyed hash of *token*, both EIDs and the URL."""
        settings = self.settings
        key = settings.secret_key[0] if settings.secret_key else b""
        parts = (token, self.account.advertisable_eid, self.account.pixel_eid, settings.api_url)
        return hmac.new(
            b"adroll_flask.hold:" + (key.encode() if isinstance(key, str) else key),
            json.dumps(parts).encode(),
            hashlib.sha256,
        ).hexdigest()[:32]

    def send(self, payloads: Sequence[bytes], dry_run: bool, token: str) -> Answer:
        """Send events in one request, at most :data:`MAX_BATCH`.

        Whatever the network and AdRoll do ends in an :class:`Answer`.

        :param payloads: each one event's JSON object.
        :param dry_run: AdRoll checks the events and forgets them.
        :param token: of :meth:`token`.
        """
        # Level 1 takes 3/5 of the default's time and makes a tenth more bytes. mtime=0: the same
        # events make the same bytes.
        body = gzip.compress(b"[" + b",".join(payloads) + b"]", compresslevel=1, mtime=0)
        headers = {**_HEADERS, "Authorization": f"Token {token}"}
        sent_at = self.clock()
        try:
            response = self.transport.send(self.url(dry_run), headers, body)
        except NoAnswer as failure:
            return Answer("failed_sure" if failure.sure else "unsure", failure.reason)
        now = self.clock()
        answer = answer_from(response, now=now, secrets=lambda: _secrets(token, payloads))
        return replace(answer, clock_ahead=_clock_ahead(response, sent_at, now))

    def url(self, dry_run: bool) -> str:
        """Where requests go."""
        parts = urlsplit(self.settings.api_url)
        eid = self.account.advertisable_eid or ""
        query = f"{parts.query}&" if parts.query else ""
        query += f"advertisable={quote(eid, safe='')}"
        if dry_run:
            query += "&dry_run=true"
        return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _secrets(token: str, payloads: Sequence[bytes]) -> Iterator[str]:
    """The token, and what names the visitors of a batch: AdRoll's words may repeat it."""
    yield token
    for payload in payloads:
        with suppress(ValueError, RecursionError):  # a payload that was damaged in the outbox
            yield from _identifying_values(json.loads(payload))


def _identifying_values(wire: Mapping[str, Any]) -> tuple[str, ...]:
    """Every text of *wire* that names its visitor."""
    values: list[object] = []
    for name, value in wire.items():
        if isinstance(value, Mapping):
            values += _identifying_values(value)
        elif name not in (*PLAIN, "page_location", "products"):
            values += value if isinstance(value, list | tuple) else [value]
    return tuple(value for value in values if isinstance(value, str) and value)


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
    # A 2xx takes the whole batch, whatever the body says. But where the body broke off, the status
    # may come from something between that had lost AdRoll.
    if 200 <= status <= 299 and response.truncated:
        return Answer("unsure", "truncated", status)
    kind = kind_of(status)
    retry_after = _retry_after(response.headers, now) if kind == "throttled" else None
    reason = f"http_{status}" if 100 <= status <= 599 else "http_status"
    return Answer(kind, reason, status, retry_after, _errors_in(response.body, secrets))


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date, which is read against the sender's clock."""
    text = headers.get("retry-after", "").strip()[:64]
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        # Decimals are not in the RFC but are sent.
        return min(float(text), MAX_RETRY_AFTER)
    until = _date(text)
    if until is None:
        return None
    date = _date(headers.get("date", ""))
    answered_at = now if date is None else date
    return min(max(until - answered_at, 0.0), MAX_RETRY_AFTER)


def _clock_ahead(response: Response, sent_at: float, received_at: float) -> float | None:
    """Seconds by which the clock here is ahead of AdRoll's.

    ``None``: the answer has no ``Date``, or is none of AdRoll's. A proxy's page has a clock of its
    own; it is HTML, and AdRoll's answers are JSON. ``Date`` is when the answer was made, in whole
    seconds (RFC 9110, section 6.6.1).
    """
    date = _date(response.headers.get("date", ""))
    if date is None or response.body.lstrip()[:1] not in (b"{", b"["):
        return None
    return difference(date, date + 1, sent_at, received_at)


def _date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text[:64])
        # All three forms of RFC 9110, section 5.6.7, are UTC; asctime's does not say so.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _errors_in(body: bytes, secrets: Callable[[], Iterable[str]]) -> tuple[str, ...]:
    """What a body says is wrong, each error in a few words.

    It is ``{"errors": [{"message", "code"?, "field"?}]}``, or the list alone.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    errors = content.get("errors") if isinstance(content, dict) else content
    if not isinstance(errors, list) or not errors:
        return ()
    hidden = tuple(secrets())
    return tuple(_words_of(entry, hidden) for entry in errors[:_MAX_ERRORS] if entry)


def _words_of(entry: Any, secrets: Iterable[str]) -> str:
    parts = entry if isinstance(entry, dict) else {"message": entry}

    def text_of(name: str) -> str:
        value = parts.get(name)
        if not isinstance(value, str | int) or isinstance(value, bool):
            return ""
        return redact_text(str(value)[:2000], secrets=secrets, limit=160)

    words = ": ".join(filter(None, (text_of("field"), text_of("message"))))
    code = text_of("code")
    if words and code:
        return f"{words} ({code})"
    return words or code

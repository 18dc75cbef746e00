"""What an answer of AdRoll means for the events of its request.

AdRoll documents neither its answers nor what becomes of a batch that it refuses, so the status
alone decides and each doubtful one counts as unsure. The words of a body only ever help: to find
the event at fault, and to tell people.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from adroll_flask.outbox.values import Asked
from adroll_flask.redaction import redact_text

from .transport import NoAnswer, Response

Kind = Literal[
    "accepted", "content", "too_large", "throttled", "denied", "failed_sure", "unsure"
]  # in the order of answer_from's table

#: Seconds: no ``Retry-After`` silences us for longer, whatever it says.
MAX_RETRY_AFTER = 3600.0
_MAX_ERRORS = 20
_MAX_WORDS = 300


@dataclass(frozen=True, slots=True)
class Hint:
    """One entry of an answer's ``errors``, bounded and redacted.

    ``index`` is the position in the batch that it points at, if it points at one.
    """

    message: str = ""
    code: str = ""
    field: str = ""
    index: int | None = None

    def __str__(self) -> str:
        said = ": ".join(part for part in (self.field, self.message) if part)
        return f"{said} ({self.code})" if said and self.code else said or self.code


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
    :param errors: what AdRoll says is wrong.
    """

    kind: Kind
    reason: str
    status: int | None = None
    retry_after: float | None = None
    errors: tuple[Hint, ...] = ()

    @property
    def words(self) -> str:
        """The reason and AdRoll's own words on one line, to be kept with a dead letter."""
        said = "; ".join(map(str, self.errors))
        text = f"{self.reason}: {said}" if said else self.reason
        return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 1] + "…"

    @property
    def asked(self) -> Asked:
        """The answer as it is kept with the events of its request."""
        return Asked(self.kind, self.status, self.words)

    def suspects(self, size: int) -> tuple[int, ...]:
        """The positions below *size* that AdRoll pointed at."""
        return tuple(
            sorted({h.index for h in self.errors if h.index is not None and h.index < size})
        )


def answer_from(
    response: Response, *, now: float, secrets: Callable[[], Iterable[str]] = tuple
) -> Answer:
    """Read a response.

    :param now: epoch seconds, used for a ``Retry-After`` date where the answer has no ``Date``.
    :param secrets: gives values that must not survive in the words (the token, the visitors'
        identifiers); asked only where there are words.
    """
    status = response.status
    reason = f"http_{status}" if 100 <= status <= 599 else "http_status"
    errors = _hints(response.body, secrets)
    kind: Kind
    retry_after = None
    if 200 <= status <= 299:
        # "2xx takes the whole batch", whatever the body says; but a body that broke off casts
        # doubt on who wrote the status: AdRoll, or something between that lost AdRoll.
        if response.truncated:
            return Answer("unsure", "truncated", status)
        kind = "accepted"
    elif status in (400, 422):
        kind = "content"
    elif status == 413:
        kind = "too_large"
    elif status in (429, 503):
        kind = "throttled"
        retry_after = _retry_after(response.headers, now)
    elif status == 408 or not 300 <= status <= 499:
        kind = "unsure"
    else:
        kind = "denied"
    return Answer(kind, reason, status, retry_after, errors)


def answer_without_response(failure: NoAnswer) -> Answer:
    """The answer that a request without a response amounts to."""
    return Answer("failed_sure" if failure.sure else "unsure", failure.reason)


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
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if math.isfinite(seconds) else None


# "[3].currency", "events[3].currency", "event 3 has ...", "event #3", "index 3"
_POSITION = re.compile(r"(?:\b(?:event|item|index)s?\W{0,3}|^\W{0,2}\[)(\d{1,3})\b", re.IGNORECASE)


def _hints(body: bytes, secrets: Callable[[], Iterable[str]]) -> tuple[Hint, ...]:
    """The entries of ``{"errors": [{"message", "code"?, "field"?}]}``, or of the list alone."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    errors = said.get("errors") if isinstance(said, dict) else said
    if not isinstance(errors, list) or not errors:
        return ()
    hidden = tuple(secrets())
    return tuple(_hint(entry, hidden) for entry in errors[:_MAX_ERRORS] if entry)


def _hint(entry: Any, secrets: Iterable[str]) -> Hint:
    if not isinstance(entry, dict):
        entry = {"message": entry}

    def text(key: str) -> str:
        value = entry.get(key)
        if not isinstance(value, str | int) or isinstance(value, bool):
            return ""
        return redact_text(str(value)[:2000], secrets=secrets, limit=160)

    field, message = text("field"), text("message")
    found = _POSITION.search(field) or _POSITION.search(message)
    return Hint(message, text("code"), field, int(found[1]) if found else None)

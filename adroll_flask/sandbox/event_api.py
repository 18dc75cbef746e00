"""One request to the event API: from method, headers and body to an answer."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import event_checks, value_checks
from .event_checks import Account

MOST_EVENTS = 100
#: Bounds on the body, in bytes: as sent, and when unpacked.
MOST_BYTES = 4 * 1024 * 1024
MOST_UNPACKED = 16 * 1024 * 1024
_DRY = {"true": True, "1": True, "false": False, "0": False}


class RequestRefused(Exception):
    """The request as a whole is not taken."""

    def __init__(self, status: int, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, str] = {"message": message, "code": code, "field": field}


@dataclass(slots=True)
class Reading:
    """How a request is read: where AdRoll's own samples depart from AdRoll's documentation, they
    are taken with a warning, or refused where *strict* says so.
    """

    strict: bool = False
    warnings: list[str] = field(default_factory=list)

    def depart(self, warning: str, refusal: RequestRefused) -> None:
        if self.strict:
            raise refusal
        self.warnings.append(warning)


@dataclass(frozen=True, slots=True)
class Judged:
    """One event of a request and what is wrong with it."""

    event: Any
    faults: Sequence[event_checks.Fault]
    dry_run: bool
    warnings: Sequence[str]


def check_path(path: str, reading: Reading) -> None:
    if path.endswith("/"):
        reading.depart(
            "the path is /api/, as in AdRoll's samples; the documentation has /api",
            RequestRefused(404, "unknown", "there is no such path; the event API is /api", "path"),
        )


def authorise(header: str | None, account: Account, reading: Reading) -> None:
    scheme, _, token = (header or "").partition(" ")
    if not header:
        raise _unauthorized("The header is missing. It must be 'Token <access token>'.")
    no_scheme = _unauthorized("The scheme is not Token. It must be 'Token <access token>'.")
    if scheme.lower() != "token":
        raise no_scheme
    if token != account.access_token:
        raise _unauthorized(
            "The access token is not valid. It must be the one that the sandbox runs with."
        )
    if scheme != "Token":
        # RFC 9110, section 11.1: schemes have no case.
        reading.depart(f"the scheme is written {scheme}; the documentation writes Token", no_scheme)


def _unauthorized(message: str) -> RequestRefused:
    return RequestRefused(401, "unauthorized", message, "Authorization")


def check_query(query: Mapping[str, Sequence[str]], account: Account) -> tuple[Account, bool]:
    """Check the query parameters and return whose request it is and whether it is a dry run."""
    for name, values in query.items():
        if name not in ("advertisable", "dry_run"):
            raise RequestRefused(400, "unknown", "there is no such query parameter", name[:40])
        if len(values) != 1:
            raise RequestRefused(400, "invalid", "must be given once", name)
    advertisable = query.get("advertisable", ("",))[0]
    if not advertisable:
        raise RequestRefused(
            400, "required", "the query parameter advertisable is missing", "advertisable"
        )
    if wrong := value_checks.eid(advertisable):
        raise RequestRefused(400, "invalid", wrong, "advertisable")
    own = account.of(advertisable)
    if own is None:
        raise RequestRefused(
            403, "forbidden", "the access token is not for this advertisable", "advertisable"
        )
    dry_run = _DRY.get(query.get("dry_run", ("false",))[0])
    if dry_run is None:
        raise RequestRefused(400, "invalid", "must be true, false, 1 or 0", "dry_run")
    return own, dry_run


def check_type(content_type: str | None, encoding: str | None) -> bool:
    """Check the headers that describe the body and return whether it is gzipped."""
    kind, _, parameters = (content_type or "").partition(";")
    if kind.strip().lower() != "application/json":
        raise RequestRefused(415, "unsupported", "must be application/json", "Content-Type")
    charset = parameters.strip().lower().partition("charset=")[2].strip('" ')
    if charset not in ("", "utf-8", "utf8"):
        raise RequestRefused(415, "unsupported", "JSON is UTF-8", "Content-Type")
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return False
    if encoding.strip().lower() != "gzip":
        raise RequestRefused(415, "unsupported", "must be gzip or absent", "Content-Encoding")
    return True


def unpack(body: bytes, *, gzipped: bool) -> bytes:
    """Return the JSON text, never more than :data:`MOST_UNPACKED` bytes of it."""
    if len(body) > MOST_BYTES:
        raise RequestRefused(413, "too_large", f"must have at most {MOST_BYTES} bytes", "body")
    if not gzipped:
        return body
    reader = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        text = reader.decompress(body, MOST_UNPACKED + 1)
    except zlib.error as exc:
        raise RequestRefused(400, "invalid", "is not gzip", "body") from exc
    if len(text) > MOST_UNPACKED:
        raise RequestRefused(
            413, "too_large", f"must have at most {MOST_UNPACKED} bytes when unpacked", "body"
        )
    if not reader.eof or reader.unused_data:
        raise RequestRefused(400, "invalid", "is not one complete gzip member", "body")
    return text


def parse(text: bytes, reading: Reading) -> list[Any]:
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=value_checks.no_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as exc:
        raise RequestRefused(400, "invalid", "is not JSON (RFC 8259, UTF-8)", "body") from exc
    refusal = RequestRefused(400, "invalid", "must be a JSON array, even for one event", "body")
    if isinstance(value, dict):
        reading.depart(
            "the body is one event, as in AdRoll's samples; the documentation has an array of them",
            refusal,
        )
        value = [value]
    if not isinstance(value, list):
        raise refusal
    if not value:
        raise RequestRefused(400, "invalid", "must hold at least one event", "body")
    if len(value) > MOST_EVENTS:
        raise RequestRefused(400, "too_many", f"must hold at most {MOST_EVENTS} events", "body")
    return value


def judge(event: Any, *, account: Account, dry_run: bool, now: float, reading: Reading) -> Judged:
    """Say what is wrong with one event of a request, and whether it is a dry run."""
    checked = event
    warnings = list(reading.warnings)
    inside = event.get("dry_run") if isinstance(event, dict) else None
    if isinstance(inside, bool) and not reading.strict:
        warnings.append(
            "dry_run stands in the event, as in AdRoll's samples; the documentation has it in "
            "the query"
        )
        dry_run = dry_run or inside
        checked = {name: value for name, value in event.items() if name != "dry_run"}
    faults = event_checks.faults(checked, account=account, now=now)
    return Judged(event, faults, dry_run, warnings)


def errors(events: Sequence[Judged]) -> list[dict[str, str]]:
    """List what is wrong with a batch: each event named by its place, the field by its path."""
    return [
        {
            "message": f"event {index}: {path + ' ' if path else ''}{message}",
            "code": code,
            "field": f"[{index}].{path}" if path else f"[{index}]",
        }
        for index, judged in enumerate(events)
        for path, code, message in judged.faults
    ]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key is repeated")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        # Grammatical, but beyond what JSON's readers hold (RFC 8259, section 6).
        raise ValueError("a number is out of range")
    return number

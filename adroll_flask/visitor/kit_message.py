"""What the kit tells of a visitor: one message, checked, and the record that it makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .identifiers import accept_adct, normalise_first_party_cookie
from .record import Record
from .tracked_request import TrackedRequest


class Refused(Exception):
    """What the identity endpoint does not take.

    Its arguments are the status of the answer, why as it is counted, and the answer's text.
    """


@dataclass(frozen=True, slots=True, repr=False)
class KitMessage:
    """What the kit said, checked."""

    adct: str | None = None
    first_party_cookie: str | None = None
    consent: bool | None = None
    #: The page wants a visitor token, to send along with a call of its own.
    token: bool | None = None

    def record_of(self, tracked: TrackedRequest) -> Record:
        """What the cookies of *tracked* say, with what the kit told."""
        record = tracked.record
        if self.adct is not None:
            record = record.with_adct(self.adct, tracked.visitors.clock(), "kit")
        if self.first_party_cookie is not None:
            record = record.with_cookie(self.first_party_cookie, "pixel")
        elif record.first_party_cookie is None:
            record = record.with_cookie(tracked.new_cookie, "server")
        if self.consent is not None:
            record = replace(record, consent=self.consent)
        return record


#: Of each key: the type of its value; a check that returns what is kept, or ``None`` if the value
#: is wrong; and the end of the sentence that says so.
_TAKES: Mapping[str, tuple[type, Callable[[Any], Any], str]] = {
    # A script reads a plus sign in the URL as a space; a click id has none.
    "adct": (str, lambda text: accept_adct(text.replace(" ", "+")), "is malformed"),
    "first_party_cookie": (str, normalise_first_party_cookie, "is malformed"),
    "consent": (bool, lambda answer: answer, "has to be true or false"),
    "token": (bool, lambda wanted: wanted or None, "has to be true"),
}


def parse(body: bytes, *, token: bool = False) -> KitMessage:
    """The checked content of an identity request.

    :param token: the page may ask for a visitor token.
    :raises Refused: with status 400.

    >>> parse(b'{"adct": "click123"}').adct
    'click123'
    """
    try:
        data = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise Refused(400, "json", "the body has to be a JSON object")
    keys = [key for key in _TAKES if token or key != "token"]
    if not data.keys() <= set(keys):
        raise Refused(400, "keys", f"the keys are {', '.join(keys)}")
    for key, value in data.items():
        kind, check, takes = _TAKES[key]
        data[key] = check(value) if isinstance(value, kind) else None
        if data[key] is None and value is not None:
            raise Refused(400, key, f"{key} {takes}")
    return KitMessage(**data)

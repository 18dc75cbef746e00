"""What is known of one visitor, and what a newer click or cookie makes of it: plain values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from hashlib import sha256

#: Enough that no two records of a site have the same id by chance.
RECORD_ID_BYTES = 12
#: How many replaced click ids a record remembers, by a short hash each.
_REPLACED = 3


# Not frozen, like everything that requests make: object.__setattr__ takes four times as long as an
# assignment. Nobody changes one, since several requests may have the same.
@dataclass(slots=True, repr=False, unsafe_hash=True)
class VisitorData:
    """What is known of a visitor, wherever it is kept."""

    #: The click id of the visitor's newest ad click.
    adct: str | None = None
    #: When that click arrived, epoch seconds.
    adct_at: float | None = None
    #: How it came: ``"url"`` (the server saw the landing) or ``"kit"`` (the browser told us).
    adct_source: str | None = None
    #: AdRoll's first-party cookie, normalised.
    first_party_cookie: str | None = None
    #: Where it came from: ``"pixel"`` (through the kit), ``"browser"`` (found in a request's
    #: cookies) or ``"server"`` (generated here).
    first_party_cookie_source: str | None = None
    #: Whether tracking was allowed at the time; ``None``: not yet asked. Of a record: what the kit
    #: told us, where the server cannot see it itself.
    consent: bool | None = None
    #: The visitor's address, where this came from a request or a token.
    ip: str | None = None
    #: The site's host at the time, likewise.
    host: str | None = None
    #: The browser's user agent, where this came from a request, or from a token that has it.
    user_agent: str | None = None
    #: The record's own id, random and made by the server; in no page, no address, no event.
    record_id: str | None = None


def new_record_id() -> str:
    """The id of a new record: 24 hex digits, random.

    A visitor's no names the record alone. Click id and cookie are known to others: whoever opens
    the link has the one, and each script of the page reads the other.
    """
    return os.urandom(RECORD_ID_BYTES).hex()


@dataclass(slots=True, repr=False, unsafe_hash=True)
class Record(VisitorData):
    """The content of ``adroll_visitor``, or of a token."""

    #: Short hashes of click ids that newer ones replaced.
    replaced: tuple[bytes, ...] = ()
    #: When it was signed, epoch seconds; 0: not yet. Two records that say the same are equal,
    #: whenever they were signed.
    signed_at: float = field(default=0.0, compare=False)

    def with_adct(self, adct: str, now: float, source: str) -> Record:
        """This record after a click: a newer click id replaces an older one.

        The kit may speak late, from a tab that was opened before the newest click: a click id
        that was replaced already does not come back through it.
        """
        if adct == self.adct:
            return self
        mark = _short_hash(adct)
        if source == "kit" and mark in self.replaced:
            return self
        replaced = self.replaced
        if self.adct is not None:
            replaced = (_short_hash(self.adct), *replaced)
        replaced = tuple(old for old in replaced if old != mark)[:_REPLACED]
        return replace(self, adct=adct, adct_at=now, adct_source=source, replaced=replaced)

    def with_cookie(self, value: str, source: str) -> Record:
        """This record with the browser's or the server's first-party cookie."""
        if value == self.first_party_cookie and (
            source == self.first_party_cookie_source or source == "browser"
        ):
            # "browser" says less than what is known of the same value already.
            return self
        return replace(self, first_party_cookie=value, first_party_cookie_source=source)


def _short_hash(text: str) -> bytes:
    return sha256(text.encode()).digest()[:4]

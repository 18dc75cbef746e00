"""What the visitor's own browser keeps for us: signed, the content of ``adroll_visitor``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256

#: How many click ids that a newer one replaced a record remembers, by a short hash each.
_REPLACED = 3


@dataclass(frozen=True, slots=True, repr=False)
class Known:
    """What identifies a visitor, wherever it is kept."""

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


@dataclass(frozen=True, slots=True, repr=False)
class Record(Known):
    """The content of ``adroll_visitor`` and, beside an address and a host, of a token."""

    #: Short hashes of click ids that newer ones replaced.
    replaced: tuple[bytes, ...] = ()
    #: When it was signed, epoch seconds; 0: not yet.
    signed_at: float = 0.0

    def same_as(self, other: Record) -> bool:
        """True where the two say the same, whenever they were signed."""
        return replace(self, signed_at=0.0) == replace(other, signed_at=0.0)

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

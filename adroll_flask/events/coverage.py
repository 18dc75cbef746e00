"""How well an event can be matched: which of the seven identifiers it carries."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from .names import IDENTIFIER_NAMES

#: The bit of each identifier in :attr:`Coverage.mask`.
BITS: Mapping[str, int] = {name: 1 << place for place, name in enumerate(IDENTIFIER_NAMES)}

#: Where the API has each form of an e-mail address that ``ADROLL_EMAIL`` can name.
FORM_NAMES: Mapping[str, str] = {"plain": "email", "sha256": "email_sha256", "md5": "email_md5"}


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which identifiers an event carries, and which ones the site could have added.

    :param carried: names of the identifiers in the event.
    :param missing: names of those that this site could supply and did not.
    :param off: names of those that ``ADROLL_EMAIL`` keeps from leaving; they do not count,
        unless the event carries one all the same (a hash that was made elsewhere).

    >>> coverage = Coverage(carried=("adct", "first_party_cookie", "email_sha256"), off=("email",))
    >>> str(coverage), coverage.score
    ('3 of 6: adct, first_party_cookie, email_sha256', 0.5)
    """

    carried: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    off: tuple[str, ...] = ()

    @property
    def mask(self) -> int:
        """What is carried as a number: bit 0 is the first of ``IDENTIFIER_NAMES``."""
        return sum(map(BITS.__getitem__, self.carried))

    @property
    def possible(self) -> int:
        """How many identifiers can be sent."""
        return len(IDENTIFIER_NAMES) - len(set(self.off).difference(self.carried))

    @property
    def score(self) -> float:
        """The share of the identifiers that can be sent which is carried, from 0 to 1."""
        return len(self.carried) / self.possible

    def __str__(self) -> str:
        names = ", ".join(self.carried) or "none"
        return f"{len(self.carried)} of {self.possible}: {names}"


@functools.lru_cache(512)
def coverage_of(
    has: tuple[bool, ...], forms: tuple[str, ...], could_click_id: bool, could_device_id: bool
) -> Coverage:
    """The coverage of an event; kept, because one site's events are of a few kinds.

    :param has: for each of the seven identifiers whether the event carries it.
    :param forms: ``ADROLL_EMAIL``.
    :param could_click_id: the site could have supplied one (with a visitor's token).
    :param could_device_id: the site could have supplied one (it is an app).
    """
    off = tuple(name for form, name in FORM_NAMES.items() if form not in forms)
    could = {"first_party_cookie", "user_id", *FORM_NAMES.values()}.difference(off)
    if could_click_id:
        could.add("adct")
    if could_device_id:
        could.add("device_id")
    named = tuple(zip(IDENTIFIER_NAMES, has, strict=True))
    return Coverage(
        tuple(name for name, there in named if there),
        tuple(name for name, there in named if not there and name in could),
        off=off,
    )

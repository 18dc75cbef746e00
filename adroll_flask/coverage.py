"""How well an event can be matched: which of the seven identifiers it carries."""

from __future__ import annotations

from dataclasses import dataclass

from .names import IDENTIFIER_NAMES


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which identifiers an event carries, and which ones the site could have added.

    :param carried: names of the identifiers in the event.
    :param missing: names of those that this site could supply and did not.

    >>> coverage = Coverage(carried=("adct", "first_party_cookie", "email_sha256"))
    >>> str(coverage), round(coverage.score, 2)
    ('3 of 7: adct, first_party_cookie, email_sha256', 0.43)
    """

    carried: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The share of the seven identifiers that is carried, from 0 to 1."""
        return len(self.carried) / len(IDENTIFIER_NAMES)

    def __str__(self) -> str:
        names = ", ".join(self.carried) or "none"
        return f"{len(self.carried)} of {len(IDENTIFIER_NAMES)}: {names}"

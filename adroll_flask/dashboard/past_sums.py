"""The history's sums of a span; those of steps that are over are kept.

What happens is counted in the present hour, and hours that are over change only where dead letters
are sent again, which leaves a mark. So a page that shows 13 months asks the database for the last
step and for that mark.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from adroll_flask.outbox.history import bucket_start

if TYPE_CHECKING:
    from adroll_flask.outbox import Outbox
    from adroll_flask.outbox.protocol import HistoryColumn, HistorySum

    from .periods import Period

#: Seconds after which everything is read again: an outbox may be replaced by a copy.
_LIFE: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """Sums of all steps between two times."""

    begin: int
    end: int
    read_at: float
    corrections: str
    sums: tuple[HistorySum, ...]


@dataclass(slots=True)
class PastSums:
    """Sums by step and other columns, for one dashboard."""

    _kept: dict[tuple[int, bool, tuple[HistoryColumn, ...]], _Kept] = field(default_factory=dict)

    def of(
        self,
        store: Outbox | None,
        period: Period,
        now: float,
        columns: Sequence[HistoryColumn],
        *,
        delays: bool = False,
    ) -> list[HistorySum]:
        """The sums of *period* by step (``at``) and *columns*.

        :param now: the period's end, seconds since the epoch.
        """
        if store is None:
            return []
        begin, present = period.begin(now), bucket_start(now, period.step)
        asked: tuple[HistoryColumn, ...] = ("at", *columns)
        key = (period.step, delays, asked)
        kept = self._kept.get(key)
        old = time.monotonic() - _LIFE
        # Before the sums: a correction that comes between the two is seen the next time.
        corrections = store.dead_letters.corrections()
        if (
            kept is None
            or (kept.begin > begin or kept.end > present)
            or (kept.read_at < old or kept.corrections != corrections)
        ):
            kept = _Kept(begin, begin, time.monotonic(), corrections, ())
        read = store.figures.history_sums(kept.end, asked, hours=period.step, delays=delays)
        past = [*(row for row in kept.sums if row.at >= begin)]
        past += [row for row in read if row.at < present]
        # One assignment: threads may do the same work twice, never half of it.
        self._kept[key] = _Kept(begin, present, kept.read_at, corrections, tuple(past))
        return past + [row for row in read if row.at >= present]

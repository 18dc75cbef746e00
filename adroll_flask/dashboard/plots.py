"""What a plot shows; the macros in ``templates/plots.html`` draw it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Labels on the axis: so many at most on a wide page, and on a narrow one.
_WIDE, _NARROW = 12, 5
#: Ends of an axis, as parts of a power of ten; four equal steps below each are round.
_ROUND: Final = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)


class Series(NamedTuple):
    """What a plot shows of one thing.

    :param label: as the legend has it.
    :param tone: a class of the stylesheet: ``good``, ``bad``, ``warn``, ``soft``, ``faint``, or
        ``one`` to ``six``.
    :param values: one a bucket; ``None``: there is none, a line has a gap there.
    """

    label: str
    tone: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Series over buckets: bars of parts on top of each other, the first at the bottom, or lines.

    :param labels: one a bucket, short; empty where the axis needs none.
    :param full: the same as the table has them.
    :param are_lines: a line a series, instead of bars.
    :param shades: why a bucket is shaded, a class of the stylesheet; empty: it is not.
    :param usual: how many are usual in a bucket; ``None``: nobody knows.
    :param is_running: whether the last bucket has not ended yet.
    """

    labels: Sequence[str]
    full: Sequence[str]
    series: Sequence[Series]
    are_lines: bool = False
    shades: Sequence[str] = ()
    usual: Sequence[float | None] = ()
    is_running: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value for one in self.series for value in one.values)

    @property
    def top(self) -> float:
        """The axis' end: a round number with four equal steps below it; of lines, which are of
        shares, 1.

        >>> Plot(labels=[""], full=[""], series=[Series("", "", [9]), Series("", "", [8])]).top
        20.0
        """
        if self.are_lines:
            return 1.0
        columns = zip(*(one.values for one in self.series), strict=True)
        sums = (sum(filter(None, values)) for values in columns)
        largest = max((*sums, *filter(None, self.usual)), default=0)
        if largest <= 4:
            return 4.0
        size = 10.0 ** math.floor(math.log10(largest))
        ends = (step * size for step in _ROUND if step * size >= largest)
        return next((end for end in ends if end % 4 == 0), 4.0 * math.ceil(largest / 4))

    @property
    def shown(self) -> list[tuple[float, str, bool]]:
        """Of the labels those that there is room for: the place in per cent, the text, and whether
        a narrow page has room for it, too."""
        named = [(n, label) for n, label in enumerate(self.labels) if label]
        every = max(1, math.ceil(len(named) / _WIDE))
        often = every * max(1, math.ceil(len(named) / every / _NARROW))
        return [
            (round((n + 0.5) * 100 / len(self.labels), 2), label, place % often == 0)
            for place, (n, label) in enumerate(named)
            if place % every == 0
        ]

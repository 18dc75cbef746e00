"""Where the marks of a plot stand; the macros in ``templates/plots.html`` draw them.

Across, places are per cent, so that a plot is as wide as its page and its texts are not stretched;
down, they are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Pixels from the top to the axis.
HEIGHT: Final = 200
#: Labels on the axis: so many at most on a wide page, and on a narrow one.
_WIDE, _NARROW = 12, 5


@dataclass(frozen=True, slots=True)
class Series:
    """What a plot shows of one thing.

    :param label: as the legend has it.
    :param tone: a class of the stylesheet: ``good``, ``bad``, ``warn``, ``soft``, ``faint``, or
        ``one`` to ``six``.
    :param values: one a bucket; ``None``: there is none, a line has a gap there.
    """

    label: str
    tone: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a bar: its top and height in pixels."""

    y: float
    height: float
    tone: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bucket.

    :param shade: why it is shaded; empty: it is not.
    :param usual: the height in pixels of what is usual then.
    """

    label: str
    parts: tuple[Part, ...] = ()
    shade: str = ""
    usual: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One series: the points of its pieces, in a box of 1000 by :data:`HEIGHT`."""

    tone: str
    pieces: tuple[str, ...]
    #: Pieces of one point: places in per cent and pixels.
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with an axis of buckets.

    :param labels: one a bucket, short; empty where the axis needs none.
    :param full: the same as the table has them.
    :param ticks: heights in pixels and the number there.
    :param shown: of labels on the axis: the place in per cent, the text, and whether a narrow
        page has room for it.
    """

    labels: Sequence[str]
    full: Sequence[str]
    series: Sequence[Series]
    ticks: tuple[tuple[float, float], ...]
    shown: tuple[tuple[float, str, bool], ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    #: Whether the last bucket has not ended yet.
    is_running: bool = False
    height: int = HEIGHT

    @property
    def width(self) -> float:
        """Of a bucket's place, in per cent."""
        return 100 / max(1, len(self.labels))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value for one in self.series for value in one.values)


def stacked(
    labels: Sequence[str],
    full: Sequence[str],
    series: Sequence[Series],
    *,
    shades: Sequence[str] = (),
    is_running: bool = False,
    usual: Sequence[float | None] = (),
) -> Plot:
    """Bars of parts on top of each other, the first series at the bottom.

    :param shades: why a bucket is shaded, a class of the stylesheet; empty: it is not.
    :param is_running: whether the last bucket has not ended yet.
    :param usual: how many are usual in a bucket.

    >>> plot = stacked(["Mon"], ["Monday"], [Series("delivered", "good", [3])])
    >>> [(part.y, part.height) for part in plot.bars[0].parts]
    [(50.0, 150.0)]
    """
    sums = [sum(one.values[n] or 0 for one in series) for n in range(len(labels))]
    top = _top(max([*sums, *(one for one in usual if one)], default=0))
    bars = []
    for n, label in enumerate(full):
        y, parts = float(HEIGHT), []
        for one in series:
            value = one.values[n] or 0
            if value > 0:
                # What is there is seen, if it is one of a million.
                height = max(1.5, value / top * HEIGHT)
                y -= height
                parts.append(Part(round(y, 2), round(height, 2), one.tone))
        expected = usual[n] if usual else None
        line = None if expected is None else round(HEIGHT - expected / top * HEIGHT, 1)
        bars.append(Bar(label, tuple(parts), shades[n] if shades else "", line))
    ticks, shown = _ticks(top), _shown(labels)
    return Plot(labels, full, series, ticks, shown, bars=tuple(bars), is_running=is_running)


def lines(
    labels: Sequence[str], full: Sequence[str], series: Sequence[Series], top: float | None = None
) -> Plot:
    """A line a series; a bucket without a value is a gap.

    :param top: the axis' end; default: a round number above the largest value.
    """
    largest = max((value for one in series for value in one.values if value), default=0.0)
    top = top or _top(largest)
    width = 1000 / max(1, len(labels))
    drawn = []
    for one in series:
        pieces: list[list[tuple[float, float]]] = [[]]
        for n, value in enumerate(one.values):
            if value is None:
                pieces.append([])
            else:
                pieces[-1].append(((n + 0.5) * width, HEIGHT - value / top * HEIGHT))
        longer = [piece for piece in pieces if len(piece) > 1]
        texts = (" ".join(f"{x:.1f},{y:.1f}" for x, y in piece) for piece in longer)
        dots = ((round(p[0][0] / 10, 2), round(p[0][1], 1)) for p in pieces if len(p) == 1)
        drawn.append(Line(one.tone, tuple(texts), tuple(dots)))
    bars = tuple(map(Bar, full))
    return Plot(labels, full, series, _ticks(top), _shown(labels), bars=bars, lines=tuple(drawn))


def _top(largest: float) -> float:
    """The axis' end: a round number with four equal steps below it."""
    if largest <= 4:
        return 4.0
    size = 10.0 ** math.floor(math.log10(largest))
    for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10):
        if step * size >= largest and (step * size) % 4 == 0:
            return step * size
    return 4 * math.ceil(largest / 4)


def _ticks(top: float) -> tuple[tuple[float, float], ...]:
    return tuple((HEIGHT - HEIGHT * n / 4, top * n / 4) for n in range(5))


def _shown(labels: Sequence[str]) -> tuple[tuple[float, str, bool], ...]:
    """The labels that there is room for; empty ones are none."""
    named = [(n, label) for n, label in enumerate(labels) if label]
    every = max(1, math.ceil(len(named) / _WIDE))
    often = every * max(1, math.ceil(len(named) / every / _NARROW))
    return tuple(
        (round((n + 0.5) * 100 / len(labels), 2), label, place % often == 0)
        for place, (n, label) in enumerate(named)
        if place % every == 0
    )

"""Whether the shop reports as much as it usually does. A page that no longer reports makes no error
anywhere: only the number of events tells.

There is one rule. It looks at each account and event name by itself, at two spans: since the last
event, and since midnight. The number to be expected in a span is the median of the same hours of
the four weeks before; three of them have to be known. By how much days differ from that is
measured, too: the shop's own spread. A number is too small where its probability is below 1 in
1,000. No event at all, for longer than any pause of the last thirteen weeks, is silence.

Days differ by more than chance. With the Poisson distribution a rule like this one has an alarm on
3 to 151 days a year where days vary by 15 %; with the negative binomial one, whose variance has the
shop's own days in it, on less than one (``benchmarks/too_few.py`` simulates both ways).

Nothing is remembered from one look to the next, so that all processes find the same. Hours are
those of the clock on the wall, since a shop's day follows it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from statistics import median
from typing import Final

from adroll_flask.plurals import agreeing, counted
from adroll_flask.times import span, written

from .model import Level, Watched

#: Hours.
_DAY: Final = 24
_WEEK: Final = 7 * 24
#: Weeks that say what is usual, how many of them have to be known, and weeks whose longest pause
#: counts.
_WEEKS: Final = 4
_FEWEST_WEEKS: Final = 3
_PAUSES: Final = 13
#: Events in four weeks below which an event is too rare to be missed.
_FEWEST: Final = 20
#: The probability below which there are too few.
_RARE: Final = 0.001
#: Two parts of the variance. Orders come by chance: that part is a little larger than Poisson's.
#: And days differ: by this share of what is expected at least.
_CHANCE: Final = 1.4
_LEAST: Final = 0.2
#: Seconds of history that are looked at. So an event that the shop no longer reports is missed for
#: thirteen weeks, and then forgotten.
LOOKS_BACK: Final = (_PAUSES + _WEEKS) * _WEEK * 3600


def probability(number: int, expected: float, spread: float) -> float:
    """How likely *number* events or fewer are where *expected* ones are usual.

    The distribution is the negative binomial one with that mean and the variance
    ``1.4 * expected + (spread * expected) ** 2``. Of a number that is surely not rare it is 1.

    >>> probability(1, 17, 0.2) < 0.001 < probability(3, 17, 0.2)
    True
    """
    if expected <= 0:
        return 1.0
    variance = _CHANCE * expected + (spread * expected) ** 2
    if number > expected - 1.5 * math.sqrt(variance):
        return 1.0  # for which thousands of terms would be added up
    size = expected**2 / (variance - expected)
    share = math.log(expected / (size + expected))
    begin = size * math.log(size / (size + expected)) - math.lgamma(size)
    terms = (
        begin + math.lgamma(size + n) - math.lgamma(n + 1) + n * share for n in range(number + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


@dataclass(slots=True)
class Rhythm:
    """How often an event came, by hours of the clock on the wall; and what is unusual in it.

    :param first: the first hour that is known.
    """

    first: int
    _by_hour: Counter[int] = field(default_factory=Counter)
    #: Hours in which some came.
    _busy: list[int] = field(default_factory=list)

    def add(self, hour: int, number: int) -> None:
        """Add *number* events of *hour*. Hours come in their order, each any number of times."""
        if number and self._busy[-1:] != [hour]:
            self._busy.append(hour)
        self._by_hour[hour] += number

    def came(self, begin: float, end: float) -> float:
        """How many came between two times; those of an hour are spread over it evenly."""
        first = bisect_left(self._busy, math.floor(begin))
        hours = self._busy[first : bisect_left(self._busy, end)]
        return math.fsum(
            self._by_hour[hour] * (min(end, hour + 1) - max(begin, hour)) for hour in hours
        )

    def number(self, begin: float, now: float) -> int:
        """How many came from *begin* until *now*, all of the hour that is under way."""
        return round(self.came(begin, math.ceil(now)))

    def usual(self, begin: float, end: float) -> list[float]:
        """How many came in the same hours of each of the weeks before; none: too few are known.

        Beyond a week, each further week is taken to be like the first.
        """
        weeks = max(1.0, (end - begin) / _WEEK)
        end = min(end, begin + _WEEK)
        shifts = [_WEEK * week for week in range(1, _WEEKS + 1)]
        shifts = [shift for shift in shifts if begin - shift >= self.first]
        if len(shifts) < _FEWEST_WEEKS:
            return []
        return [weeks * self.came(begin - shift, end - shift) for shift in shifts]

    def last_before(self, now: float) -> float:
        """When one came last: the end of its hour; the first hour where none came."""
        place = bisect_left(self._busy, now)
        return min(self._busy[place - 1] + 1.0, now) if place else float(self.first)

    def longest_pause(self, now: float) -> int:
        """The longest time without an event of the thirteen weeks before the last event, hours."""
        busy = self._busy[: bisect_left(self._busy, now)]
        since = (busy[-1] if busy else 0) - _PAUSES * _WEEK
        pauses = (after - before for before, after in pairwise(busy) if before >= since)
        return max(pauses, default=0)

    def spread(self, midnight: int) -> float:
        """By how much the 28 days before *midnight* differ from the mean of their weekday, as a
        share of that mean, without what chance alone would make."""
        numbers = [
            self.came(midnight - _DAY * (day + 1), midnight - _DAY * day)
            for day in range(_WEEKS * 7)
        ]
        means = [sum(numbers[day % 7 :: 7]) / _WEEKS for day in range(_WEEKS * 7)]
        squares = math.fsum(mean**2 for mean in means)
        if not squares:
            return _LEAST
        # Each day is one of the four in its own mean, which is nearer to it for that.
        nearer = _WEEKS / (_WEEKS - 1)
        pairs = zip(numbers, means, strict=True)
        beyond = math.fsum((number - mean) ** 2 * nearer - _CHANCE * mean for number, mean in pairs)
        return max(_LEAST, math.sqrt(max(0.0, beyond) / squares))

    def is_watched(self, now: float) -> bool:
        """Whether it came often enough to be missed, in the four weeks up to the last event."""
        last = self.last_before(now)
        return self.came(last - _WEEKS * _WEEK, last) >= _FEWEST

    def is_rare(self, begin: float, number: int, now: float) -> bool:
        """Whether *number* or fewer from *begin* until *now* are too few."""
        usual = self.usual(begin, now)
        # The spread is of the days before the last event: of days without any, none would be rare.
        day = math.floor(self.last_before(now) / _DAY) * _DAY
        return bool(usual) and probability(number, median(usual), self.spread(day)) < _RARE


# -- of an outbox ----------------------------------------------------------------------------------


def _on_the_wall(at: float, zone: tzinfo) -> float:
    """A time as hours of the clock on the wall."""
    offset = datetime.fromtimestamp(at, zone).utcoffset() if zone is not UTC else None
    return (at + (offset.total_seconds() if offset else 0.0)) / 3600


def watched(
    name: str,
    account: str,
    by_hour: Mapping[int, int],
    now: float,
    zone: tzinfo = UTC,
) -> Watched | None:
    """The event *name* of *account*, where it comes often enough to be missed; else ``None``.

    :param by_hour: how often it came, by hours since the epoch.

    >>> daily = {day * 24 + 12: 1 for day in range(60)}
    >>> watched("purchase", "EID", daily, now=(59 * 24 + 37) * 3600).level
    ''
    >>> watched("purchase", "EID", daily, now=(79 * 24) * 3600).level
    'silent'
    """
    if not by_hour:
        return None
    rhythm = Rhythm(math.floor(_on_the_wall(min(by_hour) * 3600, zone)))
    for hour in sorted(by_hour):
        rhythm.add(math.floor(_on_the_wall(hour * 3600, zone)), by_hour[hour])
    present = _on_the_wall(now, zone)
    if not rhythm.is_watched(present):
        return None
    last = rhythm.last_before(present)
    away = present - last
    pause = rhythm.longest_pause(present)
    has_stopped = rhythm.is_rare(last, 0, present)
    begin = last if has_stopped else math.floor(present / _DAY) * _DAY
    number = 0 if has_stopped else rhythm.number(begin, present)
    level: Level = ""
    if has_stopped and away > pause:
        level = "silent"
    elif rhythm.is_rare(begin, number, present):
        level = "low"
    usual = rhythm.usual(begin, present) or [0.0]
    return Watched(
        name=name,
        account=account,
        level=level,
        last=now - away * 3600,
        away=away * 3600,
        longest_pause=pause * 3600.0,
        has_stopped=has_stopped,
        number=number,
        usual=median(usual),
        low=round(min(usual)),
        high=round(max(usual)),
    )


def sentence_of(watched: Watched, now: float, zone: tzinfo = UTC) -> str:
    """*watched* as a sentence, without a full stop.

    >>> sentence_of(Watched("purchase", "EID", number=1, low=12, high=23), 1_800_000_000)
    '1 order so far today; on a Friday by 08:00 there are usually 12 to 23 orders'
    """
    noun = "order" if watched.name == "purchase" else f"{watched.name} event"
    usual = counted(watched.high, noun)
    if watched.low != watched.high:
        usual = f"{watched.low:,} to {usual}"
    usual = agreeing(f"there {{is|are}} usually {usual}", watched.high)
    if not watched.has_stopped:
        today = f"{datetime.fromtimestamp(now, zone):on a %A by %H:%M}"
        return f"{counted(watched.number, noun)} so far today; {today} {usual}"
    last = round(watched.last)
    since = written("%-d %b %Y at %H:%M %Z", last, zone)
    if datetime.fromtimestamp(last, zone).strftime("%M:%S") == "00:00":
        since += " (the end of the hour in which the last one came)"
    pause = span(watched.longest_pause)
    return (
        f"no {noun} since {since}; in this time {usual}, and the longest pause in thirteen weeks"
        f" was {pause}"
    )

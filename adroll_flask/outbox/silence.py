"""Too few of an event for the time of day: its deliveries against the last four weeks.

Pure statistics: counts by the hour in, at most one :class:`Silence` out. An alarm needs all of:

- **History.** Three of the last four weeks are known: there is none in a new shop.
- **Few for this time of day.** Either fewer than the same hours had in the lowest of the former
  weeks: the others may have had a sale. Or fewer than follow from the hours before, as the day went
  on in the former weeks, whatever its level. Where clocks may have been changed, since hours are
  UTC, an hour earlier and an hour later count as well. At night little is usual, so that nothing
  can be missing.
- **Too few to be chance.** Counts scatter by chance, and as a shop's days and hours do, which is
  measured.
- **Still so.** The last part of that time is low as well, so that an alarm ends with its cause.

Several spans are looked at, from half an hour to five days: a shop with ten orders a day is
noticed after days, one with a hundred thousand within the hour. docs/explanation/benchmarks.md
says how soon.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import cached_property
from itertools import accumulate
from statistics import median
from typing import Final, NamedTuple

from .clock_changes import clocks_may_change

_WEEK: Final = 168
_WEEKS: Final = 4
_FEWEST_WEEKS: Final = 3
#: What a former week had at least, as a share of their median, to be compared with.
_SILENT: Final = 0.3
#: Whole hours of the spans that are looked at, beside what has passed of the present hour.
_SPANS: Final = (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 47, 59, 71, 95, 119)
#: Hours before a span that tell how the day goes.
_BEFORE: Final = (3, 6, 12, 24)
#: Seconds of history that are needed to look.
LOOKS_BACK: Final = (_WEEKS * _WEEK + _SPANS[-1] + _BEFORE[-1] + 2) * 3600
#: Seconds that a delivery takes at most where all is well.
LAG: Final = 120.0

#: Hours that have to be looked at, at least: a restart is no silence.
_SHORTEST: Final = 0.4
#: How likely such a count may be where all is well: in a span of a few hours, and in a longer one,
#: which says more and rests more on how alike a shop's days are.
_CHANCE: Final = 1e-5
_CHANCE_OF_LONG: Final = 1e-6
_LONG: Final = 4
#: What is low, as a share of what is usual.
_LOW: Final = 0.75
#: Events of which half is told from all: at the end of a span they say that it goes on.
_ENOUGH: Final = 60
#: Hours by which former weeks are shifted, since clocks may have been in between.
_SHIFTS: Final = (-1, 0, 1)
#: How much worse than the best hours shifted ones may fit the day before, and unshifted ones.
_FITS: Final = 1.5
_FITS_YET: Final = 2.5
#: How much a shop's days differ, and the hours of one, as a share, however alike they were.
_DAYS_SCATTER: Final = 0.08
_HOURS_SCATTER: Final = 0.06
#: Events before a span that tell how the day goes, at least.
_FEWEST: Final = 20
#: How much stronger than in the former weeks the hours before count as, at most, and how surely
#: that may end.
_STRONG: Final = 0.5
_ENDS: Final = 0.1
#: What is expected of a strong day, at most, as a share of the second lowest of the former weeks.
_CAP: Final = 1.25
#: No shop's days differ more by themselves: some are among them on which it was silent.
_MOST_SCATTER: Final = 0.3


class Silence(NamedTuple):
    """Too few of an event reach AdRoll.

    :param name: the event's name.
    :param since: the beginning of the time that was looked at, seconds since the epoch.
    :param until: its end.
    :param delivered: how many were in it.
    :param usual: how many are usual in these hours.
    """

    name: str
    since: float
    until: float
    delivered: int
    usual: float


def told(silence: Silence) -> str:
    """*silence* as a sentence; times are UTC.

    >>> told(Silence("purchase", 1_800_000_000, 1_800_007_200, 0, 41.3))
    'too few purchase events reach AdRoll: none since 2027-01-15 08:00 UTC, where 41 are usual'
    """
    since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(silence.since))
    number = silence.delivered or "none"
    return (
        f"too few {silence.name} events reach AdRoll: {number} since {since} UTC,"
        f" where {silence.usual:.0f} are usual"
    )


class _Expected(NamedTuple):
    """How many are usual in a span, and how sure that is.

    :param variance: of the share by which another number may be usual.
    :param strong: by how much more came in the hours before than is usual, as a share.
    """

    number: float
    variance: float
    strong: float = 0.0


def find_silence(name: str, by_hour: Mapping[int, int], until: float) -> Silence | None:
    """Whether too few of event *name* come, and since when.

    :param by_hour: deliveries by hour (seconds since the epoch, divided by 3600), for the last
        :data:`LOOKS_BACK` seconds.
    :param until: up to when everything that was reported should be delivered, seconds since the
        epoch. What was delivered later counts, too.
    :returns: the span that shows it best, or ``None``.

    >>> hours = {hour: 50 for hour in range(996) if 8 <= hour % 24 <= 20}
    >>> find_silence("purchase", hours, until=996 * 3600) is None
    True
    >>> find_silence("purchase", hours | {994: 0, 995: 0}, until=996 * 3600).delivered
    0
    """
    if not by_hour:
        return None
    history = _History(by_hour, until / 3600)
    spans = [
        (begin, history.count(begin, math.inf))
        for hours in _SPANS
        if history.end - (begin := math.floor(history.end) - hours) >= _SHORTEST
        and history.weeks(begin) >= _FEWEST_WEEKS
    ]
    found = None
    least = 1.0
    for place, (begin, count) in enumerate(spans):
        if count >= _LOW * history.most_usual(begin):
            continue  # as nearly always; what follows takes its time
        usual = history.usual(begin, history.end)
        for expected in history.expected(begin, usual):
            if count >= _LOW * expected.number:
                continue
            chance = _chance(count, expected)
            if chance > (_CHANCE if history.end - begin < _LONG else _CHANCE_OF_LONG):
                continue
            share = expected.number / usual
            if chance <= least and _is_still_low(history, spans[: place + 1], share):
                found, least = (
                    Silence(name, begin * 3600, until, round(count), usual),
                    chance,
                )
    return found


def _is_still_low(history: _History, spans: list[tuple[int, float]], share: float) -> bool:
    """Whether the last part of the longest of *spans* was low, too: a quarter, or what is enough.

    :param share: of what is usual, what is expected.
    """
    begin, _ = spans[-1]
    enough = min(history.usual(begin, history.end) / 4, _ENOUGH)
    for begin, count in spans:
        usual = history.usual(begin, history.end)
        if usual >= enough:
            return count < _LOW * share * usual
    return True


class _History:
    """Deliveries over time; times are in hours since the epoch.

    :param end: the present.
    """

    def __init__(self, by_hour: Mapping[int, int], end: float) -> None:
        self.end = end
        self._first = min(by_hour)
        last = max(*by_hour, math.ceil(end))
        self._sums = [
            0,
            *accumulate(by_hour.get(hour, 0) for hour in range(self._first, last + 1)),
        ]
        self._known_shifts: dict[tuple[float, int | None], list[int]] = {}

    def count(self, begin: float, end: float) -> float:
        """Deliveries from *begin* to *end*; those of an hour are spread over it evenly."""
        return self._until(end) - self._until(begin)

    def _until(self, time: float) -> float:
        place = min(max(time - self._first, 0.0), len(self._sums) - 1)
        whole = math.floor(place)
        below = self._sums[whole]
        part = place - whole
        return below + part * (self._sums[whole + 1] - below) if part else below

    def weeks(self, begin: float) -> int:
        """How many of the former weeks are known at *begin*."""
        return min(_WEEKS, math.floor((begin - 1 - self._first) / _WEEK))

    def usual(self, begin: float, end: float) -> float:
        """How many are usual from *begin* to *end*, at least."""
        return min(self._usual(begin, end, shift) for shift in self._shifts(begin))

    def most_usual(self, begin: float) -> float:
        """How many are usual since *begin*, at most."""
        return max(self._usual(begin, self.end, shift) for shift in _SHIFTS)

    def _shifts(self, begin: float, week: int | None = None) -> list[int]:
        """Hours by which a former week, or all of them, may be shifted, as seen from *begin*.

        Those are left out that fit the day before clearly worse: else half an evening's sales would
        pass for those of an hour later. While clocks may be changing, nothing is known yet.
        """
        known = self._known_shifts.get((begin, week))
        if known is None:
            known = [0]
            if clocks_may_change(begin - (week or _WEEKS) * _WEEK - 24, self.end):
                known = list(_SHIFTS)
                if not clocks_may_change(begin - 24, self.end):
                    known = _fitting({shift: self._misfit(begin, shift, week) for shift in known})
                    if week is None:  # some of the weeks may be of either time
                        known = sorted({0, *known})
            self._known_shifts[begin, week] = known
        return known

    def _misfit(self, begin: float, shift: int, week: int | None) -> float:
        pairs = [
            (
                self.count(hour, hour + 1),
                self._usual(hour, hour + 1, shift)
                if week is None
                else self.count(hour + shift - week * _WEEK, hour + shift - week * _WEEK + 1),
            )
            for hour in (begin - back for back in range(1, 25))
        ]
        level = sum(now for now, _ in pairs) / (sum(then for _, then in pairs) or 1.0)
        return sum((now - level * then) ** 2 / (level * then + 1) for now, then in pairs)

    def _usual(self, begin: float, end: float, shift: int) -> float:
        sums = [
            self.count(begin - week * _WEEK + shift, end - week * _WEEK + shift)
            for week in range(1, self.weeks(begin) + 1)
        ]
        # A week that was silent itself tells nothing.
        return min((one for one in sums if one >= _SILENT * median(sums)), default=0.0)

    def expected(self, begin: int, usual: float) -> list[_Expected]:
        """What is expected since *begin*: as usual, and as usual after the hours before."""
        if not usual:
            return []
        # Both the present and the week that it is compared with scatter.
        found = [_Expected(usual, 2 * self.scatter**2 + 1 / usual)]
        after = [one for hours in _BEFORE if (one := self._after(begin, hours)) is not None]
        if after:
            best = min(after, key=lambda one: one.variance + 1 / max(1.0, one.number))
            ends = _ENDS * max(one.strong for one in after) ** 2
            found.append(best._replace(variance=best.variance + ends))
        return [one for one in found if one.number]

    def _after(self, begin: int, hours: int) -> _Expected | None:
        """What follows the *hours* before *begin*, as it did in the former weeks.

        How a day goes on is alike in all weeks, also in one with a sale. It is never taken for much
        more than most of the weeks had: after a sale comes an ordinary day.
        """
        count = self.count(begin - hours, begin)
        weeks = self.weeks(begin - hours)
        if count < _FEWEST or weeks < _FEWEST_WEEKS:
            return None
        if self.end - begin > _LONG and clocks_may_change(begin - hours, self.end):
            return None  # its beginning and its end may be of two times
        numbers, thens, befores = [], [], 0.0
        for week in range(1, weeks + 1):
            found = []
            for shift in self._shifts(begin, week):
                back = shift - week * _WEEK
                before = self.count(begin - hours + back, begin + back)
                then = self.count(begin + back, self.end + back)
                if before >= _FEWEST:
                    found.append((then * count / before, then, before))
            if found:
                number, then, before = min(found)
                numbers.append(number)
                thens.append(then)
                befores += before
        if len(numbers) < _FEWEST_WEEKS:
            return None
        as_before, number = median(numbers), sorted(thens)[1]
        if not number:
            return None
        doubt = 1 / count + 1.6 * (1 / sum(thens) + 1 / befores)
        strong = min(max(0.0, as_before / number - 1 - math.sqrt(doubt)), _STRONG)
        number = min(as_before, _CAP * number)
        # The longer the span, the less the hours before it say of it; hours even each other out.
        span = self.end - begin
        even = self.hours_scatter**2 * (1 / max(1.0, span) + 1 / hours)
        apart = 2 * self.scatter**2 * min(1.0, (span + hours) / 48) ** 2
        return _Expected(number, even + apart + doubt, strong)

    @cached_property
    def hours_scatter(self) -> float:
        """By how much an hour differs from those beside it, as a share, beyond chance."""
        off, chance = [], []
        present = math.floor(self.end)
        for hour in range(present - _WEEK, present - 2):
            far2, far, here, near, near2 = (
                self.count(at, at + 1) for at in range(hour - 2, hour + 3)
            )
            # The curve through two hours before and two after.
            beside = (4 * (far + near) - far2 - near2) / 6
            if beside >= _FEWEST:
                off.append(abs(here / beside - 1))
                chance.append(1.94 / beside)
        if len(off) < 24:
            return _HOURS_SCATTER
        beyond = ((median(off) / 0.67) ** 2 - median(chance)) / 1.94
        return min(max(_HOURS_SCATTER, math.sqrt(max(0.0, beyond))), _MOST_SCATTER)

    @cached_property
    def scatter(self) -> float:
        """By how much the same days of the former weeks differ, as a share, beyond chance."""
        present = math.floor(self.end)
        begins = [present - 24 * (day + 1) for day in range(1, 7 * _WEEKS + 1)]
        days = [self.count(begin, begin + 24) for begin in begins if begin >= self._first]
        off, chance = [], []
        for day, number in enumerate(days):
            usual = median(days[day % 7 :: 7])
            if usual:
                off.append(abs(number / usual - 1))
                chance.append(1 / usual)
        if not off:
            return _DAYS_SCATTER
        # Half of a normal distribution lies within 0.67 deviations; four numbers differ less from
        # their own median than they scatter.
        spread = median(off) / 0.67 * 1.3
        beyond = math.sqrt(max(0.0, spread**2 - median(chance)))
        return min(max(_DAYS_SCATTER, beyond), _MOST_SCATTER)


def _fitting(misfits: Mapping[int, float]) -> list[int]:
    """Those that fit not clearly worse than the best; none, the likeliest of them, for longer."""
    least = min(misfits.values())
    return [
        shift
        for shift, misfit in misfits.items()
        if misfit <= (_FITS if shift else _FITS_YET) * least
    ]


def _chance(count: float, expected: _Expected) -> float:
    """How likely at most *count* are: by chance (Poisson) around a level that varies itself.

    This is the negative binomial distribution.
    """
    shape = 1 / expected.variance
    hit = expected.number / (expected.number + shape)
    number = math.floor(count)
    term = math.exp(
        math.lgamma(number + shape)
        - math.lgamma(shape)
        - math.lgamma(number + 1)
        - shape * math.log1p(expected.number / shape)
        + number * math.log(hit)
    )
    total = 0.0
    # Downwards: below what is expected each number is less likely than the one above it.
    while number >= 0 and term > total * 1e-9:
        total += term
        term *= number / ((number - 1 + shape) * hit) if number else 0.0
        number -= 1
    return total

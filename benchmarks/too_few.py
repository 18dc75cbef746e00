"""How soon the rule of :mod:`adroll_flask.outbox.too_few` speaks, and how often it is wrong.

``python -m benchmarks.too_few --shops 4`` simulates shops for a year, looks every quarter of an
hour, and prints the table of docs/how-to/monitoring.md. A shop has a clock, a week, a season,
promotions of one to seven days every few weeks, days that differ by 15 % beyond chance, and eight
days a year on which it is closed without a word; an alarm on one of these, or while the shop opens
again, is none that is wrong.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from statistics import median

from adroll_flask.outbox.too_few import Rhythm

DAY, WEEK = 24, 7 * 24
#: Share of a day's orders in each hour, and of a week's in each day.
CLOCK = (
    *(0.5, 0.3, 0.2, 0.2, 0.3, 0.7, 1.6, 3.0, 4.2, 5.0, 5.6, 5.8),
    *(5.4, 5.0, 5.1, 5.3, 5.6, 6.2, 7.3, 8.6, 9.0, 7.4, 4.4, 1.9),
)
WEEKDAYS = (1.05, 0.98, 0.96, 1.0, 1.02, 0.9, 1.2)
#: Weeks that are known before anybody looks.
KNOWN = 5


@dataclass
class Shop:
    """One that is made up.

    :param orders: a day, the mean.
    :param stops_at: from this hour on only a *share* of the orders is reported.
    """

    orders: float
    seed: int
    stops_at: float = math.inf
    share: float = 0.0
    days_differ: float = 0.15
    closed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self._promotions: dict[int, float] = {}
        day = 0
        while day < 500:
            if self.random.random() < 8 / 365:
                self.closed.add(day)
            if self.random.random() < 1 / 35:
                more = self.random.choice((1.5, 2.0, 3.0, 4.0))
                for one in range(self.random.choice((1, 1, 2, 3, 7))):
                    self._promotions[day + one] = more
            day += 1
        if self.stops_at < math.inf:
            self.closed.clear()

    def day(self, day: int) -> float:
        """The orders of a day, the mean."""
        if day in self.closed:
            return 0.0
        differs = math.exp(self.random.gauss(-(self.days_differ**2) / 2, self.days_differ))
        season = 1 + 0.28 * math.cos(2 * math.pi * (day - 345) / 365)
        more = self._promotions.get(day, 1.0)
        return self.orders * differs * season * more * WEEKDAYS[day % 7]

    def quarters(self, weeks: int) -> Iterator[tuple[float, int]]:
        """The end of each quarter of an hour, and its orders."""
        for hour in range(weeks * WEEK):
            if hour % DAY == 0:
                today = self.day(hour // DAY)
            mean = today * CLOCK[hour % DAY] / sum(CLOCK) / 4
            for quarter in range(4):
                end = hour + (quarter + 1) / 4
                yield end, self._chance(mean * (self.share if end > self.stops_at else 1.0))

    def _chance(self, mean: float) -> int:
        """A Poisson number."""
        if mean > 50:
            return max(0, round(self.random.gauss(mean, math.sqrt(mean))))
        end, product, number = math.exp(-mean), self.random.random(), 0
        while product > end:
            product *= self.random.random()
            number += 1
        return number


def levels(shop: Shop, weeks: int, looks: int = 4) -> Iterator[tuple[float, str]]:
    """What the rule says of a shop at each look: the hour, and the level.

    :param looks: how many there are in an hour.
    """
    rhythm = Rhythm(0)
    pause, busy = 0, [0]
    for end, number in shop.quarters(weeks):
        hour = math.ceil(end) - 1
        rhythm.add(hour, number)
        if number and busy[-1] != hour:
            busy = [one for one in busy if one > hour - 13 * WEEK] + [hour]
            pause = max((after - one for one, after in pairwise(busy)), default=0)
        if hour < KNOWN * WEEK or (end * looks) % 1:
            continue
        yield end, _level(rhythm, end, pause)


def _level(rhythm: Rhythm, now: float, pause: float) -> str:
    if not rhythm.is_watched(now):
        return ""
    last = rhythm.last_before(now)
    midnight = math.floor(now / DAY) * DAY
    has_stopped = rhythm.is_rare(last, 0, now)
    if has_stopped and now - last > pause:
        return "silent"
    is_low = has_stopped or rhythm.is_rare(midnight, rhythm.number(midnight, now), now)
    return "low" if is_low else ""


def wrong_alarms(shop: Shop, weeks: int = KNOWN + 52, looks: int = 4) -> tuple[int, int]:
    """How many warnings and errors began on days on which the shop was as it always is."""
    warnings = errors = 0
    before = ""
    for end, level in levels(shop, weeks, looks):
        day = math.ceil(end / DAY) - 1
        is_known = any(day - late in shop.closed for late in (0, 1, 2))
        if level != before and not is_known:
            warnings += not before
            errors += level == "silent"
        before = level
    return warnings, errors


def speaks_after(shop: Shop, weeks: int) -> dict[str, float]:
    """The hours from the shop's stop to the first warning, and to the error."""
    found: dict[str, float] = {}
    for end, level in levels(shop, weeks):
        if end > shop.stops_at and level:
            found.setdefault("low", end - shop.stops_at)
            if level == "silent":
                found.setdefault("silent", end - shop.stops_at)
                break
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shops", type=int, default=4, help="of each size")
    shops = parser.parse_args().shops
    print("| orders a day | stops at 10:00 | at 20:00 | a tenth is left | wrong in a year |")
    print("| --- | --- | --- | --- | --- |")
    for orders in (5, 30, 300, 5000):
        cells = []
        for hour, share in ((10, 0.0), (20, 0.0), (10, 0.1)):
            at = 30 * WEEK + DAY + hour
            its = [speaks_after(Shop(orders, seed, at, share), 32) for seed in range(shops)]
            middle = [
                f"{median([one.get(level, math.inf) for one in its]):.4g} h"
                for level in ("low", "silent")
            ]
            cells.append(", ".join(middle))
        wrong = [wrong_alarms(Shop(orders, seed)) for seed in range(shops)]
        told = "; ".join(f"{warnings} and {errors}" for warnings, errors in wrong)
        print(f"| {orders:,} | {' | '.join(cells)} | {told} |", flush=True)


if __name__ == "__main__":
    main()

"""Simulated shops: how soon silence is noticed, and whether there is ever a false alarm.

``python -m benchmarks.silence --seeds 20``; ``--at-best``: how soon it could be noticed at all.

A shop sells by its local clock (a day with a peak at noon and a higher one in the evening, Sundays
most); its days differ by 10 % (one standard deviation) and its hours by 5 %, beside chance; there
are sales of three days and the long weekend of Black Friday, newsletters that double two hours, and
growth. The time is 24 August to 19 December 2026 in Berlin, with the end of summer time in it; four
weeks of it are history, 90 days are watched, every hour. For each order there are four
``addToCart`` events and forty ``pageView`` events.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from zoneinfo import ZoneInfo

from adroll_flask.outbox.silence import LAG, Silence, find_silence

BEGIN = int(datetime(2026, 8, 24, tzinfo=UTC).timestamp())
HOUR = 3600
DAY = 24 * HOUR
HISTORY = 28 * DAY
WATCHED = 90 * DAY
STEP = 600
LOCAL = ZoneInfo("Europe/Berlin")
#: What an hour of the day sells, local time, and a day of the week from Monday on.
HOURS: Sequence[float] = (
    *(0.6, 0.4, 0.25, 0.2, 0.2, 0.4, 1, 2, 3.2, 4.4, 5.2, 5.6),
    *(5.6, 5.4, 5.2, 5.2, 5.4, 5.8, 6.4, 7, 7.4, 6.6, 4.4, 2),
)
WEEK = (1.05, 1.0, 0.97, 0.97, 0.95, 0.93, 1.13)
PER_ORDER: Mapping[str, float] = {"purchase": 1, "addToCart": 4, "pageView": 40}
#: Days of three-day sales, and of Black Friday's weekend, since the beginning.
SALES = frozenset([*range(12, 15), *range(47, 50), *range(80, 83)])
BLACK_FRIDAY = frozenset(range(95, 99))


@dataclass
class Shop:
    """What happens in a shop, ten minutes after ten minutes.

    :param orders: a day.
    """

    orders: float
    seed: int
    _random: random.Random = field(init=False)
    _levels: dict[int, float] = field(default_factory=dict)
    _days: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.orders} {self.seed}")

    def level(self, day: int, hour: int) -> float:
        """By how much this hour differs from others like it."""
        known = self._levels.get(hour)
        if known is None:
            part = hour % 24 / 24
            level = (1 - part) * self._noon(day) + part * self._noon(day + 1)
            known = math.exp(level + self._random.gauss(0, 0.05))
            known *= 2.2 if day in SALES else 2.8 if day in BLACK_FRIDAY else 1 + day / 500
            if day % 9 == 4 and hour % 24 in (8, 9):  # a newsletter
                known *= 2
            self._levels[hour] = known
        return known

    def _noon(self, day: int) -> float:
        if day not in self._days:
            self._days[day] = self._random.gauss(0, 0.10)
        return self._days[day]

    def rate(self, at: float) -> float:
        """Orders a second."""
        local = datetime.fromtimestamp(at, LOCAL)
        part = local.minute / 60
        share = HOURS[local.hour] * (1 - part) + HOURS[(local.hour + 1) % 24] * part
        hour = int((at - BEGIN) // HOUR)
        day = self.orders * WEEK[local.weekday()] * self.level(hour // 24, hour)
        return day * share / sum(HOURS) / HOUR

    def number(self, mean: float) -> int:
        """A Poisson number."""
        if mean > 60:
            return max(0, round(self._random.gauss(mean, math.sqrt(mean))))
        limit, product, number = math.exp(-mean), self._random.random(), 0
        while product > limit:
            product *= self._random.random()
            number += 1
        return number


@dataclass
class Watch:
    """A shop's history, and the looks at it.

    :param names: the events that the shop reports.
    """

    shop: Shop
    names: Sequence[str] = tuple(PER_ORDER)
    by_hour: dict[str, dict[int, int]] = field(default_factory=dict)

    def pass_time(self, at: int, left: float = 1.0) -> None:
        """Ten minutes of which *left* is reported."""
        orders = self.shop.rate(at + STEP / 2) * STEP * left
        for name in self.names:
            hours = self.by_hour.setdefault(name, {})
            hour = at // HOUR
            hours[hour] = hours.get(hour, 0) + self.shop.number(orders * PER_ORDER[name])

    def look(self, now: int) -> list[Silence]:
        until = now - LAG
        found = [find_silence(name, hours, until) for name, hours in self.by_hour.items()]
        return [silence for silence in found if silence is not None]


def false_alarms(
    orders: float,
    seed: int,
    days: int = 90,
    every: int = HOUR,
    names: Sequence[str] = tuple(PER_ORDER),
) -> list[Silence]:
    """What is called silence in a shop where all is well."""
    watch = Watch(Shop(orders, seed), names)
    found = []
    for at in range(BEGIN, BEGIN + HISTORY + days * DAY, STEP):
        watch.pass_time(at)
        now = at + STEP
        if now > BEGIN + HISTORY and now % every == 0:
            found += watch.look(now)
    return found


def until_noticed(
    orders: float, seed: int, left: float, names: Sequence[str] = tuple(PER_ORDER)
) -> float:
    """Hours until it is noticed that *left* of all reports arrives; infinite: not in five days.

    It breaks at a random time between 9 and 20 o'clock (summer time) on a random day that is not of
    a sale, and is looked at every ten minutes in the first ten hours, then every hour.
    """
    watch = Watch(Shop(orders, seed), names)
    chance = random.Random(seed)
    days = set(range(31, 108)) - SALES - BLACK_FRIDAY
    day = BEGIN + chance.choice(sorted(days)) * DAY
    broken = day + 7 * HOUR + chance.randrange(0, 11 * HOUR, STEP)
    for at in range(BEGIN, broken, STEP):
        watch.pass_time(at)
    for at in range(broken, broken + 120 * HOUR, STEP):
        watch.pass_time(at, left)
        now = at + STEP
        if (now - broken <= 10 * HOUR or now % HOUR == 0) and watch.look(now):
            return (now - broken) / HOUR
    return math.inf


def _spans(hours: Sequence[float]) -> str:
    ordered = sorted(hours)
    ends = (median(ordered), ordered[math.ceil(0.9 * len(ordered)) - 1])
    return " / ".join("not in 5 days" if end == math.inf else _span(end) for end in ends)


def _span(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 2 else f"{hours * 60:.0f} min"


def table(shops: Sequence[int], seeds: int) -> Iterator[str]:
    """Lines of Markdown."""
    yield (
        "| orders a day | no purchase arrives | half of the purchases | half, `addToCart` reported"
        " | half, `pageView` reported | of these within an hour | false alarms in 90 days |"
    )
    yield "|---:|---|---|---|---|---:|---|"
    for orders in shops:

        def hours(left: float, name: str, orders: int = orders) -> list[float]:
            return [until_noticed(orders, seed, left, [name]) for seed in range(seeds)]

        none, half = hours(0.0, "purchase"), hours(0.5, "purchase")
        carts, views = hours(0.5, "addToCart"), hours(0.5, "pageView")
        alarms = sum(bool(false_alarms(orders, seed)) for seed in range(seeds))
        soon = sum(one <= 1 for one in views) / seeds
        cells = [_spans(none), _spans(half), _spans(carts), _spans(views)]
        yield (f"| {orders:,} | {' | '.join(cells)} | {soon:.0%} | in {alarms} of {seeds} shops |")


def at_best(orders: float, left: float, chance: float) -> tuple[float, float]:
    """Events that would have come until it is noticed, median and 90 %, at the very best.

    By Page's CUSUM of the likelihood ratio, than which no test is faster at as few false alarms
    (Lorden 1971, Moustakides 1986); it is told the true rate, which no shop knows.

    :param chance: of a false alarm in 90 days, whose rate falls by ``exp(-limit)``.
    """
    dice = random.Random(1)

    def alarms(limit: float, share: float, most: int) -> list[float]:
        """Times of alarms, in events of the usual rate, of a process with *share* of it."""
        found, ratio, time, since = [], 0.0, 0.0, 0.0
        for _ in range(most):
            step = dice.expovariate(share)
            if ratio + (1 - left) * step >= limit:
                time += (limit - ratio) / (1 - left)
                found.append(time - since)
                ratio, since = 0.0, time
                continue
            time += step
            ratio = max(0.0, ratio + (1 - left) * step + math.log(left))
        return found

    low = 6.0
    per_event = len(alarms(low, 1.0, 3_000_000)) / 3_000_000
    limit = low + math.log(per_event * orders * WATCHED / DAY / chance)
    delays = sorted(alarms(limit, left, 500_000))
    return median(delays), delays[math.ceil(0.9 * len(delays)) - 1]


def bounds(orders: float) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| false alarms in 90 days | events | 42 an hour | 62 an hour | 82 an hour |"
    yield "|---|---|---|---|---|"
    for chance in (0.01, 0.05, 0.1):
        ends = at_best(orders, 0.5, chance)
        cells = [" / ".join(f"{end / rate:.1f} h" for end in ends) for rate in (42, 62, 82)]
        events = " / ".join(f"{end:.0f}" for end in ends)
        yield f"| in {chance:.0%} of shops | {events} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="shops of each size")
    parser.add_argument("--orders", type=int, nargs="*", default=[10, 1_000, 100_000])
    parser.add_argument("--at-best", action="store_true", help="for purchases, 1,000 a day")
    options = parser.parse_args()
    for line in bounds(1_000) if options.at_best else table(options.orders, options.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()

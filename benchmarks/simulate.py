"""A site's backlog over some days with outages of AdRoll, second by second.

``python -m benchmarks.simulate --rate 10000 --partitions 16 --outage 10:1 --outage 30:6``

Each partition is an outbox with a database and workers of its own. Prints one line an hour in
which something waits, and when each backlog was gone.
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

HOUR = 3600
BATCH = 100


@dataclass(frozen=True)
class Plan:
    """What a site runs.

    :param rate: events a second over all partitions, the mean of a day.
    :param partitions: outboxes; an event's key decides on one.
    :param capacity: events a second that one partition's workers drain; measured by drain.py.
    :param skew: how much more than its share the fullest partition gets.
    :param swing: how much the day's peak lies above the mean, as a share of it.
    :param outages: begin and length in hours, AdRoll takes nothing.
    :param event_bytes: of one waiting event in the database.
    :param limit: requests a second to AdRoll over all partitions; ``None``: none.
    :param longest_pause: seconds for which a worker waits before it tries AdRoll again.
    """

    rate: float
    partitions: int
    capacity: float
    skew: float = 1.1
    swing: float = 0.5
    outages: Sequence[tuple[float, float]] = ()
    event_bytes: int = 1_100
    limit: float | None = None
    longest_pause: float = 30.0

    def arrivals(self, second: int) -> float:
        """Events that the fullest partition gets in *second*."""
        share = self.rate / self.partitions * self.skew
        return share * (1 + self.swing * math.sin(2 * math.pi * second / (24 * HOUR)))

    def takes(self, second: int) -> float:
        """Events of that partition that AdRoll takes in *second*."""
        for begin, length in self.outages:
            # The worst case: the last try failed just before the outage was over.
            pause = min(self.longest_pause, length * HOUR)
            if begin * HOUR <= second < (begin + length) * HOUR + pause:
                return 0.0
        if self.limit is None:
            return self.capacity
        return min(self.capacity, self.limit / self.partitions * BATCH)


@dataclass
class Partition:
    """One outbox: cohorts of a second each, oldest first."""

    waiting: float = 0.0
    delivered: float = 0.0
    arrived: float = 0.0
    peak: float = 0.0
    oldest: int = 0
    cohorts: deque[list[float]] = field(default_factory=deque)

    def step(self, second: int, arrivals: float, takes: float) -> None:
        self.cohorts.append([second, arrivals])
        self.arrived += arrivals
        self.waiting += arrivals
        while takes > 0 and self.cohorts:
            cohort = self.cohorts[0]
            sent = min(takes, cohort[1])
            takes -= sent
            cohort[1] -= sent
            self.waiting -= sent
            self.delivered += sent
            if cohort[1] <= 1e-9:
                self.cohorts.popleft()
        self.peak = max(self.peak, self.waiting)
        if self.cohorts:
            self.oldest = max(self.oldest, second - int(self.cohorts[0][0]))


@dataclass(frozen=True)
class Summary:
    """What came of it.

    :param drained: hours after each outage's end at which nothing of it waited; ``inf``: never.
    :param peak: events that waited at most in the fullest partition.
    :param oldest: seconds that an event waited at most.
    """

    drained: tuple[float, ...]
    peak: float
    peak_bytes: float
    oldest: int
    lost: float


def simulate(plan: Plan, hours: float, said: list[str] | None = None) -> Summary:
    """Run *plan*; hourly lines go to *said*."""
    partition = Partition()
    left = {index: (b + n) * HOUR for index, (b, n) in enumerate(plan.outages)}
    drained = dict.fromkeys(left, math.inf)
    for second in range(int(hours * HOUR)):
        partition.step(second, plan.arrivals(second), plan.takes(second))
        if partition.waiting < 1:
            for index, end in list(left.items()):
                if second >= end:
                    drained[index] = (second - end) / HOUR
                    del left[index]
        if said is not None and second % HOUR == 0 and partition.waiting >= 1:
            waits = partition.waiting * plan.event_bytes / 1e9
            said.append(
                f"hour {second // HOUR:4}: {partition.waiting:14,.0f} wait, {waits:6.1f} GB"
            )
    return Summary(
        tuple(drained[index] for index in sorted(drained)),
        partition.peak,
        partition.peak * plan.event_bytes,
        partition.oldest,
        partition.arrived - partition.delivered - partition.waiting,
    )


def _outage(text: str) -> tuple[float, float]:
    begin, _, length = text.partition(":")
    return float(begin), float(length)


def lines(plan: Plan, hours: float) -> Iterator[str]:
    said: list[str] = []
    summary = simulate(plan, hours, said)
    yield from said
    yield f"fullest partition: at most {summary.peak:,.0f} wait, {summary.peak_bytes / 1e9:.1f} GB"
    yield f"oldest event: {summary.oldest / HOUR:.1f} hours"
    for (begin, length), after in zip(plan.outages, summary.drained, strict=True):
        yield f"outage of {length:g} h at hour {begin:g}: gone {after:.1f} hours after its end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--capacity", type=float, default=1_200)
    parser.add_argument("--limit", type=float, help="requests a second to AdRoll")
    parser.add_argument("--outage", type=_outage, action="append", help="HOUR:HOURS")
    parser.add_argument("--hours", type=float, default=72)
    options = parser.parse_args()
    plan = Plan(
        options.rate,
        options.partitions,
        options.capacity,
        outages=options.outage or [(10, 1), (30, 6)],
        limit=options.limit,
    )
    for line in lines(plan, options.hours):
        print(line)


if __name__ == "__main__":
    main()

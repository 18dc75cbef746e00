"""What a claim and a settlement cost beside a million delivered rows, by how many are waiting.

    python -m benchmarks.outbox_scale [sqlite postgresql mariadb] [--delivered 1000000]

Uses databases of its own (ADROLL_TEST_POSTGRESQL, ADROLL_TEST_MARIADB as in the contract tests) and
removes them. A million rows on each engine take one to two minutes to lay down.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from adroll_flask.outbox.model import NewEvent, Outcome, new_id
from adroll_flask.outbox.outbox import Outbox
from tests.support.outbox_engines import EID, ENGINES, Bench, database

PAYLOAD = b'{"event_name":"purchase","identifiers":{"adct":"' + b"c" * 400 + b'"}}'
LEVELS = (1_000, 100_000, 1_000_000)
ROUNDS = 7
_NUMBERS = itertools.count(1)

INSERT = (
    "INSERT INTO adroll_event ({seq}id, state, event_name, advertisable_eid, dry_run, dedupe_key,"
    " payload, occurred_at, queued_at, due_at)"
)


class TimedBench(Bench):
    """With the time, where the tests have a clock that stands still."""

    def now(self) -> float:
        return time.time()


def lay_down(bench: Bench, count: int, *, delivered: bool) -> None:
    """Rows as the outbox itself would have left them."""
    now = time.time()
    first = next(_NUMBERS) * 100_000_000
    state = 3 if delivered else 0
    due = now + 90 * 86_400 if delivered else now - 3600
    with bench.sql().begin() as connection:
        if bench.engine == "sqlite":
            statement = INSERT.format(seq="seq, ") + " VALUES (?,?,?,?,?,?,?,?,?,?,?)"
            base = int((now - 7200) * 256_000) << 13
            sign = -1 if delivered else 1
            rows = (
                (
                    sign * (base + (first + n) * 16),
                    f"{(base + (first + n) * 16) << 3:018x}" + "0" * 14,
                    state,
                    "purchase",
                    "E" * 22,
                    0,
                    str(first + n),
                    None if delivered else PAYLOAD,
                    now,
                    now,
                    due + n * 1e-4,
                )
                for n in range(count)
            )
            connection.connection.driver_connection.executemany(statement, rows)  # type: ignore[union-attr]
            return
        if bench.engine == "postgresql":
            source, ident = f"generate_series(1, {count}) AS s(n)", "md5((:first + n)::text)"
        else:
            source, ident = f"(SELECT seq AS n FROM seq_1_to_{count}) s", "MD5(:first + n)"
        key = "(:first + n)::text" if bench.engine == "postgresql" else "CAST(:first + n AS CHAR)"
        connection.execute(
            sa.text(
                INSERT.format(seq="") + f" SELECT {ident}, {state}, 'purchase', :eid, 0, {key},"
                f" :payload, :now, :now, :due + n * 0.0001 FROM {source}"
            ),
            {
                "first": first,
                "eid": "E" * 22,
                "payload": None if delivered else PAYLOAD,
                "now": now,
                "due": due,
            },
        )


T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def measure(bench: Bench, outbox: Outbox, rounds: int) -> dict[str, tuple[float, float]]:
    """Median and least in milliseconds: on a busy machine the least tells more."""
    took: dict[str, list[float]] = {"claim": [], "sending": [], "settle": [], "put": []}
    for number in range(rounds):
        seconds, claim = timed(lambda: outbox.queue.claim(EID))
        took["claim"].append(seconds)
        assert claim
        assert len(claim.events) == 100
        seconds, ours = timed(partial(outbox.queue.begin_sending, claim))
        took["sending"].append(seconds)
        outcomes = [Outcome(ids=ours, kind="delivered")]
        seconds, _ = timed(partial(outbox.queue.settle, claim, outcomes))
        took["settle"].append(seconds)
        now = time.time()
        event = NewEvent(
            new_id(now), "purchase", "E" * 22, False, f"new-{now}-{number}", PAYLOAD, now
        )
        seconds, _ = timed(partial(outbox.put, event))
        took["put"].append(seconds)
    return {
        name: (statistics.median(values) * 1000, min(values) * 1000)
        for name, values in took.items()
    }


def run(engine: str, delivered: int, levels: tuple[int, ...]) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = None if engine == "sqlite" else stack.enter_context(database(engine))
        bench = TimedBench(engine, url, folder)
        stack.callback(bench.close)
        outbox = bench.open(outbox_max_bytes=0)
        outbox.database.create_tables()
        seconds, _ = timed(lambda: lay_down(bench, delivered, delivered=True))
        print(f"{engine}: {delivered:,} delivered rows laid down in {seconds:.0f} s")
        there = 0
        results = []
        for level in levels:
            lay_down(bench, level - there, delivered=False)
            if engine == "postgresql":
                with bench.sql().connect() as connection:
                    connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                        sa.text("VACUUM ANALYZE adroll_event")
                    )
            measure(bench, outbox, 2)
            result = measure(bench, outbox, ROUNDS)
            results.append(result)
            there = outbox.queue.waiting()
            figures = "  ".join(
                f"{name} {m:6.2f} (least {least:5.2f})" for name, (m, least) in result.items()
            )
            print(f"  {level:>9,} waiting, ms: {figures}", flush=True)
        claims = [result["claim"][1] for result in results]
        print(f"  claim, dearest to cheapest by the least of each: {max(claims) / min(claims):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("engines", nargs="*", default=list(ENGINES))
    parser.add_argument("--delivered", type=int, default=1_000_000)
    parser.add_argument("--most", type=int, default=LEVELS[-1], help="waiting rows at the most")
    arguments = parser.parse_args()
    for engine in arguments.engines:
        levels = tuple(level for level in LEVELS if level <= arguments.most)
        run(engine, arguments.delivered, levels)


if __name__ == "__main__":
    main()

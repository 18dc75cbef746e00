"""How long the dashboard's pages take over 13 months of history in an outbox on SQLite.

``python -m benchmarks.dashboard`` asks for each page and span, once as the first request for it in
a process and then again. The times are milliseconds in the app, without a network; ``cpu`` is the
processor's share of them.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask

from adroll_flask import AdRoll
from adroll_flask.dashboard.mounting import PAGES
from adroll_flask.dashboard.periods import PERIODS
from demo_app import create_app, lately

WHERE = "/adroll-dashboard/"


def shop(folder: str, now: float) -> Flask:
    """The dashboard of a shop as a new process has it."""
    app = Flask("shop", instance_path=folder)
    app.config.update(create_app({"ADROLL_DELIVERY": "worker"}, instance_path=folder).config)
    adroll = AdRoll(clock=lambda: now)
    adroll.init_app(app)
    adroll.dashboard(app, access=lambda: True, operator=lambda: True)
    return app


def measure(folder: str, now: float, rounds: int) -> Iterator[dict[str, Any]]:
    """One line a page and span."""
    for page in PAGES:
        for period in PERIODS if "period" in page.arguments else [""]:
            app = shop(folder, now)
            client = app.test_client()
            client.get(f"{WHERE}nothing-here")  # the app's first request sets itself up
            path = f"{WHERE}{'' if page is PAGES[0] else page.name}?period={period}"
            times, worked = [], []
            for _ in range(rounds + 1):
                begun, cpu = time.perf_counter(), time.process_time()
                answer = client.get(path)
                times.append((time.perf_counter() - begun) * 1000)
                worked.append((time.process_time() - cpu) * 1000)
                if answer.status_code != 200:
                    raise SystemExit(f"{path}: {answer.status}")
            app.extensions["adroll"].outbox.close()
            yield {
                "page": page.name,
                "span": PERIODS.get(period, ""),
                "first": round(times[0], 1),
                "median": round(statistics.median(times[1:]), 1),
                "cpu": round(statistics.median(worked[1:]), 1),
                "bytes": len(answer.data),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    now = time.time()
    with tempfile.TemporaryDirectory() as folder:
        demo = create_app({"ADROLL_DELIVERY": "worker"}, instance_path=folder)
        lately.add_to(demo, now)
        place = demo.extensions["adroll"].outbox.place
        with sqlite3.connect(place) as connection:
            [rows] = connection.execute("SELECT count(*) FROM adroll_history").fetchone()
        print(f"{rows:,} rows of history, {place.stat().st_size / 1e6:.1f} MB")
        found = list(measure(folder, now, options.rounds))
    print(f"{'page':<14} {'span':<10} {'first':>8} {'median':>8} {'cpu':>8}  ms")
    for line in found:
        print(
            f"{line['page']:<14} {line['span']:<10} {line['first']:>8} {line['median']:>8}"
            f" {line['cpu']:>8}  {line['bytes'] / 1000:.0f} kB"
        )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "pages": found}, indent=2))


if __name__ == "__main__":
    main()

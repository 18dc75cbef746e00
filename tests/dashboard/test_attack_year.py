"""Thirteen months of a shop: every page and command works, and none takes long."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from adroll_flask.cli.commands import commands
from adroll_flask.dashboard.mounting import PAGES
from adroll_flask.dashboard.periods import PERIODS
from demo_app import create_app, lately
from tests.support.dashboard_shop import WHERE

#: Seconds of work that a page or command may take: pages take some 40 ms, the hours of a year 1 s.
LONG = 5.0


@pytest.mark.slow
def test_after_a_year_every_page_and_command_works_and_none_is_slow(tmp_path: Path) -> None:
    now = time.time()
    demo = create_app({"ADROLL_DELIVERY": "worker"}, instance_path=str(tmp_path))
    lately.add_to(demo, now)
    shop = create_app(
        {"ADROLL_DELIVERY": "worker", "ADROLL_TIME_ZONE": "Europe/Berlin"},
        instance_path=str(tmp_path),
    )
    client, runner = shop.test_client(), shop.test_cli_runner()
    took: dict[str, float] = {}
    for page in PAGES:
        for period in PERIODS if "period" in page.arguments else [""]:
            path = f"{WHERE}{'' if page is PAGES[0] else page.name}?period={period}"
            began = time.process_time()
            answer = client.get(path, environ_base={"REMOTE_ADDR": "127.0.0.1"})
            took[path] = time.process_time() - began
            assert answer.status_code == 200, path
    for command in (
        *(f"history --since 13m --by {by}" for by in ("hour", "day", "event", "reason")),
        "history --since 13m --by identifier",
        "check",
        "outbox",
        "outbox list",
    ):
        began = time.process_time()
        said = runner.invoke(commands, command.split())
        took[command] = time.process_time() - began
        assert said.exception is None or isinstance(said.exception, SystemExit), command
        assert "Traceback" not in said.output
    sums = runner.invoke(commands, ["history", "--since", "13m", "--by", "event", "--json"])
    assert sum(row["events"] for row in json.loads(sums.output)) > 10_000
    assert {what: seconds for what, seconds in took.items() if seconds > LONG} == {}

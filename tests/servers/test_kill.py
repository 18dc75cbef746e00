"""Reporters and workers killed at random: nothing lost, nothing doubled without a mark."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from adroll_flask.sandbox import RunningSandbox as Sandbox
from adroll_flask.sandbox import running
from benchmarks import backlog
from benchmarks.servers import ENGINES, missing
from tests.servers.test_celery import Worker
from tests.support import (
    PATIENCE,
    ROOT,
    answers,
    eventually,
    free_port,
    lacking,
    program,
    ran,
    started,
)
from tests.support.disks import small_disk
from tests.support.shops import Shop, orders
from tests.support.wsgi_servers import Server, gunicorn, serving, uwsgi


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    command = (sys.executable, "-m", "tests.support.chaos", *arguments)
    with started(*command, stdout=subprocess.PIPE) as chaos:
        told, _ = chaos.communicate(timeout=800)
    return chaos.returncode, json.loads(told)


def survived(kills: int, hangs: int) -> dict[str, Any]:
    code, summary = run("--kills", str(kills), "--hangs", str(hangs))
    assert summary["wrong"] == [], summary
    assert summary["left"] == 0, summary
    assert code == 0
    assert summary["kills"] >= kills
    assert summary["kills_while_hanging"] >= hangs
    assert summary["acknowledged"] > 0
    return summary


def test_a_few_kills_lose_nothing_and_double_only_what_was_unsure() -> None:
    survived(kills=6, hangs=2)


@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_double_only_what_was_unsure() -> None:
    summary = survived(kills=50, hangs=10)
    assert summary["acknowledged"] >= 200, "the shop was alive between the kills"
    assert summary["arrived"] >= summary["acknowledged"]
    # Kills did meet requests that AdRoll had taken: else nothing was tried.
    assert summary["marked_unsure"] >= summary["arrived_twice"] >= 5


@pytest.mark.slow
def test_without_the_commit_of_sending_the_check_fails() -> None:
    code, summary = run("--kills", "3", "--hangs", "1", "--careless")
    assert code == 1
    assert any(line.endswith("arrived 2 times without a mark") for line in summary["wrong"])


# -- four workers on a server's outbox, all of them and the server killed: nothing lost -----------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_kills_of_workers_and_of_the_database_lose_nothing(engine: str) -> None:
    if why := missing(engine):
        lacking(why)
    command = (sys.executable, "-m", "benchmarks.drain", "--events", "4000", "--lease", "4")
    summary = json.loads(ran(*command, "--engine", engine, cwd=ROOT))
    assert summary["wrong"] == [], summary
    assert summary["arrived"] == summary["acknowledged"] == 4500
    assert summary["kills"] == 6
    # Four requests of up to a hundred events hung, and had been taken, when their workers died.
    assert 4 <= summary["arrived_twice"] <= summary["marked_unsure"]
    assert summary["exit_codes"] == [0] * 4


# -- however many events wait, delivery holds a batch of them in memory and no more ---------------


MANY = 50_000


#: MB. The payloads alone of the many would be ten times that.
MORE = 5.0


@pytest.mark.slow
def test_memory_stays_flat_with_fifty_thousand_events_waiting_and_adroll_up_or_down() -> None:
    with backlog.server() as server, backlog.backlog_in_a_folder() as shop:
        few = backlog.peaks(shop, server, backlog.FEW)
        many = backlog.peaks(shop, server, MANY)
        assert MANY * shop.payload_bytes > 10 * MORE * 1e6
    assert few.keys() == many.keys()
    assert {way.partition(",")[0] for way in few} == {"up", "refused", "503"}
    for way, most in many.items():
        assert most < few[way] + MORE, f"{way}: {few[way]:.1f} MB, then {most:.1f}"


# -- a few megabytes are enough: our own files do not fill a disk ---------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(1000, "8m"), (3000, "12m")])
def test_two_workers_on_a_small_disk_lose_no_order(count: int, size: str, tmp_path: Path) -> None:
    with running() as sandbox, small_disk(tmp_path / "disk", size) as disk:
        bought = [f"order-{number}" for number in range(count)]
        with serving(gunicorn("--worker-class=sync"), disk, sandbox.api_url) as server:
            assert Counter(server.buy_all(bought)) == {"queued": count}
            eventually(lambda: len(orders(sandbox)) >= count, said=lambda: server.log)
            server.stop()
        assert Counter(orders(sandbox)) == dict.fromkeys(bought, 1)
        told = Shop(disk).at(sandbox).as_json("outbox")
        assert told["counts"]["delivered"] == count


# -- kills of what the other proofs leave alive: uWSGI's workers, a broker ------------------------


def doubled_unmarked(shop: Shop, sandbox: Sandbox) -> set[str]:
    """The orders that AdRoll has twice and of which the outbox does not say that this may be."""
    listed = shop.as_json("outbox", "list", "--limit", "1000")
    twice = {order for order, count in Counter(orders(sandbox)).items() if count > 1}
    return twice - {row["key"] for row in listed if row["unsure"]}


def buy(server: Server, order: str) -> bool:
    """Whether the order was acknowledged; a worker that is killed answers nothing."""
    with suppress(OSError, HTTPException, urllib.error.URLError):
        return server.buy(order) == "queued"
    return False


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--threads=2",), ("--enable-threads", "--lazy-apps")])
def test_no_kill_of_uwsgi_s_workers_loses_an_order(
    options: tuple[str, ...], sandbox: Sandbox, tmp_path: Path
) -> None:
    chance = random.Random(7)
    acknowledged, kills = [], 0
    with serving(uwsgi(*options), tmp_path, sandbox.api_url) as server:
        sandbox.fault(latency=0.05)  # so that kills meet requests
        for number in range(160):
            order = f"order-{number}"
            if buy(server, order):
                acknowledged.append(order)
            if number % 12 == 11:
                with suppress(ProcessLookupError, OSError, HTTPException):
                    os.kill(int(server.ask("/")["pid"]), signal.SIGKILL)
                    kills += 1
                time.sleep(chance.uniform(0, 0.2))
        assert kills >= 8
        assert len(acknowledged) >= 100, server.log
        sandbox.clear_faults()
        shop = Shop(tmp_path).at(sandbox)
        # What was being sent waits until its lease ends, for as long as we wait elsewhere.
        longest = 3 * PATIENCE
        eventually(
            lambda: set(acknowledged) <= set(orders(sandbox)), longest, said=lambda: server.log
        )
        eventually(lambda: shop.as_json("outbox")["counts"]["waiting"] == 0, longest)
    # How a server stops is shown elsewhere: this one ends by the last kill of all.
    assert doubled_unmarked(shop, sandbox) == set()


@contextmanager
def redis(folder: Path, port: int) -> Iterator[None]:
    """A broker of this test's own, which keeps what it has on its disk, and is killed."""
    server = program("redis-server", "redis-server")
    command = (server, "--port", str(port), "--dir", folder, "--appendonly", "yes")
    with started(*command, "--bind", "127.0.0.1"):
        eventually(lambda: answers(port))
        yield


@pytest.mark.slow
def test_kills_of_celery_s_processes_lose_no_order(
    sandbox: Sandbox, tmp_path: Path, stack: ExitStack
) -> None:
    port = free_port()
    (folder := tmp_path / "redis").mkdir()
    shop = Shop(tmp_path / "shop").at(sandbox)
    shop.folder.mkdir()
    with redis(folder, port):
        worker = Worker(shop, f"redis://127.0.0.1:{port}/0", every=1.0)
    stack.callback(worker.end)
    told = []
    with shop.reporting() as reporter:
        for kill in range(3):
            told += reporter.report(f"order:{kill * 20 + 1}-{kill * 20 + 10}")  # no broker
            with redis(folder, port):
                worker.start_again_if_it_ended()
                told += reporter.report(f"order:{kill * 20 + 11}-{kill * 20 + 20}")
                time.sleep(2.0)  # beat asks each second
                worker.kill_children()
    assert set(told) == {"queued"}
    wanted = {str(number) for number in range(1, 61)}

    def all_arrived() -> bool:
        worker.start_again_if_it_ended()
        return wanted <= set(orders(sandbox))

    with redis(folder, port):
        # What a killed child was sending waits until its lease ends.
        eventually(all_arrived, 3 * PATIENCE, said=lambda: worker.log)
        assert doubled_unmarked(shop, sandbox) == set()

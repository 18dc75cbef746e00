"""A process of the host that is stopped (Ctrl-Z) keeps nothing of the others' from AdRoll."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from adroll_flask.sandbox import running
from tests.support.outbox_engines import wait_until
from tests.support.shops import Shop, orders
from tests.support.wsgi_servers import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="takes /proc/locks")


def locked_by(pid: int, folder: Path) -> list[str]:
    """The files of *folder* that a process holds locks on."""
    names = {path.stat().st_ino: path.name for path in folder.rglob("*") if path.is_file()}
    found = []
    for line in Path("/proc/locks").read_text().splitlines():
        # 1: FLOCK  ADVISORY  WRITE 17119 fe:00:5351664 0 EOF; those who wait have an arrow.
        words = line.split()
        if words[1] != "->" and words[4] == str(pid) and words[3] == "WRITE":
            found += [name for name in [names.get(int(words[5].rpartition(":")[2]))] if name]
    return found


def line(number: int) -> str:
    order = {"order_id": f"imported-{number}", "value": "1", "currency": "EUR", "adct": "c"}
    return json.dumps(order | {"ip": "203.0.113.9", "page_location": "https://shop.example/"})


def stopped_while_it_reads(process: subprocess.Popen[str], folder: Path) -> bool:
    """Stop it while it holds what only one reader may have; false where it ended before.

    Not within a transaction of SQLite's, which nobody can take over.
    """
    while process.poll() is None:
        if "reader.lock" not in locked_by(process.pid, folder):
            continue
        process.send_signal(signal.SIGSTOP)
        held = locked_by(process.pid, folder)
        if "reader.lock" in held and not any("sqlite" in name for name in held):
            return True
        process.send_signal(signal.SIGCONT)
    return False


@pytest.mark.slow
def test_a_stopped_import_blocks_no_live_order_or_is_named(tmp_path: Path) -> None:
    orders_file = tmp_path / "orders.jsonl"
    numbers = itertools.count()
    with running() as sandbox, ExitStack() as imports:
        shop = Shop(tmp_path / "shop").at(sandbox)
        shop.report("order:0")
        shop.adroll("worker", "--once")
        until, caught = time.monotonic() + PATIENCE, False
        while not caught:  # by its end, a busy machine may not have looked at the right moment
            assert time.monotonic() < until, "no import was met while it reads"
            orders_file.write_text("\n".join(map(line, itertools.islice(numbers, 50_000))))
            importing = imports.enter_context(shop.running("import", str(orders_file)))
            caught = stopped_while_it_reads(importing, shop.folder)
        with shop.running("worker"):
            shop.report("order:1")
            assert wait_until(
                lambda: (
                    "1" in orders(sandbox)
                    or str(importing.pid) in shop.adroll("check", check=False)
                )
            )

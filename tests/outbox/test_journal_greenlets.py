"""Journal and outbox under gevent and eventlet, with everything patched that they can patch."""

import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import ROOT, ran
from tests.support.journal_kit import texts_of

pytestmark = pytest.mark.patient


#: Greenlets and real threads append at the same time; each greenlet gives way between its appends.
PROGRAM = {
    "gevent": """
        from gevent import monkey
        monkey.patch_all()
        import gevent, gevent.threadpool
        from gevent import sleep

        def run(function, count):
            pool = gevent.threadpool.ThreadPool(4)
            jobs = [gevent.spawn(function, f"greenlet {n}") for n in range(count)]
            jobs += [pool.spawn(function, f"thread {n}") for n in range(4)]
            for job in jobs:
                job.get()
    """,
    "eventlet": """
        import os, warnings
        warnings.simplefilter("ignore")
        # Its own name look-ups import dnspython, and by that what can not be patched.
        os.environ["EVENTLET_NO_GREENDNS"] = "yes"
        import eventlet
        eventlet.monkey_patch()
        from eventlet import tpool, sleep

        def run(function, count):
            jobs = [eventlet.spawn(function, f"greenlet {n}") for n in range(count)]
            jobs += [eventlet.spawn(tpool.execute, function, f"thread {n}") for n in range(4)]
            for job in jobs:
                job.wait()
    """,
}

APPEND = """
    import sys
    from pathlib import Path
    from adroll_flask.outbox.journal import Journal
    from tests.support.journal_kit import line

    writer = Journal(Path(sys.argv[1]), sync=sys.argv[2] == "sync")

    inside = []

    def append(name):
        for n in range(30):
            if name.startswith("thread"):
                writer.append(line(f"{name} {n}".encode()))
                continue
            # No other greenlet runs in the middle: none can find the lock taken by one.
            inside.append(name)
            writer.append(line(f"{name} {n}".encode()))
            assert inside == [name], inside
            inside.clear()
            sleep(0)

    run(append, 20)
    writer.close()
"""

#: Somebody holds the file, and lets go of it only where other greenlets run meanwhile.
WAIT = """
    import sqlite3, sys
    from pathlib import Path
    from tests.support.delivery_kit import EID, Shop

    folder = Path(sys.argv[1])
    outbox = Shop(folder, orders=1).outbox
    assert outbox.queue.waiting() == 1
    other = sqlite3.connect(folder / "adroll-outbox.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    claims = []

    def work(name):
        if name == "greenlet 0":
            claims.append(outbox.queue.claim(EID))
        elif name == "greenlet 1":
            for _ in range(20):
                sleep(0.001)
            other.execute("ROLLBACK")

    run(work, 2)
    assert [len(claim.events) for claim in claims] == [1], claims
    outbox.close()
"""


#: AdRoll answers only where requests go on meanwhile.
DELIVER = """
    import sys, time
    from pathlib import Path
    from tests.support.delivery_kit import OK, AdRoll, Shop

    ticks, end = 0, time.monotonic() + 60
    def slow(orders, dry):
        while ticks < 20 and time.monotonic() < end:
            time.sleep(0.01)
        return OK
    shop = Shop(Path(sys.argv[1]), AdRoll(slow))
    thread = shop.thread()
    shop.report("o001")
    thread.nudge()
    while not shop.adroll.taken:
        time.sleep(0.01)
        ticks += 1
    assert ticks >= 20
    assert thread.flush(60.0) == 0
"""


def run(server: str, program: str, *arguments: str | Path) -> None:
    whole = textwrap.dedent(PROGRAM[server]) + textwrap.dedent(program)
    ran(sys.executable, "-c", whole, *arguments, cwd=ROOT, timeout=120)


@pytest.mark.parametrize("sync", ["sync", "normal"])
@pytest.mark.parametrize("server", list(PROGRAM))
def test_greenlets_and_threads_append_together(tmp_path: Path, server: str, sync: str) -> None:
    run(server, APPEND, tmp_path / "journal", sync)

    wanted = [
        f"{kind} {name} {n}".encode()
        for kind, count in (("greenlet", 20), ("thread", 4))
        for name in range(count)
        for n in range(30)
    ]
    assert sorted(texts_of(tmp_path / "journal")) == sorted(wanted)


@pytest.mark.parametrize("program", [WAIT, DELIVER], ids=["a claim waits", "AdRoll answers late"])
@pytest.mark.parametrize("server", list(PROGRAM))
def test_under_green_threads_requests_go_on(tmp_path: Path, server: str, program: str) -> None:
    """SQLite waits in a sleep of the thread, and with it would all of the process's requests."""
    run(server, program, tmp_path)

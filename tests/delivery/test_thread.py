"""The background thread: started late, once a process, never in the way of an exit."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import adroll_flask
from adroll_flask import forks, report_conversion
from adroll_flask.delivery import thread as thread_module
from adroll_flask.delivery.thread import DeliveryThread
from adroll_flask.outbox.model import OutboxFailed
from tests.conftest import Caplog, Patch
from tests.support import PATIENCE, ROOT, eventually, in_a_child, open_files
from tests.support.delivery_kit import OK, AdRoll, Reply, Shop, orders
from tests.support.forking import forks_amid_threads
from tests.support.patching import replace_method


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "adroll-delivery"]


Maker = Callable[..., tuple[Shop, DeliveryThread]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Maker]:
    """Makes shops in one folder, with threads that are stopped when the test is over."""
    made: list[DeliveryThread] = []

    def make(*adroll: AdRoll, **settings: Any) -> tuple[Shop, DeliveryThread]:
        shop = Shop(tmp_path, *adroll, **settings)
        made.append(shop.thread())
        return shop, made[-1]

    yield make
    for one in made:
        assert one.stop(PATIENCE)


def report(shop: Shop, thread: DeliveryThread, *names: str) -> None:
    """Report as a request does."""
    for name in names:
        shop.report(name)
        thread.nudge()


def rest(shop: Shop, thread: DeliveryThread) -> None:
    """Let it run, with nothing to do yet; what a look would find has lingered elsewhere."""
    shop.deliverer.poll = 3600.0
    thread.start()
    eventually(lambda: shop.outbox.wake_up.waiters)


def test_nothing_runs_before_the_first_report(make: Maker) -> None:
    before = set(threads())  # of other apps of this process
    shop, thread = make()
    assert not thread.alive
    assert set(threads()) <= before
    shop.report("o001")
    together = threading.Barrier(8)

    def ask(_: int) -> None:
        together.wait()
        thread.nudge()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert thread.alive
    eventually(lambda: shop.adroll.taken == ["o001"])
    (begun,) = set(threads()) - before
    assert begun.daemon


def test_a_thread_that_begins_amid_another_call_is_not_taken_for_dead(
    make: Maker, monkeypatch: Patch, caplog: Caplog
) -> None:
    """Two first requests at once: one looks, and goes on when the other's thread runs already."""
    before = set(threads())
    shop, thread = make()
    may_start = forks.may_start_threads

    def begin_first() -> bool:
        monkeypatch.setattr(forks, "may_start_threads", may_start)
        thread.nudge()
        rest(shop, thread)
        return may_start()

    monkeypatch.setattr(forks, "may_start_threads", begin_first)
    thread.nudge()
    shop.report("o001")
    thread.nudge()
    eventually(lambda: shop.adroll.taken == ["o001"])
    eventually(lambda: len(set(threads()) - before) == 1)
    assert "had died" not in caplog.text


def test_a_hundred_reports_go_without_lingering(make: Maker, monkeypatch: Patch) -> None:
    monkeypatch.setattr(thread_module, "_WITHIN", -1.0)  # each comes later: they are no burst
    monkeypatch.setattr(thread_module, "_LASTS", 1000.0)
    shop, thread = make(linger=2 * PATIENCE)
    report(shop, thread, "o000")
    eventually(lambda: len(shop.adroll.taken) == 1)  # found at the start, nobody lingered
    report(shop, thread, *orders(99))
    eventually(lambda: len(shop.adroll.taken) == 100)
    assert shop.adroll.sizes == [1, 99]


def test_lingering_fills_a_batch_and_flush_sends_at_once(make: Maker) -> None:
    shop, thread = make(linger=2.0)
    rest(shop, thread)
    shop.report("o001")
    time.sleep(0.05)
    shop.report("o002", "o003")
    eventually(lambda: len(shop.adroll.taken) == 3)
    assert shop.adroll.sizes == [3]
    shop.report("o004")
    assert thread.flush(PATIENCE) == 0
    shop.report(*orders(230, first=5))
    assert thread.flush(PATIENCE) == 0
    assert shop.adroll.sizes == [3, 1, 100, 100, 30], "what is left of full batches goes along"


def test_a_burst_lingers_until_a_flush(make: Maker, monkeypatch: Patch) -> None:
    monkeypatch.setattr(thread_module, "_WITHIN", 1000.0)
    monkeypatch.setattr(thread_module, "_LASTS", 1000.0)
    shop, thread = make(linger=2 * PATIENCE)
    with monkeypatch.context() as patch:  # so that it begins amid the burst
        patch.setattr(forks, "may_start_threads", lambda: False)
        report(shop, thread, *orders(350))
    thread.nudge()
    eventually(lambda: len(shop.adroll.taken) == 100)
    report(shop, thread, *orders(100, first=351))
    time.sleep(0.2)
    assert shop.adroll.sizes == [100], "full batches linger, too"
    assert thread.flush(PATIENCE) == 0
    assert sum(shop.adroll.sizes) == 450


def test_it_leaves_the_interpreter_to_requests(make: Maker) -> None:
    leaves: list[bool] = []

    def judge(_orders: list[str], _dry: bool) -> Reply:
        leaves.append(forks._this.since is not None)
        return OK

    shop, thread = make(AdRoll(judge), linger=2 * PATIENCE)
    report(shop, thread, "o001")
    eventually(lambda: leaves)
    shop.report("o002")
    assert thread.flush(PATIENCE) == 0
    assert leaves == [True, False]


def test_flush_keeps_its_time(make: Maker) -> None:
    release = threading.Event()

    def hang(_orders: list[str], _dry: bool) -> Reply:
        release.wait(PATIENCE)
        return OK

    shop, thread = make(AdRoll(hang))
    shop.report("o001")
    began = time.monotonic()
    assert thread.flush(0.3) == 1
    assert 0.25 < time.monotonic() - began < PATIENCE / 2
    release.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_that_could_not_start_or_died_is_started_again(
    make: Maker, monkeypatch: Patch, caplog: Caplog
) -> None:
    shop, thread = make()

    def full(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        thread.nudge()
        assert shop.counters.get("delivery_error", "no_thread") == 1
        shop.report("o000")
        assert thread.flush(PATIENCE) == 0, "who waits for it sends it then"

    dead: list[threading.Thread] = []

    def dies(*_: object) -> None:
        dead.append(threading.current_thread())
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(thread, "one_round", dies)
        shop.report("o001")
        thread.start()
        eventually(lambda: not thread.alive)
        dead[0].join()  # else its exception may be the next test's
    thread.nudge()
    eventually(lambda: shop.adroll.taken == ["o000", "o001"])
    assert "had died and is started again" in caplog.text
    assert shop.counters.get("delivery_error", "thread_died") == 1


def test_one_that_was_stopped_has_not_died(make: Maker, caplog: Caplog) -> None:
    shop, thread = make()
    report(shop, thread, "o001")
    eventually(lambda: shop.adroll.taken == ["o001"])
    assert thread.stop(PATIENCE)
    thread.resume()
    report(shop, thread, "o002")
    eventually(lambda: shop.adroll.taken == ["o001", "o002"])
    assert "had died" not in caplog.text


# Where others deliver: the thread takes into the outbox what its process reports


def count(shop: Shop) -> int:
    """What is in the database, which this look does not fill."""
    return sum(row.state == "waiting" for row in shop.outbox.lookups.newest_events(100))


@forks_amid_threads
def test_reports_are_taken_in_and_none_is_sent(make: Maker) -> None:
    shop, thread = make(delivery="worker")
    assert in_a_child(lambda: shop.report("of the dead"))
    report(shop, thread, *orders(20))
    eventually(lambda: count(shop) == 21)
    report(shop, thread, "o100")
    eventually(lambda: count(shop) == 22)
    shop.report("o101")
    assert thread.stop(PATIENCE)
    assert count(shop) == 23, "the end takes in what is left"
    assert shop.adroll.urls == []


def test_what_nobody_delivers_is_said(make: Maker, monkeypatch: Patch, caplog: Caplog) -> None:
    monkeypatch.setattr("adroll_flask.delivery.deliverer._HOUSEKEEPING", 0.0)
    shop, thread = make(delivery="worker")
    shop.report("o001")
    shop.clock.sleep(1000)
    thread.nudge()
    eventually(lambda: "have been waiting for 17 minutes" in caplog.text)


@pytest.mark.parametrize("case", ["thread", "worker", "exit"])
def test_it_tells_what_was_lost_without_another_report(
    tmp_path: Path, make: Maker, monkeypatch: Patch, case: str
) -> None:
    go_on = threading.Event()
    shop, thread = make(delivery="worker" if case == "worker" else "thread")
    if case == "exit":
        monkeypatch.setattr("adroll_flask.events.build.warm", go_on.wait)
    thread.start()
    journal = tmp_path / "adroll-journal"
    journal.write_text("in the way")
    with pytest.raises(OutboxFailed):
        shop.report("o001")
    journal.unlink()
    if case == "exit":  # which begins before the thread has taken a step
        thread.stop(0.0)
        go_on.set()
    eventually(lambda: [one.outcome for one in shop.outbox.lookups.history(0, ["outcome"])])
    (lost,) = shop.outbox.lookups.history(0, ("outcome", "reason"))
    assert (lost.outcome, lost.reason) == ("failed", "no_folder")


@pytest.mark.parametrize(("delivery", "work"), [("thread", "claim"), ("worker", "take_in")])
def test_the_loop_survives_everything(
    make: Maker, monkeypatch: Patch, caplog: Caplog, delivery: str, work: str
) -> None:
    shop, thread = make(delivery=delivery)
    part = shop.outbox.queue if work == "claim" else shop.outbox.ingest
    really = getattr(part, work)
    failures = [OutboxFailed("locked"), ValueError("canary"), MemoryError(), OSError(28, "x")]

    def flaky(*args: Any, **how: Any) -> Any:
        if failures:
            raise failures.pop()
        return really(*args, **how)

    def no_new_file() -> None:
        raise OutboxFailed("disk_full")

    replace_method(monkeypatch, part, work, flaky)
    replace_method(monkeypatch, shop.outbox, "measure", no_new_file)
    monkeypatch.setattr("adroll_flask.delivery.deliverer.TROUBLE_LASTS", 0.02)
    shop.report("o001")
    thread.start()
    eventually(lambda: shop.adroll.taken or (work == "take_in" and count(shop)))
    assert thread.stop(PATIENCE)
    errors = shop.counters.get("delivery_error", "error")
    assert (errors, shop.counters.get("delivery_error", "locked")) == (3, 1)
    assert shop.counters.get("delivery_error", "disk_full")
    assert caplog.text.count("Delivery to AdRoll pauses") == 2, "once for each kind of fault"
    assert "canary" not in caplog.text
    assert "OSError(ENOSPC)" in caplog.text


@forks_amid_threads
def test_a_forked_child_starts_its_own(make: Maker, monkeypatch: Patch) -> None:
    # On a busy machine the parent's look at the journal may take longer than a fork waits for it.
    monkeypatch.setattr("adroll_flask.outbox.sqlite._FORK_PATIENCE", PATIENCE)
    shop, thread = make()
    report(shop, thread, "o001")
    eventually(lambda: shop.states() == {"o001": "delivered"})
    # The parent's thread rests: what the child reports is the child's to deliver.
    rest(shop, thread)

    def delivers() -> None:
        assert not thread.alive
        report(shop, thread, "o002")
        eventually(lambda: shop.states().get("o002") == "delivered")
        assert shop.adroll.taken == ["o001", "o002"]

    assert in_a_child(delivers)
    assert thread.alive
    assert shop.adroll.taken == ["o001"]
    report(shop, thread, "o003")
    eventually(lambda: shop.states().get("o003") == "delivered")


@forks_amid_threads
def test_a_fork_amid_imports_is_safe(tmp_path: Path, make: Maker, monkeypatch: Patch) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time; time.sleep(0.5)")
    monkeypatch.syspath_prepend(tmp_path)
    importing = threading.Event()

    def warm() -> None:
        importing.set()
        import_module("slow_to_import")

    monkeypatch.setattr("adroll_flask.events.build.warm", warm)
    make()[1].start()
    assert importing.wait(PATIENCE)
    time.sleep(0.1)
    assert in_a_child(lambda: import_module("slow_to_import"))


SHOP = """
import os, sys, threading, time
from tests.support.server_shop import make_shop

class Watch:
    late = []
    def find_spec(self, name, path=None, target=None):
        self.late.append((threading.current_thread().name, name))

os.environ.update(SHOP_FOLDER=sys.argv[1], FLASK_ADROLL_DELIVERY=sys.argv[2])
os.environ["FLASK_ADROLL_API_URL"] = "http://127.0.0.1:9"
app = make_shop()
client = app.test_client()
client.get("/?adct=c-1")
while not app.extensions["adroll"].outbox.wake_up.waiters:
    time.sleep(0.01)
sys.meta_path.insert(0, Watch())
print(client.post("/orders/1", headers={"User-Agent": "Mozilla/5.0"}).json["status"])
counters = app.extensions["adroll"].counters
while sys.argv[2] == "thread" and not counters.get("event_retried", "refused"):
    time.sleep(0.01)
outbox = app.extensions["adroll"].outbox
_ = outbox.queue, outbox.lookups, outbox.admin  # what the thread takes in, sends and cleans with
print([one for one in Watch.late if one[1].partition(".")[0] != "encodings"])
"""


@pytest.mark.parametrize("delivery", ["thread", "worker"])
def test_after_a_page_the_first_order_imports_nothing(tmp_path: Path, delivery: str) -> None:
    assert script(SHOP, tmp_path, delivery).splitlines() == ["queued", "[]"]


def test_a_page_before_the_first_order_makes_no_database(make_app: Callable[..., Flask]) -> None:
    app = make_app(ADROLL_DELIVERY="thread")
    app.test_client().get("/?adct=c-1")
    runtime = app.extensions["adroll"]
    eventually(lambda: runtime.outbox.wake_up.waiters)  # it rests: it has loaded all
    assert runtime.thread.stop()  # its last look, too
    assert not Path(app.instance_path).exists()


@pytest.mark.parametrize("delivery", ["thread", "worker"])
def test_a_dropped_app_leaves_no_thread_and_no_open_file(tmp_path: Path, delivery: str) -> None:
    running = set(threads())
    app, network = Flask("shop", instance_path=str(tmp_path)), AdRoll()
    app.config.update(SECRET_KEY="a key of a shop under test", ADROLL_ACCESS_TOKEN="a-token")
    app.config.update(ADROLL_ADVERTISABLE_EID="A" * 22, ADROLL_PIXEL_EID="B" * 22)
    app.config.update(ADROLL_DELIVERY=delivery, ADROLL_LINGER=0.01)
    adroll_flask.AdRoll(app, transport=network)
    with app.test_request_context(environ_base={"REMOTE_ADDR": "203.0.113.9"}):
        order = report_conversion(order_id="1", value="5.00", currency="EUR", adct="c-1")
    assert order.status == "queued"
    eventually(lambda: network.taken == ["1"] or delivery == "worker")
    left = [weakref.ref(app), weakref.ref(app.extensions["adroll"])]
    del app

    def is_gone() -> bool:
        gc.collect()
        return not any(one() for one in left)

    eventually(is_gone)
    eventually(lambda: set(threads()) <= running)
    assert not [path for path in open_files().values() if str(tmp_path) in path]


def test_a_thread_ends_before_anything_of_its_dropped_app_is_closed(tmp_path: Path) -> None:
    """Else it would use a connection that is being closed, which ends the process (SQLite)."""
    before = set(threads())  # of other apps of this process
    shop = Shop(tmp_path)
    thread = shop.thread()
    rest(shop, thread)
    [runs] = set(threads()) - before
    wake_up = shop.outbox.wake_up
    ended: list[bool] = []

    def close() -> None:
        wake_up.wake()
        runs.join(PATIENCE / 10)
        ended.append(not runs.is_alive())

    weakref.finalize(thread, close).atexit = False
    cycle: list[Any] = [thread]
    cycle.append(cycle)  # so that a collection finds it, as it does with every app
    del thread, shop, cycle
    gc.collect()
    assert ended == [True]


def test_an_exit_amid_a_request(tmp_path: Path) -> None:
    program = """
    import sys, threading, time
    from pathlib import Path
    from tests.support.delivery_kit import AdRoll, Shop

    hangs = threading.Event()

    def hang(orders, dry):
        hangs.set()
        time.sleep(60)

    shop = Shop(Path(sys.argv[1]), AdRoll(hang))
    shop.report("o001")
    shop.thread().nudge()
    hangs.wait()
    shop.report("o002", "o003")
    print(time.time())
    """
    assert time.time() - float(script(program, tmp_path)) < 15
    shop = Shop(tmp_path)
    assert shop.states() == {"o001": "sending", "o002": "waiting", "o003": "waiting"}
    shop.step()
    assert shop.adroll.taken == orders(2, 2)
    shop.drain(after=61)
    # AdRoll may have taken it, which nobody could know: sent again, marked, counted.
    assert shop.adroll.taken == [*orders(2, 2), "o001"]
    assert [row.key for row in shop.rows().values() if row.unsure] == ["o001"]
    assert shop.counters.get("event_unsure", "lapsed") == 1


@pytest.mark.parametrize(("hook", "state"), [("stays", "delivered"), ("goes", "sending")])
def test_a_child_of_multiprocessing_ends_after_its_request(
    tmp_path: Path, hook: str, state: str
) -> None:
    program = """
    import multiprocessing.util, sys, threading, time
    from pathlib import Path
    from tests.support.delivery_kit import OK, AdRoll, Shop

    has_begun, has_worked = threading.Event(), threading.Event()

    def slow(orders, dry):
        has_begun.set()
        has_worked.wait()
        time.sleep(0.3)
        return OK

    shop = Shop(Path(sys.argv[1]), AdRoll(slow))
    thread = shop.thread()
    shop.outbox.database.create_tables()

    def work():
        if sys.argv[2] == "goes":
            del multiprocessing.util.Finalize
        shop.report("o001")
        thread.nudge()
        has_begun.wait()
        has_worked.set()

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == 0
    """
    script(program, tmp_path, hook)
    assert Shop(tmp_path).states() == {"o001": state}


def script(text: str, folder: Path, *arguments: str) -> str:
    """Run a program with the kit at hand; returns its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_exit_sends_what_lingers(tmp_path: Path) -> None:
    """A second signal does not cut it off."""
    program = """
    import os, signal, sys, threading, time
    from pathlib import Path
    from tests.support.delivery_kit import OK, AdRoll, Shop

    # As servers that handle signals in C: the process ends where the signal arrives.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def slow(orders, dry):
        while threading.main_thread().is_alive():  # until the exit has begun
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        return OK

    shop = Shop(Path(sys.argv[1]), AdRoll(slow), linger=30.0)
    thread = shop.thread()
    shop.outbox.database.create_tables()
    thread.start()
    while not shop.outbox.wake_up.waiters:
        time.sleep(0.01)
    shop.report("o001")
    thread.nudge()
    """
    with pytest.raises(AssertionError):  # the signal comes when the wait is over
        script(program, tmp_path)
    assert Shop(tmp_path).states() == {"o001": "delivered"}

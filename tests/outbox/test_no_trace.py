"""What was erased or delivered is in no byte of our files a moment later."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from adroll_flask.delivery.deliverer import Deliverer
from adroll_flask.settings import Settings
from tests.conftest import Patch
from tests.support import eventually
from tests.support.outbox_engines import Bench, Outbox, Withdrawal, claimed, deliver, settle

CLICK, AGENT, COOKIE = "Click-Of-Ann", "Agent-Of-Ann", "Cookie-Of-Ann"
RECORD_ID = "0a" * 12


def event_of(number: int, click: str = CLICK) -> bytes:
    identifiers = {"adct": click, "first_party_cookie": COOKIE}
    # Some are longer than a page has room for.
    wire = {"identifiers": identifiers, "user_agent": AGENT * (1 + number % 7 * 90)}
    return json.dumps(wire, separators=(",", ":")).encode()


def traces(*folders: Path) -> dict[str, list[str]]:
    """Which files hold what of the visitor."""
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    found = {path.name: path.read_bytes() for path in files}
    words = (CLICK, AGENT, COOKIE, RECORD_ID)
    there = {name: [w for w in words if w.encode() in data] for name, data in found.items()}
    return {name: words for name, words in there.items() if words}


def end(sqlite: Bench, outbox: Outbox, how: str) -> None:
    if how == "delivered":
        deliver(outbox)
    elif how == "withdrawn":
        outbox.record(Withdrawal(sqlite.clock.now, RECORD_ID))
        outbox.queue.waiting()
    elif how == "dropped":
        outbox.admin.drop([row.id for row in outbox.lookups.list(limit=1000)])
    else:
        claim = claimed(outbox)
        settle(outbox, claim, "dead", reason="refused")
        assert outbox.admin.forget(lambda wire: wire["identifiers"]["adct"] == CLICK).events == 340


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Meanwhile somebody reads the database as it is now: a backup, a browser of databases."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM adroll_event").fetchall()
        yield


@pytest.mark.parametrize("sends", [True, False], ids=["delivers", "takes in"])
@pytest.mark.parametrize("how", ["delivered", "withdrawn", "forgotten", "dropped"])
def test_nothing_of_a_visitor_is_left_in_any_byte(
    sqlite: Bench, monkeypatch: Patch, how: str, sends: bool
) -> None:
    # Seconds that pass between two looks, of which none is a promise.
    monkeypatch.setattr("adroll_flask.outbox.sqlite._EMPTY_EVERY", 0.0)
    monkeypatch.setattr("adroll_flask.outbox.ingest._CLEAN_EVERY", 0.0)
    outbox = sqlite.open()
    for number in range(340):
        sqlite.clock.now += 0.01
        event = sqlite.event(str(number), payload=event_of(number), record_id=RECORD_ID)
        outbox.put(event)
        if not number % 50:
            outbox.queue.waiting()
    outbox.queue.waiting()
    assert "adroll-outbox.sqlite-wal" in traces(sqlite.folder)
    deliverer, stop = Deliverer(outbox, Settings(), sqlite.counters), threading.Event()
    with reading(sqlite.path):
        end(sqlite, outbox, how)
        deliverer.step(stop, sends=sends)
        assert traces(sqlite.folder)

    def is_gone(*folders: Path) -> bool:
        deliverer.step(stop, sends=sends)
        outbox.measure()
        return not traces(*folders)

    eventually(lambda: is_gone(sqlite.folder))
    sqlite.clock.now += 61
    eventually(lambda: is_gone(sqlite.folder, sqlite.journal))


def test_a_step_soon_after_another_leaves_the_log_for_the_next(
    sqlite: Bench, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("adroll_flask.outbox.sqlite._EMPTY_EVERY", float("inf"))
    outbox = sqlite.open()
    for order in ("1", "2"):
        sqlite.insert(outbox, order)
        Deliverer(outbox, Settings(), sqlite.counters).step(threading.Event())
    assert Path(f"{sqlite.path}-wal").stat().st_size


def test_a_command_leaves_none_either(sqlite: Bench) -> None:
    outbox, other = sqlite.open(), sqlite.open()
    sqlite.insert(outbox, "1", "2", payload=event_of(6))
    assert other.queue.waiting() == 2, "another process has the file open"
    assert other.admin.forget(lambda _wire: True).events == 2
    other.close()
    assert not traces(sqlite.folder)


def test_in_the_shop_s_own_file_nobody_waits_for_that(sqlite: Bench, tmp_path: Path) -> None:
    shop = tmp_path / "shop.db"
    with closing(sqlite3.connect(shop)) as theirs:
        theirs.execute("PRAGMA journal_mode = WAL")
        theirs.execute("CREATE TABLE orders (id INTEGER)")
    outbox = sqlite.open(outbox_url=f"sqlite:///{shop}")
    sqlite.insert(outbox, "1", payload=event_of(6))
    log = Path(f"{shop}-wal")
    size = log.stat().st_size

    deliver(outbox)
    Deliverer(outbox, Settings(), sqlite.counters).step(threading.Event())

    assert log.stat().st_size >= size > 0, "the shop's log is not cut"
    assert CLICK.encode() not in shop.read_bytes(), "what it says of the visitor is written over"

"""PostgreSQL and MariaDB: restarts, silence, forks, announcements, clocks that differ."""

import re
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from adroll_flask.outbox import queue
from adroll_flask.outbox.lookups import first_due
from adroll_flask.outbox.model import UNSENT, OutboxFailed
from adroll_flask.outbox.outbox import Outbox
from tests.conftest import Patch
from tests.support import in_a_child
from tests.support.forking import forks_amid_threads
from tests.support.outbox_engines import EID, Bench, claimed, deliver, settle, status
from tests.support.relay import Relay, in_trouble

pytestmark = pytest.mark.patient


@pytest.fixture
def outbox(server: Bench, relay: Relay) -> Outbox:
    url = sa.make_url(server.url or "").set(port=relay.port)
    return server.open(outbox_url=url.render_as_string(hide_password=False))


def test_a_lost_connection_is_replaced(server: Bench, relay: Relay, outbox: Outbox) -> None:
    outbox.put(server.event("1"))
    claim = claimed(outbox, begin=True)
    relay.cut()
    relay.restore()

    assert settle(outbox, claim) == 1
    assert outbox.lookups.counts()["delivered"] == 1
    relay.cut()
    relay.restore()
    assert status(outbox, server.event("2")) == "queued"
    assert deliver(outbox) == ["2"]
    before = relay.accepted
    outbox.lookups.counts()
    assert relay.accepted == before, "the new one is kept"


def test_the_sites_own_url_may_name_another_driver(server: Bench) -> None:
    names = {"postgresql": "postgresql+pg8000", "mysql": "mysql+mysqldb"}
    url = sa.make_url(server.url or "")
    url = url.set(drivername=names[url.get_backend_name()])
    outbox = server.open(outbox_url=url.render_as_string(hide_password=False))
    outbox.put(server.event("1"))
    assert deliver(outbox) == ["1"]
    assert deliver(server.open()) == []


def test_while_it_is_away_reports_are_kept(server: Bench, relay: Relay, outbox: Outbox) -> None:
    server.insert(outbox, "1")
    relay.cut()

    assert [status(outbox, server.event(key)) for key in ("1", "2", "3")] == [
        "duplicate",
        "queued",
        "queued",
    ]
    server.open().put(server.event("2"))
    for work in (
        lambda: outbox.queue.claim(EID),
        outbox.destination(EID).state,
        outbox.queue.waiting,
        outbox.admin.keep_house,
    ):
        with pytest.raises(OutboxFailed, match="unavailable"):
            work()
    relay.restore()
    assert deliver(outbox) == ["1", "2", "3"]
    assert server.counters.get("event_duplicate") == 2


def test_what_a_server_says_that_is_no_known_trouble_is_an_error(server: Bench) -> None:
    """Neither is it away, nor is an order's value at fault."""
    with pytest.raises(OutboxFailed) as caught:
        server.open().database.read(lambda tx: tx.rows("SELECT no_such_column"))
    assert caught.value.reason == "error"


@pytest.mark.parametrize("state", ["never used", "in use"])
@pytest.mark.parametrize("trouble", ["hangs", "is down", "is locked"])
def test_a_server_in_trouble_costs_a_report_nothing(
    server: Bench, relay: Relay, outbox: Outbox, trouble: str, state: str
) -> None:
    server.open().database.create_tables()
    if state == "in use":
        outbox.put(server.event("0"))
        assert outbox.queue.waiting() == 1
    before = relay.accepted, relay.forwarded

    with in_trouble(server, relay, trouble):
        began = time.monotonic()
        put = [status(outbox, server.event(f"{n}")) for n in range(1, 51)]
        took = time.monotonic() - began
        assert (relay.accepted, relay.forwarded) == before, "nothing was opened, nothing sent"

    assert put == ["queued"] * 50
    assert took < 5, "50 appends: a wait of a second for each would be 50"
    outbox.close()
    assert outbox.queue.waiting() == 50 + (state == "in use")


def test_a_command_gives_up_a_server_that_hangs_in_time(
    server: Bench, relay: Relay, outbox: Outbox, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("adroll_flask.outbox.server.CONNECT", 1)
    monkeypatch.setattr("adroll_flask.outbox.server.STATEMENT", 1)
    monkeypatch.setattr("adroll_flask.outbox.server.GONE", 1)
    outbox.put(server.event("1"))
    assert outbox.queue.waiting() == 1
    relay.mute()

    began = time.monotonic()
    with pytest.raises(OutboxFailed) as caught:
        outbox.queue.waiting()
    took = time.monotonic() - began

    assert caught.value.reason == "unavailable"
    assert took < 10


@forks_amid_threads
def test_a_child_leaves_the_parent_s_connections_alone(server: Bench, outbox: Outbox) -> None:
    server.insert(outbox, "parent")
    outbox.wake_up.wait(0.01)

    def works() -> bool:
        outbox.wake_up.wait(0.01)
        outbox.put(server.event("child"))
        return outbox.queue.waiting() == 2

    assert in_a_child(works)

    outbox.put(server.event("parent again"))
    assert deliver(outbox) == ["child", "parent", "parent again"]


def test_leases_follow_the_server_s_clock_and_not_the_host_s(server: Bench) -> None:
    fast, slow = server.open(), server.open()
    fast._clock = lambda: time.time() + 600
    slow._clock = lambda: time.time() - 600
    slow.put(server.event("1"))

    assert fast.queue.claim(EID, lease=60)
    assert not slow.queue.claim(EID)
    fast.put(server.event("2"))
    claim = claimed(slow)
    assert abs(claim.claimed_at - time.time()) < 60


def test_a_claim_reads_no_more_than_it_takes_whatever_the_statistics_say(server: Bench) -> None:
    """An outbox is empty most of the time, and then PostgreSQL counts its rows; amid a backlog a
    claim of a hundred read all that waited, payloads included, and sorted it on the disk."""
    if server.engine != "postgresql":
        pytest.skip("MariaDB plans by a look into the index")
    outbox = server.open()
    outbox.database.create_tables()
    server.report(outbox, *map(str, range(1500)), payload=b'{"x":"%s"}' % (b"x" * 1000))
    assert outbox.queue.waiting() == 1500
    database = outbox.database
    for statement, values in (
        (
            f"SELECT * FROM adroll_event WHERE {queue._DUE}",
            {"now": 1e12, "most": 100, "account": EID},
        ),
        (first_due(*UNSENT), {"account": EID}),
    ):
        plan = "\n".join(
            row[0]
            for row in database.read(
                lambda tx, s=statement, v=values: tx.rows(f"EXPLAIN ANALYZE {s}", **v)  # type: ignore[misc]
            )
        )
        assert "adroll_event_due" in plan
        read = [int(rows) for rows in re.findall(r"actual time=\S+ rows=(\d+)", plan)]
        assert max(read) <= 100, plan


def test_a_schema_that_is_made_later_hides_no_outbox(make_bench: Callable[[str], Bench]) -> None:
    """PostgreSQL looks into "$user" first, and there was a second outbox; nobody saw the first."""
    bench = make_bench("postgresql")
    bench.insert(bench.open(), "1")
    url = sa.make_url(bench.url or "")
    name = str(url.query["application_name"])
    later = url.update_query_dict({"options": f"-csearch_path={name}_later,{name}"})
    bench.execute(f"CREATE SCHEMA {name}_later")
    try:
        assert deliver(bench.open(outbox_url=later.render_as_string(hide_password=False))) == ["1"]
        bench.report(bench.open(), "1")
        assert deliver(bench.open()) == []
    finally:
        bench.execute(f"DROP SCHEMA {name}_later CASCADE")


@pytest.mark.parametrize("charset", ["utf8", "latin1"])
def test_a_url_s_charset_bounds_no_key(make_bench: Callable[[str], Bench], charset: str) -> None:
    bench = make_bench("mariadb")
    outbox = bench.open(outbox_url=f"{bench.url}?charset={charset}")

    outbox.put(bench.event("n\N{DEGREE SIGN} \N{OHM SIGN}\N{WRAPPED PRESENT}"))

    assert deliver(outbox) == ["n\N{DEGREE SIGN} \N{OHM SIGN}\N{WRAPPED PRESENT}"]

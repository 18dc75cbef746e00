"""Holds against a model: two hosts, any order of arrival, kills, restarts, expiry."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from adroll_flask.outbox import NewEvent, Outbox, new_id
from adroll_flask.outbox.model import OrderKey, Verdict
from adroll_flask.settings import Settings
from tests.support.outbox_engines import EID, Clock, amend_wire, settle

ORDERS = st.sampled_from(["1", "2", "3"])
HOSTS = st.integers(0, 1)
LONGEST = 1000


@dataclass
class Order:
    """One order as a person with a pencil follows it."""

    state: str = "none"  # or held, waiting, delivered, over
    verdict: str | None = None
    verdict_at: float = 0.0
    ends: float = 0.0


@dataclass
class Host:
    """A host's journal lies in a folder of its own; what it said and nobody read yet."""

    folder: Path
    outbox: Any
    said: list[tuple[str, str, float]] = field(default_factory=list)


class HoldsModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.hosts: list[Host] = []
        self.orders: dict[str, Order] = {key: Order() for key in ("1", "2", "3")}
        self.sent: list[str] = []

    def open(self, number: int) -> Any:
        folder = Path(self.place.name) / f"host{number}"
        folder.mkdir(exist_ok=True)
        url = f"sqlite:///{self.place.name}/outbox.sqlite"
        config = Settings.from_mapping({"ADROLL_OUTBOX_URL": url, "ADROLL_HOLD_MAX": LONGEST})
        return Outbox(config, folder=folder, clock=self.clock, amend=amend_wire)

    @initialize()
    def begin(self) -> None:
        for number in range(2):
            folder = Path(self.place.name) / f"host{number}"
            self.hosts.append(Host(folder, self.open(number)))
        self.hosts[0].outbox.database.create_tables()

    def teardown(self) -> None:
        if self.hosts:
            self.work(0, True)
            self.work(1, True)
            assert len(set(self.sent)) == len(self.sent)
        for host in self.hosts:
            host.outbox.close()
        self.place.cleanup()

    # -- what shops do ----------------------------------------------------------------------

    def tick(self) -> float:
        self.clock.now += 0.01
        return self.clock.now

    @rule(key=ORDERS, host=HOSTS, seconds=st.sampled_from([50.0, 500.0]))
    def hold(self, key: str, host: int, seconds: float) -> None:
        self.report(key, host, seconds)

    @rule(key=ORDERS, host=HOSTS)
    def report(self, key: str, host: int, seconds: float | None = None) -> None:
        now = self.tick()
        new = NewEvent(new_id(now), "purchase", EID, False, key, b"{}", now, held_for=seconds)
        if self.hosts[host].outbox.put(new) == new.id:
            kind = "report" if seconds is None else "hold"
            self.hosts[host].said.append((kind, key, now + (seconds or 0.0)))

    @rule(key=ORDERS, host=HOSTS, kind=st.sampled_from(["release", "release", "cancel"]))
    def decide(self, key: str, host: int, kind: str) -> None:
        now = self.tick()
        order = OrderKey(EID, False, "purchase", key)
        self.hosts[host].outbox.decide(Verdict(now, kind, order))  # type: ignore[arg-type]
        self.hosts[host].said.append((kind, key, now))

    # -- what happens to hosts --------------------------------------------------------------

    @rule(host=HOSTS)
    def kill(self, host: int) -> None:
        """The process is gone, without a word; another starts in its place."""
        self.hosts[host].outbox.close()
        self.hosts[host].outbox = self.open(host)

    @rule(seconds=st.sampled_from([1.0, 60.0, 600.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    # -- what workers do --------------------------------------------------------------------

    def take_in(self, number: int) -> None:
        """On paper: events first, then verdicts, each as if it came in alone."""
        host = self.hosts[number]
        for kind, key, at in sorted(host.said, key=lambda said: said[2]):
            if kind in ("hold", "report"):
                self.came_in(self.orders[key], kind, at)
        for kind, key, _at in sorted(host.said, key=lambda said: said[2]):
            if kind in ("release", "cancel"):
                self.decided(self.orders[key], kind)
        host.said.clear()

    def came_in(self, order: Order, kind: str, at: float) -> None:
        if order.state == "held" and kind == "report":
            order.state = "waiting"
        elif order.state == "none":
            order.state, order.ends = ("held", at) if kind == "hold" else ("waiting", 0.0)
            if order.verdict is not None:
                verdict, order.verdict = order.verdict, None
                self.decided(order, verdict)

    def decided(self, order: Order, kind: str) -> None:
        if order.state == "none":
            if order.verdict is None:
                order.verdict, order.verdict_at = kind, self.clock.now
            elif kind == "cancel":
                order.verdict = kind
        elif kind == "cancel" and order.state in ("held", "waiting"):
            order.state = "over"
        elif kind == "release" and order.state == "held":
            order.state = "waiting"

    def expire(self) -> None:
        for order in self.orders.values():
            if order.state == "held" and order.ends <= self.clock.now:
                order.state = "over"

    @rule(host=HOSTS)
    def take_in_only(self, host: int) -> None:
        self.hosts[host].outbox.ingest.take_in()
        self.take_in(host)

    @rule(host=HOSTS, is_delivered=st.booleans())
    def work(self, host: int, is_delivered: bool) -> None:
        outbox = self.hosts[host].outbox
        self.take_in(host)
        due = sorted(key for key, order in self.orders.items() if order.state == "waiting")

        claims = []
        while claim := outbox.queue.claim(EID, begin=True):
            claims.append(claim)
        assert not outbox.queue.claim(EID, begin=True)
        keys = [claimed.key or "" for claim in claims for claimed in claim.events]
        for claim in claims:
            kind = "delivered" if is_delivered else "retry"
            settle(outbox, claim, kind)  # type: ignore[arg-type]

        assert sorted(keys) == due
        if is_delivered:
            self.sent += keys
            for key in keys:
                self.orders[key].state = "delivered"
            event(f"delivered {len(keys)}")

    @rule(host=HOSTS)
    def housekeep(self, host: int) -> None:
        for _ in range(40):  # a clock that leapt is followed by an hour a look
            self.hosts[host].outbox.admin.keep_house()
        self.expire()
        for order in self.orders.values():
            if order.verdict is not None and order.verdict_at <= self.clock.now - LONGEST:
                order.verdict = None

    @rule(host=HOSTS)
    def look(self, host: int) -> None:
        counts = self.hosts[host].outbox.lookups.counts()
        self.take_in(host)
        names = {"over": "cancelled", "held": "held", "waiting": "waiting"}
        for state, name in (names | {"delivered": "delivered"}).items():
            expected = sum(order.state == state for order in self.orders.values())
            assert counts[name] == expected, (name, counts)
        unmet = sum(order.verdict is not None for order in self.orders.values())
        assert self.hosts[host].outbox.lookups.counts()["decided"] == unmet


@pytest.mark.parametrize("examples", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_exactly_the_released_ones_arrive_once(examples: int) -> None:
    run_state_machine_as_test(
        HoldsModel,
        settings=settings(
            max_examples=examples,
            phases=(Phase.generate,),
            stateful_step_count=30,
            derandomize=True,
        ),
    )

"""Events and holds against a model of a page: two hosts, in whatever order things happen."""

import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from adroll_flask.outbox import model
from adroll_flask.outbox.model import NewEvent, OutcomeKind, new_id
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.outbox.retention import KEYLESS_KEPT
from adroll_flask.outbox.transitions import TABLE
from adroll_flask.settings import Settings
from tests.support.outbox_engines import EID, Clock, retry, told

KEYS = st.sampled_from(["1", "2"])
HOSTS = st.integers(0, 1)
#: Seconds that go by first: a lease lasts for 60.
AFTER = st.sampled_from([0.0, 0.0, 31.0, 61.0])
KINDS: tuple[OutcomeKind, ...] = ("delivered", "delivered", "retry", "dead", "return", "claimed")
LONGEST = 1000
#: The table of transitions is all that changes a state, or removes a row.
WAYS = [(source, rule.target) for rule in TABLE.values() for source in rule.sources]
WATCH = """
CREATE TABLE ways (source, target);
CREATE TRIGGER changes BEFORE UPDATE OF state ON adroll_event WHEN OLD.state <> NEW.state
  AND NOT EXISTS (SELECT 1 FROM ways WHERE source = OLD.state AND target = NEW.state)
  BEGIN SELECT RAISE(ABORT, 'not in the table'); END;
CREATE TRIGGER goes BEFORE DELETE ON adroll_event
  WHEN NOT EXISTS (SELECT 1 FROM ways WHERE source = OLD.state AND target IS NULL)
  BEGIN SELECT RAISE(ABORT, 'not in the table'); END;
"""


@dataclass
class Modelled:
    """One event as a person with a pencil follows it."""

    key: str | None
    state: str = "waiting"
    due: float = 0.0
    queued: float = 0.0
    token: str | None = None
    unsure: bool = False
    attempts: int = 0
    is_cancelled: bool = False
    reason: str = ""


@dataclass
class Host:
    """A host's journal lies in a folder of its own; what it said and nobody read yet."""

    outbox: Outbox
    events: dict[str, Modelled] = field(default_factory=dict)
    verdicts: list[tuple[str, str]] = field(default_factory=list)


class OutboxModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.hosts: list[Host] = []
        self.events: dict[str, Modelled] = {}
        #: What was decided on orders that have not come in, and when that came in.
        self.verdicts: dict[str, tuple[str, float]] = {}
        self.claims: list[model.Claim] = []
        #: What the history has to say.
        self.told: Counter[str] = Counter()

    def open(self, number: int) -> Outbox:
        url = f"sqlite:///{self.place.name}/outbox.sqlite"
        config = Settings.from_mapping({"ADROLL_OUTBOX_URL": url, "ADROLL_HOLD_MAX": LONGEST})
        folder = Path(self.place.name) / f"host{number}"
        folder.mkdir(exist_ok=True)
        return Outbox(config, folder=folder, clock=self.clock)

    @initialize()
    def begin(self) -> None:
        self.hosts = [Host(self.open(number)) for number in range(2)]
        self.hosts[0].outbox.database.create_tables()
        with closing(sqlite3.connect(f"{self.place.name}/outbox.sqlite")) as watched, watched:
            watched.executescript(WATCH)
            watched.executemany("INSERT INTO ways VALUES (?, ?)", WAYS)

    def teardown(self) -> None:
        for number, host in enumerate(self.hosts):
            self.look(number)
            host.outbox.close()
        self.place.cleanup()

    def tick(self) -> float:
        self.clock.now += 0.01
        return self.clock.now

    # -- what shops do ----------------------------------------------------------------------

    @rule(key=st.none() | KEYS, host=HOSTS)
    def report(self, key: str | None, host: int, held_for: float | None = None) -> None:
        now, one = self.tick(), self.hosts[host]
        new = NewEvent(new_id(now), "purchase", EID, False, key, b"{}", now, held_for=held_for)
        assert one.outbox.put(new) == new.id or key is not None
        one.events[new.id] = Modelled(key, due=now, queued=now)
        if held_for is not None:
            one.events[new.id].state, one.events[new.id].due = "held", now + held_for

    @rule(key=KEYS, host=HOSTS, seconds=st.sampled_from([50.0, 500.0]))
    def hold(self, key: str, host: int, seconds: float) -> None:
        self.report(key, host, seconds)

    @rule(key=KEYS, host=HOSTS, kind=st.sampled_from(["release", "release", "cancel"]))
    def decide(self, key: str, host: int, kind: str) -> None:
        order = model.OrderKey(EID, False, "purchase", key)
        self.hosts[host].outbox.decide(model.Verdict(self.tick(), kind, order))  # type: ignore[arg-type]
        self.hosts[host].verdicts.append((key, kind))

    # -- what happens to hosts --------------------------------------------------------------

    @rule(host=HOSTS)
    def kill(self, host: int) -> None:
        """The process is gone, without a word; another starts in its place."""
        self.hosts[host].outbox.close()
        self.hosts[host].outbox = self.open(host)

    # -- what comes in: events first, then verdicts, each as if it came in alone -------------

    def take_in(self, number: int) -> None:
        host = self.hosts[number]
        for id, event in host.events.items():
            first = next((e for e in self.events.values() if e.key == event.key is not None), None)
            if first is None:
                self.events[id] = event
                if event.key in self.verdicts:
                    self.decided(event.key or "", self.verdicts.pop(event.key or "")[0])
            elif first.state == "held" and event.state == "waiting":
                self.decided(first.key or "", "release")
            else:
                self.told["duplicate"] += 1
        for key, kind in host.verdicts:
            self.decided(key, kind)
        host.events.clear()
        host.verdicts.clear()

    def decided(self, key: str, kind: str) -> None:
        event = next((event for event in self.events.values() if event.key == key), None)
        if event is None:
            known, at = self.verdicts.get(key, (kind, self.clock.now))
            self.verdicts[key] = ("cancel" if kind == "cancel" else known), at
        elif kind == "release":
            if event.state == "held":
                event.state, event.due = "waiting", self.clock.now
            elif event.state == "cancelled":
                self.told["unused"] += 1
        elif event.state == "sending":
            event.is_cancelled = True
        elif event.state == "delivered" and not event.is_cancelled:
            event.is_cancelled = True
            self.told["too_late"] += 1
        elif event.state in ("held", "waiting", "claimed", "dead"):
            self.told["dead"] -= event.state == "dead"
            self.end(event, "cancelled", "cancelled")

    def end(self, event: Modelled, outcome: str, reason: str) -> None:
        event.state, event.token, event.reason = "cancelled", None, reason
        self.told[outcome] += 1

    # -- what workers do --------------------------------------------------------------------

    @rule(host=HOSTS, limit=st.integers(1, 4), begin=st.booleans(), after=AFTER)
    def claim(self, host: int, limit: int, begin: bool, after: float) -> None:
        self.clock.now += after
        outbox, now = self.hosts[host].outbox, self.clock.now
        if len(self.hosts[host].events) + len(self.hosts[host].verdicts) > limit:
            outbox.ingest.take_in()  # a claim takes in as many entries as it may hold events
        self.take_in(host)
        for event in self.events.values():
            if event.state in ("claimed", "sending") and event.due <= now:
                if event.is_cancelled:
                    self.end(event, "cancelled", "cancelled")
                    continue
                if event.state == "sending":
                    event.unsure, event.attempts = True, event.attempts + 1
                event.state, event.token, event.due = "waiting", None, event.queued
        due = {id for id, e in self.events.items() if e.state == "waiting" and e.due <= now}

        claim = outbox.queue.claim(EID, limit, 60.0, begin=begin)

        got = {event.id for event in claim.events}
        assert got <= due
        assert len(got) == min(limit, len(due))
        for row in claim.events:
            event = self.events[row.id]
            assert (row.unsure, row.attempts, row.key) == (event.unsure, event.attempts, event.key)
            event.state, event.due = "sending" if begin else "claimed", now + 60
            event.token = claim.token
        if claim:
            self.claims.append(claim)

    def mine(self, claim: model.Claim) -> list[str]:
        known = [event.id for event in claim.events if event.id in self.events]
        return [id for id in known if self.events[id].token == claim.token]

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), host=HOSTS, after=AFTER)
    def begin_sending(self, data: st.DataObject, host: int, after: float) -> None:
        self.clock.now += after
        claim = data.draw(st.sampled_from(self.claims[-2:]))
        some = [event.id for event in claim.events if data.draw(st.booleans())]

        ours = self.hosts[host].outbox.queue.begin_sending(claim, some or None)

        # Another worker may have what is under a lease that has ended.
        mine = [id for id in self.mine(claim) if self.events[id].due > self.clock.now]
        mine = [id for id in mine if not self.events[id].is_cancelled]
        assert list(ours) == [id for id in mine if id in some or not some]
        for id in ours:
            self.events[id].state = "sending"

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), host=HOSTS, unsure=st.booleans(), delay=st.sampled_from([0.0, 30.0]))
    def settle(self, data: st.DataObject, host: int, unsure: bool, delay: float) -> None:
        claim = data.draw(st.sampled_from(self.claims[-2:]))
        kinds = [data.draw(st.sampled_from(KINDS)) for _ in claim.events]
        outcomes = [
            model.Outcome(ids=[event.id], kind=kind, unsure=unsure, delay=delay)
            for event, kind in zip(claim.events, kinds, strict=True)
        ]
        self.tick()  # what was settled is known by its moment
        mine = self.mine(claim)

        assert self.hosts[host].outbox.queue.settle(claim, outcomes) == len(mine)

        for event, outcome in zip(claim.events, outcomes, strict=True):
            if event.id in mine:
                self.take(self.events[event.id], outcome)

    def take(self, event: Modelled, outcome: model.Outcome) -> None:
        event.unsure = event.unsure or outcome.unsure
        event.attempts += outcome.unsure or outcome.kind == "delivered"
        if outcome.kind == "claimed":
            event.state = "claimed"
            return
        event.token = None
        if event.is_cancelled and outcome.kind != "delivered":
            self.end(event, "cancelled", "cancelled")
            return
        event.state = outcome.kind if outcome.kind in ("delivered", "dead") else "waiting"
        self.told[event.state] += event.state != "waiting"
        self.told["too_late"] += event.is_cancelled
        event.due = event.queued
        if event.state == "delivered" or (outcome.kind == "retry" and outcome.delay):
            event.due = self.clock.now + (outcome.delay if event.state == "waiting" else 0.0)

    # -- what people and time do ------------------------------------------------------------

    @rule(host=HOSTS)
    def retry_all(self, host: int) -> None:
        self.look(host)
        dead = [event for event in self.events.values() if event.state == "dead"]
        now = self.tick()

        assert retry(self.hosts[host].outbox) == len(dead)

        for event in dead:
            event.state, event.attempts, event.due, event.queued = "waiting", 0, now, now
            self.told["dead"] -= 1

    @precondition(lambda self: self.events)
    @rule(data=st.data(), host=HOSTS)
    def drop(self, data: st.DataObject, host: int) -> None:
        self.take_in(host)
        id = data.draw(st.sampled_from(sorted(self.events)))
        state = self.events[id].state
        may = state not in ("claimed", "sending", "delivered")

        assert self.hosts[host].outbox.admin.drop([id]) == (may, state == "delivered")
        if may:
            self.told["cancelled"] += self.events.pop(id).state in ("waiting", "held")

    @rule(host=HOSTS, after=st.sampled_from([0.0, 60.0, 600.0]))
    def housekeep(self, host: int, after: float) -> None:
        self.clock.now += after
        for _ in range(40):  # a clock that leapt is followed by an hour a minute
            self.clock.now += 60.0
            self.hosts[host].outbox.admin.keep_house()
        now = self.clock.now
        for id, event in [*self.events.items()]:
            if event.state == "held" and event.due <= now:
                self.end(event, "expired", "hold_expired")
            if event.state == "delivered" and event.key is None and event.due <= now - KEYLESS_KEPT:
                del self.events[id]
        for key, (_, at) in [*self.verdicts.items()]:
            if at <= now - LONGEST:
                del self.verdicts[key]
                self.told["unused"] += 1

    @rule(host=HOSTS)
    def look(self, host: int) -> None:
        outbox = self.hosts[host].outbox
        counts = outbox.lookups.counts()
        self.take_in(host)
        assert counts.pop("decided") == len(self.verdicts)
        for state, count in counts.items():
            assert count == sum(event.state == state for event in self.events.values()), state
        assert outbox.queue.waiting() == sum(
            counts[state] for state in ("waiting", "claimed", "sending")
        )
        assert told(outbox, "outcome") == self.told


@pytest.mark.parametrize(
    "examples",
    [
        40,
        pytest.param(150, marks=pytest.mark.patient),
        pytest.param(1000, marks=pytest.mark.slow),
    ],
)
def test_exactly_the_released_ones_arrive_once(examples: int) -> None:
    run_state_machine_as_test(
        OutboxModel,
        settings=settings(
            max_examples=examples,
            phases=(Phase.generate,),
            stateful_step_count=40,
            derandomize=True,
        ),
    )

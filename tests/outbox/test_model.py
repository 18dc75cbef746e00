"""The states of events against a model of a page: whatever happens in whatever order."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from adroll_flask.outbox import Claim, NewEvent, Outbox, Outcome, new_id
from adroll_flask.outbox.model import OutcomeKind
from adroll_flask.settings import Settings
from tests.support.outbox_engines import EID, Clock, retry, told

KEYS = st.none() | st.sampled_from(["1", "2", "3", "4"])
KINDS: tuple[OutcomeKind, ...] = ("delivered", "retry", "dead", "return", "claimed")


@dataclass
class Modelled:
    key: str | None
    state: str = "waiting"
    due: float = 0.0
    queued: float = 0.0
    token: str | None = None
    unsure: bool = False
    attempts: int = 0


class OutboxModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        # Two outboxes on one folder: two processes, as far as journal and file can tell.
        self.outboxes = [
            Outbox(Settings(), folder=Path(self.folder.name), clock=self.clock) for _ in range(2)
        ]
        self.events: dict[str, Modelled] = {}
        #: Each outbox's reports that were not taken in yet, by id, and the keys that it has seen.
        self.reported: dict[str, Modelled] = {}
        self.seen: list[dict[str, str]] = [{}, {}]
        self.claims: list[Claim] = []
        #: What the history has to say.
        self.told: Counter[str] = Counter()

    @initialize()
    def begin(self) -> None:
        self.outboxes[0].database.create_tables()

    def teardown(self) -> None:
        self.look(0)
        for outbox in self.outboxes:
            outbox.close()
        self.folder.cleanup()

    def holder(self, key: str | None) -> str | None:
        return next((i for i, e in self.events.items() if key is not None and e.key == key), None)

    @rule(key=KEYS, which=st.integers(0, 1))
    def report(self, key: str | None, which: int) -> None:
        self.clock.now += 0.001
        now = self.clock.now
        event = NewEvent(new_id(now), "purchase", EID, False, key, b"{}", now)
        known = self.seen[which].get(key) if key is not None else None

        kept = self.outboxes[which].put(event)

        # A key that it has seen may be free again, which a receipt does not say.
        is_new = known is None
        assert kept == (event.id if is_new else known)
        self.reported[event.id] = Modelled(key, due=now, queued=now)
        if key is not None and is_new:
            self.seen[which][key] = event.id

    def take_in(self) -> None:
        """What whoever looks first does with all that was reported, in the order of its times."""
        for id, event in self.reported.items():
            if self.holder(event.key) is None:
                self.events[id] = event
            else:
                self.told["duplicate"] += 1
        self.reported.clear()

    @rule(which=st.integers(0, 1), limit=st.integers(1, 4))
    def claim(self, which: int, limit: int) -> None:
        now = self.clock.now
        if len(self.reported) > limit:
            # A claim takes in as many records as it may hold events, file by file.
            self.look(which)
        for event in self.events.values():
            if event.state in ("claimed", "sending") and event.due <= now:
                if event.state == "sending":
                    event.unsure, event.attempts = True, event.attempts + 1
                event.state, event.token, event.due = "waiting", None, event.queued
        due = sorted(
            (e.due, i) for i, e in self.events.items() if e.state == "waiting" and e.due <= now
        )[:limit]
        # What is taken in by the claim itself stands behind what waits already.
        before = set(self.events)
        self.take_in()
        new = [(event.due, id) for id, event in self.events.items() if id not in before]
        due += new[: limit - len(due)]

        claim = self.outboxes[which].queue.claim(EID, limit=limit, lease=60)

        if not due:
            assert not claim
            return
        assert claim
        assert {event.id for event in claim.events} == {id for _, id in due}
        for got in claim.events:
            event = self.events[got.id]
            assert (got.unsure, got.attempts, got.key) == (event.unsure, event.attempts, event.key)
            event.state, event.token, event.due = "claimed", claim.token, now + 60
        self.claims.append(claim)

    def mine(self, claim: Claim) -> list[str]:
        return [e.id for e in claim.events if self.holds(claim, e.id)]

    def holds(self, claim: Claim, id: str) -> bool:
        return id in self.events and self.events[id].token == claim.token

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), which=st.integers(0, 1))
    def begin_sending(self, data: st.DataObject, which: int) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        some = [event.id for event in claim.events if data.draw(st.booleans())]

        ours = self.outboxes[which].queue.begin_sending(claim, some or None)

        # Another worker may have what is under a lease that has ended.
        mine = [id for id in self.mine(claim) if self.events[id].due > self.clock.now]
        assert list(ours) == [id for id in mine if id in some or not some]
        for id in ours:
            self.events[id].state = "sending"

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), which=st.integers(0, 1))
    def settle(self, data: st.DataObject, which: int) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        outcomes = [
            Outcome(
                ids=[event.id],
                kind=data.draw(st.sampled_from(KINDS)),
                unsure=data.draw(st.booleans()),
                delay=data.draw(st.sampled_from([0.0, 30.0])),
            )
            for event in claim.events
        ]
        self.clock.now += 0.001  # what was settled is known by its moment

        settled = self.outboxes[which].queue.settle(claim, outcomes)

        assert settled == len(self.mine(claim))
        for outcome in outcomes:
            (id,) = outcome.ids
            if self.holds(claim, id):
                self.take(self.events[id], outcome)

    def take(self, event: Modelled, outcome: Outcome) -> None:
        event.unsure = event.unsure or outcome.unsure
        if outcome.kind == "claimed":
            event.state = "claimed"
            return
        event.token = None
        event.attempts += outcome.kind != "return"
        event.state = outcome.kind if outcome.kind in ("delivered", "dead") else "waiting"
        self.told[event.state] += event.state != "waiting"
        event.due = event.queued
        if outcome.kind == "retry" and outcome.delay:
            event.due = self.clock.now + outcome.delay

    @rule(seconds=st.sampled_from([1.0, 31.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: any(e.state == "dead" for e in self.events.values()))
    @rule(which=st.integers(0, 1))
    def retry_all(self, which: int) -> None:
        self.take_in()
        dead = [event for event in self.events.values() if event.state == "dead"]
        self.clock.now += 0.001

        assert retry(self.outboxes[which]) == len(dead)

        for event in dead:
            event.state, event.attempts = "waiting", 0
            self.told["dead"] -= 1
            event.due = event.queued = self.clock.now

    @precondition(lambda self: self.events)
    @rule(data=st.data(), which=st.integers(0, 1))
    def drop(self, data: st.DataObject, which: int) -> None:
        self.take_in()
        id = data.draw(st.sampled_from(sorted(self.events)))
        may = self.events[id].state in ("waiting", "delivered", "dead")

        assert self.outboxes[which].admin.drop([id]) == may
        if may:
            self.told["cancelled"] += self.events.pop(id).state == "waiting"

    @rule(which=st.integers(0, 1))
    def open_again(self, which: int) -> None:
        self.outboxes[which].close()

    @rule(which=st.integers(0, 1))
    def look(self, which: int) -> None:
        self.take_in()
        counts = self.outboxes[which].lookups.counts()
        for state, count in counts.items():
            assert count == sum(event.state == state for event in self.events.values()), state
        waiting = sum(counts[state] for state in ("waiting", "claimed", "sending"))
        assert self.outboxes[which].queue.waiting() == waiting
        assert told(self.outboxes[which], "outcome") == self.told


TestOutboxModel = OutboxModel.TestCase
TestOutboxModel.settings = settings(max_examples=40, stateful_step_count=30, derandomize=True)

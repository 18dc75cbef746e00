"""Claim, send, settle: how the events of an account leave the outbox."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from operator import attrgetter
from typing import Final

from . import destination, history, lookups, model, schema, transitions
from .holds import take_verdict
from .ingest import Ingest, Intake, has_inbox_entries
from .journal import waiting_bytes
from .model import Claim, OutboxFailed, Outcome, State
from .retention import KEYLESS_KEPT
from .schema import STEP, Tx, of_account

#: Seconds that a retry may be put off. A longer pause, or a longer lease, comes from a clock that
#: was wrong.
LONGEST_DELAY: Final = 900.0
#: Seconds after which an event is due that a wrong clock has put off for longer. Not at once: a
#: worker may have it just now.
_NEAR: Final = 120.0
#: Seconds that a claim waits for another process that takes in just now. Without the wait it would
#: find nothing, and its worker would rest.
_TURN: Final = 0.1
#: Entries that a claim takes in with one transaction.
_AT_ONCE: Final = 100
#: Attempts that are kept with an event, the last ones, and characters of AdRoll's words with each.
_ATTEMPTS: Final = 20
_WORDS: Final = 200

_DUE: Final = (
    f"{of_account(State.waiting)} AND due_at <= :now ORDER BY due_at LIMIT :most {{skip_locked}}"
)
#: The rows of a claim that are still leased, by their places.
_MINE: Final = f"{{place}} {{in_ids}} AND claim = :claim AND +{schema.in_states(*model.LEASED)}"


@dataclass(slots=True)
class Queue:
    """The way of events through claims.

    Its methods raise :class:`.model.OutboxFailed` where the database cannot be worked with.

    :param on_unsure: ``"retry"`` or ``"drop"``: what happens to an event whose lease lapsed while
        a request with it was under way.
    """

    database: schema.Database
    ingest: Ingest
    on_unsure: str

    # -- claiming ---------------------------------------------------------------------------

    def claim(
        self, account: str, limit: int = 100, lease: float = 60.0, *, begin: bool = False
    ) -> Claim:
        """Take the oldest due events of *account* for *lease* seconds; there may be none.

        Also takes in what this host's journal and the inbox hold, and takes back what lapsed.

        :param begin: the events are ``sending`` with this very commit, as :meth:`begin_sending`
            would make them: for a request that leaves at once.
        """
        take_due = partial(self._take_due, account=account, limit=limit, lease=lease, begin=begin)
        with self.ingest.reading(_TURN) as files:
            # Asking takes no lock; most of the time there is nothing.
            is_work = self.ingest.has_news(files)
            if not is_work and not self.database.read(partial(_may_take, [account])):
                return Claim("")

            def take(tx: Tx, intake: Intake) -> Claim:
                is_more = self._take_in_for(tx, intake, account, limit)
                if len(intake.inbox) >= model.BATCH:
                    # What stops an event may be behind this part of the inbox. All of that comes in
                    # before anything leaves.
                    return Claim("", more=True)
                if is_more:
                    self.ingest.write_stops(tx, intake)
                return take_due(tx, is_more=is_more)

            try:
                return self.ingest.run(files, take)
            except OutboxFailed as failure:
                if failure.reason != "locked":
                    raise

        def take_what_is_in(tx: Tx) -> Claim:
            self.ingest.older_copy.look(tx)
            return take_due(tx, is_more=True)

        # Somebody else's lock; what is due need not wait for that.
        return self.database.write(take_what_is_in)

    def _take_due(
        self, tx: Tx, *, account: str, limit: int, lease: float, begin: bool, is_more: bool
    ) -> Claim:
        """Claim what is due.

        :param is_more: the journal may hold more.
        """
        self._take_back(tx, account)
        events = schema.brief_rows(tx, _DUE, account=account, most=limit)
        token = secrets.token_hex(16)
        name = "claim_begun" if begin else "claim"
        places = [event.place for event in events]
        transitions.move(tx, name, places, by="{place}", claim=token, until=tx.now + lease)
        events.sort(key=attrgetter("queued_at", "id"))
        return Claim(token, tuple(events), begin, tx.now, is_more or len(events) >= limit)

    def _take_in_for(self, tx: Tx, intake: Intake, account: str, limit: int) -> bool:
        """Take in what was reported, in small steps, until *limit* events are due.

        No more than that: what stays in the journal is on the disk once, and a small disk has no
        room for it twice. Entries that are not to be sent for *account* (suppressed, held, another
        account's) do not count.

        :returns: whether there may be more.
        """
        taken = 0
        while number := self.ingest.write(tx, intake, _AT_ONCE):
            taken += number
            if (
                intake.room <= 0
                or taken >= model.BATCH
                or (taken >= limit and lookups.count_due(tx, [account], limit) >= limit)
            ):
                return True
        return False

    # -- looking ----------------------------------------------------------------------------

    def is_due(self, accounts: Sequence[str]) -> bool:
        """Whether a claim could take an event of *accounts* now, or what a dead worker had.

        What lies in the journal or the inbox counts, whosever it is.
        """
        has_entries = waiting_bytes(self.ingest.folder) > 0
        return has_entries or self.database.read(partial(_may_take, accounts))

    def is_leased(self, account: str) -> bool:
        """Whether a worker has events of *account* at the moment."""
        where = (
            f"{schema.in_states(*model.LEASED)} AND advertisable_eid = :account"
            " AND due_at > :now LIMIT 1"
        )
        return bool(self.database.read(lambda tx: schema.ids_of(tx, where, account=account)))

    def waiting_by_account(self, until: float = float("inf")) -> dict[str, int]:
        """How many events of each account are waiting, claimed or sending.

        :param until: as of :meth:`.Ingest.take_in_all`: what is not taken in is not counted.
        """
        self.ingest.take_in_all(until)
        where = f"{schema.in_states(*model.UNSENT)} GROUP BY advertisable_eid ORDER BY 1"
        columns = "advertisable_eid, count(*)"
        rows = self.database.read(lambda tx: schema.events(tx, columns, where))
        return {eid: int(count) for eid, count in rows}

    def waiting(self, accounts: Sequence[str] | None = None, until: float = float("inf")) -> int:
        """The same of all *accounts* together (``None``: of all that there are)."""
        numbers = self.waiting_by_account(until).items()
        return sum(count for eid, count in numbers if accounts is None or eid in accounts)

    def oldest_due(self, accounts: Sequence[str] | None = None) -> float | None:
        """Seconds since the oldest event of *accounts* (``None``: of all) became due.

        What a dead worker had is due from the end of its lease. ``None`` where none is due.
        """
        self.ingest.take_in()
        return self.database.read(lambda tx: lookups.oldest_due(tx, accounts))

    # -- sending ----------------------------------------------------------------------------

    def begin_sending(self, claim: Claim, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """Commit that a request with these events may leave now; returns the ids still ours.

        An event whose lease is over is not, even where nobody else has claimed it yet: it would be
        taken back and sent by another worker while our request is under way.

        :param ids: a part of the claim; default: all of it.
        """
        wanted = [event.id for event in claim.events] if ids is None else list(ids)
        places = _places_of(claim, wanted)

        def begin(tx: Tx) -> tuple[str, ...]:
            # Only under a lease that still runs: else another worker may have the event.
            runs = "due_at > :now AND payload IS NOT NULL"
            moved = transitions.move(
                tx, "begin", places, by="{place}", also=runs, claim=claim.token
            )
            if moved == len(wanted):
                return tuple(wanted)
            ours = schema.ids_of(tx, f"{_MINE} AND {runs}", ids=places, claim=claim.token)
            return tuple(id for id in wanted if id in ours)

        return self.database.write(begin) if wanted else ()

    def extend(self, claim: Claim, lease: float = 60.0) -> int:
        """Let the lease end *lease* seconds from now; returns how many events are still ours.

        None where it has ended.
        """
        extend = f"UPDATE adroll_event SET due_at = :until WHERE {_MINE} AND due_at > :now"
        places = [event.place for event in claim.events]
        return self.database.write(
            lambda tx: tx.execute(extend, until=tx.now + lease, ids=places, claim=claim.token)
        )

    # -- settling ---------------------------------------------------------------------------

    def settle(self, claim: Claim, outcomes: Sequence[Outcome]) -> int:
        """Record outcomes in one transaction; only events still of this claim. Returns how many."""

        def settle(tx: Tx, *, looks: bool) -> int:
            return sum(self._settle(tx, claim, outcome, looks=looks) for outcome in outcomes)

        try:
            return self.database.write(partial(settle, looks=False))
        except schema.TakenBack:
            return self.database.write(partial(settle, looks=True))

    def _settle(self, tx: Tx, claim: Claim, outcome: Outcome, *, looks: bool) -> int:
        """Record one outcome.

        :param looks: read and lock delivered events first, to find those that were cancelled or are
            no longer ours. It costs a tenth of a delivery, so it is done only where it is needed.
        :raises schema.TakenBack: it is needed, and *looks* is false.
        """
        if outcome.kind == "delivered":
            return self._settle_delivered(tx, claim, outcome, looks=looks)
        # All are locked: another process may be about to cancel or erase one.
        places = _places_of(claim, outcome.ids)
        rows = schema.rows(tx, f"{_MINE} {{lock}}", ids=places, claim=claim.token)
        if outcome.asked is not None:
            _note_attempt(tx, rows, outcome.asked)
        whole = rows
        if outcome.kind != "claimed":
            whole = self._end_emptied(tx, rows, unsure=outcome.unsure)
        is_at_once = outcome.kind == "retry" and outcome.delay <= 0
        counts_attempt = outcome.unsure or (outcome.kind == "dead" and outcome.asked is not None)
        sets = {
            "error = :error": bool(outcome.error),
            "unsure = unsure + 1": outcome.unsure,
            "refused_at = coalesce(refused_at, :now)": outcome.refused,
            "attempts = attempts + 1": counts_attempt,
        }
        moved = transitions.move(
            tx,
            "return" if is_at_once else outcome.kind,
            [row.id for row in whole],
            rows=whole,
            also_sets=", ".join(text for text, is_set in sets.items() if is_set),
            claim=claim.token,
            reason=outcome.reason[:40] or None,
            error=outcome.error[: model.ERROR_LENGTH],
            due=tx.now + min(outcome.delay, LONGEST_DELAY),
        )
        return moved + len(rows) - len(whole)

    def _settle_delivered(self, tx: Tx, claim: Claim, outcome: Outcome, *, looks: bool) -> int:
        ids = set(outcome.ids)
        also = "coalesce(reason, '') <> 'cancelled'"
        if looks:
            # Some were cancelled while they were sent, or a lease has ended.
            also = ""
            places = _places_of(claim, ids)
            rows = schema.rows(tx, f"{_MINE} {{lock}}", ids=places, claim=claim.token)
            cancelled = [row for row in rows if row.reason == "cancelled"]
            self.ingest.rows.holds.count_too_late(tx, cancelled)
            ids = {row.id for row in rows}
        # The claim has what the history counts of them.
        events = [event for event in claim.events if event.id in ids]
        moved = transitions.move(
            tx,
            "delivered",
            [event.place for event in events],
            by="{place}",
            rows=events,
            also=also,
            also_sets="attempts = attempts + 1",
            claim=claim.token,
            reason=outcome.reason or None,
            keyless=tx.now + KEYLESS_KEPT,
        )
        if moved < len(events) and not looks:
            raise schema.TakenBack
        return moved

    def _end_emptied(self, tx: Tx, rows: Sequence[model.Row], *, unsure: bool) -> list[model.Row]:
        """End what was cancelled or erased while it was being sent, and was not taken; the rest."""
        for row in rows:
            if not row.whole:
                name = "end_cancelled" if row.reason == "cancelled" else "end_erased"
                doubt = "unsure = unsure + 1" if unsure else ""
                transitions.move(tx, name, [row.id], also_sets=doubt, reason=row.reason)
        return [row for row in rows if row.whole]

    # -- leases that ran out ----------------------------------------------------------------

    def _take_back(self, tx: Tx, account: str) -> None:
        """Return events of *account* whose lease has ended: their worker is dead, or too slow."""
        if lookups.oldest_due(tx, [account], model.LEASED) is None:
            return
        for state in model.LEASED:
            lapsed = f"{of_account(state)} AND due_at <= :now LIMIT {STEP} {{skip_locked}}"
            is_sure = state == State.claimed
            rows = schema.rows(tx, lapsed, account=account)
            rows = self._end_emptied(tx, rows, unsure=not is_sure)
            if is_sure:
                transitions.move(tx, "lapse", [row.id for row in rows])
            else:
                self._lapse_unsure(tx, rows)

    def _lapse_unsure(self, tx: Tx, rows: Sequence[model.Row]) -> None:
        _note_attempt(tx, rows, model.Attempt(tx.now, "lapsed", None, "", unsure=True))
        ids = [row.id for row in rows]
        if self.on_unsure == "drop":
            if dropped := transitions.move(tx, "drop_unsure", ids, reason="unsure"):
                self.ingest.counters.add("event_dead", "unsure", dropped)
        elif lapsed := transitions.move(tx, "lapse_unsure", ids):
            self.ingest.counters.add("event_unsure", "lapsed", lapsed)

    # -- events without an account ----------------------------------------------------------

    def adopt(self, account: str) -> int:
        """Give what was reported without an advertisable EID to *account*; how many rows."""
        return self.database.repeat(lambda tx: self._adopt(tx, account))

    def _adopt(self, tx: Tx, account: str) -> int:
        """Give some of the rows without an account to *account*; how many there were."""
        rows: list[model.Row] = []
        for state in State:
            where = f"{of_account(state)} LIMIT {STEP - len(rows)} {{skip_locked}}"
            rows += schema.rows(tx, where, account="")
        destination.know(tx, [account])
        history.adopt(tx, account)
        holds = self.ingest.rows.holds
        for row in rows:
            order = model.OrderKey(account, row.dry_run, row.name, row.key or "")
            other = schema.of_orders(tx, [order]).get(order) if row.key else None
            verdict = None
            if other is not None and "decided" in (row.state, other.state):
                # One of the two rows is the verdict on the other: the EID was set between the
                # report and the decision.
                verdict = take_verdict(tx, row.id if row.state == "decided" else other.id)
            elif other is not None:
                # The order was reported again under the EID: one of the two events is enough. A
                # second report without a hold says that the held event is to be sent.
                if (row.state, other.state) == ("waiting", "held"):
                    holds.decide(tx, [model.Verdict(tx.now, "release", order)])
                transitions.move(tx, "drop", [row.id], outcome="duplicate", why="adopted")
                self.ingest.counters.add("event_duplicate", "adopted")
            adopt = "UPDATE adroll_event SET advertisable_eid = :account WHERE id = :id"
            tx.execute(adopt, account=account, id=row.id)
            if verdict is not None:
                holds.decide(tx, [replace(verdict, order=order)])
        return len(rows)


def _places_of(claim: Claim, ids: Collection[str]) -> list[int | str]:
    """The places (:class:`.model.BriefRow`) of those events of *claim* that *ids* name."""
    wanted = set(ids)
    return [event.place for event in claim.events if event.id in wanted]


def bring_near(tx: Tx) -> None:
    """Let nothing wait for hours after a clock that was ahead went back.

    An event that is due later than after the longest pause or lease becomes due soon.
    """
    far = tx.now + LONGEST_DELAY + model.SKEW
    for account, state in product(destination.accounts_of(tx), model.UNSENT):
        where = of_account(state)
        # The furthest of all first: a planner that takes state and time for independent would read
        # the whole table for an UPDATE that finds nothing.
        furthest = f"{where} ORDER BY due_at DESC LIMIT 1"
        times = schema.events(tx, "due_at", furthest, account=account)
        if (schema.first_value(times) or 0.0) > far:
            nearer = f"UPDATE adroll_event SET due_at = :near WHERE {where} AND due_at > :far"
            tx.execute(nearer, near=tx.now + _NEAR, far=far, account=account)


def _may_take(accounts: Sequence[str], tx: Tx) -> bool:
    """Whether an event of *accounts* is due, or the inbox has entries of any account."""
    return lookups.oldest_due(tx, accounts) is not None or has_inbox_entries(tx)


# -- attempts --------------------------------------------------------------------------------------
#
# What AdRoll said to the requests that an event was answered for: JSON, kept with the event until
# it is delivered, and with a dead letter. What is delivered at once has none. A batch that is
# refused and halved is no attempt of those that are not at fault.


def _note_attempt(tx: Tx, rows: Sequence[model.Row], asked: model.Attempt) -> None:
    """Keep one more attempt with those of *rows* that have their content."""
    attempt = asked._replace(at=round(tx.now, 3), words=asked.words[:_WORDS])
    whole = [row for row in rows if row.whole]
    note = "UPDATE adroll_event SET attempt_log = :log WHERE id {in_ids}"
    for log in {row.attempt_log for row in whole}:  # mostly one: a batch fails together
        ids = [row.id for row in whole if row.attempt_log == log]
        tx.execute(note, log=json.dumps([*log[1 - _ATTEMPTS :], attempt]), ids=ids)

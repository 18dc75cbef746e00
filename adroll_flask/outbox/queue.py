"""Claim, send, settle: how the events of an account leave the outbox."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any, Final

from . import destination, lookups, model, schema, transitions
from .ingest import Batch, Ingest, is_inbox_full
from .journal import waiting_bytes
from .model import Claim, OutboxFailed, Outcome, State
from .schema import STEP, Tx, of_account

#: Seconds that a retry may be put off; more comes from a clock that was wrong.
LONGEST_DELAY: Final = 900.0
#: Seconds that a lease may last; more comes from a clock that was wrong.
LONGEST_LEASE: Final = 120.0
#: Seconds that a delivered event without a key is kept, for those who look at what was sent.
KEYLESS_KEPT: Final = 600.0
#: Seconds between two looks for times that a wrong clock left.
_FAR_EVERY: Final = 10.0
#: Seconds that a claim waits for who takes in at the moment: else it would find nothing, and rest.
_TURN: Final = 0.1
#: Entries that a claim takes in with one transaction.
_AT_ONCE: Final = 100
#: Attempts that are kept with an event, the last ones, and characters of AdRoll's words with each.
_ATTEMPTS: Final = 20
_WORDS: Final = 200

_DUE: Final = (
    f"{of_account(State.waiting)} AND due_at <= :now ORDER BY due_at LIMIT :most {{skip_locked}}"
)
_MINE: Final = f"id {{in_ids}} AND claim = :claim AND +{schema.in_states(*model.LEASED)}"


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
    #: When times that a wrong clock left were looked for, by account and the outbox's own clock,
    #: which may go back.
    _looked_at: dict[str, float] = field(default_factory=dict)
    #: Whether the last claim of an account left something.
    _more: dict[str, bool] = field(default_factory=dict)

    # -- claiming ---------------------------------------------------------------------------

    def claim(
        self, account: str, limit: int = 100, lease: float = 60.0, *, begin: bool = False
    ) -> Claim:
        """Take the oldest due events of *account* for *lease* seconds; there may be none.

        Also takes in what this host's journal and the inbox hold, and takes back what lapsed.

        :param begin: the events are ``sending`` with this very commit, as :meth:`begin_sending`
            would make them: for a request that leaves at once.
        """
        token, state = secrets.token_hex(16), State.sending if begin else State.claimed
        is_again = False

        def take(tx: Tx, batch: Batch | None) -> Claim:
            nonlocal is_again
            # A commit whose answer was lost took effect: what it claimed is this claim.
            ours = f"state = {state} AND claim = :claim"
            rows = schema.rows(tx, ours, full=True, claim=token) if is_again else []
            is_again, left = True, batch is None
            if not rows:
                left = batch is None or self._take_in_for(tx, batch, account, limit)
                self._take_back(tx, account)
                rows = schema.rows(tx, _DUE, full=True, account=account, most=limit)
                until = tx.now + lease
                name = "claim_begun" if begin else "claim"
                transitions.move(tx, name, [row.id for row in rows], claim=token, until=until)
            for row in rows:
                row.state = state.name
            rows.sort(key=attrgetter("queued_at", "id"))
            more = self._more[account] = left or len(rows) >= limit
            return Claim(token, tuple(rows), tx.now, more)

        with self.ingest.reading(_TURN) as found:
            # Asking takes no lock; most of the time there is nothing.
            is_work = self.ingest.has_news(found) or self._more.get(account)
            if not is_work and not self.database.read(partial(self._is_work, account)):
                return Claim(token)
            try:
                return self.ingest.run(found, take)
            except OutboxFailed as failure:
                if failure.reason != "locked":
                    raise
        # Somebody else's lock; what is due need not wait for that.
        return self.database.write(lambda tx: take(tx, None))

    def _take_in_for(self, tx: Tx, batch: Batch, account: str, limit: int) -> bool:
        """Take in until *limit* events are due, in small steps; whether there may be more.

        What is suppressed, held or another account's keeps nobody waiting, and what is not due yet
        stays in the journal: on a small disk there is no room for it twice.
        """
        taken = 0
        while found := self.ingest.write(tx, batch, _AT_ONCE):
            taken += found
            if (
                batch.room <= 0
                or taken >= model.BATCH
                or (taken >= limit and lookups.count_due(tx, [account], limit) >= limit)
            ):
                return True
        return False

    def _is_work(self, account: str, tx: Tx) -> bool:
        return _may_take([account], tx) or self._may_be_far(tx, account)

    # -- looking ----------------------------------------------------------------------------

    def is_due(self, accounts: Sequence[str]) -> bool:
        """Whether a claim could take an event of *accounts* now, or what a dead worker had.

        What lies in the journal or the inbox counts, whosever it is.
        """
        has_entries = waiting_bytes(self.ingest.folder) > 0
        return has_entries or self.database.read(partial(_may_take, accounts))

    def is_leased(self) -> bool:
        """Whether a worker has events at the moment."""
        theirs = f"{schema.in_states(*model.LEASED)} AND due_at > :now LIMIT 1"
        return bool(self.database.read(lambda tx: schema.ids_of(tx, theirs)))

    def waiting_by_account(self, until: float = float("inf")) -> dict[str, int]:
        """How many events of each account are waiting, claimed or sending.

        :param until: as of :meth:`.Ingest.take_in_all`: what is not taken in is not counted.
        """
        self.ingest.take_in_all(until)
        those = f"{schema.in_states(*model.UNSENT)} GROUP BY advertisable_eid ORDER BY 1"
        by = "advertisable_eid, count(*)"
        found = self.database.read(lambda tx: schema.events(tx, by, those))
        return {eid: int(count) for eid, count in found}

    def waiting(self, accounts: Sequence[str] | None = None, until: float = float("inf")) -> int:
        """The same of all *accounts* together (``None``: of all that there are)."""
        found = self.waiting_by_account(until).items()
        return sum(count for eid, count in found if accounts is None or eid in accounts)

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

        def begin(tx: Tx) -> tuple[str, ...]:
            # Only under a lease that still runs: else another worker may have the event.
            runs = "due_at > :now AND payload IS NOT NULL"
            transitions.move(tx, "begin", wanted, also=runs, claim=claim.token)
            ours = schema.ids_of(tx, f"{_MINE} AND {runs}", ids=wanted, claim=claim.token)
            return tuple(id for id in wanted if id in ours)

        return self.database.write(begin) if wanted else ()

    def extend(self, claim: Claim, lease: float = 60.0) -> int:
        """Let the lease end *lease* seconds from now; returns how many events are still ours.

        None where it has ended.
        """
        ours = f"UPDATE adroll_event SET due_at = :until WHERE {_MINE} AND due_at > :now"
        values = {"ids": [event.id for event in claim.events], "claim": claim.token}
        return self.database.write(lambda tx: tx.execute(ours, until=tx.now + lease, **values))

    # -- settling ---------------------------------------------------------------------------

    def settle(self, claim: Claim, outcomes: Sequence[Outcome]) -> int:
        """Record outcomes in one transaction; only events still of this claim. Returns how many."""
        return self.database.write(
            lambda tx: sum(self._settle(tx, claim, outcome) for outcome in outcomes)
        )

    def _settle(self, tx: Tx, claim: Claim, outcome: Outcome) -> int:
        kind, ended = outcome.kind, 0
        # All are locked: who cancels or erases one at this moment is waited for.
        where = f"{_MINE} {{lock}}"
        mine: dict[str, Any] = {"where": where, "ids": [*outcome.ids], "claim": claim.token}
        if kind == "delivered":
            # Read in short, since there are many; the claim has what the history counts of them.
            found = dict(schema.events(tx, "id, reason", **mine))
            rows = [row for row in claim.events if row.id in found]
            late = [row for row in rows if found[row.id] == "cancelled"]
            self.ingest.rows.holds.count_too_late(tx, late)
        else:
            rows = schema.rows(tx, **mine)
            if outcome.asked is not None:
                _note_attempt(tx, rows, outcome.asked)
            if kind != "claimed":
                ended, rows = len(rows), self._end_emptied(tx, rows, unsure=outcome.unsure)
                ended -= len(rows)
        sets = {
            "error = :error": outcome.error and kind != "delivered",
            "unsure = unsure + 1": outcome.unsure,
            "refused_at = coalesce(refused_at, :now)": outcome.refused,
            "attempts = attempts + 1": kind in ("delivered", "dead", "retry")
            and not outcome.blameless,
        }
        moved = transitions.move(
            tx,
            "return" if kind == "retry" and outcome.delay <= 0 else kind,
            [row.id for row in rows],
            rows=rows,
            also_sets=", ".join(what for what, is_so in sets.items() if is_so),
            claim=claim.token,
            reason=outcome.reason[:40] or None,
            error=outcome.error[: model.ERROR_LENGTH],
            due=tx.now + min(outcome.delay, LONGEST_DELAY),
            keyless=tx.now + KEYLESS_KEPT,
        )
        return moved + ended

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
        """Return what lapsed, and what a clock that was wrong for a while put too far off."""
        if lookups.oldest_due(tx, [account], model.LEASED) is not None:
            for state in model.LEASED:
                lapsed = f"{of_account(state)} AND due_at <= :now LIMIT {STEP} {{skip_locked}}"
                rows, was_claimed = schema.rows(tx, lapsed, account=account), state == State.claimed
                rows = self._end_emptied(tx, rows, unsure=not was_claimed)
                if was_claimed:
                    transitions.move(tx, "lapse", [row.id for row in rows])
                else:
                    self._lapse_unsure(tx, rows)
        if self._may_be_far(tx, account):
            self._looked_at[account] = tx.now
            self._bring_near(tx, account)

    def _lapse_unsure(self, tx: Tx, rows: Sequence[model.Row]) -> None:
        _note_attempt(tx, rows, model.Attempt(tx.now, "lapsed", None, "", unsure=True))
        ids = [row.id for row in rows]
        if self.on_unsure == "drop":
            if dropped := transitions.move(tx, "drop_unsure", ids, reason="unsure"):
                self.ingest.counters.add("event_dead", "unsure", dropped)
        elif lapsed := transitions.move(tx, "lapse_unsure", ids):
            self.ingest.counters.add("event_unsure", "lapsed", lapsed)

    def _may_be_far(self, tx: Tx, account: str) -> bool:
        looked_at = self._looked_at.get(account, float("inf"))
        return not looked_at <= tx.now < looked_at + _FAR_EVERY

    @staticmethod
    def _bring_near(tx: Tx, account: str) -> None:
        """After a clock that went back nothing stands still.

        What waits is due now where it was reported in the future, or was put off for longer than
        anything is; not what AdRoll has refused, which has its next time by that. A lease is not
        taken back, since its worker may be sending: it is shortened.
        """
        near, far = tx.now + LONGEST_LEASE, LONGEST_DELAY + model.SKEW
        early = "queued_at > :now AND coalesce(reason, '') <> 'refused'"
        # The furthest of all first: a planner that takes state and time for independent would read
        # the whole table for an UPDATE that finds nothing.
        for state, due, beyond, also in (
            (State.waiting, tx.now, tx.now, f" AND (due_at > :now + {far} OR ({early}))"),
            (State.claimed, near, near + model.SKEW, ""),
            (State.sending, near, near + model.SKEW, ""),
        ):
            furthest = f"{of_account(state)} ORDER BY due_at DESC LIMIT 1"
            found = schema.events(tx, "due_at", furthest, account=account)
            if (schema.one(found) or 0.0) <= beyond:
                continue
            those = f"{of_account(state)} AND due_at > :beyond{also}"
            nearer = f"UPDATE adroll_event SET due_at = :due WHERE {those}"
            tx.execute(nearer, due=due, beyond=beyond, account=account)

    # -- events without an account ----------------------------------------------------------

    def adopt(self, account: str) -> int:
        """Give what was reported without an advertisable EID this one; how much."""
        return self.database.repeat(lambda tx: self._adopt(tx, account))

    def _adopt(self, tx: Tx, account: str) -> int:
        rows = list[model.Row]()
        for state in State:
            those = f"{of_account(state)} LIMIT {STEP - len(rows)} {{skip_locked}}"
            rows += schema.rows(tx, those, account="")
        destination.know(tx, [account])
        alone, verdicts = list[str](), list[model.Verdict]()
        for row in rows:
            order = model.OrderKey(account, row.dry_run, row.name, row.key or "")
            met = schema.of_orders(tx, [order]).get(order) if row.key else None
            if met is None:
                alone.append(row.id)
            elif decided := [one.id for one in (row, met) if one.state == "decided"]:
                # Held before the EID was set, released or cancelled after it; or as yet unheld.
                if verdict := transitions.taken_out(tx, decided[0]):
                    alone.append(row.id)
                    verdicts.append(replace(verdict, order=order))
            else:
                # Of what was reported again under the EID meanwhile, one of the two is enough; and
                # a second report, without a hold, says that the held one is to be sent.
                if (row.state, met.state) == ("waiting", "held"):
                    self.ingest.rows.holds.decide(tx, [model.Verdict(tx.now, "release", order)])
                transitions.move(tx, "drop", [row.id], outcome="duplicate", why="adopted")
                transitions.move(tx, "drop_ended", [row.id])
                self.ingest.counters.add("event_duplicate", "adopted")
        theirs = "UPDATE adroll_event SET advertisable_eid = :account WHERE id {in_ids}"
        tx.execute(theirs, account=account, ids=alone)
        self.ingest.rows.holds.decide(tx, verdicts)
        return len(rows)


def _may_take(accounts: Sequence[str], tx: Tx) -> bool:
    """Whether an event of *accounts* is due, or there are entries in the inbox, whosever."""
    return lookups.oldest_due(tx, accounts) is not None or is_inbox_full(tx)


# -- attempts --------------------------------------------------------------------------------------
#
# What AdRoll said to the requests that an event was answered for: JSON, kept with the event until
# it is delivered, and with a dead letter. What is delivered at once has none. A batch that is
# refused and halved is no attempt of those that are not at fault.


def _note_attempt(tx: Tx, rows: Sequence[model.Row], asked: model.Attempt) -> None:
    """Keep one more attempt with those of *rows* that have their content."""
    made = asked._replace(at=round(tx.now, 3), words=asked.words[:_WORDS])
    whole = [row for row in rows if row.whole]
    note = "UPDATE adroll_event SET attempt_log = :log WHERE id {in_ids}"
    for log in {row.attempt_log for row in whole}:  # mostly one: a batch fails together
        ids = [row.id for row in whole if row.attempt_log == log]
        tx.execute(note, log=json.dumps([*log[1 - _ATTEMPTS :], made]), ids=ids)

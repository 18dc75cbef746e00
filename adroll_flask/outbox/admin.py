"""What people and commands do with an outbox's events: drop, fix, forget, let rest, move.

And what is done with an outbox now and then: old rows go, holds that nobody released end.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from . import destination, history, model, schema, transitions
from .ingest import PATIENCE, Batch, Ingest
from .lookups import Lookups, is_id
from .model import LEASED, UNSENT, OutboxFailed, State
from .schema import STEP, Tx

#: Dead letters that are sent again only by their ids, or by this reason: AdRoll may have them.
RISKY: Final = ("restored", "moved", "unsure")
#: By the reason of what rests, what each event says.
_RESTS: Final = {
    "restored": "this outbox is a copy that was put in the place of another; the event may have"
    " been sent since. Retry it only if it was not.",
    "moved": "this event was moved to another outbox, which sends it. Do not retry it here.",
}


@dataclass(slots=True)
class Admin:
    """Changes by hand.

    They raise :class:`.model.OutboxFailed` where the database cannot be worked with.
    """

    database: schema.Database
    ingest: Ingest
    lookups: Lookups
    _records_at: float = float("-inf")

    def drop(self, ids: Sequence[str] | None = None, *, account: str | None = None) -> int:
        """Remove events that nobody sends at the moment and free their keys; returns how many.

        :param ids: those; ``None``: all of *account* that wait, are held or are dead. The key of
            one that is over keeps its order from a second report.
        """
        self.ingest.take_in_all()
        if ids is None:
            return self.database.repeat(partial(_drop_of_account, account or ""))
        steps = schema.steps([id for id in ids if is_id(id)])
        return sum(self.database.write(partial(_drop, step)) for step in steps)

    def fix(self, id: str, event: model.NewEvent) -> bool:
        """Give a dead letter the content of *event* and let it be sent; False: no such, a
        duplicate, or one that is cancelled by a decision that waited for it.

        :param event: without a key it keeps the one that it has; account and dry run are its own.
        """
        if not is_id(id):
            return False
        self.ingest.take_in_all()

        def fix(tx: Tx) -> bool:
            rows = schema.rows(tx, f"id = :id AND state = {State.dead} {{lock}}", id=id)
            if not rows:
                return False
            row, its, verdict = rows[0], self.ingest.rows.row(tx, event), None
            if key := event.key or row.key:
                order = model.OrderKey(row.advertisable_eid, row.dry_run, event.name, key)
                for other in schema.of_orders(tx, [order]).values():
                    if other.id != id:
                        # An invalid event has no key, by which a decision would have found it.
                        verdict = transitions.taken_out(tx, other.id)
                        if verdict is None:
                            return False
            history.correct(tx, [id])
            transitions.move(tx, "fix", [id], **its | {"dedupe_key": key})
            if verdict is not None:
                self.ingest.rows.holds.decide(tx, [verdict])
            return verdict is None or verdict.kind == "release"

        return self.database.write(fix)

    def forget(self, match: Callable[[dict[str, Any]], bool]) -> int:
        """Remove the data of all events not yet delivered whose payload *match* accepts.

        Their keys stay, so that a reload does not report the visitor again. Returns how many.
        """
        found = [
            row.id for row in self.lookups.open_events() if match(json.loads(row.payload or b"{}"))
        ]

        def erase(ids: Sequence[str], tx: Tx) -> int:
            return self.ingest.rows.erase(tx, ids, "cancelled", "forgotten")

        return sum(self.database.write(partial(erase, step)) for step in schema.steps(found))

    def let_rest(self) -> int:
        """Make dead letters, ``restored``, of all that could be sent; returns how many.

        For an outbox that came back from a copy: the original may have sent them since. What lies
        in the journal and the inbox is taken in, and rests as well.
        """
        before = self._resting()
        self.database.repeat(let_rest)

        def rest(tx: Tx, batch: Batch) -> int:
            # In the transaction that takes it in: else a worker might send it.
            taken = self.ingest.write(tx, batch)
            return taken + sum(iter(partial(let_rest, tx), 0))

        with self.ingest.reading(PATIENCE) as found:
            if not found and self.lookups.bytes_waiting():
                # Who has them would have them sent.
                raise OutboxFailed("locked", "another process reads the journal; stop it first")
            while self.ingest.run(found, rest):
                pass
        return self._resting() - before

    def keep_house(self) -> int:
        """Do one small step of cleaning; how many rows went (0: nothing left to do).

        A part that fails does not keep the others from being done.

        :raises OutboxFailed: a part failed.
        """
        done, failures = 0, []
        for part in (self._end, self.database.tidy, self._forget_records):
            try:
                done += part()
            except OutboxFailed as failure:
                failures.append(failure)
        if failures:
            raise failures[-1]
        return done

    def _end(self) -> int:
        """End what is over, of all accounts."""
        holds = self.ingest.rows.holds
        ends = {State.held: holds.expire, State.decided: holds.forget}
        remove = partial(transitions.move, name="remove")

        def end(tx: Tx) -> int:
            found = _over(tx, _slow_clock(tx), STEP)
            return sum(ends.get(state, remove)(tx, ids=ids) for state, ids in found)

        if not self.database.read(lambda tx: any(_over(tx, tx.now, 1))):
            return 0
        return self.database.write(end)

    def _forget_records(self) -> int:
        if time.monotonic() >= self._records_at:
            self.database.write(_forget_records)
            self._records_at = time.monotonic() + _RECORDS_EVERY
        return 0

    def _resting(self) -> int:
        resting = f"state = {State.dead} AND reason = 'restored'"
        found = self.database.read(lambda tx: schema.events(tx, "count(*)", resting))
        return int(schema.one(found))


def let_rest(tx: Tx, reason: str = "restored", states: Sequence[State] = UNSENT) -> int:
    """Let the next events that could be sent rest; how many there were.

    :param reason: of :data:`_RESTS`.
    """
    those = f"{schema.in_states(*states)} AND payload IS NOT NULL LIMIT {STEP}"
    ids = schema.ids_of(tx, those)
    return transitions.move(tx, "rest", ids, reason=reason, error=_RESTS[reason])


def _drop(ids: Sequence[str], tx: Tx) -> int:
    dropped = transitions.move(tx, "drop", ids, also=f"+state <> {State.claimed}", why="dropped")
    return dropped + transitions.move(tx, "drop_ended", ids)


def _drop_of_account(account: str, tx: Tx) -> int:
    states = schema.in_states(State.waiting, State.dead, State.held)
    those = f"advertisable_eid = :account AND {states} LIMIT {STEP} {{skip_locked}}"
    return _drop(schema.ids_of(tx, those, account=account), tx)


# -- from one database into another ----------------------------------------------------------------
#
# An outbox moves with all that it knows: events that wait or are held, dead letters, the keys of
# reported orders, who said no, history, and how far journals were read. One transaction of the new
# database copies it, so that a move that was stopped left all there or nothing, and it can be run
# again. In the end nothing in the old outbox is sent by itself any more.

#: The name under which the old outbox keeps the id of its next move. The new one has
#: ``moved:<that id>`` once all is there. An equal ``outbox_id`` would not say so: a backup has it.
_MOVE: Final = "move"
#: What is known of AdRoll: the new outbox has none of it before anybody sends; and sums.
_AT_ONCE: Final = ("adroll_account", "adroll_stop", "adroll_history")
#: Tables that may be long; each has its key in the first column.
_LONG: Final = ("adroll_journal", "adroll_inbox", "adroll_mark", "adroll_event")


class NotMoved(Exception):
    """Nothing was moved, and why."""


def move(old: schema.Database, new: schema.Database) -> Counter[str]:
    """Move what *old* holds into *new*, which holds no events; how many of each state.

    Nobody may report into *new* meanwhile, nor deliver from either.

    :raises NotMoved: the one is in use, or the other is not empty, or both are the same.
    :raises OutboxFailed: a database cannot be worked with. Call it again.
    """
    ids = old.write(_begin)
    new.write(partial(_copy, old, *ids))
    # Where a move was stopped after this began, part of the old outbox is at rest already.
    old.repeat(partial(let_rest, reason="moved", states=(*UNSENT, State.held)))
    # No session takes the old one for the new one, and what it may hold later is another move's.
    new_ids = f"UPDATE adroll_meta SET value = :id WHERE name IN ('outbox_id', '{_MOVE}')"
    old.write(lambda tx: tx.execute(new_ids, id=secrets.token_hex(16)))
    by_state = f"state <> {State.decided} GROUP BY state"
    found = new.read(lambda tx: schema.events(tx, "state, count(*)", by_state))
    return Counter({State(state).name: int(count) for state, count in found})


def _begin(tx: Tx) -> tuple[str | None, str | None]:
    """The ids of the move and of the old outbox; a move that was stopped keeps its id.

    A worker that goes on would send what the new outbox sends, too.
    """
    leased = f"{schema.in_states(*LEASED)} AND due_at > :now"
    if count := schema.one(schema.events(tx, "count(*)", leased)):
        raise NotMoved(
            f"a worker delivers from the old outbox, or was killed in the last minute ({count} "
            "claimed): stop the site and its workers first, and try again in a minute"
        )
    schema.insert(tx, "adroll_meta", name=_MOVE, value=secrets.token_hex(16))
    return schema.meta(tx, _MOVE), schema.meta(tx, "outbox_id")


def _copy(old: schema.Database, move_id: str | None, outbox_id: str | None, tx: Tx) -> None:
    if schema.meta(tx, _MOVE) == move_id:
        raise NotMoved("both addresses are of the same outbox, or the new one is its copy")
    there = schema.metas(tx, "moved:")
    if f"moved:{move_id}" in there:
        return  # All is there: it was stopped after this, or the answer to this commit was lost.
    if there or tx.rows("SELECT 1 FROM adroll_event LIMIT 1"):
        why = "an outbox was moved there already" if there else "it has events already"
        raise NotMoved(f"the outbox of ADROLL_OUTBOX_URL has to be new: {why}")
    schema.insert(tx, "adroll_meta", name=f"moved:{move_id}", value="")
    # The key of the visitors' hashes moves with them.
    tx.execute("UPDATE adroll_meta SET value = :id WHERE name = 'outbox_id'", id=outbox_id)
    for table in _AT_ONCE:
        tx.execute(f"DELETE FROM {table}")
        for step in schema.steps(_read(old, table)):
            _insert(tx, table, step)
    for table in _LONG:
        last = ""
        while rows := _read(old, table, last):
            _insert(tx, table, rows)
            last = rows[-1][schema.columns_of(table)[0]]


def _read(database: schema.Database, table: str, last: str | None = None) -> list[dict[str, Any]]:
    """The table's rows; with *last*, the next ones behind that."""
    columns = schema.columns_of(table)
    statement = f"SELECT {', '.join(columns)} FROM {table}"
    if last is not None:
        statement += f" WHERE {columns[0]} > :last ORDER BY {columns[0]} LIMIT {STEP}"
    found = database.read(lambda tx: tx.rows(statement, last=last))
    return [dict(zip(columns, row, strict=True)) for row in found]


def _insert(tx: Tx, table: str, rows: Sequence[dict[str, Any]]) -> None:
    # SQLite has no Decimal.
    fitting = [row | {"value": int(row["value"])} if "value" in row else row for row in rows]
    written = tx.many(schema.insert_into(table, rows[0]), fitting)
    if table == "adroll_event" and written < len(rows):
        raise OutboxFailed("data")  # INSERT IGNORE hides what the database refuses.


# -- now and then ----------------------------------------------------------------------------------

#: Seconds between two looks at history and the intervals of stops.
_RECORDS_EVERY: Final = 600.0
#: Seconds by which one look at the clock may bring the end of keys and holds nearer. A clock that
#: is a hundred days ahead for a minute would else end all of them.
_LEAP: Final = 3600.0
_CLOCK: Final = "housekeeping_at"


def _over(tx: Tx, now: float, most: int) -> Iterator[tuple[State, list[str]]]:
    """What is over at *now*: up to *most* events of each account and state.

    A look, which is for one, locks nothing.
    """
    lock = "{skip_locked}" if most > 1 else ""
    for account in destination.accounts_of(tx):
        for state in (State.held, State.decided, State.delivered, State.dead, State.cancelled):
            those = f"{schema.of_account(state)} AND due_at <= :now ORDER BY due_at LIMIT :most"
            if ids := schema.ids_of(tx, f"{those} {lock}", account=account, now=now, most=most):
                yield state, ids


def _slow_clock(tx: Tx) -> float:
    """The time by which things end: it follows the clock, an hour at most from look to look."""
    before = schema.meta(tx, _CLOCK)
    if before is None:  # the first look of all: no later than the newest event's time
        before = schema.one(tx.rows("SELECT queued_at FROM adroll_event ORDER BY id DESC LIMIT 1"))
    now = tx.now
    if before is not None and float(before) <= now:
        now = min(now, float(before) + _LEAP)
    mark = {"name": _CLOCK, "value": repr(now)}
    if not tx.execute("UPDATE adroll_meta SET value = :value WHERE name = :name", **mark):
        schema.insert(tx, "adroll_meta", **mark)
    return now


def _forget_records(tx: Tx) -> None:
    destination.end_unasked(tx)
    time = _slow_clock(tx)
    history.remove_old(tx, time)
    for old in (
        "adroll_stop WHERE ended_at < :long_ago",
        "adroll_mark WHERE forget_at < :time",
        # Of files that are gone with their host; a file's last position is known for long enough.
        "adroll_journal WHERE read_at < :long_ago",
    ):
        tx.execute(f"DELETE FROM {old}", time=time, long_ago=time - 400 * model.DAY)

"""What people and commands do with an outbox's events: drop, fix, forget, let rest, move.

And what is done with an outbox now and then: old rows go, holds that nobody released end.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from adroll_flask.logs import Logger, get_logger
from adroll_flask.times import span

from . import destination, erasure, history, knowledge, model, schema, transitions
from .holds import take_verdict
from .ingest import PATIENCE, Ingest, Intake
from .lookups import Lookups, is_id, wire_of
from .model import LEASED, UNSENT, OutboxFailed, State
from .older_copy import let_some_rest
from .queue import bring_near
from .retention import DEAD_LETTER_KEPT, HISTORY_KEPT, waits_for_people
from .schema import STEP, Tx

logger: Logger = get_logger("adroll_flask.outbox")


class Changed(NamedTuple):
    """What came of a change by hand.

    :param events: how many were changed.
    :param delivered: how many had been delivered by then. They stay as they are, with their keys:
        else their orders could be reported, and sent, once more.
    """

    events: int
    delivered: int = 0


@dataclass(slots=True)
class Admin:
    """Changes by hand.

    They raise :class:`.model.OutboxFailed` where the database cannot be worked with.
    """

    database: schema.Database
    ingest: Ingest
    lookups: Lookups
    _remove_at: float = float("-inf")

    def drop(self, ids: Sequence[str] | None = None, *, account: str | None = None) -> Changed:
        """Remove events that nobody sends at the moment and free their keys.

        :param ids: those; ``None``: all of *account* that wait, are held or are dead. Those that
            are over stay then: their keys keep their orders from a second report.
        """
        self.ingest.take_in_all()
        if ids is None:
            return Changed(self.database.repeat(partial(_drop_of_account, account or "")))
        events = [id for id in ids if is_id(id)]
        dropped = sum(self.database.write(partial(_drop, step)) for step in schema.steps(events))
        return Changed(dropped, self._delivered(events))

    def fix(self, id: str, event: model.NewEvent) -> bool:
        """Give a dead letter the content of *event* and let it be sent.

        :param event: without a key it keeps the one that it has; account and dry run are its own.
        :returns: ``False`` where there is no such dead letter, its visitor was forgotten, another
            event has the key, or a cancellation waited for it.
        """
        if not is_id(id):
            return False
        self.ingest.take_in_all()

        def fix(tx: Tx) -> bool:
            rows = schema.rows(tx, f"id = :id AND state = {State.dead} {{lock}}", id=id)
            # Its visitor may have been forgotten since the caller read it: that must not come back.
            if not rows or rows[0].reason == "forgotten":
                return False
            row = rows[0]
            key = event.key or row.key
            verdict = None
            if key:
                order = model.OrderKey(row.advertisable_eid, row.dry_run, event.name, key)
                for other in schema.of_orders(tx, [order]).values():
                    if other.id != id:
                        # An invalid event has no key, by which a verdict would have found it.
                        verdict = take_verdict(tx, other.id)
                        if verdict is None:
                            return False
            history.correct(tx, [id])
            transitions.move(
                tx,
                "fix",
                [id],
                event_name=event.name,
                dedupe_key=key,
                digest=event.digest,
                identifiers=event.identifiers,
                payload=event.payload,
                occurred_at=event.occurred_at,
            )
            if verdict is None:
                return True
            self.ingest.rows.holds.decide(tx, [verdict])
            return verdict.kind == "release"

        return self.database.write(fix)

    def forget(self, match: Callable[[dict[str, Any]], bool]) -> Changed:
        """Remove the data of all events not yet delivered whose payload *match* accepts.

        Their keys stay, so that a reload does not report the visitor again.
        """
        matching = [row.id for row in self.lookups.open_events() if match(wire_of(row.payload))]

        def erase(ids: Sequence[str], tx: Tx) -> int:
            return erasure.erase_events(tx, ids, "cancelled", "forgotten")

        erased = sum(self.database.write(partial(erase, step)) for step in schema.steps(matching))
        self.database.empty_log(at_once=True)  # a command ends here
        return Changed(erased, self._delivered(matching))

    def _delivered(self, ids: Sequence[str]) -> int:
        """How many of these are delivered."""
        return sum(row.state == State.delivered.name for row in self.lookups.those(ids))

    def restored(self) -> int:
        """Make dead letters, ``restored``, of all that could be sent; how many.

        For an outbox that came back from a copy: the original may have sent them since. What lies
        in the journal and the inbox is taken in, and rests as well. Of the time since the copy was
        written last, the outbox knows nothing from now on.
        """
        before = self._resting()
        self.database.write(self.ingest.older_copy.let_rest)

        def rest(tx: Tx, intake: Intake) -> int:
            # In the transaction that takes it in: else a worker might send it.
            done = self.ingest.write(tx, intake)
            while number := let_some_rest(tx):
                done += number
            return done

        with self.ingest.reading(PATIENCE) as files:
            if not files and self.lookups.bytes_waiting():
                # That process would send what it takes in.
                raise OutboxFailed("locked", "another process reads the journal; stop it first")
            while self.ingest.run(files, rest):
                pass
        return self._resting() - before

    def keep_house(self) -> int:
        """End a step of what is over; how many events there were (0: nothing is left to do).

        :raises OutboxFailed: it cannot be done at present.
        """
        self.ingest.older_copy.note()
        ended = self._end()
        self.database.write(bring_near)
        if time.monotonic() >= self._remove_at:
            self.database.write(_remove_old)
            self._remove_at = time.monotonic() + _REMOVE_EVERY
        return ended

    def _end(self) -> int:
        """End what is over, of all accounts."""
        holds = self.ingest.rows.holds
        given_up: list[str] = []

        def end(tx: Tx) -> int:
            given_up.clear()  # of a transaction that has to run again
            ended = 0
            for state, ids in _what_is_over(tx, _slow_clock(tx)):
                ended += len(ids)
                if state is State.held:
                    holds.expire(tx, ids)
                elif state is State.decided:
                    holds.forget(tx, ids)
                elif state is State.dead:
                    given_up.extend(_give_up(tx, ids))
                else:
                    transitions.move(tx, "remove", ids)
            return ended

        ended = self.database.write(end)
        if given_up:
            self.ingest.counters.add("event_given_up", amount=len(given_up))
            were = "dead letter was" if len(given_up) == 1 else "dead letters were"
            logger.error(
                "AdRoll: %d %s given up, since nobody decided within %s. The first is %s "
                "[dead-letters-ending]",
                len(given_up),
                were,
                span(DEAD_LETTER_KEPT),
                given_up[0],
            )
        return ended

    def _resting(self) -> int:
        resting = f"state = {State.dead} AND reason = 'restored'"
        rows = self.database.read(lambda tx: schema.events(tx, "count(*)", resting))
        return int(schema.first_value(rows))


def _drop(ids: Sequence[str], tx: Tx) -> int:
    return transitions.move(tx, "drop", ids, also=f"+state <> {State.claimed}", why="dropped")


def _drop_of_account(account: str, tx: Tx) -> int:
    states = schema.in_states(State.waiting, State.dead, State.held)
    where = f"advertisable_eid = :account AND {states} LIMIT {STEP} {{skip_locked}}"
    return _drop(schema.ids_of(tx, where, account=account), tx)


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
_AT_ONCE: Final = ("adroll_account", "adroll_history")
#: Tables that may be long; each has its key in the first column.
_LONG: Final = ("adroll_journal", "adroll_inbox", "adroll_mark", "adroll_event")


class NotMoved(Exception):
    """Nothing was moved, and why."""


def move_outbox(old: schema.Database, new: schema.Database) -> Counter[str]:
    """Move what *old* holds into *new*, which holds no events; how many of each state.

    Nobody may report into *new* meanwhile, nor deliver from either.

    :raises NotMoved: the one is in use, or the other is not empty, or both are the same.
    :raises OutboxFailed: a database cannot be worked with. Call it again.
    """
    ids = old.write(_begin)
    new.write(partial(_copy, old, *ids))
    # Where a move was stopped after this began, part of the old outbox is at rest already.
    old.repeat(partial(let_some_rest, reason="moved", states=(*UNSENT, State.held)))
    # No session takes the old one for the new one, and what it may hold later is another move's.
    new_ids = f"UPDATE adroll_meta SET value = :id WHERE name IN ('outbox_id', '{_MOVE}')"
    old.write(lambda tx: tx.execute(new_ids, id=secrets.token_hex(16)))
    by_state = f"state <> {State.decided} GROUP BY state"
    numbers = new.read(lambda tx: schema.events(tx, "state, count(*)", by_state))
    return Counter({State(state).name: int(count) for state, count in numbers})


def _begin(tx: Tx) -> tuple[str | None, str | None]:
    """The ids of the move and of the old outbox; a move that was stopped keeps its id.

    :raises NotMoved: a worker delivers from it, which would send what the new outbox sends, too.
    """
    leased = f"{schema.in_states(*LEASED)} AND due_at > :now"
    if count := schema.first_value(schema.events(tx, "count(*)", leased)):
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
    knowledge.take_over(tx, old.read(lambda theirs: schema.metas(theirs, "")))
    for table in _AT_ONCE:
        tx.execute(f"DELETE FROM {table}")
        for step in schema.steps(_rows_of(old, table)):
            _insert_rows(tx, table, step)
    for table in _LONG:
        last = ""
        while rows := _rows_of(old, table, last):
            _insert_rows(tx, table, rows)
            last = rows[-1][schema.columns_of(table)[0]]


def _rows_of(
    database: schema.Database, table: str, last: str | None = None
) -> list[dict[str, Any]]:
    """The table's rows; with *last*, the next ones behind that."""
    columns = schema.columns_of(table)
    statement = f"SELECT {', '.join(columns)} FROM {table}"
    if last is not None:
        statement += f" WHERE {columns[0]} > :last ORDER BY {columns[0]} LIMIT {STEP}"
    rows = database.read(lambda tx: tx.rows(statement, last=last))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _insert_rows(tx: Tx, table: str, rows: Sequence[dict[str, Any]]) -> None:
    # SQLite has no Decimal.
    fitting = [row | {"value": int(row["value"])} if "value" in row else row for row in rows]
    written = schema.insert_all(tx, table, fitting)
    if table == "adroll_event" and written < len(rows):
        raise OutboxFailed("data")  # INSERT IGNORE hides what the database refuses.


# -- dead letters that nobody decided on ---------------------------------------------------------


def _give_up(tx: Tx, ids: Sequence[str]) -> list[str]:
    """End dead letters whose time is over.

    One that could still be sent leaves its key, and what it died of. Others are removed.

    :returns: the ids of those that could still be sent.
    """
    letters = schema.rows(tx, "id {in_ids} {lock}", ids=ids)
    undecided = [row for row in letters if waits_for_people(row)]
    never_sent, perhaps_sent = model.GIVEN_UP
    history.correct(tx, [row.id for row in undecided])
    for row in undecided:
        is_risky = row.unsure or row.reason in model.RISKY
        reason = perhaps_sent if is_risky else never_sent
        words = row.why[: model.ERROR_LENGTH]
        transitions.move(tx, "give_up", [row.id], rows=[row], reason=reason, error=words)
    kept = {row.id for row in undecided if row.key}
    transitions.move(tx, "remove", [id for id in ids if id not in kept])
    return [row.id for row in undecided]


# -- now and then ----------------------------------------------------------------------------------

#: Seconds between two looks for old history, marks and read positions.
_REMOVE_EVERY: Final = 600.0
#: Seconds by which the end of keys and holds may come nearer within a minute of the clock. A clock
#: that is a hundred days ahead for a minute would else end all of them.
_LEAP: Final = 3600.0
_LEAP_EVERY: Final = 60.0
_CLOCK: Final = "housekeeping_at"
_LEAPT: Final = "housekeeping_leapt_at"


def _what_is_over(tx: Tx, now: float) -> Iterator[tuple[State, list[str]]]:
    """What is over at *now*: a step of events of each account and state."""
    for account in destination.accounts_of(tx):
        for state in (State.held, State.decided, State.delivered, State.dead, State.cancelled):
            where = f"{schema.of_account(state)} AND due_at <= :now ORDER BY due_at LIMIT {STEP}"
            if ids := schema.ids_of(tx, f"{where} {{skip_locked}}", account=account, now=now):
                yield state, ids


def _slow_clock(tx: Tx) -> float:
    """The time by which rows end. It follows the clock, but by an hour a minute at most.

    That holds for all processes together, however often they look.
    """
    before = schema.meta(tx, _CLOCK)
    if before is None:  # the first look of all: no later than the newest event's time
        before = schema.first_value(
            tx.rows("SELECT queued_at FROM adroll_event ORDER BY id DESC LIMIT 1")
        )
    now = tx.now
    last = schema.number(before, now)
    if now - last > _LEAP:
        leapt_at = schema.number(schema.meta(tx, _LEAPT), 0.0)
        if 0 <= now - leapt_at < _LEAP_EVERY:
            return last
        schema.set_meta(tx, _LEAPT, repr(now))
        now = last + _LEAP
    schema.set_meta(tx, _CLOCK, repr(now))
    return now


def _remove_old(tx: Tx) -> None:
    at = _slow_clock(tx)
    history.remove_old(tx, at)
    for old in (
        "adroll_mark WHERE forget_at < :at",
        # Of files that are gone with their host: others' rows go with their files.
        "adroll_journal WHERE read_at < :long_ago",
    ):
        tx.execute(f"DELETE FROM {old}", at=at, long_ago=at - HISTORY_KEPT)

"""What an outbox is asked: events, orders, dead letters, sums, and how it does at present.

What pages ask counts no backlog: each such question ends at a number of rows that the caller gives.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

from . import destination, history, model, schema
from .destination import accounts_of
from .model import HistorySum, State
from .schema import STEP, Tx, of_account

#: A verdict that waits for its event is none.
_EVENTS: Final = f"state <> {State.decided}"
_KEYLESS: Final = "dedupe_key IS NULL AND payload IS NOT NULL"
_LATEST: Final = "ORDER BY due_at DESC LIMIT :most"
#: Newest events that are looked at for those of one name.
_LOOKED_AT: Final = 2000
#: States in which an event is not over.
_OPEN: Final = (*model.UNSENT, State.held, State.dead)
_OUTCOMES: Final = {**dict.fromkeys(model.UNSENT, "waiting"), State.held: "held"}
#: In the shared notes: an event that is known to be silent.
_SILENT: Final = "silent:"
#: Newest events in which one that seems to be silent is looked for: those of a long outage.
_MOST_NEW: Final = 50_000
#: Events that are counted as due, at most.
MOST_DUE: Final = 10_000


@dataclass(slots=True)
class Lookups:
    """Questions to an outbox.

    They raise :class:`.model.OutboxFailed` where the database cannot be worked with.
    """

    database: schema.Database
    #: Takes in what this host's journal holds, before many questions.
    take_in_all: Callable[[], None]
    #: What it holds that is not taken in.
    bytes_waiting: Callable[[], int]
    #: Sums of all hours before one, with that hour and how many things happened before it.
    _base: tuple[tuple[int, int], history.Sums] | None = None

    def _all(self, where: str, **values: Any) -> tuple[model.Row, ...]:
        return tuple(self.database.read(lambda tx: schema.rows(tx, where, **values)))

    def _by_account(self, where: str, **values: Any) -> list[model.Row]:
        """The rows of each account, with which the index that is asked begins; those whose time
        comes last first."""

        def look(tx: Tx) -> list[model.Row]:
            by_account = (schema.rows(tx, where, account=eid, **values) for eid in accounts_of(tx))
            return [row for rows in by_account for row in rows]

        return sorted(self.database.read(look), key=lambda row: row.due_at, reverse=True)

    def _pages(self, where: str, **values: Any) -> Iterator[model.Row]:
        """All of them, a page in memory at a time."""
        self.take_in_all()
        where += f" AND id > :last ORDER BY id LIMIT {STEP}"
        values["last"] = ""
        while rows := self._all(where, **values):
            yield from rows
            values["last"] = rows[-1].id

    # -- events -----------------------------------------------------------------------------

    def stops(self, seconds: float) -> tuple[tuple[str, float, float | None, str], ...]:
        """Intervals of the last *seconds* in which an account was stopped, or AdRoll was away:
        account, begin, end or ``None``, reason."""
        return self.database.read(lambda tx: destination.recent_stops(tx, seconds))

    def destinations(self) -> dict[str, model.Destination]:
        """AdRoll as the workers of each account see it, of all accounts that the outbox knows."""
        return self.database.read(destination.states_of)

    def counts(self) -> dict[str, int]:
        """How many events are in each state; forgotten and removed ones are not among them.

        Those that are ``decided`` are verdicts whose event has not come in.
        """
        self.take_in_all()
        query = "SELECT state, count(*) FROM adroll_event GROUP BY state"
        numbers = dict(self.database.read(lambda tx: tx.rows(query)))
        return {state.name: int(numbers.get(state, 0)) for state in State}

    def list(
        self,
        state: str | None = None,
        limit: int = 100,
        since: float | None = None,
        *,
        newest: bool = False,
    ) -> tuple[model.Row, ...]:
        """The first *limit* events of *state*, without their payload; those to be sent next first.

        :param since: only those reported since then, seconds since the epoch.
        :param newest: the newest first.
        """
        self.take_in_all()
        wanted = [_EVENTS if state is None else f"state = {State[state]}"]
        if since is not None:
            wanted.append("queued_at >= :since")
        order = "id DESC" if newest else "state, due_at"
        where = f"{' AND '.join(wanted)} ORDER BY {order} LIMIT :limit"
        return self._all(where, since=since, limit=limit)

    def show(self, id: str) -> model.Row | None:
        """One event with its payload."""
        if not is_id(id):
            return None
        self.take_in_all()
        return next(iter(self.those([id])), None)

    def those(self, ids: Sequence[str]) -> tuple[model.Row, ...]:
        """The events of *ids* that are there, with their payload."""
        where = f"{_EVENTS} AND id {{in_ids}}"
        found = (self._all(where, full=True, ids=[*step]) for step in schema.steps(ids))
        return tuple(itertools.chain.from_iterable(found))

    def newest_events(
        self, most: int, name: str | None = None, before: str | None = None
    ) -> tuple[model.Row, ...]:
        """The newest *most* events, newest first, without their payload.

        :param name: only events of this name, of those that were reported lately.
        :param before: only events that were reported before the one with this id.
        """
        where, newest = _EVENTS, "ORDER BY id DESC LIMIT"
        if before is not None:
            where += " AND id < :before"
        if name is not None:
            lately = f"SELECT id FROM adroll_event WHERE {where} {newest} {max(_LOOKED_AT, most)}"
            where += f" AND event_name = :name AND id >= (SELECT min(id) FROM ({lately}) AS lately)"
        return self._all(f"{where} {newest} :most", most=most, name=name, before=before)

    def pages(self, state: str | None = None) -> Iterator[model.Row]:
        """All events of *state*, with their payload, a page in memory at a time."""
        return self._pages(_EVENTS if state is None else f"state = {State[state]}", full=True)

    def open_events(self) -> Iterator[model.Row]:
        """All events that are not delivered and have their payload, with it."""
        return self._pages(f"{schema.in_states(*_OPEN)} AND payload IS NOT NULL", full=True)

    # -- orders; keys are those of adroll_flask.events.names.kept_key ------------------

    def find(self, key: str, names: Sequence[str]) -> tuple[model.Row, ...]:
        """The events of *names* that have this key, oldest first, with their payload."""
        self.take_in_all()
        # The index begins with the account: each step of it is named, so that it is used.
        where = (
            "advertisable_eid = :account AND dry_run IN (0, 1)"
            f" AND event_name {{in_ids}} AND dedupe_key = :key AND {_EVENTS}"
        )
        rows = self._by_account(where, full=True, ids=[*names], key=key)
        return tuple(sorted(rows, key=lambda row: row.id))

    def known(self, orders: Sequence[model.OrderKey]) -> dict[model.OrderKey, model.Row]:
        """The events of those of *orders* that were reported, without their payload."""
        self.take_in_all()
        found = self.database.read(lambda tx: schema.of_orders(tx, orders))
        return {order: row for order, row in found.items() if row.state != "decided"}

    def suppressed(self, hashes: Sequence[str]) -> dict[str, model.SuppressedOrder]:
        """Why orders were suppressed, by the hash of
        :func:`adroll_flask.events.names.suppressed_key`."""
        query = "SELECT hash, reason, marked_at FROM adroll_mark WHERE hash {in_ids}"
        rows = self.database.read(lambda tx: tx.rows(query, ids=[*hashes]))
        return {order: model.SuppressedOrder(reason, at) for order, reason, at in rows}

    def reported(self, name: str, since: float, until: float) -> Iterator[model.Row]:
        """Orders that are or will be with AdRoll and occurred between two times."""
        where = (
            f"event_name = :name AND dry_run = 0 AND state < {State.dead}"
            " AND dedupe_key IS NOT NULL AND occurred_at BETWEEN :since AND :until"
        )
        return self._pages(where, name=name, since=since, until=until)

    def without_key(self, name: str) -> Iterator[tuple[str, model.Row]]:
        """Dead letters that were invalid, by the order id in them."""
        where = f"state = {State.dead} AND event_name = :name AND {_KEYLESS}"
        for found in self._pages(where, full=True, name=name):
            order = order_id_of(found.payload)
            if order is not None:
                yield order, found

    # -- dead letters -----------------------------------------------------------------------

    def dead_letters(self, most: int) -> tuple[model.Row, ...]:
        """The newest *most* dead letters, newest first, without their payload."""
        where = f"{of_account(State.dead)} AND dry_run = 0 {_LATEST}"
        return tuple(self._by_account(where, most=most)[:most])

    def dead_letters_of(self, order: str, most: int) -> tuple[model.Row, ...]:
        """Invalid events, which have no key, that have *order* as their order id; newest first.

        :param most: dead letters that are looked through, the newest of each account.
        """
        newest = f"SELECT id FROM adroll_event WHERE {of_account(State.dead)} {_LATEST}"
        where = f"id IN (SELECT id FROM ({newest}) AS newest) AND {_KEYLESS}"
        # To look for plain bytes is much faster than to read JSON.
        plain = order.encode() if order.isascii() and order.isalnum() else b""
        found = (
            row for row in self._by_account(where, full=True, most=most) if plain in row.payload
        )
        return tuple(row for row in found if order_id_of(row.payload) == order)

    # -- sums -------------------------------------------------------------------------------

    def history(
        self,
        since: float,
        columns: Sequence[model.HistoryColumn],
        *,
        hours: int = 1,
        lost: bool = False,
    ) -> tuple[HistorySum, ...]:
        """What happened since *since* (seconds since the epoch), in sums; counts no events.

        :param hours: what ``at`` stands for: 1, 6, 24 or 168 hours; days and weeks are UTC's.
        :param lost: what was lost alone, whether or not it was sent again.
        """
        self.take_in_all()
        return self.database.read(partial(history.sums, since, columns, hours, lost))

    def unsettled(self, most: int) -> tuple[HistorySum, ...]:
        """What waits or is held, by quarter of an hour, event, ``waiting`` or ``held``, currency,
        whether it is a dry run, and, as the reason, its account.

        A quarter, since a day of any zone begins with one.

        :param most: events of each state that are looked at.
        """
        self.take_in_all()
        return self.database.read(partial(_unsettled, most))

    def totals(self) -> tuple[HistorySum, ...]:
        """Sums since the first event, by event, outcome, reason and currency, for monitoring.

        They only grow, over all processes and for ever: what is too old for the history is added up
        in one hour of its own. Whole hours are read again where something of theirs was settled.
        """

        def look(tx: Tx) -> history.Sums:
            # The hour before may still be written to: by a transaction that began in it.
            hour = int(tx.now // 3600) - 1
            known, base = (hour, history.number_before(tx, hour)), self._base
            if base is None or base[0] != known:
                base = self._base = known, history.totals(tx, "hour < :hour", hour)
            return history.totals(tx, "hour >= :hour", hour, base[1])

        sums = sorted(self.database.read(look).items())
        return tuple(history.total(key, numbers) for key, numbers in sums)

    def due(self) -> int:
        """How many events could be sent now, of each account counted up to 10,000."""
        return self.database.read(lambda tx: count_due(tx, accounts_of(tx), MOST_DUE))

    # -- notes that all processes share -----------------------------------------------------

    def notes(self, prefix: str) -> dict[str, str]:
        """Short notes, by names that begin with *prefix*."""
        return self.database.read(lambda tx: schema.metas(tx, prefix))

    def replace_notes(self, prefix: str, values: Mapping[str, str]) -> set[str]:
        """Have *values* in place of these notes: 60 and 64 characters; the names that are new.

        A name is new for one of all processes.
        """
        wanted = {name[:60]: value[:64] for name, value in values.items()}

        def replace(tx: Tx) -> set[str]:
            known = schema.metas(tx, prefix)
            for name, _ in sorted(known.items() - wanted.items()):
                tx.execute("DELETE FROM adroll_meta WHERE name = :name", name=name)
            return {
                name
                for name, value in wanted.items()
                if schema.insert(tx, "adroll_meta", name=name, value=value) and name not in known
            }

        return self.database.write(replace)

    def take_turn(self, name: str, seconds: float) -> bool:
        """True for one of all processes, once in *seconds*."""
        take = "UPDATE adroll_meta SET value = :now WHERE name = :name AND value = :value"

        def take_it(tx: Tx) -> bool:
            schema.insert(tx, "adroll_meta", name=name, value="0")
            value, now = schema.meta(tx, name) or "0", int(tx.now)
            is_due = not 0 <= now - int(value) < seconds
            return is_due and bool(tx.execute(take, name=name, now=str(now), value=value))

        return self.database.write(take_it)

    # -- silence ----------------------------------------------------------------------------

    def watched(self) -> tuple[model.Silence, ...]:
        """Events that come often enough to be missed, each with how long it has stayed away."""
        self.take_in_all()
        return self.database.read(_watched)

    def note_silences(self) -> tuple[model.Silence, ...]:
        """Those that began since the last look, of whichever process; each is told once."""
        silent = {f"{_SILENT}{one.name}": one for one in self.watched() if one.is_silent}
        new = self.replace_notes(_SILENT, dict.fromkeys(silent, "1"))
        return tuple(one for name, one in silent.items() if name in new)


def _watched(tx: Tx) -> tuple[model.Silence, ...]:
    """Each event that comes often enough to be missed.

    A report that AdRoll refused, or that is wrong, has come all the same. What was not to be
    reported has not: a broken consent banner is silence, too.
    """
    found: dict[str, dict[int, int]] = {}
    for name, hour, number in tx.rows(
        "SELECT event_name, hour, sum(events) FROM adroll_history WHERE hour >= :since"
        " AND outcome IN ('delivered', 'dead', 'invalid', 'expired')"
        " GROUP BY event_name, hour HAVING sum(events) > 0",
        since=int((tx.now - history.LOOKS_BACK) // 3600),
    ):
        found.setdefault(name, {})[int(hour)] = int(number)
    seen = (history.watch(name, by_hour, tx.now) for name, by_hour in sorted(found.items()))
    watched = [one for one in seen if one is not None]
    if any(one.is_silent for one in watched):
        # In no hour as yet: what was reported lately and waits or is held, or happened long before.
        newest = f"SELECT event_name, queued_at FROM adroll_event WHERE {_EVENTS} ORDER BY id DESC"
        last = f"SELECT event_name, max(queued_at) FROM ({newest} LIMIT {_MOST_NEW}) AS newest"
        reported = dict(tx.rows(f"{last} GROUP BY event_name"))
        for number, one in enumerate(watched):
            at = max(one.last, reported.get(one.name, 0.0))
            watched[number] = one._replace(last=at, away=tx.now - at)
    return tuple(watched)


def _unsettled(most: int, tx: Tx) -> tuple[HistorySum, ...]:
    sums: defaultdict[tuple[int, str, str, str, str, bool], list[int]] = defaultdict(lambda: [0, 0])
    columns = "event_name, digest, occurred_at, advertisable_eid, dry_run"
    for state, outcome in _OUTCOMES.items():
        rows = schema.events(tx, columns, f"state = {state} LIMIT :most", most=most)
        for name, digest, at, account, dry in rows:
            value, currency = history.amount_of(digest)
            numbers = sums[int(at // 900) * 900, name, outcome, currency, account, bool(dry)]
            numbers[0] += 1
            numbers[1] += value
    return tuple(
        HistorySum(at, name, outcome, eid, 0, currency, number, history.as_decimal(value), (), dry)
        for (at, name, outcome, currency, eid, dry), (number, value) in sorted(sums.items())
    )


def order_id_of(payload: bytes) -> str | None:
    """The order's id in an event's JSON, as a text."""
    try:
        found = json.loads(payload)["event_attributes"]["order_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return None if found is None else str(found)


def is_id(id: str) -> bool:
    """True where *id* has the form of an event's id."""
    return len(id) == 32 and all(character in "0123456789abcdef" for character in id)


# -- what waits -----------------------------------------------------------------------------------


@cache
def first_due(*states: State) -> str:
    """The statement for when the first event of an account in each state is due, or ``NULL``.

    It is a look into the index each. Grouped by state, PostgreSQL reads all that waits; a locking
    read finds MariaDB busy with entries of rows that have moved on.
    """
    first = "SELECT (SELECT due_at FROM adroll_event WHERE {} ORDER BY due_at LIMIT 1)"
    return " UNION ALL ".join(first.format(of_account(state)) for state in states)


def count_due(tx: Tx, accounts: Sequence[str], most: int) -> int:
    """How many events of *accounts* are due, counted up to *most* each."""
    due = f"{of_account(State.waiting)} AND due_at <= :now LIMIT :most"
    count = f"SELECT count(*) FROM (SELECT 1 AS x FROM adroll_event WHERE {due}) AS due"
    counts = (tx.rows(count, account=account, most=most) for account in accounts)
    return sum(int(schema.one(rows)) for rows in counts)


def oldest_due(
    tx: Tx, accounts: Sequence[str] | None = None, states: Sequence[State] = model.UNSENT
) -> float | None:
    """Seconds since the oldest event of *accounts* became due, or a lease of theirs ended.

    ``None``: none is due.
    """
    those = accounts_of(tx) if accounts is None else accounts
    found = (tx.rows(first_due(*states), account=account) for account in those)
    due = min((due for rows in found for (due,) in rows if due is not None), default=None)
    return None if due is None or due > tx.now else tx.now - due

"""Questions to an outbox: about events, orders, dead letters and sums, and how it does at present.

No question of a page counts the whole backlog: each ends at a number of rows that the caller gives.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from functools import cache, partial
from typing import Any, Final

from . import destination, history, knowledge, model, schema, too_few
from .clocks import WrongClock, wrong_clocks
from .destination import accounts_of
from .knowledge import Knowledge
from .model import HistorySum, State
from .schema import STEP, Tx, of_account

#: The condition of rows that are events. A row may also be a verdict that waits for its event.
_EVENTS: Final = f"state <> {State.decided}"
_KEYLESS: Final = "dedupe_key IS NULL AND payload IS NOT NULL"
_LATEST: Final = "ORDER BY due_at DESC LIMIT :most"
#: So many of the newest events are looked through for those of one name.
_LOOKED_AT: Final = 2000
#: States in which an event has not come to its end, or could be sent once more.
_OPEN: Final = (*model.UNSENT, State.held, State.dead)
_OUTCOMES: Final = {**dict.fromkeys(model.UNSENT, "waiting"), State.held: "held"}
#: How the name of a shared note begins that says: such an event is known to be silent.
_SILENT: Final = "silent:"
#: Characters of a note's name and of its value: the lengths of their columns.
_NAME_LENGTH: Final = 60
_VALUE_LENGTH: Final = 64
#: Events that are counted as due, at most.
MOST_DUE: Final = 10_000


@dataclass(slots=True)
class Lookups:
    """Questions to an outbox.

    They raise :class:`.model.OutboxFailed` where the database cannot be worked with.
    """

    database: schema.Database
    #: Takes in all entries of this host's journal. Many questions call it first.
    take_in_all: Callable[[], None]
    #: Bytes of this host's journal that are not taken in.
    bytes_waiting: Callable[[], int]
    #: Says which accounts belong to the other side, the sandbox or AdRoll: sums count them apart.
    other_side: history.OtherSide
    #: Says of which accounts events are expected to come. Another app that shares the outbox has
    #: accounts of its own, and an account that the site no longer has is silent.
    serves: Callable[[str], bool]
    #: The zone of the days and hours of a week.
    zone: tzinfo
    #: The account that is asked about; ``None``: all.
    account: str | None = None

    def of(self, account: str | None) -> Lookups:
        """The same questions about one account: its advertisable EID; ``None``: about all."""
        return replace(self, account=account)

    def _all(self, where: str, **values: Any) -> tuple[model.Row, ...]:
        asked = f"{self._mine}{where}"
        values["account"] = self.account
        return tuple(self.database.read(lambda tx: schema.rows(tx, asked, **values)))

    @property
    def _mine(self) -> str:
        """The beginning of a condition: the account that is asked about.

        ``coalesce()`` keeps the database from using an index that begins with the account. Each
        question needs another index: the one that has its order.
        """
        return "" if self.account is None else "coalesce(advertisable_eid, '') = :account AND "

    def _accounts(self, tx: Tx) -> Sequence[str]:
        return accounts_of(tx) if self.account is None else (self.account,)

    def _by_account(self, where: str, **values: Any) -> list[model.Row]:
        """The rows of the accounts that are asked about, the latest ``due_at`` first.

        In the indexes the account comes before time and key. So there is a query for each account.
        """

        def look(tx: Tx) -> list[model.Row]:
            by_account = (
                schema.rows(tx, where, account=eid, **values) for eid in self._accounts(tx)
            )
            return [row for rows in by_account for row in rows]

        return sorted(self.database.read(look), key=lambda row: row.due_at, reverse=True)

    def _pages(self, where: str, **values: Any) -> Iterator[model.Row]:
        """All rows of a condition; only a page of them is in memory at a time."""
        self.take_in_all()
        where += f" AND id > :last ORDER BY id LIMIT {STEP}"
        values["last"] = ""
        while rows := self._all(where, **values):
            yield from rows
            values["last"] = rows[-1].id

    def knowledge(self, eids: Iterable[str] = (), tag: str = "") -> Knowledge:
        """For which times this outbox knows what was reported.

        :param eids: the accounts whose suppressed orders matter.
        :param tag: ``dedupe_key.secret_tag`` of the key with which suppressed orders are noted now.
        """
        return self.database.read(lambda tx: knowledge.knowledge_of(tx, eids, tag))

    def has_reports(self) -> bool:
        """Whether the site itself has reported here; imports alone do not count."""
        own = f"identifiers < {model.IMPORTED}"
        # With these outcomes the history does not say whether an event was imported. Nor does it
        # for what is too old, which is summed up in hour 0.
        others = "'suppressed', 'failed', 'unused'"
        counted = f"hour > 0 AND outcome NOT IN ({others}) AND {own}"
        wheres = (f"adroll_history WHERE {counted}", f"adroll_event WHERE {_EVENTS} AND {own}")
        queries = [f"SELECT 1 FROM {where} LIMIT 1" for where in wheres]
        return self.database.read(lambda tx: any(map(tx.rows, queries)))

    def note_orders(self, name: str, keys: Sequence[str]) -> None:
        """Note that orders with these keys were paid at a time of which nothing is known."""
        self.database.write(lambda tx: knowledge.note_orders(tx, name, keys))

    def note_older_cookie(self, signed_at: float) -> None:
        """Note that a visitor has our cookie from a time of which this outbox knows nothing.

        Nothing is done if the cookie is younger, or if this is noted already.

        :param signed_at: when the cookie was signed, seconds since the epoch.
        """
        times = self.knowledge()
        if not times.has_older_cookies and not times.covers(signed_at, times.began):
            self.replace_notes(knowledge.OLDER, {knowledge.OLDER: "1"})

    # -- events -----------------------------------------------------------------------------

    def destinations(self) -> dict[str, model.Destination]:
        """AdRoll as the workers of each account see it, of all accounts that the outbox knows."""
        states = self.database.read(destination.states_of)
        return {eid: state for eid, state in states.items() if self.account in (None, eid)}

    def counts(self) -> dict[str, int]:
        """How many events are in each state.

        An event that was erased by a visitor's no is ``dead``. ``decided`` counts verdicts whose
        event has not come in.
        """
        self.take_in_all()
        query = f"SELECT state, count(*) FROM adroll_event WHERE {self._mine}1 = 1 GROUP BY state"
        numbers = dict(self.database.read(lambda tx: tx.rows(query, account=self.account)))
        return {state.name: int(numbers.get(state, 0)) for state in State}

    def list(
        self, state: str | None = None, limit: int = 100, *, newest: bool = False
    ) -> tuple[model.Row, ...]:
        """The first *limit* events of *state*, without their payload, in the order of sending.

        :param newest: the newest first instead.
        """
        self.take_in_all()
        order = "id DESC" if newest else "state, due_at"
        return self._all(f"{_of_state(state)} ORDER BY {order} LIMIT :limit", limit=limit)

    def show(self, id: str) -> model.Row | None:
        """One event with its payload."""
        if not is_id(id):
            return None
        self.take_in_all()
        return next(iter(self.those([id])), None)

    def those(self, ids: Sequence[str]) -> tuple[model.Row, ...]:
        """The events that have one of *ids*, with their payload."""
        where = f"{_EVENTS} AND id {{in_ids}}"
        parts = (self._all(where, full=True, ids=[*step]) for step in schema.steps(ids))
        return tuple(itertools.chain.from_iterable(parts))

    def newest_events(
        self, most: int, name: str | None = None, before: str | None = None
    ) -> tuple[model.Row, ...]:
        """The newest *most* events, newest first, without their payload.

        :param name: only events of this name; they are looked for among the newest ones.
        :param before: only events that were reported before the one with this id.
        """
        where = _EVENTS
        newest = "ORDER BY id DESC LIMIT"
        if before is not None:
            where += " AND id < :before"
        if name is not None:
            # No index has the ids of one name: a search for a rare one would read all rows.
            looked_at = f"{self._mine}{where} {newest} {max(_LOOKED_AT, most)}"
            lately = f"SELECT id FROM adroll_event WHERE {looked_at}"
            where += f" AND event_name = :name AND id >= (SELECT min(id) FROM ({lately}) AS lately)"
        return self._all(f"{where} {newest} :most", most=most, name=name, before=before)

    def pages(self, state: str | None = None) -> Iterator[model.Row]:
        """All events of *state*, with their payload; only a page is in memory at a time."""
        return self._pages(_of_state(state), full=True)

    def open_events(self) -> Iterator[model.Row]:
        """All undelivered events that still have a payload, with the payload."""
        return self._pages(f"{schema.in_states(*_OPEN)} AND payload IS NOT NULL", full=True)

    # -- orders; keys are those of adroll_flask.events.dedupe_key.kept_key ------------------

    def find(self, key: str, names: Sequence[str]) -> tuple[model.Row, ...]:
        """The events of *names* that have this key, oldest first, with their payload."""
        self.take_in_all()
        # The index begins with the account. The database uses it only if the condition names each
        # of its columns.
        where = (
            "advertisable_eid = :account AND dry_run IN (0, 1)"
            f" AND event_name {{in_ids}} AND dedupe_key = :key AND {_EVENTS}"
        )
        rows = self._by_account(where, full=True, ids=[*names], key=key)
        return tuple(sorted(rows, key=lambda row: row.id))

    def of_orders(self, orders: Sequence[model.OrderKey]) -> dict[model.OrderKey, model.Row]:
        """Those of *orders* that were reported, each with its event (without the payload)."""
        self.take_in_all()
        rows = self.database.read(lambda tx: schema.of_orders(tx, orders))
        return {order: row for order, row in rows.items() if row.state != "decided"}

    def suppressed(self, hashes: Sequence[str]) -> dict[str, model.SuppressedOrder]:
        """Why orders were suppressed, by their hash.

        :param hashes: of :func:`adroll_flask.events.dedupe_key.suppressed_key`.
        """
        query = "SELECT hash, reason, marked_at FROM adroll_mark WHERE hash {in_ids}"
        rows = self.database.read(lambda tx: tx.rows(query, ids=[*hashes]))
        return {order: model.SuppressedOrder(reason, at) for order, reason, at in rows}

    def reported(self, name: str, since: float, until: float) -> Iterator[model.Row]:
        """Orders that occurred between two times and are delivered, or wait to be sent."""
        where = (
            f"event_name = :name AND dry_run = 0 AND state < {State.dead}"
            " AND dedupe_key IS NOT NULL AND occurred_at BETWEEN :since AND :until"
        )
        return self._pages(where, name=name, since=since, until=until)

    def without_key(self, name: str) -> Iterator[tuple[str, model.Row]]:
        """Dead letters without a key: the order id in the payload of each, and its row.

        Those without an order id are left out.
        """
        where = f"state = {State.dead} AND event_name = :name AND {_KEYLESS}"
        for row in self._pages(where, full=True, name=name):
            order = order_id_of(row.payload)
            if order is not None:
                yield order, row

    # -- dead letters -----------------------------------------------------------------------

    def dead_letters(self, most: int) -> tuple[model.Row, ...]:
        """The newest *most* dead letters, newest first, without their payload."""
        where = f"{of_account(State.dead)} AND dry_run = 0 {_LATEST}"
        return tuple(self._by_account(where, most=most)[:most])

    def ending_letters(self, seconds: float, most: int) -> tuple[model.Row, ...]:
        """Dead letters that are given up within *seconds*, the soonest first; without payload.

        :param most: dead letters of each account, at most.
        """
        where = (
            f"{of_account(State.dead)} AND due_at <= :now + {seconds} AND dry_run = 0"
            " AND payload IS NOT NULL ORDER BY due_at LIMIT :most"
        )
        return tuple(reversed(self._by_account(where, most=most)))

    def dead_letters_of(self, order: str, most: int) -> tuple[model.Row, ...]:
        """Invalid events with the order id *order*, the newest first. They have no key.

        :param most: so many of the newest dead letters of each account are looked through.
        """
        newest = f"SELECT id FROM adroll_event WHERE {of_account(State.dead)} {_LATEST}"
        where = f"id IN (SELECT id FROM ({newest}) AS newest) AND {_KEYLESS}"
        # A search for bytes is much faster than to read JSON. Other ids may be escaped in JSON: for
        # them no bytes are searched for, and each payload is read.
        plain = order.encode() if order.isascii() and order.isalnum() else b""
        rows = self._by_account(where, full=True, most=most)
        return tuple(
            row for row in rows if plain in row.payload and order_id_of(row.payload) == order
        )

    # -- sums -------------------------------------------------------------------------------

    def history(
        self, since: float, columns: Sequence[model.HistoryColumn], *, hours: int = 1
    ) -> tuple[HistorySum, ...]:
        """Sums of what happened since *since*, seconds since the epoch; no row of an event is read.

        :param hours: of how many hours one sum is, from its ``at`` on: 1, 6, 24 or 168. Days and
            weeks are UTC's.
        """
        self.take_in_all()
        since = max(since, 3600.0)  # hour 0 has the sums of what is too old
        which: dict[str, Any] = {"account": self.account, "since": since, "hours": hours}
        return self._sums(columns, outcomes=history.PRESENT, **which)

    def _sums(self, columns: Sequence[model.HistoryColumn], **which: Any) -> tuple[HistorySum, ...]:
        ask = partial(history.sums, columns=columns, other_side=self.other_side, **which)
        return self.database.read(ask)

    def unsettled(self, most: int) -> tuple[HistorySum, ...]:
        """Sums of what waits or is held.

        There is one sum for each quarter of an hour, event, ``waiting`` or ``held``, currency,
        account, dry run or not, and imported or not. In every time zone a day begins
        with such a quarter.

        :param most: events of each state that are looked at.
        """
        self.take_in_all()
        return self.database.read(partial(_unsettled, most, self.account))

    def totals(self) -> tuple[HistorySum, ...]:
        """Sums since the first event, for monitoring: by account, event, outcome, reason, currency.

        They are those of all processes, and never fall: what is too old for the history is summed
        up in an hour of its own.
        """
        return self._sums(history.TOTALS)

    def delivered_for(self, account: str) -> float:
        """Seconds since the last delivery of an event of *account* that has a key."""
        # The index has due_at: of a delivered row, the time at which the row may be removed. That
        # is days after the delivery of an event with a key, and minutes after that of another one.
        newest = f"{of_account(State.delivered)} ORDER BY due_at DESC LIMIT 1"

        def look(tx: Tx) -> float:
            times = schema.events(tx, "settled_at", newest, account=account)
            settled_at = schema.first_value(times)
            return float("inf") if settled_at is None else max(0.0, tx.now - settled_at)

        return self.database.read(look)

    def wrong_clocks(self) -> tuple[WrongClock, ...]:
        """Clocks of hosts that differ from AdRoll's or from the database server's."""
        return self.database.read(wrong_clocks)

    def due(self) -> int:
        """How many events could be sent now. Of each account at most 10,000 are counted."""
        return self.database.read(lambda tx: count_due(tx, self._accounts(tx), MOST_DUE))

    # -- notes that all processes share -----------------------------------------------------

    def notes(self, prefix: str) -> dict[str, str]:
        """Short notes, by names that begin with *prefix*."""
        return self.database.read(lambda tx: schema.metas(tx, prefix))

    def replace_notes(self, prefix: str, values: Mapping[str, str]) -> set[str]:
        """Replace the notes whose names begin with *prefix* by *values*.

        Names are cut to 60 characters, and values to 64.

        :returns: the names that are new, as they were cut. If several processes replace the notes
            at once, a name is new for only one of them.
        """
        wanted = {name[:_NAME_LENGTH]: value[:_VALUE_LENGTH] for name, value in values.items()}

        def put(tx: Tx) -> set[str]:
            before = schema.metas(tx, prefix)
            for name, _ in sorted(before.items() - wanted.items()):
                tx.execute("DELETE FROM adroll_meta WHERE name = :name", name=name)
            return {
                name
                for name, value in wanted.items()
                if schema.insert(tx, "adroll_meta", name=name, value=value) and name not in before
            }

        return self.database.write(put)

    def take_turn(self, name: str, seconds: float) -> bool:
        """True for one of all processes, once in *seconds*."""
        take = "UPDATE adroll_meta SET value = :now WHERE name = :name AND value = :value"

        def take_it(tx: Tx) -> bool:
            schema.insert(tx, "adroll_meta", name=name, value="0")
            value = schema.meta(tx, name) or "0"
            now = int(tx.now)
            age = now - schema.number(value, 0.0)
            if 0 <= age < seconds:  # below 0: the clock was set back, and nobody knows the age
                return False
            return bool(tx.execute(take, name=name, now=str(now), value=value))

        return self.database.write(take_it)

    # -- too few ----------------------------------------------------------------------------

    def watched(self) -> tuple[model.Watched, ...]:
        """Events that come often enough to be missed, and whether each comes as usual.

        Empty while this cannot be known: entries of this host's journal are not taken in, or more
        events wait in the outbox than are counted.
        """
        watched = self._watched() or ()
        return tuple(event for event in watched if self.account in (None, event.account))

    def _watched(self) -> tuple[model.Watched, ...] | None:
        self.take_in_all()
        try:
            waiting = self.bytes_waiting()
        except model.OutboxFailed:  # its folder may not be looked at; another finding says so
            return None
        return None if waiting else self.database.read(self._look_for_few)

    def _look_for_few(self, tx: Tx) -> tuple[model.Watched, ...] | None:
        """The watched events of this site's accounts; ``None``: too many wait to be counted."""
        numbers = _numbers_by_hour(tx)
        if numbers is None:
            return None
        watched = []
        for (account, name), by_hour in sorted(numbers.items()):
            if self.other_side(account) or not self.serves(account):
                continue
            event = too_few.watched(name, account, by_hour, tx.now, self.zone)
            if event is not None:
                watched.append(event)
        return tuple(watched)

    def note_silences(self) -> tuple[model.Watched, ...]:
        """Events that fell silent since any process last called this. Each is told once."""
        watched = self._watched()
        if watched is None:
            return ()
        silent = {
            f"{_SILENT}{event.account}:{event.name}"[:_NAME_LENGTH]: event
            for event in watched
            if event.level == "silent"
        }
        # What another app has noted of its own accounts stays.
        others = [name for name in self.notes(_SILENT) if not self.serves(name.split(":")[1])]
        new = self.replace_notes(_SILENT, dict.fromkeys([*others, *silent], "1"))
        return tuple(event for name, event in silent.items() if name in new)


def _numbers_by_hour(tx: Tx) -> Mapping[tuple[str, str], Counter[int]] | None:
    """How many events of each account and name the site reported, by the hour.

    ``None``: too many wait to be counted. A report that is invalid, or that AdRoll refused, counts.
    A suppressed one does not: a broken consent banner is silence, too. An imported event does not,
    since it does not come from the site.
    """
    since = int((tx.now - too_few.LOOKS_BACK) // 3600)
    numbers: defaultdict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for account, name, hour, number in tx.rows(
        "SELECT advertisable_eid, event_name, hour, sum(events) FROM adroll_history"
        " WHERE hour >= :since AND outcome IN ('delivered', 'dead', 'invalid', 'expired',"
        " 'cancelled', 'failed') AND identifiers < :imported"
        " GROUP BY advertisable_eid, event_name, hour"
        " HAVING sum(events) > 0",
        since=since,
        imported=model.IMPORTED,
    ):
        numbers[account, name][int(hour)] += int(number)
    unsettled = _unsettled(MOST_DUE, None, tx)
    if sum(row.events for row in unsettled) >= MOST_DUE:
        return None
    for row in unsettled:
        is_report = not row.dry_run and row.identifiers < model.IMPORTED
        if is_report and row.at // 3600 >= since:
            numbers[row.advertisable_eid, row.event_name][row.at // 3600] += row.events
    return numbers


def _unsettled(most: int, account: str | None, tx: Tx) -> tuple[HistorySum, ...]:
    """Sums of what waits or is held. Their ``identifiers`` tell only of imported events."""
    #: By what the events of a sum have in common: their number, and their value.
    sums: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
    columns = "event_name, digest, occurred_at, advertisable_eid, dry_run, identifiers"
    for state, outcome in _OUTCOMES.items():
        where = f"state = {state}" if account is None else of_account(state)
        rows = schema.events(tx, columns, f"{where} LIMIT :most", most=most, account=account)
        for name, digest, at, eid, dry, identifiers in rows:
            value, currency = history.amount_of(digest)
            imported = identifiers & model.IMPORTED
            quarter = int(at // 900) * 900
            numbers = sums[quarter, name, outcome, currency, eid, bool(dry), imported]
            numbers[0] += 1
            numbers[1] += value
    return tuple(
        HistorySum(
            at,
            name,
            outcome,
            currency=currency,
            events=number,
            value=history.as_decimal(value),
            dry_run=dry,
            advertisable_eid=eid,
            identifiers=imported,
        )
        for (at, name, outcome, currency, eid, dry, imported), (number, value) in sorted(
            sums.items()
        )
    )


def wire_of(payload: bytes) -> dict[str, Any]:
    """The JSON object of an event; empty where *payload* was erased or is damaged."""
    try:
        wire = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return wire if isinstance(wire, dict) else {}


def order_id_of(payload: bytes) -> str | None:
    """The order's id in an event's JSON, as a text; ``None``: there is none."""
    try:
        order = wire_of(payload)["event_attributes"]["order_id"]
    except (KeyError, TypeError):
        return None
    return None if order is None else str(order)


def _of_state(state: str | None) -> str:
    return _EVENTS if state is None else f"state = {State[state]}"


def is_id(id: str) -> bool:
    """True where *id* has the form of an event's id."""
    return len(id) == 32 and all(character in "0123456789abcdef" for character in id)


# -- what waits -----------------------------------------------------------------------------------


@cache
def first_due(*states: State) -> str:
    """The statement that tells for each of *states* when an account's first event is due.

    A value is ``NULL`` where there is no such event. Each state takes one look into the index. If
    the statement grouped by state, PostgreSQL would read all that waits. If it were a locking read,
    MariaDB would go through index entries of rows that are in another state by now.
    """
    first = "SELECT (SELECT due_at FROM adroll_event WHERE {} ORDER BY due_at LIMIT 1)"
    return " UNION ALL ".join(first.format(of_account(state)) for state in states)


def count_due(tx: Tx, accounts: Sequence[str], most: int) -> int:
    """How many events of *accounts* are due; of each account at most *most* are counted."""
    due = f"{of_account(State.waiting)} AND due_at <= :now LIMIT :most"
    count = f"SELECT count(*) FROM (SELECT 1 AS x FROM adroll_event WHERE {due}) AS due"
    counts = (tx.rows(count, account=account, most=most) for account in accounts)
    return sum(int(schema.first_value(rows)) for rows in counts)


def oldest_due(
    tx: Tx, accounts: Sequence[str] | None = None, states: Sequence[State] = model.UNSENT
) -> float | None:
    """Seconds since the first event of *accounts* became due, or its lease ended.

    ``None``: none is due.
    """
    eids = accounts_of(tx) if accounts is None else accounts
    times = [at for eid in eids for (at,) in tx.rows(first_due(*states), account=eid)]
    first = min((at for at in times if at is not None), default=None)
    return None if first is None or first > tx.now else tx.now - first

"""The shop's list of paid orders against what the outbox knows of them."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

from adroll_flask.events.privacy import kept_key, suppressed_key
from adroll_flask.outbox.lookups import Lookups
from adroll_flask.outbox.values import Row, worst

from .lists import NoOrderColumn, ReconcileError, find_columns, read_time, spellings
from .reporter import Reporter

Status: TypeAlias = Literal[
    "delivered",
    "waiting",
    "held",
    "cancelled",
    "dead",
    "suppressed",
    "duplicate",
    "missing",
    "forgotten",
    "not_listed",
]

#: Names of columns that are known, without case, spaces and punctuation.
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "order_id": ("orderid", "order", "orderno", "ordernumber", "number", "id", "name"),
    "value": ("value", "total", "amount", "price", "grandtotal"),
    "currency": ("currency", "currencycode"),
    "time": ("time", "paidat", "createdat", "date", "timestamp", "orderedat"),
}
#: What has a line of a summary for each reason.
_REASONED: Final = ("suppressed", "cancelled", "dead")
_BATCH: Final = 500
_DAY: Final = 86_400
#: Different values of a group that are told apart.
_GROUPS: Final = 50


@dataclass(frozen=True, slots=True)
class Order:
    """What became of one order.

    :param status: ``delivered``; ``waiting``; ``held`` (until it is released); ``cancelled`` (also
        where its hold has expired); ``dead``; ``suppressed``; ``duplicate`` (twice in the list);
        ``missing`` (never reported); ``forgotten`` (so old that the outbox does not know any more);
        ``not_listed`` (reported, but not in the list).
    :param why: AdRoll's words of a dead letter, the reason of a suppressed or cancelled order, and
        of a waiting one why nothing is sent at present.
    :param reported: value and currency as they were reported, where the list says otherwise.
    :param event: the id of its event, where there is one.
    """

    order_id: str
    status: Status
    why: str = ""
    value: str = ""
    currency: str = ""
    reported: str = ""
    time: float | None = None
    group: str = ""
    event: str = ""


@dataclass(eq=False, repr=False)
class Reconciliation:
    """Goes through a list of paid orders; iterate over it, then look at its sums.

    Memory stays the same however long the list is: orders seen are kept in a temporary file.

    :param orders: one mapping an order.
    :param columns: what a column is called, where it cannot be guessed: ``order_id``,
        ``value``, ``currency``, ``time``.
    :param group: a column by whose values missing orders are counted.
    :param name: the events that orders are reported as.
    :raises ReconcileError: while iterating: a column is missing.
    """

    reporter: Reporter
    orders: Iterable[Mapping[str, Any]]
    _: KW_ONLY
    columns: Mapping[str, str] | None = None
    group: str | None = None
    name: str = "purchase"
    #: Orders by status.
    counts: Counter[str] = field(default_factory=Counter, init=False)
    #: Reasons of suppressed and cancelled orders and of dead letters.
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter, init=False)
    #: Missing orders by the value of the group's column.
    groups: Counter[str] = field(default_factory=Counter, init=False)
    #: Orders that were reported with another value than the list's.
    differing: int = field(default=0, init=False)
    #: Why orders cannot be looked for that are not in the list; empty: it has times.
    not_looked_for: str = field(default="no column of times", init=False)
    #: Dead letters that have no key, by their orders' ids: why, and the event's id.
    _invalid: dict[str, tuple[str, str]] = field(default_factory=dict, init=False)

    @property
    def total(self) -> int:
        """Orders in the list, each counted once."""
        return sum(self.counts.values()) - self.counts["not_listed"] - self.counts["duplicate"]

    @property
    def lost(self) -> float:
        """The share of orders that should have reached AdRoll and will not, from 0 to 1."""
        # What nobody released in time was paid all the same, says the list.
        expired = self.reasons["cancelled", "hold_expired"]
        kept_back = self.counts["suppressed"] + self.counts["cancelled"] - expired
        expected = self.total - kept_back - self.counts["forgotten"]
        lost = self.counts["missing"] + self.counts["dead"] + expired
        return lost / expected if expected else 0.0

    def __iter__(self) -> Iterator[Order]:
        parsed, outbox = self._parsed(), self.reporter.outbox
        if not outbox.exists():
            yield from map(self._counted, parsed)
            return
        lookups = outbox.lookups
        lookups.take_in_all()
        stopped = worst(outbox.account_states().values()).stopped or ""
        self._invalid = {key: (row.error, row.id) for key, row in lookups.without_key(self.name)}
        # A temporary file of SQLite's, removed when it is closed.
        with closing(sqlite3.connect("")) as seen:
            seen.execute("CREATE TABLE seen (key TEXT PRIMARY KEY) WITHOUT ROWID")
            times: list[float] = []
            while batch := list(islice(parsed, _BATCH)):
                times += [order.time for order in batch if order.time is not None]
                times = [min(times), max(times)] if times else []
                yield from self._looked_up(batch, lookups, seen, stopped)
            # A list of one day has orders whose events are of the night before; only what lies
            # within it surely should be there.
            for found in lookups.reported(self.name, *times) if times else ():
                key = found.key or ""
                if seen.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchone() is None:
                    at, what, event = found.occurred_at, found.digest, found.id
                    one = Order(key, "not_listed", reported=what, time=at, event=event)
                    yield self._counted(one)

    def _looked_up(
        self, batch: list[Order], orders: Lookups, seen: sqlite3.Connection, stopped: str
    ) -> Iterator[Order]:
        secret = self.reporter.records.dedupe_secret
        ids = {one.order_id: spellings(one.order_id) for one in batch}
        keys = {id: kept_key(id, secret) for its in ids.values() for id in its}
        hashes = {id: suppressed_key(self.name, id, secret) for id in keys}
        known: dict[str, Row] = {}
        for eid in self.reporter.settings.served_accounts or ("",):
            known = {**orders.known(self.name, eid, list(set(keys.values()))), **known}
        suppressed = orders.suppressed(list(hashes.values()))
        kept = known.keys() | suppressed.keys() | self._invalid.keys()
        oldest = self.reporter.clock() - self.reporter.settings.dedupe_days * _DAY
        for one in batch:
            its = (id for id in ids[one.order_id] if {id, keys[id], hashes[id]} & kept)
            id = next(its, one.order_id)
            key, why = keys[id], suppressed.get(hashes[id])
            if not seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount:
                one = replace(one, status="duplicate")
            elif key in known:
                one = self._kept(one, known[key], stopped)
            elif why is not None:
                one = replace(one, status="suppressed", why=why.reason)
            elif id in self._invalid:
                error, event = self._invalid[id]
                one = replace(one, status="dead", why=error, event=event)
            elif one.time is not None and one.time < oldest:
                one = replace(one, status="forgotten")
            yield self._counted(one)

    def _kept(self, one: Order, found: Row, stopped: str) -> Order:
        reported = "" if _is_same(one, found.digest) else found.digest
        self.differing += bool(reported)
        ended = {"delivered": "", "held": "", "cancelled": found.reason}
        ended["dead"] = found.error or found.reason
        status: Any = found.state if found.state in ended else "waiting"
        why = ended.get(found.state, stopped or found.error)
        return replace(one, status=status, why=why, reported=reported, event=found.id)

    def _counted(self, order: Order) -> Order:
        self.counts[order.status] += 1
        if order.status in _REASONED:
            self.reasons[line_of(order)] += 1
        elif order.status == "missing" and self.group:
            known = order.group in self.groups or len(self.groups) < _GROUPS
            self.groups[order.group if known else "…"] += 1
        return order

    # -- the list ---------------------------------------------------------------------------

    def _parsed(self) -> Iterator[Order]:
        """The orders of the list, each ``missing`` as long as nothing else is known."""
        names: dict[str, str] = {}
        for row in self.orders:
            names = names or self._names(row)
            order_id = _text(row.get(names["order_id"]))
            at = _time(row.get(names.get("time", "")))
            self.not_looked_for = "" if at is not None else self.not_looked_for
            if order_id:
                yield Order(
                    order_id,
                    "missing",
                    value=_text(row.get(names.get("value", ""))),
                    currency=_text(row.get(names.get("currency", ""))),
                    time=at,
                    group=_text(row.get(self.group or "")),
                )

    def _names(self, row: Mapping[str, Any]) -> dict[str, str]:
        found = find_columns(row, self.columns or {}, COLUMNS)
        there = f"; there are: {', '.join(map(str, row))}"
        if "order_id" not in found:
            raise NoOrderColumn(f"no column is known to hold the order's id{there}")
        if self.group and self.group not in row:
            raise ReconcileError(f"there is no column {self.group!r} to group by{there}")
        if "time" in found:
            self.not_looked_for = f"no time in column {found['time']!r} can be read"
        return found


def line_of(order: Order) -> tuple[Status, str]:
    """What tells an order's line of a summary from others: its status, and of some the reason."""
    return order.status, order.why.partition(":")[0] if order.status in _REASONED else ""


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _time(value: object) -> float | None:
    """Seconds since the epoch; a time without a zone is UTC."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    try:
        return read_time(_text(value), UTC)
    except ValueError:
        return None


def amount_of(text: str) -> Decimal | None:
    """An amount as shops export it: ``59.90``, ``59,90 €``, ``1.234,50``.

    >>> amount_of("1.234,50 EUR")
    Decimal('1234.50')
    """
    digits = re.sub(r"[^\d.,-]", "", text)
    point, comma = digits.rfind("."), digits.rfind(",")
    if comma > point and (point >= 0 or len(digits) - comma <= 3):
        digits = digits.replace(".", "").replace(",", ".")
    else:
        digits = digits.replace(",", "")
    try:
        return Decimal(digits)
    except InvalidOperation:
        return None


def _is_same(one: Order, digest: str) -> bool:
    """Whether the list's value is the one reported, as far as it says one."""
    reported, _, currency = digest.partition(" ")
    if one.currency and currency not in ("", "None") and one.currency.upper() != currency:
        return False
    ours = amount_of(one.value) if one.value else None
    if ours is None:
        return True
    try:
        return Decimal(reported) == ours
    except InvalidOperation:
        return False

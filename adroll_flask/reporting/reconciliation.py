"""Compares a shop's list of paid orders with what the outbox knows of them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC
from decimal import Decimal
from itertools import islice, product
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from adroll_flask.amounts import EXACT
from adroll_flask.events.dedupe_key import kept_key, suppressed_key
from adroll_flask.events.fields import LIMIT, rounded
from adroll_flask.forks import StillAtForks
from adroll_flask.outbox.knowledge import Knowledge
from adroll_flask.outbox.lookups import Lookups
from adroll_flask.outbox.model import Destination, OrderKey, Row, SuppressedOrder

from .lists import COLUMNS, ReconcileError, find_columns, read_amount, read_time, spellings
from .reporter import Reporter

#: What each means says :class:`Order`.
Status: TypeAlias = (
    Literal["delivered", "waiting", "held", "cancelled", "dead", "suppressed"]
    | Literal["duplicate", "missing", "unknown", "not_listed", "dry_run"]
)

#: What is kept of an order.
Kept: TypeAlias = Row | SuppressedOrder | None
#: Statuses of which a summary tells each reason in a line of its own.
_REASONED: Final = ("suppressed", "cancelled", "dead")
#: So many values of the group's column are counted apart, the others together.
_TOLD_APART: Final = 50
_BATCH: Final = 250
#: Why an order is unknown that may have been suppressed under a key that the app has no more.
FORMER_KEY: Final = "former_key"
#: The event as which an order is reported.
EVENT_NAME: Final = "purchase"


class Order(NamedTuple):
    """What became of one order.

    :param status: ``delivered``; ``waiting``; ``held`` (until it is released); ``cancelled`` (also
        where its hold has expired); ``dead``; ``suppressed``; ``duplicate`` (twice in the list);
        ``missing`` (never reported); ``dry_run`` (reported as a dry run alone: AdRoll does not have
        it); ``unknown`` (paid before the outbox began, in a gap of what it knows, or longer ago
        than it keeps orders; or it may have been suppressed under a key that the app has no more);
        ``not_listed`` (reported, but not in the list).
    :param why: the reason of a suppressed or cancelled order, of a dead letter with AdRoll's words
        or ours, and of a waiting one why nothing is sent at present. Of an unknown one
        ``former_key``, where that is why.
    :param reported: value and currency as they were reported, where the list has others.
    :param event: the id of its event, where there is one.
    :param refunded: what the shop took back after its delivery, which AdRoll keeps: ``19.90 EUR``.
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
    refunded: str = ""

    @property
    def has_arrived(self) -> bool:
        """Whether it reached AdRoll as it should have."""
        return self.status == "delivered" and not self.reported

    @property
    def is_rest(self) -> bool:
        """Whether it did not arrive. An unknown order does not count: it may have arrived."""
        return not self.has_arrived and self.status != "unknown"


@dataclass(eq=False, repr=False)
class Reconciliation:
    """Goes through a list of paid orders; iterate over it, then look at its sums.

    Memory stays the same however long the list is: orders seen are kept in a temporary file.

    :param orders: one mapping an order.
    :param columns: what a column is called, where it cannot be guessed: ``order_id``,
        ``value``, ``currency``, ``time``.
    :param group: a column by whose values missing orders are counted.
    :param account: the advertisable EID of the shop whose list it is; ``None``: of all shops.
    :raises ReconcileError: while iterating: a column is missing.
    """

    reporter: Reporter
    orders: Iterable[Mapping[str, Any]]
    _: KW_ONLY
    columns: Mapping[str, str] | None = None
    group: str | None = None
    account: str | None = None
    #: Orders by status.
    counts: Counter[str] = field(default_factory=Counter, init=False)
    #: Reasons of suppressed and cancelled orders and of dead letters.
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter, init=False)
    #: Missing orders by the value of the group's column.
    groups: Counter[str] = field(default_factory=Counter, init=False)
    #: Orders that were reported with another value than the list's.
    differing: int = field(default=0, init=False)
    #: Orders that the shop took back, or a part of them, after their delivery.
    refunded: int = field(default=0, init=False)
    #: Whether the list has times. Then reported orders are looked for that are not in it.
    has_times: bool = field(default=False, init=False)

    @property
    def total(self) -> int:
        """Orders in the list, each counted once."""
        return sum(self.counts.values()) - self.counts["not_listed"] - self.counts["duplicate"]

    @property
    def lost(self) -> float:
        """The share of orders that should have reached AdRoll and will not, from 0 to 1."""
        # Nobody released these in time, but the list says that they were paid.
        expired = self.reasons["cancelled", "hold_expired"]
        kept_back = self.counts["suppressed"] + self.counts["cancelled"] - expired
        expected = self.total - kept_back - self.counts["unknown"]
        lost = self.counts["missing"] + self.counts["dry_run"] + self.counts["dead"] + expired
        return lost / expected if expected else 0.0

    def __iter__(self) -> Iterator[Order]:
        for order in self._compared():
            self.counts[order.status] += 1
            self.differing += bool(order.reported) and order.status != "not_listed"
            self.refunded += bool(order.refunded)
            if order.status in _REASONED:
                self.reasons[status_and_reason(order)] += 1
            elif order.status == "missing" and self.group:
                has_line = order.group in self.groups or len(self.groups) < _TOLD_APART
                self.groups[order.group if has_line else "…"] += 1
            yield order

    def sums(self) -> dict[str, Any]:
        """What came of a list, for programs."""
        return {
            "orders": self.total,
            **dict(sorted(self.counts.items())),
            "differing": self.differing,
            "refunded": self.refunded,
            "reasons": {f"{status}: {why}": n for (status, why), n in self.reasons.most_common()},
            "missing_by_group": dict(self.groups.most_common()),
            "lost_per_cent": round(self.lost * 100, 3),
        }

    def _compared(self) -> Iterator[Order]:
        """The orders of the list, then the reported ones that it does not have."""
        listed = self._listed()
        lookups = self.reporter.outbox.lookups.of(self.account)
        secret = self.reporter.visitors.dedupe_secret
        served = self.reporter.settings.served_accounts
        eids = [*served, ""] if self.account is None else [self.account]
        states = lookups.destinations()
        knowledge = self.reporter.knowledge()
        # Dead letters that were invalid have no key. Their content is not kept here.
        keyless = lookups.without_key(EVENT_NAME)
        invalid = {order: replace(row, payload=b"") for order, row in keyless}
        times: list[float] = []  # the first and the last of the list
        with closing(_Seen(self.reporter.outbox.still)) as seen:
            while batch := list(islice(listed, _BATCH)):
                times += [order.time for order in batch if order.time is not None]
                times = [min(times), max(times)] if times else []
                kept = self._kept_of(batch, lookups, eids, invalid)
                for order in batch:
                    ids = spellings(order.order_id)
                    id = next((id for id in ids if kept[id] is not None), ids[0])
                    is_new = seen.add(kept_key(id, secret))
                    became = self._became(order, kept[id], states, knowledge)
                    yield became if is_new else order._replace(status="duplicate")
            # An order of the list's first day may have been reported in the night before it. So an
            # event is looked for in the list only if it lies between the list's own times.
            for row in lookups.reported(EVENT_NAME, *times) if times else ():
                key = row.key or ""
                # Orders of other accounts are another app's, or the sandbox's.
                if key not in seen and row.advertisable_eid in eids:
                    yield Order(
                        key, "not_listed", reported=row.digest, time=row.occurred_at, event=row.id
                    )

    def _kept_of(
        self, batch: list[Order], lookups: Lookups, eids: list[str], invalid: Mapping[str, Row]
    ) -> dict[str, Kept]:
        """What is kept of the orders of *batch*, by each spelling of their ids.

        If an order has several events, one that is no dry run goes before one that is, then that of
        an account before that of the accounts after it in *eids*.

        :param invalid: the dead letters without a key, by their orders' ids.
        """
        secret = self.reporter.visitors.dedupe_secret
        keys = {id: kept_key(id, secret) for order in batch for id in spellings(order.order_id)}
        hashes = {id: suppressed_key(EVENT_NAME, id, secret) for id in keys}
        all_keys = product((False, True), eids, keys.values())
        orders = [OrderKey(eid, is_dry, EVENT_NAME, key) for is_dry, eid, key in all_keys]
        rows = lookups.of_orders(orders)
        events = {order.key: rows[order] for order in reversed(orders) if order in rows}
        why = lookups.suppressed([*hashes.values()])
        return {
            id: events.get(key) or why.get(hashes[id]) or invalid.get(id)
            for id, key in keys.items()
        }

    def _became(
        self, order: Order, kept: Kept, states: Mapping[str, Destination], knowledge: Knowledge
    ) -> Order:
        """*order*, and what became of it.

        :param kept: what is kept of it.
        :param states: why nothing is sent at present, by account.
        """
        if kept is None:
            now = self.reporter.clock()
            if knowledge.knows(order.time, now):
                return order
            reason = FORMER_KEY if knowledge.remembers(order.time, now) else ""
            return order._replace(status="unknown", why=reason)
        if isinstance(kept, SuppressedOrder):
            return order._replace(status="suppressed", why=kept.reason)
        if kept.dry_run:
            return order._replace(status="dry_run", event=kept.id)
        if kept.state == "dead" and kept.reason == "forgotten":
            return order._replace(status="suppressed", why="forgotten", event=kept.id)
        is_unreleased = kept.state == "held" or kept.reason == "hold_expired"
        if is_unreleased and knowledge.original_may_have_released(kept.reported_at, order.time):
            return order._replace(status="unknown")
        state: Any = kept.state
        own = states.get(kept.advertisable_eid, Destination())
        why = {"delivered": "", "held": "", "cancelled": kept.reason, "dead": kept.why}
        return order._replace(
            status=state if state in why else "waiting",
            why=why.get(state, own.stopped or kept.error),
            reported="" if _is_same(order, kept) else kept.digest,
            event=kept.id,
            refunded=kept.refund,
        )

    def _listed(self) -> Iterator[Order]:
        """The orders of the list, each as ``missing``: nothing was looked up yet."""
        names: dict[str, str] = {}
        for row in self.orders:
            names = names or self._names(row)
            columns: dict[str, Any] = {what: _cell(row.get(name)) for what, name in names.items()}
            order_id = columns.pop("order_id")
            try:
                columns["time"] = read_time(columns.get("time", ""), UTC)
                self.has_times = True
            except ValueError:
                columns["time"] = None
            if order_id:
                yield Order(order_id, "missing", **columns)

    def _names(self, row: Mapping[str, Any]) -> dict[str, str]:
        names = find_columns(row, self.columns or {}, COLUMNS)
        if "order_id" not in names:
            raise ReconcileError(
                "no column is known to hold the order's id: name it (in the form, or with --column "
                f"order_id=NAME); there are: {', '.join(map(str, row))}"
            )
        return names | find_columns(row, {"group": self.group} if self.group else {}, {})


class _Seen:
    """The keys of a list's orders, in a temporary file that is removed when it is closed."""

    def __init__(self, still: StillAtForks) -> None:
        self._still = still
        with still.lock:
            self._store = sqlite3.connect("")
            self._store.execute("CREATE TABLE seen (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, key: str) -> bool:
        """Whether *key* is new."""
        with self._still.lock:
            before = self._store.total_changes
            self._store.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,))
            return self._store.total_changes > before

    def __contains__(self, key: str) -> bool:
        with self._still.lock:
            return bool(self._store.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchall())

    def close(self) -> None:
        with self._still.lock:
            self._store.close()


def status_and_reason(order: Order) -> tuple[Status, str]:
    """The line of a summary that counts *order*: its status, and of some statuses the reason."""
    return order.status, order.why.partition(": ")[0] if order.status in _REASONED else ""


def _cell(value: object) -> str:
    # A Decimal's own text may be 1E+3.
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    # JSON can hold half of a surrogate pair, and no database or hash can.
    return "" if value is None else text.strip().encode(errors="replace").decode()


def _is_same(order: Order, kept: Row) -> bool:
    """Whether the list's value is the reported one, or what a refund left of that.

    True also where the list has no value.
    """
    amount, _, currency = kept.digest.partition(" ")
    if order.currency and currency not in ("", "None") and order.currency.upper() != currency:
        return False
    ours = read_amount(order.value)
    reported = read_amount(amount)
    if ours is None or reported is None:
        return ours is None
    refund = read_amount(kept.refund.partition(" ")[0]) or Decimal()
    remaining = EXACT.subtract(reported, refund)
    # The reported value was rounded.
    return ours.copy_abs() < LIMIT and rounded(ours, currency) in (reported, remaining)

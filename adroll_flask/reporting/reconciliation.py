"""The shop's list of paid orders against what the outbox knows of them."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from adroll_flask.errors import AdRollError, EventError, let_through
from adroll_flask.events.fields import LIMIT, accept_amount, rounded
from adroll_flask.events.names import kept_key, suppressed_key
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.lookups import is_id
from adroll_flask.outbox.model import HistorySum, OrderKey, Row, SuppressedOrder, worst
from adroll_flask.plurals import iso, span
from adroll_flask.redaction import describe

from .lists import COLUMNS, ReconcileError, find_columns, read_amount, read_time, spellings
from .reporter import Reporter

logger: Logger = get_logger("adroll_flask.reporting")

#: The first six are said by what is kept of an order, the others by the list or by nothing at all.
Status: TypeAlias = (
    Literal["delivered", "waiting", "held", "cancelled", "dead", "suppressed"]
    | Literal["duplicate", "missing", "forgotten", "not_listed"]
)

#: What has a line of a summary for each reason.
_REASONED: Final = ("suppressed", "cancelled", "dead")
#: Different values of a group that are told apart.
_TOLD_APART: Final = 50
_BATCH: Final = 500
_DAY: Final = 86_400
#: How many days the shop's own list tells of.
DAYS: Final = 14
#: How many days are compared, and how often, in seconds.
_LOOKS: Final = ((DAYS, 86_400.0), (3, 3600.0))
#: An order may be paid some time before it is reported: seconds.
_GRACE: Final = 900.0
#: Groups of a day that are told apart; and of those kinds that end with a release, orders that are
#: known one by one: so that it ends them at once, and not the next comparison.
_GROUPS, _ALONE = 100, 80
#: By what a list's line tells: orders that AdRoll will not learn of as it is.
_LACKING: Final = {
    ("missing", ""): "missing",
    ("held", ""): "held",
    ("cancelled", "hold_expired"): "expired",
}
#: Notes of a kind, a day, and a place among its groups or the id of an order's event.
_NOTE: Final = "paid:"
#: How a comparison does, and when one came to its end, seconds since the epoch.
_STATE: Final = "paid-orders:at-work"
_DONE: Final = "paid-orders-done"
#: Seconds after which the function is slow.
_SLOW: Final = 60.0


class Order(NamedTuple):
    """What became of one order.

    :param status: ``delivered``; ``waiting``; ``held`` (until it is released); ``cancelled`` (also
        where its hold has expired); ``dead``; ``suppressed``; ``duplicate`` (twice in the list);
        ``missing`` (never reported); ``forgotten`` (so old that the outbox does not know any more);
        ``not_listed`` (reported, but not in the list).
    :param why: the reason of a suppressed or cancelled order, of a dead letter with AdRoll's words
        or ours, and of a waiting one why nothing is sent at present.
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

    @property
    def has_arrived(self) -> bool:
        """Whether it reached AdRoll as it should have."""
        return self.status == "delivered" and not self.reported

    def told(self) -> dict[str, Any]:
        """What is told of it; its time as ISO 8601 in UTC."""
        return self._asdict() | {"time": iso(self.time)}


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
    #: Whether the list has times: orders are looked for that are not in it.
    has_times: bool = field(default=False, init=False)

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
        for order in self._compared():
            self.counts[order.status] += 1
            self.differing += bool(order.reported) and order.status != "not_listed"
            if order.status in _REASONED:
                self.reasons[line_of(order)] += 1
            elif order.status == "missing" and self.group:
                known = order.group in self.groups or len(self.groups) < _TOLD_APART
                self.groups[order.group if known else "…"] += 1
            yield order

    def sums(self) -> dict[str, Any]:
        """What came of a list, for programs."""
        return {
            "orders": self.total,
            **dict(sorted(self.counts.items())),
            "differing": self.differing,
            "reasons": {f"{status}: {why}": n for (status, why), n in self.reasons.most_common()},
            "missing_by_group": dict(self.groups.most_common()),
            "lost_per_cent": round(self.lost * 100, 3),
        }

    def _compared(self) -> Iterator[Order]:
        listed, lookups = self._listed(), self.reporter.outbox.lookups
        secret = self.reporter.visitors.dedupe_secret
        eids = (*self.reporter.settings.served_accounts, "")
        stopped = worst(lookups.destinations().values()).stopped or ""
        # Dead letters that were invalid have no key. Their content is not kept here.
        keyless = lookups.without_key(self.name)
        invalid = {order: replace(row, payload=b"") for order, row in keyless}
        times: list[float] = []
        # A temporary file of SQLite's, removed when it is closed.
        with closing(sqlite3.connect("")) as seen:
            seen.execute("CREATE TABLE seen (key TEXT PRIMARY KEY) WITHOUT ROWID")
            while batch := list(islice(listed, _BATCH)):
                times += [order.time for order in batch if order.time is not None]
                times = [min(times), max(times)] if times else []
                keys = {i: kept_key(i, secret) for one in batch for i in spellings(one.order_id)}
                hashes = {id: suppressed_key(self.name, id, secret) for id in keys}
                # Of one that has several events, the first account's, and none's at last.
                orders = [OrderKey(eid, False, self.name, k) for eid in eids for k in keys.values()]
                rows = lookups.known(orders)
                known = {order.key: rows[order] for order in reversed(orders) if order in rows}
                why = lookups.suppressed([*hashes.values()])
                kept: dict[str, Row | SuppressedOrder | None] = {
                    id: known.get(key) or why.get(hashes[id]) or invalid.get(id)
                    for id, key in keys.items()
                }
                for one in batch:
                    ids = spellings(one.order_id)
                    id = next((id for id in ids if kept[id] is not None), ids[0])
                    is_new = seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (keys[id],))
                    became = self._became(one, kept[id], stopped)
                    yield became if is_new.rowcount else one._replace(status="duplicate")
            # A list of one day has orders whose events are of the night before; only what lies
            # within it surely should be there.
            for row in lookups.reported(self.name, *times) if times else ():
                key = row.key or ""
                if seen.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchone() is None:
                    at, what = row.occurred_at, row.digest
                    yield Order(key, "not_listed", reported=what, time=at, event=row.id)

    def _became(self, one: Order, kept: Row | SuppressedOrder | None, stopped: str) -> Order:
        """*one*, and what became of it.

        :param kept: what is kept of it.
        :param stopped: why nothing is sent at present.
        """
        if kept is None:
            oldest = self.reporter.clock() - self.reporter.settings.dedupe_days * _DAY
            is_old = one.time is not None and one.time < oldest
            return one._replace(status="forgotten") if is_old else one
        if isinstance(kept, SuppressedOrder):
            return one._replace(status="suppressed", why=kept.reason)
        if kept.state == "dead" and not kept.has_died:
            return one._replace(status="suppressed", why="forgotten", event=kept.id)
        state: Any = kept.state
        why = {"delivered": "", "held": "", "cancelled": kept.reason, "dead": kept.why}
        return one._replace(
            status=state if state in why else "waiting",
            why=why.get(state, stopped or kept.error),
            reported="" if _is_same(one, kept.digest) else kept.digest,
            event=kept.id,
        )

    def _listed(self) -> Iterator[Order]:
        """The orders of the list, each ``missing`` as long as nothing else is known."""
        names: dict[str, str] = {}
        for row in self.orders:
            names = names or self._names(row)
            said: dict[str, Any] = {what: _text(row.get(name)) for what, name in names.items()}
            with suppress(EventError):
                if not isinstance(value := row.get(names.get("value", "")), str):
                    said["value"] = f"{accept_amount(value):f}"  # none such as 1E+3
            at = None
            with suppress(ValueError):
                at = read_time(_text(row.get(names.get("time", ""))), UTC)  # where it has no zone
            self.has_times |= at is not None
            if order_id := said.pop("order_id"):
                yield Order(order_id, "missing", **said | {"time": at})

    def _names(self, row: Mapping[str, Any]) -> dict[str, str]:
        found = find_columns(row, self.columns or {}, COLUMNS)
        there = f"; there are: {', '.join(map(str, row))}"
        if "order_id" not in found:
            raise ReconcileError(
                "no column is known to hold the order's id: name it (in the form, or with --column "
                f"order_id=NAME){there}"
            )
        if self.group and self.group not in row:
            raise ReconcileError(f"there is no column {self.group!r} to group by{there}")
        return found | ({"group": self.group} if self.group else {})


def line_of(order: Order) -> tuple[Status, str]:
    """What tells an order's line of a summary from others: its status, and of some the reason."""
    return order.status, order.why.partition(": ")[0] if order.status in _REASONED else ""


def _text(value: object) -> str:
    # JSON can hold half of a surrogate pair, and no database or hash can.
    return "" if value is None else str(value).strip().encode(errors="replace").decode()


def _is_same(one: Order, digest: str) -> bool:
    """Whether the list's value is the one reported, as far as it says one."""
    reported, _, currency = digest.partition(" ")
    if one.currency and currency not in ("", "None") and one.currency.upper() != currency:
        return False
    ours = read_amount(one.value)
    # It was rounded when it was reported.
    return ours is None or (abs(ours) < LIMIT and rounded(ours, currency) == read_amount(reported))


# -- the shop's own list ---------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class PaidOrders:
    """Asks the shop for its paid orders now and then, in a thread of its own.

    :param context: what the site's function runs in, such as the app's context.
    """

    reporter: Reporter
    context: Callable[[], AbstractContextManager[object]]
    _thread: threading.Thread | None = None

    @property
    def is_known(self) -> bool:
        """Whether the shop has such a function."""
        return self.reporter.functions.paid_orders is not None

    def look(self, patience: float = 0.0) -> None:
        """Compare, where it is time and nobody else does.

        :param patience: seconds for which the end of it is waited for.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        # In a forked child its parent's thread is not alive.
        if not self.is_known or (self._thread is not None and self._thread.is_alive()):
            return
        lookups = self.reporter.outbox.lookups
        due = [days for days, every in _LOOKS if lookups.take_turn(f"paid-orders:{days}", every)]
        if due:
            self._thread = threading.Thread(
                target=self.compare, args=(max(due),), name="adroll-paid-orders", daemon=True
            )
            self._thread.start()
            self._thread.join(patience)

    def compare(self, days: int) -> None:
        """Compare the last *days*; keep what was never reported or released; never raises."""
        lookups = self.reporter.outbox.lookups
        try:
            lookups.replace_notes(_STATE, {_STATE: f"begun {self.reporter.clock():.0f}"})
            began = time.monotonic()
            #: By kind and day, and by event, currency and group: how many, and their money.
            found: dict[tuple[str, str], dict[tuple[str, str, str], tuple[int, Decimal]]]
            found = defaultdict(dict)
            for order in self.found(days):
                if order.status in ("not_listed", "duplicate"):
                    continue
                at = self.reporter.clock() if order.time is None else order.time
                day = f"{self._day(at).timestamp():.0f}"
                kinds = {"all": ("", "", "")}
                if kind := _LACKING.get(line_of(order)):
                    event = order.event if len(found[kind, day]) < _ALONE else ""
                    kinds[kind] = event, order.currency[:8], order.group
                for kind, of in kinds.items():
                    number, value = found[kind, day].get(of, (0, Decimal()))
                    found[kind, day][of] = number + 1, value + (read_amount(order.value) or 0)
            # Days before these stay as they are, for as long as the longest look.
            oldest, first = (f"{self._span(n)[0].timestamp():.0f}" for n in (DAYS, days))
            notes = lookups.notes(_NOTE)
            notes = {name: notes[name] for name in notes if oldest <= name.split(":")[2] < first}
            for (kind, day), groups in found.items():
                most = sorted(groups.items(), key=lambda item: -item[1][0])[:_GROUPS]
                for place, ((event, currency, group), (number, value)) in enumerate(most):
                    # The group last: a note is cut where it is too long.
                    told = json.dumps([number, f"{value:.18g}", currency], ensure_ascii=False)
                    notes[f"{_NOTE}{kind}:{day}:{event or place}"] = f"{told}{group}"
            lookups.replace_notes(_NOTE, notes)
            lookups.replace_notes(_DONE, {_DONE: f"{self.reporter.clock():.0f}"})
            took = time.monotonic() - began
            slow = {_STATE: f"it took {span(took)}"} if took > _SLOW else {}
            lookups.replace_notes(_STATE, slow)
        except Exception as problem:
            let_through(problem)
            said = describe(problem)
            logger.error("The shop's paid orders cannot be compared: %s [paid-orders-failed]", said)
            with suppress(AdRollError):  # the outbox is away: its own finding
                lookups.replace_notes(_STATE, {_STATE: f"it raised {type(problem).__name__}"})

    def told(self) -> dict[str, list[HistorySum]]:
        """What the last comparisons found, by day (``at``) and group (``reason``).

        Of ``all`` orders the sums of each day; of those that were never reported (``missing``),
        are ``held`` still, or whose hold has ``expired``, each group of it.
        """
        found: dict[str, list[HistorySum]] = {kind: [] for kind in ("all", *_LACKING.values())}
        lookups = self.reporter.outbox.lookups
        notes = {(*name.split(":"),): text for name, text in lookups.notes(_NOTE).items()}
        rows = lookups.those([id for *_, id in notes if is_id(id)])
        now = {row.id: (row.state, row.reason) for row in rows}
        for (_, noted, day, id), text in notes.items():
            kind = _LACKING.get(now.get(id, ("", ""))) if is_id(id) else noted
            if kind in found:
                (number, value, currency), end = json.JSONDecoder().raw_decode(text)
                sums = {"reason": text[end:], "currency": currency, "value": Decimal(value)}
                found[kind].append(HistorySum(int(day), "purchase", kind, events=number, **sums))
        return found

    def trouble(self) -> str:
        """Why the shop's list could not be compared lately; empty: it could."""
        text = self.reporter.outbox.lookups.notes(_STATE).get(_STATE, "")
        begun = text.removeprefix("begun ")
        if begun == text:
            return text
        takes = self.reporter.clock() - float(begun)
        return f"it has not ended for {span(takes)}" if takes > _SLOW else ""

    def told_until(self) -> float:
        """Before when the list tells what is missing, seconds since the epoch; 0: it does not."""
        outbox = self.reporter.outbox
        if not self.is_known or not outbox.exists() or self.trouble():
            return 0.0
        done = outbox.lookups.notes(_DONE).get(_DONE)
        # What was lost within an hour counts at its beginning.
        return float(done) - _GRACE - 3600 if done else 0.0

    def found(self, days: int) -> Reconciliation:
        """What became of each paid order of the last *days*; iterate over it."""
        return Reconciliation(self.reporter, self._rows(days), group="group")

    def _rows(self, days: int) -> Iterator[Mapping[str, Any]]:
        function = self.reporter.functions.paid_orders
        if function is None:
            return
        since, until = self._span(days)
        with self.context():
            for row in function(since, until):
                known = {name: row.get(name) for name in ("order_id", "value", "currency")}
                yield known | {"time": row.get("at"), "group": row.get("group") or ""}

    def _span(self, days: int) -> tuple[datetime, datetime]:
        """The last *days*, whole ones of the shop's zone."""
        until = self.reporter.clock() - _GRACE
        since = self._day(until) - timedelta(days=days - 1)
        return since, datetime.fromtimestamp(until, since.tzinfo)

    def _day(self, at: float) -> datetime:
        """When the day of *at* began, in the shop's zone."""
        moment = datetime.fromtimestamp(at, self.reporter.settings.time_zone)
        return moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)

"""The shop's own list of paid orders, compared by itself: which were never reported or released."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from adroll_flask.errors import AdRollError
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import Outbox
from adroll_flask.plurals import span
from adroll_flask.redaction import describe

from .reconciliation import Reconciliation, amount_of, line_of
from .reporter import Reporter

logger: Logger = get_logger("adroll_flask.reporting")

#: How many days are compared, and how often, in seconds.
_LOOKS: Final = ((14, 86_400.0), (3, 3600.0))
#: An order may be paid some time before it is reported: seconds.
_GRACE: Final = 900.0
#: Groups of a day that are told apart.
_GROUPS: Final = 20
_DAY: Final = "missing:"
#: What became of paid orders that nobody released, as a list's line tells it, and how many of them
#: are known one by one: each ends as soon as it is released.
_UNRELEASED: Final = (("held", ""), ("cancelled", "hold_expired"))
_MOST: Final = 500
#: In place of an event's id, where there are more of them.
_MORE: Final = "more"
_EVENT: Final = "unpaid:"
#: The day of a note, in its name or at its beginning.
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_STATE: Final = "paid-orders:"
#: When the list was compared to its end, seconds since the epoch.
_DONE: Final = "paid-orders-done"
#: Seconds after which the function is slow.
_SLOW: Final = 60.0


class Missing(NamedTuple):
    """Orders of one day and group that were never reported, or one that was never released.

    :param day: in ``ADROLL_TIME_ZONE``, ``2026-11-20``.
    """

    day: str
    number: int
    value: Decimal
    currency: str
    group: str


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
        figures = self.reporter.outbox.lookups
        due = [days for days, every in _LOOKS if figures.take_turn(f"{_STATE}{days}", every)]
        if due:
            self._thread = threading.Thread(
                target=self.compare, args=(max(due),), name="adroll-paid-orders", daemon=True
            )
            self._thread.start()
            self._thread.join(patience)

    def compare(self, days: int) -> None:
        """Compare the last *days*; keep what was never reported or released; never raises."""
        figures = self.reporter.outbox.lookups
        state = f"{_STATE}at-work"
        try:
            figures.replace_notes(state, {state: f"begun {self.reporter.clock():.0f}"})
            began = time.monotonic()
            #: By day, and by group and currency: how many, and their money.
            missing: dict[str, dict[tuple[str, str], tuple[int, Decimal]]] = defaultdict(dict)
            totals: Counter[str] = Counter()
            unreleased: dict[str, str] = {}
            kept = self._kept_of_other_days(_EVENT, days)
            for order in self.found(days):
                if order.status in ("not_listed", "duplicate"):
                    continue
                day = self._day(order.time)
                totals[day] += 1
                if order.status == "missing":
                    of = order.currency[:8], order.group
                    number, value = missing[day].get(of, (0, Decimal()))
                    missing[day][of] = number + 1, value + (amount_of(order.value) or 0)
                elif line_of(order) in _UNRELEASED:
                    its = [day, f"{amount_of(order.value) or 0}"[:20], order.currency[:8]]
                    name = f"{_EVENT}{order.event if len(unreleased) < _MOST else _MORE}"
                    told = f"{json.dumps(its, ensure_ascii=False)}{order.group}"
                    # A text begins with its day. The earliest stays where there are more: looks at
                    # later days tell nothing of it.
                    unreleased[name] = min(told, unreleased.get(name, kept.get(name, told)))
            notes = {f"{_DAY}{day}:": f"{number}" for day, number in totals.items()}
            for day, groups in missing.items():
                most = sorted(groups.items(), key=lambda item: -item[1][0])[:_GROUPS]
                for place, ((currency, group), (number, value)) in enumerate(most):
                    # The group last: a note is cut where it is too long.
                    told = json.dumps([number, str(value), currency])
                    notes[f"{_DAY}{day}:{place}"] = f"{told}{group}"
            for prefix, found in ((_DAY, notes), (_EVENT, unreleased)):
                figures.replace_notes(prefix, self._kept_of_other_days(prefix, days) | found)
            figures.replace_notes(_DONE, {_DONE: f"{self.reporter.clock():.0f}"})
            took = time.monotonic() - began
            slow = {state: f"it took {span(took)}"} if took > _SLOW else {}
            figures.replace_notes(state, slow)
        except Exception as problem:
            let_through(problem)
            logger.error(
                "The shop's paid orders cannot be compared: %s [paid-orders-failed]",
                describe(problem),
            )
            with suppress(AdRollError):  # the outbox is away: its own finding
                figures.replace_notes(state, {state: f"it raised {type(problem).__name__}"})

    def told_until(self) -> float:
        """Before when the list tells what is missing, seconds since the epoch; 0: it does not."""
        outbox = self.reporter.outbox
        if not self.is_known or not outbox.exists() or trouble(outbox, self.reporter.clock()):
            return 0.0
        done = outbox.lookups.notes(_DONE).get(_DONE)
        # What was lost within an hour counts at its beginning.
        return float(done) - _GRACE - 3600 if done else 0.0

    def lost_and_told(self, begin: float, end: float) -> int:
        """How many lost orders of a span the list tells of, as far as they are missing still."""
        end = min(end, self.told_until())
        begin = max(begin, self.reporter.clock() - _LOOKS[0][0] * 86_400)
        if end <= begin:
            return 0
        rows = self.reporter.outbox.lookups.history(begin, ("at", "event_name", "outcome"))
        failed = (row for row in rows if (row.event_name, row.outcome) == ("purchase", "failed"))
        return sum(row.events for row in failed if row.at < end)

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
        now, zone = self.reporter.clock(), self.reporter.settings.time_zone
        until = datetime.fromtimestamp(now - _GRACE, zone)
        today = until.replace(hour=0, minute=0, second=0, microsecond=0)
        return today - timedelta(days=days - 1), until

    def _day(self, at: float | None) -> str:
        at = self.reporter.clock() if at is None else at
        return f"{datetime.fromtimestamp(at, self.reporter.settings.time_zone):%Y-%m-%d}"

    def _kept_of_other_days(self, prefix: str, days: int) -> dict[str, str]:
        """Notes of days before these, and not older than the longest look."""
        oldest, first = (f"{self._span(n)[0]:%Y-%m-%d}" for n in (_LOOKS[0][0], days))
        notes = self.reporter.outbox.lookups.notes(prefix)
        return {n: t for n, t in notes.items() if oldest <= _DATE.findall(n + t)[0] < first}


def missing_orders(outbox: Outbox) -> tuple[list[Missing], int]:
    """What is known of orders that were never reported, and how many paid ones were compared."""
    found, total = [], 0
    for name, text in outbox.lookups.notes(_DAY).items():
        day, _, place = name.removeprefix(_DAY).partition(":")
        if not place:
            total += int(text)
            continue
        (number, value, currency), end = json.JSONDecoder().raw_decode(text)
        found.append(Missing(day, number, Decimal(value), currency, text[end:]))
    return found, total


class Lacking(NamedTuple):
    """Paid orders that AdRoll will not learn of as it is.

    :param kinds: those that were never reported (``missing``), those that are ``held`` still, and
        those whose hold has ended (``hold_expired``).
    :param paid: how many paid orders were compared.
    :param is_all: whether each that was not released is known.
    """

    kinds: dict[str, list[Missing]]
    paid: int
    is_all: bool


def lacking_orders(outbox: Outbox) -> Lacking:
    """What the list tells, without what was released or cancelled since it was compared."""
    missing, paid = missing_orders(outbox)
    kinds: dict[str, list[Missing]] = {"missing": missing, "held": [], "hold_expired": []}
    notes = {name.removeprefix(_EVENT): text for name, text in outbox.lookups.notes(_EVENT).items()}
    for row in outbox.lookups.those([*notes]):
        (day, value, currency), end = json.JSONDecoder().raw_decode(notes[row.id])
        one = Missing(day, 1, Decimal(value), currency, notes[row.id][end:])
        kinds.get(row.reason if row.state == "cancelled" else row.state, []).append(one)
    return Lacking(kinds, paid, _MORE not in notes)


def trouble(outbox: Outbox, now: float) -> str:
    """Why the shop's list could not be compared lately; empty: it could."""
    for text in outbox.lookups.notes(f"{_STATE}at-work").values():
        begun = text.removeprefix("begun ")
        if begun == text:
            return text
        if now - float(begun) > _SLOW:
            return f"it has not ended for {span(now - float(begun))}"
    return ""

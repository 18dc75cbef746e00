"""The shop's own list (``@adroll.paid_orders``): asked for now and then, and compared.

What comes of a comparison is kept in notes of the outbox, for pages and findings.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias

from adroll_flask.amounts import EXACT
from adroll_flask.errors import AdRollError, let_through
from adroll_flask.events.dedupe_key import kept_key
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import schema
from adroll_flask.outbox.lookups import is_id
from adroll_flask.outbox.model import HistorySum
from adroll_flask.redaction import describe
from adroll_flask.times import DAY, HOUR, span

from .lists import read_amount, searched, spellings
from .reconciliation import EVENT_NAME, FORMER_KEY, Order, Reconciliation, status_and_reason
from .reporter import Reporter

logger: Logger = get_logger("adroll_flask.reporting")

#: How many days the shop's own list tells of.
DAYS: Final = 14
#: How many days are compared, and how often, in seconds.
_LOOKS: Final = ((DAYS, DAY), (3, HOUR))
#: How often, in seconds, a process compares that has just started, if the last list was empty or
#: could not be compared.
_SOON: Final = 60
#: Seconds that may pass from an order's payment to its report.
_GRACE: Final = 900.0
#: Groups of a kind and a day that are noted, the largest ones.
_GROUPS = 100
#: Of these, so many may be single orders with their event's id. Whoever reads such a note looks how
#: the event is now, so that a release counts before the next comparison.
_ALONE = 80
#: Kinds of orders that AdRoll will not get as things are, by their status and reason.
_KINDS: Final = {
    ("missing", ""): "missing",
    ("dry_run", ""): "dry_run",
    ("held", ""): "held",
    ("cancelled", "hold_expired"): "expired",
    ("unknown", ""): "unknown",
}
#: Reported orders that are not in the list.
_NOT_LISTED: Final = "not_listed"
#: How the names of notes begin. Kind, day, and the event's id or else a number follow.
_NOTE: Final = "paid:"
#: The note on a comparison that is under way or has failed.
_STATE: Final = "paid-orders:at-work"
#: The note on when a comparison was last completed, seconds since the epoch.
_DONE: Final = "paid-orders-done"
#: Why nothing is compared where a report sends itself.
_NOBODY: Final = (
    "with ADROLL_DELIVERY='sync' nobody asks for it; let cron run `flask adroll worker --once`"
)
#: Seconds after which the function is taken to hang.
_SLOW: Final = 60.0

#: How many orders there are, and their money, by event, currency and group.
_Groups: TypeAlias = dict[tuple[str, str, str], tuple[int, Decimal]]
#: Groups by kind and day.
_Sums: TypeAlias = dict[tuple[str, str], _Groups]


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

        :param patience: seconds to wait for the end of it.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        # In a forked child its parent's thread is not alive.
        thread = self._thread
        is_busy = thread is not None and thread.is_alive()
        if is_busy or not self.is_known:
            return
        # In a new process the function may have been corrected.
        is_doubtful = thread is None and (self.trouble() or not self.sums_by_kind()["all"])
        soonest = _SOON if is_doubtful else DAY
        turn = self.reporter.outbox.lookups.take_turn
        due = [days for days, every in _LOOKS if turn(f"paid-orders:{days}", min(every, soonest))]
        if due:
            self._thread = threading.Thread(
                target=self.compare, args=(max(due),), name="adroll-paid-orders", daemon=True
            )
            self._thread.start()
            self._thread.join(patience)

    def compare(self, days: int) -> None:
        """Compare the last *days*, and note what came of it; never raises."""
        lookups = self.reporter.outbox.lookups
        try:
            lookups.replace_notes(_STATE, {_STATE: f"begun {self.reporter.clock():.0f}"})
            lookups.replace_notes(_NOTE, self._notes(days, self._sums(days)))
            lookups.replace_notes(_DONE, {_DONE: f"{self.reporter.clock():.0f}"})
            lookups.replace_notes(_STATE, {})
        except Exception as problem:
            let_through(problem)
            detail = describe(problem)
            logger.error(
                "The shop's paid orders cannot be compared: %s [paid-orders-failed]", detail
            )
            with suppress(AdRollError):  # the outbox is away: its own finding
                lookups.replace_notes(_STATE, {_STATE: f"it raised {type(problem).__name__}"})

    def _sums(self, days: int) -> _Sums:
        """How many orders of the last *days* there are of each kind, and their money."""
        sums: _Sums = defaultdict(dict)
        unknown: list[str] = []
        for order in self.compared(days):
            if order.status == "duplicate":
                continue
            # Nothing has sent what may have been suppressed under a former key.
            if order.status == "unknown" and order.why != FORMER_KEY:
                unknown.append(order.order_id)
            at = self.reporter.clock() if order.time is None else order.time
            day = f"{self._begin_of_day(at).timestamp():.0f}"
            side = _NOT_LISTED if order.status == _NOT_LISTED else "all"
            _add(sums[side, day], ("", "", ""), order)
            if kind := _KINDS.get(status_and_reason(order)):
                groups = sums[kind, day]
                ends_by_release = kind != "dry_run" and len(groups) < _ALONE
                event = order.event if ends_by_release else ""
                _add(groups, (event, order.currency[:8], order.group), order)
        secret = self.reporter.visitors.dedupe_secret
        keys = [kept_key(id, secret) for order_id in unknown for id in spellings(order_id)]
        # So that a reload of an old order's page does not send it once more.
        self.reporter.outbox.lookups.note_orders(EVENT_NAME, keys)
        return sums

    def _notes(self, days: int, sums: _Sums) -> dict[str, str]:
        """The notes to keep: on each group of *sums*, and those on the days before the last *days*.

        Notes on days before the longest look are left out.
        """
        oldest, first = (f"{self._compared_span(n)[0].timestamp():.0f}" for n in (DAYS, days))
        notes = self.reporter.outbox.lookups.notes(_NOTE)
        notes = {name: notes[name] for name in notes if oldest <= name.split(":")[2] < first}
        for (kind, day), groups in sums.items():
            largest = sorted(groups.items(), key=lambda item: -item[1][0])[:_GROUPS]
            for place, ((event, currency, group), (number, value)) in enumerate(largest):
                # The group last: a note is cut where it is too long.
                numbers = json.dumps([number, f"{value:.18g}", currency], ensure_ascii=False)
                notes[f"{_NOTE}{kind}:{day}:{event or place}"] = f"{numbers}{group}"
        return notes

    def sums_by_kind(self) -> dict[str, list[HistorySum]]:
        """What came of the last comparisons, by day (``at``) and group (``reason``).

        The keys are kinds of orders: ``all`` of the list; those that were never reported
        (``missing``), or as dry runs alone (``dry_run``); those that are still ``held``; those
        whose hold has ``expired``; those of which nothing is known here (``unknown``); and reported
        ones that are not in the list (``not_listed``). ``all`` and ``not_listed`` have no groups.
        """
        kinds = ("all", _NOT_LISTED, *_KINDS.values())
        by_kind: dict[str, list[HistorySum]] = {kind: [] for kind in kinds}
        lookups = self.reporter.outbox.lookups
        notes = {(*name.split(":"),): text for name, text in lookups.notes(_NOTE).items()}
        rows = lookups.those([id for *_, id in notes if is_id(id)])
        now = {row.id: (row.state, row.reason) for row in rows}
        for (_, noted, day, id), text in notes.items():
            kind = _KINDS.get(now.get(id, ("", ""))) if is_id(id) else noted
            if kind in by_kind:
                with suppress(ValueError):  # a disk may damage a note
                    (events, value, currency), end = json.JSONDecoder().raw_decode(text)
                    sums = {"reason": text[end:], "currency": currency, "value": Decimal(value)}
                    one = HistorySum(int(day), EVENT_NAME, kind, events=events, **sums)
                    by_kind[kind].append(one)
        return by_kind

    def trouble(self) -> str:
        """Why the shop's list could not be compared lately; empty: it could."""
        lookups = self.reporter.outbox.lookups
        state = lookups.notes(_STATE).get(_STATE, "")
        if state.startswith("begun "):
            takes = self.reporter.clock() - schema.number(state.removeprefix("begun "), 0.0)
            return f"it has not ended for {span(takes)}" if takes > _SLOW else ""
        if state or self.reporter.settings.delivery != "sync":
            return state
        done = schema.number(lookups.notes(_DONE).get(_DONE), 0.0)
        return _NOBODY if self.reporter.clock() - done > 2 * DAY else ""

    def compared_at(self) -> float | None:
        """When the list was compared last, seconds since the epoch; ``None``: nobody knows."""
        outbox = self.reporter.outbox
        if not self.is_known or not outbox.exists() or self.trouble():
            return None
        done = outbox.lookups.notes(_DONE).get(_DONE)
        return schema.number(done, 0.0) or None

    def compared_until(self) -> float:
        """Up to when the list tells what is missing, seconds since the epoch; 0: it does not."""
        compared_at = self.compared_at()
        # The history has what was lost within an hour at the beginning of that hour.
        return 0.0 if compared_at is None else compared_at - _GRACE - 3600

    def compared(self, days: int) -> Reconciliation:
        """The comparison of the last *days*, order by order; iterate over it."""
        return Reconciliation(self.reporter, self._rows(days), group="group")

    def missing(self, typed: str) -> list[Order] | None:
        """What the list has of an order that was never reported.

        :param typed: its id, as people may write it.
        :returns: empty: the list does not have such an order; ``None``: the list cannot be read,
            which is a finding.
        """
        try:
            ids = searched(typed)
            lacking = (order for order in self.compared(DAYS) if order.status == "missing")
            return [order for order in lacking if order.order_id in ids]
        except Exception as problem:
            let_through(problem)
            return None

    def _rows(self, days: int) -> Iterator[Mapping[str, Any]]:
        function = self.reporter.functions.paid_orders
        if function is None:
            return
        since, until = self._compared_span(days)
        with self.context():
            for row in function(since, until):
                columns = {name: row.get(name) for name in ("order_id", "value", "currency")}
                yield columns | {"time": row.get("at"), "group": row.get("group") or ""}

    def _compared_span(self, days: int) -> tuple[datetime, datetime]:
        """When the last *days* begin and end. They are days of the shop's zone, today is one."""
        until = self.reporter.clock() - _GRACE
        since = self._begin_of_day(until) - timedelta(days=days - 1)
        return since, datetime.fromtimestamp(until, since.tzinfo)

    def _begin_of_day(self, at: float) -> datetime:
        """When the day of *at* began, in the shop's zone."""
        moment = datetime.fromtimestamp(at, self.reporter.settings.time_zone)
        return moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def _add(groups: _Groups, group: tuple[str, str, str], order: Order) -> None:
    """Count *order* in *group*, with its money."""
    number, value = groups.get(group, (0, Decimal()))
    groups[group] = number + 1, EXACT.add(value, read_amount(order.value) or Decimal())

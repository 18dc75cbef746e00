"""The shop's own list (``@adroll.paid_orders``): asked now and then, and compared.

What comes of a comparison is kept in the outbox, for pages and findings.
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
from typing import Any, Final

from adroll_flask.errors import AdRollError, let_through
from adroll_flask.events.names import kept_key
from adroll_flask.logs import Logger, get_logger
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
#: How often, in seconds, by processes that start where the last list was empty, or failed.
_SOON: Final = 60
#: An order may be paid some time before it is reported: seconds.
_GRACE: Final = 900.0
#: Groups of a day that are told apart; and of those kinds that end with a release, orders that are
#: known one by one: so that it ends them at once, and not the next comparison.
_GROUPS = 100
_ALONE = 80
#: By what a list's line tells: orders that AdRoll will not learn of as it is.
_LACKING: Final = {
    ("missing", ""): "missing",
    ("dry_run", ""): "dry_run",
    ("held", ""): "held",
    ("cancelled", "hold_expired"): "expired",
    ("unknown", ""): "unknown",
}
#: Reported orders that are not in the list.
_NOT_LISTED: Final = "not_listed"
#: Notes of a kind, a day, and a place among its groups or the id of an order's event.
_NOTE: Final = "paid:"
#: How a comparison does, and when one came to its end, seconds since the epoch.
_STATE: Final = "paid-orders:at-work"
_DONE: Final = "paid-orders-done"
#: Why it is not compared where a report sends itself.
_NOBODY: Final = (
    "with ADROLL_DELIVERY='sync' nobody asks for it; let cron run `flask adroll worker --once`"
)
#: Seconds after which the function is taken to hang.
_SLOW: Final = 60.0


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
        thread = self._thread
        is_busy = thread is not None and thread.is_alive()
        if is_busy or not self.is_known:
            return
        # A new process may have a function that was corrected.
        is_doubtful = thread is None and (self.trouble() or not self.told()["all"])
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
        """Compare the last *days*; keep what was never reported or released; never raises."""
        lookups = self.reporter.outbox.lookups
        try:
            lookups.replace_notes(_STATE, {_STATE: f"begun {self.reporter.clock():.0f}"})
            #: By kind and day, and by event, currency and group: how many, and their money.
            sums: dict[tuple[str, str], dict[tuple[str, str, str], tuple[int, Decimal]]]
            sums = defaultdict(dict)
            unknown: list[str] = []
            for order in self.compared(days):
                # AdRoll has none that was suppressed under a former key.
                if order.status == "unknown" and order.why != FORMER_KEY:
                    unknown.append(order.order_id)
                if order.status == "duplicate":
                    continue
                at = self.reporter.clock() if order.time is None else order.time
                day = f"{self._day(at).timestamp():.0f}"
                kinds = {_NOT_LISTED if order.status == _NOT_LISTED else "all": ("", "", "")}
                if kind := _LACKING.get(status_and_reason(order)):
                    ends_by_release = kind != "dry_run" and len(sums[kind, day]) < _ALONE
                    event = order.event if ends_by_release else ""
                    kinds[kind] = event, order.currency[:8], order.group
                for kind, of in kinds.items():
                    number, value = sums[kind, day].get(of, (0, Decimal()))
                    sums[kind, day][of] = number + 1, value + (read_amount(order.value) or 0)
            secret = self.reporter.visitors.dedupe_secret
            keys = [kept_key(id, secret) for order in unknown for id in spellings(order)]
            # So that a reload of an old order's page does not send it once more.
            lookups.note_orders(EVENT_NAME, keys)
            # Days before these stay as they are, for as long as the longest look.
            oldest, first = (f"{self._span(n)[0].timestamp():.0f}" for n in (DAYS, days))
            notes = lookups.notes(_NOTE)
            notes = {name: notes[name] for name in notes if oldest <= name.split(":")[2] < first}
            for (kind, day), groups in sums.items():
                most = sorted(groups.items(), key=lambda item: -item[1][0])[:_GROUPS]
                for place, ((event, currency, group), (number, value)) in enumerate(most):
                    # The group last: a note is cut where it is too long.
                    numbers = json.dumps([number, f"{value:.18g}", currency], ensure_ascii=False)
                    notes[f"{_NOTE}{kind}:{day}:{event or place}"] = f"{numbers}{group}"
            lookups.replace_notes(_NOTE, notes)
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

    def told(self) -> dict[str, list[HistorySum]]:
        """What the last comparisons found, by day (``at``) and group (``reason``).

        The keys are kinds of orders: ``all`` of the list; those that were never reported
        (``missing``), or as dry runs alone (``dry_run``); those that are still ``held``; those
        whose hold has ``expired``; those of which nothing is known here (``unknown``); and reported
        ones that are not in the list (``not_listed``). ``all`` and ``not_listed`` are not told by
        group.
        """
        kinds = ("all", _NOT_LISTED, *_LACKING.values())
        by_kind: dict[str, list[HistorySum]] = {kind: [] for kind in kinds}
        lookups = self.reporter.outbox.lookups
        notes = {(*name.split(":"),): text for name, text in lookups.notes(_NOTE).items()}
        rows = lookups.those([id for *_, id in notes if is_id(id)])
        now = {row.id: (row.state, row.reason) for row in rows}
        for (_, noted, day, id), text in notes.items():
            kind = _LACKING.get(now.get(id, ("", ""))) if is_id(id) else noted
            if kind in by_kind:
                (number, value, currency), end = json.JSONDecoder().raw_decode(text)
                sums = {"reason": text[end:], "currency": currency, "value": Decimal(value)}
                by_kind[kind].append(HistorySum(int(day), EVENT_NAME, kind, events=number, **sums))
        return by_kind

    def trouble(self) -> str:
        """Why the shop's list could not be compared lately; empty: it could."""
        text = self.reporter.outbox.lookups.notes(_STATE).get(_STATE, "")
        begun = text.removeprefix("begun ")
        if begun == text:
            done = float(self.reporter.outbox.lookups.notes(_DONE).get(_DONE, 0))
            is_late = self.reporter.clock() - done > 2 * DAY
            nobody = is_late and self.reporter.settings.delivery == "sync"
            return text or (_NOBODY if nobody else "")
        takes = self.reporter.clock() - float(begun)
        return f"it has not ended for {span(takes)}" if takes > _SLOW else ""

    def compared_at(self) -> float | None:
        """When the list was compared last, seconds since the epoch; ``None``: nobody knows."""
        outbox = self.reporter.outbox
        if not self.is_known or not outbox.exists() or self.trouble():
            return None
        done = outbox.lookups.notes(_DONE).get(_DONE)
        return float(done) if done else None

    def told_until(self) -> float:
        """Before when the list tells what is missing, seconds since the epoch; 0: it does not."""
        compared_at = self.compared_at()
        # What was lost within an hour counts at its beginning.
        return 0.0 if compared_at is None else compared_at - _GRACE - 3600

    def compared(self, days: int) -> Reconciliation:
        """What became of each paid order of the last *days*; iterate over it."""
        return Reconciliation(self.reporter, self._rows(days), group="group")

    def missing(self, typed: str) -> list[Order] | None:
        """What the list has of an order where it was never reported.

        :param typed: its id, as people may write it.

        Empty: the list does not have it; ``None``: it cannot be read, which is a finding.
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
        since, until = self._span(days)
        with self.context():
            for row in function(since, until):
                columns = {name: row.get(name) for name in ("order_id", "value", "currency")}
                yield columns | {"time": row.get("at"), "group": row.get("group") or ""}

    def _span(self, days: int) -> tuple[datetime, datetime]:
        """The last *days*, whole ones of the shop's zone."""
        until = self.reporter.clock() - _GRACE
        since = self._day(until) - timedelta(days=days - 1)
        return since, datetime.fromtimestamp(until, since.tzinfo)

    def _day(self, at: float) -> datetime:
        """When the day of *at* began, in the shop's zone."""
        moment = datetime.fromtimestamp(at, self.reporter.settings.time_zone)
        return moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)

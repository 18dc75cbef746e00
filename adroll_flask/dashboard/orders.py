"""Find an order and see its life; compare the shop's list of paid orders with what was reported."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final

from flask import abort
from werkzeug.wrappers import Response

from adroll_flask.errors import ConfigurationError, let_through
from adroll_flask.findings.finding import meaning, summary, texts
from adroll_flask.findings.rules import delays, problem_id
from adroll_flask.outbox.lookups import order_id_of
from adroll_flask.outbox.model import OutboxFailed, Row
from adroll_flask.plurals import iso
from adroll_flask.redaction import short_key
from adroll_flask.reporting.kept_events import FoundOrder, carried, find_order, life
from adroll_flask.reporting.lists import ReconcileError, read_amount, read_orders, spellings
from adroll_flask.reporting.reconciliation import DAYS, Order, Reconciliation, line_of

from .figures import csv_text, money, values
from .page import Data, Done, Page, Visit, csv_file

#: The names in the query: one event by its own id, the place in the list of the newest, a state.
EVENT: Final = "event"
BEFORE: Final = "before"
STATE: Final = "state"
#: Newest orders that are looked through for those of one state, and for one like an unknown one.
_LOOKED_THROUGH: Final = 500
#: What can be acted on comes first.
_URGENT: Final = ("missing", "dead", "held", "waiting", "differing")
#: Events of the list.
_LISTED: Final = 25
#: Invalid dead letters that are looked through for an order's id.
_LOOKED_AT: Final = 5000
_LONGEST_ORDER: Final = 300
#: Bytes of an uploaded list, and its lines.
_LARGEST_LIST: Final = 8 * 1024 * 1024
_MOST_LINES: Final = 50_000
#: Groups of the shop's own list that can be chosen.
_MOST_GROUPS: Final = 20
#: Orders of a comparison that the page lists, and that its CSV holds.
_SHOWN: Final = 200


def data(visit: Visit) -> Data:
    """The newest orders, or the order whose event the address names."""
    lookups, id = visit.outbox.lookups, visit.argument(EVENT)
    if id:
        row = lookups.show(id)
        if row is None:
            abort(404, "There is no such event any more. Delivered ones are kept for some weeks.")
        order = order_shown(row) or row.id
        events = lookups.find(row.key, [row.name]) if row.key else (row,)
        return _found(visit, order, FoundOrder(events or (row,)))
    state, before = visit.argument(STATE), visit.argument(BEFORE) or None
    most = _LOOKED_THROUGH if state else _LISTED
    rows = lookups.newest_events(most + 1, "purchase", before)
    found = [row for row in rows[:most] if not state or row.state == state]
    newest = found[:_LISTED]
    # Earlier ones begin after what is listed, or after what was looked through.
    more = rows[most - 1].id if len(rows) > most else None
    more = newest[-1].id if len(found) > _LISTED else more
    return {"newest": listed(visit, newest), "older": more, STATE: state}


def order_shown(row: Row) -> str:
    """The order's id, as pages show it; empty where the event has none."""
    return short_key(row.key or order_id_of(row.payload or b"") or "")


def listed(visit: Visit, rows: Sequence[Row]) -> list[Data]:
    """Events as a list shows them."""
    # What was invalid has no key: its order's id is in its content.
    keyless = [row.id for row in rows if not row.key and row.state == "dead"]
    whole = {row.id: row for row in visit.outbox.lookups.those(keyless)}
    return [_listed(whole.get(row.id, row)) for row in rows]


def _listed(row: Row) -> Data:
    """One event as a list shows it."""
    amount, _, currency = row.digest.partition(" ")
    return {
        "id": row.id,
        "name": row.name,
        "order": order_shown(row),
        "state": row.state,
        "value": amount if amount != "None" else "",
        "currency": currency if currency != "None" else "",
        "occurred_at": row.occurred_at,
        "settled_at": row.settled_at,
        "dry_run": row.dry_run,
        "unsure": row.unsure,
        "why": row.why if row.state in ("dead", "cancelled") else "",
        "words": row.error,
    }


def with_times(event: Data) -> Data:
    """One of :func:`listed` as its CSV has it."""
    return event | {name: iso(event[name]) for name in ("occurred_at", "settled_at")}


# -- one order -------------------------------------------------------------------------------------


def find(visit: Visit) -> Done | Data:
    """Look an order up. A POST, since an order's id may be a person's address: not for URLs."""
    typed = visit.request.form.get("order", "").strip()[:_LONGEST_ORDER]
    if not typed:
        return Done("Type the order's id, as the shop has it.", good=False)
    reporter, last = visit.runtime.reporter, typed.split()[-1].lstrip("#") or typed
    # Of "Order #4826" the last word, too.
    found = find_order(reporter, typed, last, most=_LOOKED_AT)
    if len(found.events) == 1 and not found.suppressed:
        return Done("", arguments={EVENT: found.events[0].id})
    more = {} if found else {"alike": _alike(visit, last), "paid": _paid(visit, typed, last)}
    return _found(visit, short_key(typed), found) | more


def _paid(visit: Visit, typed: str, last: str) -> list[str] | None:
    """What the shop's own list says of the value of an order that is unknown here.

    Empty: the list does not have it; ``None``: it cannot be read, which is a finding.
    """
    try:
        its = [one for one in visit.runtime.paid_orders.found(DAYS) if one.status == "missing"]
        return [_priced(one) for one in its if one.order_id in spellings(typed) + spellings(last)]
    except Exception as problem:
        let_through(problem)
        return None


def _alike(visit: Visit, order: str) -> list[Data]:
    """Known orders whose ids look like *order*."""
    rows = visit.outbox.lookups.newest_events(_LOOKED_THROUGH, "purchase")
    known = {order_shown(row): row.id for row in reversed(rows) if row.key}
    return [{"order": one, "id": known[one]} for one in get_close_matches(order, known, 3, 0.7)]


def _found(visit: Visit, order: str, found: FoundOrder) -> Data:
    return {
        "order": order,
        "found": {
            "events": [_told(row, visit.now) for row in found.events],
            "suppressed": [
                {"name": name, "reason": why.reason, "at": why.at}
                | {"meaning": meaning("suppressed", why.reason)._asdict()}
                for name, why in found.suppressed.items()
            ],
        },
    }


def _told(row: Row, now: float) -> Data:
    """One event's life."""
    steps = [step._asdict() for step in life(row) if step.kind != "now"]
    what = meaning("dead", row.reason) if row.state == "dead" else None
    return {
        **_listed(row),
        "account": row.advertisable_eid,
        "attempts": row.attempts,
        "steps": steps,
        "due_at": row.due_at if row.state in ("waiting", "held") and row.due_at > now else None,
        "advice": None if what is None else what._asdict(),
        "problem": None if what is None else problem_id(row.reason, row.error),
        "carried": carried(row),
    }


# -- the shop's list -------------------------------------------------------------------------------


def compare(visit: Visit) -> Done | Data | Response:
    """Compare an uploaded list of paid orders with what was reported."""
    given = visit.request.files.get("list")
    if given is None or not given.filename:
        return Done("Choose a file: the shop's list of paid orders, as CSV.", good=False)
    form = visit.request.form
    column, group = form.get("column", "").strip()[:200], form.get("group", "").strip()[:200]
    lines = io.TextIOWrapper(given.stream, encoding="utf-8-sig", errors="replace", newline="")
    found = Reconciliation(
        visit.runtime.reporter,
        _counted(read_orders(lines)),
        columns={"order_id": column} if column else None,
        group=group or None,
    )
    try:
        return _compared(found, group, as_csv=form.get("format") == "csv")
    except ReconcileError as problem:
        return Done(f"The list cannot be read: {problem}.", good=False)
    finally:
        lines.detach()


def missing(visit: Visit) -> Done | Data | Response:
    """Compare the shop's own list of the last fourteen days."""
    if not visit.runtime.paid_orders.is_known:
        return Done("The shop has not told how its paid orders are listed.", good=False)
    form = visit.request.form
    found, only = visit.runtime.paid_orders.found(DAYS), form.get("only", "")
    try:
        return _compared(found, "group", as_csv=form.get("format") == "csv", only=only)
    except (OutboxFailed, ConfigurationError):
        raise
    except Exception as problem:  # of the shop's function, which is a finding, too
        let_through(problem)
        text = f"The shop's own list cannot be read: it raised {type(problem).__name__}."
        return Done(text, good=False)


def _compared(
    found: Reconciliation, group: str, *, as_csv: bool, only: str | None = None
) -> Data | Response:
    """What became of a list.

    :param only: of the shop's own list, the group whose orders are listed; empty: all.
    """
    rest: list[Order] = []
    groups: Counter[str] = Counter()
    most = _MOST_LINES if as_csv else _SHOWN
    worth: dict[tuple[str, str], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for order in found:
        if not order.has_arrived:
            its = [("differing", "")] if order.reported else []
            its += [line_of(order)] if order.status != "delivered" else []
            for line in its:
                worth[line][order.currency] += read_amount(order.value) or 0
            groups[order.group] += 1
            if only in (None, "", order.group) and len(rest) < most:
                rest.append(order)
    if as_csv:
        return csv_file("not-arrived", csv_text((order.told() for order in rest), Order._fields))
    lines = [
        {"about": line[0], "text": text, "money": values(worth[line].items())}
        for line, text in summary(found)
    ]
    told = {
        "summary": sorted(lines, key=lambda one: one["about"] not in _URGENT),
        "rest": [
            order._asdict() | {"value": _priced(order)}
            for order in sorted(rest, key=lambda order: order.status not in _URGENT)
        ],
        "rest_count": groups[only] if only else groups.total(),
        "group": group,
        "groups": None if only is None else dict(groups.most_common(_MOST_GROUPS)),
        "only": only,
    }
    return {"compared": told}


def _priced(order: Order) -> str:
    """The list's amount as the other pages write it; without a currency as the list has it."""
    amount = read_amount(order.value) if order.currency else None
    return order.value if amount is None else money(amount, order.currency)


def _counted(orders: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for number, order in enumerate(orders, 1):
        if number > _MOST_LINES:
            raise ReconcileError(
                f"it has more than {_MOST_LINES:,} orders, which is too much for a page; in a"
                " terminal, flask adroll reconcile takes a list of any length"
            )
        yield order


# -- the page --------------------------------------------------------------------------------------


def rows(data: Data) -> Iterator[Mapping[str, object]]:
    """The newest orders, or the steps of the order that is looked at."""
    if "found" not in data:
        yield from map(with_times, data["newest"])
        return
    for event in data["found"]["events"]:
        for step in event["steps"]:
            named = {name: event[name] for name in ("id", "name", "order")}
            yield {**named, "step": step["kind"], "at": iso(step["at"]), "said": step["said"]}


PAGE: Final = Page(
    *("orders", data, rows),
    {"words": texts("words.toml"), "most_lines": _MOST_LINES, "shown": _SHOWN, "delays": delays},
    questions={"find": find, "compare": compare, "missing": missing},
    largest=_LARGEST_LIST,
    arguments=(EVENT, BEFORE, STATE),
)

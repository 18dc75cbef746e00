"""Find an order and see its life; compare the shop's list of paid orders with what was reported."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from flask import abort, current_app

from adroll_flask.outbox.orders import order_id_of
from adroll_flask.outbox.protocol import State
from adroll_flask.redaction import short_key
from adroll_flask.reporting.order_life import FoundOrder, Step, carried, find_order, life
from adroll_flask.reporting.order_lists import (
    REST_FIELDS,
    reached,
    read_orders,
    rest_fields,
    summary,
    sums,
)
from adroll_flask.reporting.reconciliation import Order, ReconcileError, Reconciliation

from .csv_form import csv_text
from .numbers import iso
from .page import Data, Done, Page, Visit
from .reasons import meaning, of_dead_letter

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from adroll_flask.outbox import Row

#: The names in the query: one event by its own id, and the place in the list of the newest.
EVENT: Final = "event"
BEFORE: Final = "before"
#: Events of the list.
_LISTED: Final = 25
#: Invalid dead letters that are looked through for an order's id.
_LOOKED_AT: Final = 5000
_LONGEST_ORDER: Final = 300
#: Bytes of an uploaded list, and its lines.
_LARGEST_LIST: Final = 8 * 1024 * 1024
_MOST_LINES: Final = 50_000
#: Orders of a comparison that the page lists, and that its CSV holds.
_SHOWN: Final = 200

#: How a state is called, and its tone.
_STATES: Final[Mapping[State, tuple[str, str]]] = {
    "waiting": ("waiting", "soft"),
    "claimed": ("being sent", "soft"),
    "sending": ("being sent", "soft"),
    "delivered": ("delivered", "good"),
    "dead": ("not sent", "bad"),
    "held": ("held until paid", "warn"),
    "cancelled": ("cancelled", "soft"),
}
#: How a step of an order's life is called, and its tone.
_STEPS: Final = {
    "happened": ("Happened", ""),
    "reported": ("Reported", ""),
    "held": ("Reported with a hold", ""),
    "kept": ("Kept, not sent", ""),
    "released": ("Released: it is paid", ""),
    "attempt": ("AdRoll was asked", "warn"),
    "delivered": ("Delivered", "good"),
    "dead": ("Given up", "bad"),
    "cancelled": ("Cancelled", ""),
}


def data(visit: Visit) -> Data:
    """The newest orders, or the order whose event the address names."""
    store, id = visit.store, visit.argument(EVENT)
    if id:
        row = store.admin.show(id) if store is not None else None
        if store is None or row is None:
            abort(404, "There is no such event any more. Delivered ones are kept for some weeks.")
        order = order_shown(row) or row.id
        events = store.orders.find(row.key, [row.name]) if row.key else (row,)
        return {**_nothing(), **_found(visit, order, FoundOrder(events or (row,)))}
    rows = (
        ()
        if store is None
        else store.dead_letters.newest_events(
            _LISTED + 1, "purchase", visit.argument(BEFORE) or None
        )
    )
    more = rows[_LISTED - 1].id if len(rows) > _LISTED else None
    newest = rows[:_LISTED]
    # What was invalid has no key: its order's id is in its content.
    keyless = [row.id for row in newest if not row.key and row.state == "dead"]
    whole = {} if store is None else {row.id: row for row in store.orders.those(keyless)}
    listed = [_listed(whole.get(row.id, row)) for row in newest]
    return {**_nothing(), "newest": listed, "older": more}


def _nothing() -> Data:
    return {"order": None, "found": None, "compared": None, "newest": None, "older": None}


def order_shown(row: Row) -> str:
    """The order's id, as pages show it; empty where the event has none."""
    return short_key(row.key or order_id_of(row.payload or b"") or "")


def group_of(reason: str, words: str) -> str:
    """A name for all dead letters of one cause: numbers in the words do not tell causes apart.

    >>> group_of("refused", "event 3: no EUR") == group_of("refused", "event 17: no EUR")
    True
    """
    alike = re.sub(r"[0-9]+", "0", words)
    return sha256(f"{reason}\0{alike}".encode()).hexdigest()[:16]


def _listed(row: Row) -> Data:
    """One event as a list shows it."""
    amount, _, currency = row.digest.partition(" ")
    why = ": ".join(part for part in (row.reason, row.error) if part)
    return {
        "id": row.id,
        "name": row.name,
        "order": order_shown(row),
        "state": row.state,
        "value": amount if amount != "None" else "",
        "currency": currency if currency != "None" else "",
        "occurred_at": row.occurred_at,
        "dry_run": row.dry_run,
        "unsure": row.unsure,
        "why": why if row.state in ("dead", "cancelled") else "",
    }


# -- one order -------------------------------------------------------------------------------------


def find(visit: Visit) -> Done | Data:
    """Look an order up. A POST, since an order's id may be a person's address: not for URLs."""
    order = visit.request.form.get("order", "").strip()[:_LONGEST_ORDER]
    if not order:
        return Done("Type the order's id, as the shop has it.", good=False)
    store, found = visit.store, FoundOrder()
    if store is not None:
        secret = visit.runtime.services.records.dedupe_secret
        found = find_order(store, order, secret, _LOOKED_AT)
    if len(found.events) == 1 and not found.suppressed:
        return Done("", arguments={EVENT: found.events[0].id})
    return {**_nothing(), **_found(visit, short_key(order), found)}


def _found(visit: Visit, order: str, found: FoundOrder) -> Data:
    return {
        "order": order,
        "found": {
            "events": [_told(row, visit.now) for row in found.events],
            "suppressed": [
                {
                    "name": one.name,
                    "reason": one.reason,
                    "at": one.at,
                    "meaning": meaning("suppressed", one.reason)._asdict(),
                }
                for one in found.suppressed
            ],
        },
    }


def _told(row: Row, now: float) -> Data:
    """One event's life."""
    steps = [
        {"kind": step.kind, "at": step.at, "said": _said(step)}
        for step in life(row)
        if step.kind != "now"
    ]
    what = of_dead_letter(row.reason) if row.state == "dead" else None
    return {
        **_listed(row),
        "account": row.advertisable_eid,
        "attempts": row.attempts,
        "steps": steps,
        "due_at": row.due_at if row.state in ("waiting", "held") and row.due_at > now else None,
        "advice": None if what is None else what._asdict(),
        "problem": None if what is None else group_of(row.reason, row.error),
        "carried": carried(row),
    }


def _said(step: Step) -> str:
    if step.attempt is None:
        return step.said
    words = step.attempt.words or step.attempt.answer
    return f"{words}; it may have arrived" if step.attempt.unsure else words


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
        visit.runtime.parts,
        _counted(read_orders(lines)),
        columns={"order_id": column} if column else None,
        group=group or None,
    )
    rest: list[Order] = []
    as_csv = form.get("format") == "csv"
    most = _MOST_LINES if as_csv else _SHOWN
    count = 0
    try:
        for order in found:
            if not reached(order):
                count += 1
                if len(rest) < most:
                    rest.append(order)
    except ReconcileError as problem:
        return Done(f"The list cannot be read: {problem}.", good=False)
    finally:
        lines.detach()
    if as_csv:
        return _rest_as_csv(rest)
    told = {
        "sums": sums(found),
        "summary": [{"about": about, "text": text} for about, text in summary(found, group)],
        "rest": [rest_fields(order) for order in rest],
        "rest_count": count,
        "group": group,
    }
    return {**_nothing(), "compared": told}


def _counted(orders: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for number, order in enumerate(orders, 1):
        if number > _MOST_LINES:
            raise ReconcileError(
                f"it has more than {_MOST_LINES:,} orders, which is too much for a page; in a"
                " terminal, flask adroll reconcile takes a list of any length"
            )
        yield order


def _rest_as_csv(rest: list[Order]) -> Response:
    text = csv_text(map(rest_fields, rest)) or ",".join(REST_FIELDS) + "\n"
    response = current_app.response_class(text, content_type="text/csv; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    name = 'attachment; filename="adroll-not-arrived.csv"'
    response.headers["Content-Disposition"] = name
    return response


# -- the page --------------------------------------------------------------------------------------


def rows(data: Data) -> Iterator[Mapping[str, object]]:
    """The newest orders, or the steps of the order that is looked at."""
    if data["found"] is None:
        for one in data["newest"] or ():
            yield {**one, "occurred_at": iso(one["occurred_at"])}
        return
    for event in data["found"]["events"]:
        for step in event["steps"]:
            named = {name: event[name] for name in ("id", "name", "order")}
            yield {**named, "step": step["kind"], "at": iso(step["at"]), "said": step["said"]}


def view(_visit: Visit, _data: Data) -> Data:
    """What the template has beside the data."""
    return {
        "state_words": _STATES,
        "step_words": _STEPS,
        "largest": _LARGEST_LIST,
        "most_lines": _MOST_LINES,
        "shown": _SHOWN,
    }


PAGE: Final = Page(
    "orders",
    "Orders",
    data,
    rows,
    questions={"find": find, "compare": compare},
    largest=_LARGEST_LIST,
    view=view,
    arguments=(EVENT, BEFORE),
)

"""Find an order and see its life; compare the shop's list of paid orders with what was reported."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from flask import abort
from werkzeug.wrappers import Response

from adroll_flask.amounts import EXACT
from adroll_flask.errors import ConfigurationError, let_through
from adroll_flask.events.names import IDENTIFIERS
from adroll_flask.findings.finding import in_words, meaning, row_of, summary, texts, why_of
from adroll_flask.findings.rules import Moment, problem_id, what_delays
from adroll_flask.outbox.lookups import order_id_of
from adroll_flask.outbox.model import OutboxFailed, Row
from adroll_flask.plurals import counted
from adroll_flask.redaction import short_key
from adroll_flask.reporting import kept_events
from adroll_flask.reporting.lists import ReconcileError, read_amount, read_orders
from adroll_flask.reporting.paid_orders import DAYS
from adroll_flask.reporting.reconciliation import Order, Reconciliation, status_and_reason
from adroll_flask.settings import Settings
from adroll_flask.times import iso

from .formats import csv_text, money, values
from .page import Data, Done, Page, Visit, csv_file

#: What our own codes mean: why no answer came, and who has an event.
_CODES: Final = texts("reasons.toml", "code/")
#: What the query may have: an event's id; and for the newest orders the event before them in the
#: list, a state, and an identifier that they carry.
_ARGUMENTS: Final = ("event", "before", "state", "carries")
#: So many of the newest orders are searched for those with the state or identifier of the query.
_MOST_ORDERS: Final = 500
#: Statuses of a comparison that somebody can act on: they come first.
_URGENT: Final = ("missing", "dry_run", "dead", "held", "waiting", "differing")
#: Newest orders that the page lists.
_LISTED: Final = 25
#: So many of the newest invalid dead letters are searched for an order's id.
_MOST_LETTERS: Final = 5000
#: Characters of an order's id that somebody types.
_LONGEST_ORDER: Final = 300
#: Bytes of an uploaded list.
_LARGEST_LIST: Final = 8 * 1024 * 1024
#: Orders of an uploaded list, and of a comparison's CSV.
_MOST_LINES: Final = 50_000
#: Orders of a comparison that the page lists.
_SHOWN: Final = 25


def orders_data(visit: Visit) -> Data:
    """The newest orders, or the order whose event the address names."""
    lookups = visit.lookups
    id = visit.argument("event")
    if id:
        row = lookups.show(id)
        if row is None:
            abort(404, "There is no such event any more. Delivered ones are kept for some weeks.")
        order = order_shown(row) or row.id
        events = lookups.find(row.key, [row.name]) if row.key else (row,)
        return _of_order(visit, order, kept_events.FoundOrder(events or (row,)))
    state = visit.argument("state")
    carries = visit.argument("carries")
    bits = IDENTIFIERS[carries].bits if carries in IDENTIFIERS else 0
    most = _MOST_ORDERS if state or bits else _LISTED
    rows = lookups.newest_events(most + 1, "purchase", visit.argument("before") or None)
    matching = [
        row
        for row in rows[:most]
        if state in ("", row.state) and (not bits or row.identifiers & bits)
    ]
    newest = matching[:_LISTED]
    # Older ones begin after the last that is listed, or else after the last that was searched.
    older = rows[most - 1].id if len(rows) > most else None
    if len(matching) > _LISTED:
        older = newest[-1].id
    carries = carries if bits else ""
    return {"newest": event_rows(visit, newest), "older": older, "state": state, "carries": carries}


def order_shown(row: Row) -> str:
    """The order's id, as pages show it; empty where the event has none."""
    return short_key(row.key or order_id_of(row.payload or b"") or "")


def event_rows(visit: Visit, rows: Sequence[Row]) -> list[Data]:
    """Events as a list shows them."""
    # An invalid event has no key: its order's id is in its content.
    keyless = [row.id for row in rows if not row.key and row.state == "dead"]
    whole = {row.id: row for row in visit.lookups.those(keyless)}
    return [_event_row(visit, whole.get(row.id, row)) for row in rows]


def _event_row(visit: Visit, row: Row) -> Data:
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
        "side": visit.settings.other_side(row.advertisable_eid),
        "shop": visit.settings.shop_names.get(row.advertisable_eid, ""),
        "unsure": row.unsure,
        "refunded_at": row.refunded_at,
        "refund": kept_events.value_in(row.refund),
        "matched": kept_events.matched_by(row),
        "why": why_of(row) if row.state in ("dead", "cancelled") else "",
        "reason": row.reason,
        "words": row.error,
    }


def with_times(event: Data) -> Data:
    """One of :func:`event_rows` as its CSV has it."""
    times = ("occurred_at", "settled_at", "refunded_at")
    return event | {name: iso(event[name]) for name in times}


def had_by(row: Row, settings: Settings) -> str:
    """Who got a delivered event, in a sentence, where that was not AdRoll. Empty: AdRoll got it, or
    it is not delivered."""
    code = "dry_run" if row.dry_run else settings.other_side(row.advertisable_eid)
    if not code and settings.sandbox:
        code = "in_sandbox"
    return f"{answer_in_words(code)}." if code and row.state == "delivered" else ""


def said_of(step: kept_events.LifeStep) -> str:
    """What there is to say of one step of an event's life, in words."""
    return in_words("dead", step.said) if step.kind == "dead" else answer_in_words(step.said)


def may_be_older(began: str, days: int) -> str:
    """The sentences that an order may be too old to be known here.

    :param began: when the outbox began, as people read it; empty: it has not.
    :param days: how long it keeps the keys of orders (``ADROLL_DEDUPE_DAYS``).
    """
    before = f", or was it paid before this outbox began ({began})" if began else ""
    age = counted(days, "day")
    return f"Is it older than {age}{before}? Then it is not known here, and AdRoll may have it."


def answer_in_words(text: str) -> str:
    """*text* in words, where it is one of our codes, such as for an answer that did not come.

    >>> answer_in_words("dns"), answer_in_words("http_503: busy")
    ("The name of AdRoll's server has no address. Nothing was sent", 'http_503: busy')
    """
    # What may follow the code says that the event may have arrived. The words say so, too.
    code = text.partition("; ")[0]
    title: str = _CODES[code]["title"] if code in _CODES else text
    return title


# -- one order -------------------------------------------------------------------------------------


def find_typed(visit: Visit) -> Done | Data:
    """Look an order up. By POST: an order's id may be a person's address, which no URL may have."""
    typed = visit.request.form.get("order", "").strip()[:_LONGEST_ORDER]
    if not typed:
        return Done("Type the order's id, as the shop has it.", good=False)
    reporter = visit.runtime.reporter
    known_order = kept_events.find_order(reporter, typed, most=_MOST_LETTERS, account=visit.account)
    if len(known_order.events) == 1 and not known_order.suppressed:
        return Done("", arguments={"event": known_order.events[0].id})
    more: Data = {}
    if not known_order:
        paid = visit.runtime.paid_orders.missing(typed)
        priced = None if paid is None else [_priced(order) for order in paid]
        near = kept_events.orders_alike(reporter, typed, visit.account)
        more = {"alike": [{"order": it, "id": id} for it, id in near.items()], "paid": priced}
    return _of_order(visit, short_key(typed), known_order) | more


def why_not_sent(moment: Moment, account: str) -> str:
    """What keeps the events of *account* from AdRoll, in a sentence; empty: nothing is known."""
    if moment.settings.missing:
        return f"{' and '.join(moment.settings.missing)} not set."
    shop = next((shop for shop in moment.shops if shop.accounts == [account]), None)
    finding = None if shop is None else what_delays(shop)
    return "" if finding is None else finding.sentence


def _of_order(visit: Visit, order: str, known_order: kept_events.FoundOrder) -> Data:
    return {
        "order": order,
        "found": {
            "events": [_life_of(visit, row) for row in known_order.events],
            "suppressed": [
                {"name": name, "reason": why.reason, "at": why.at}
                | {"meaning": meaning("suppressed", why.reason)._asdict()}
                for name, why in known_order.suppressed.items()
            ],
        },
    }


def _life_of(visit: Visit, row: Row) -> Data:
    """One event's life."""
    steps = [
        step._asdict() | {"in_words": said_of(step)}
        for step in kept_events.life(row)
        if step.kind != "now"
    ]
    what = meaning("dead", row.reason) if row.state == "dead" else None
    is_put_off = row.state in ("waiting", "held") and row.due_at > visit.now
    return {
        **_event_row(visit, row),
        "account": row.advertisable_eid,
        "had_by": had_by(row, visit.settings),
        "attempts": row.attempts,
        "steps": steps,
        "due_at": row.due_at if is_put_off else None,
        "advice": None if what is None else what._asdict(),
        "problem": None if what is None else problem_id(row.reason, row.error),
        "carried": kept_events.carried(row),
    }


# -- the shop's list -------------------------------------------------------------------------------


def compare_upload(visit: Visit) -> Done | Data | Response:
    """Compare an uploaded list of paid orders with what was reported."""
    upload = visit.request.files.get("list")
    if upload is None or not upload.filename:
        return Done("Choose a file: the shop's list of paid orders, as CSV.", good=False)
    form = visit.request.form
    column = form.get("column", "").strip()[:200]
    group = form.get("group", "").strip()[:200]
    lines = io.TextIOWrapper(upload.stream, encoding="utf-8-sig", errors="replace", newline="")
    comparison = Reconciliation(
        visit.runtime.reporter,
        _at_most(read_orders(lines)),
        columns={"order_id": column} if column else None,
        group=group or None,
        account=visit.account,
    )
    try:
        return _compared(visit, comparison)
    except ReconcileError as problem:
        return Done(f"The list cannot be read: {problem}.", good=False)
    finally:
        lines.detach()


def compare_own_list(visit: Visit) -> Done | Data | Response:
    """Compare what the shop's own list has of the last fourteen days."""
    if not visit.runtime.paid_orders.is_known:
        return Done("The shop has not told how its paid orders are listed.", good=False)
    try:
        return _compared(visit, visit.runtime.paid_orders.compared(DAYS))
    except (OutboxFailed, ConfigurationError):
        raise
    except Exception as problem:  # of the shop's function, which is a finding, too
        let_through(problem)
        text = f"The shop's own list cannot be read: it raised {type(problem).__name__}."
        return Done(text, good=False)


def _compared(visit: Visit, comparison: Reconciliation) -> Data | Response:
    """What became of a list: as a page, or as CSV where the form asks for it."""
    as_csv = visit.request.form.get("format") == "csv"
    #: What did not arrive, by whether somebody can act on it.
    rest: dict[bool, list[Order]] = {True: [], False: []}
    rest_count = 0
    most = _MOST_LINES if as_csv else _SHOWN
    worth: dict[tuple[str, str], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for order in comparison:
        if not order.has_arrived:
            lines = [("differing", "")] if order.reported else []
            lines += [status_and_reason(order)] if order.status != "delivered" else []
            for line in lines:
                amount = read_amount(order.value) or Decimal()
                worth[line][order.currency] = EXACT.add(worth[line][order.currency], amount)
            if not order.is_rest:
                continue
            rest_count += 1
            those = rest[order.status in _URGENT]
            if len(those) < most:
                those.append(order)
    first_orders = [*rest[True], *rest[False]][:most]
    if as_csv:
        rows_of_csv = map(row_of, first_orders)
        return csv_file("not-arrived", csv_text(rows_of_csv, (*Order._fields, "reason")))
    sentences = [
        {"about": line[0], "text": text, "money": values(worth[line].items())}
        for line, text in summary(comparison)
    ]
    result = {
        "summary": sorted(sentences, key=lambda sentence: sentence["about"] not in _URGENT),
        "rest": [
            order._asdict()
            | {"value": _priced(order), "reported": as_money(order.reported)}
            | {"why": row_of(order)["why"]}
            for order in first_orders
        ],
        "rest_count": rest_count,
        "group": comparison.group,
    }
    return {"compared": result}


def _priced(order: Order) -> str:
    """The list's amount as the other pages write it; if it has no currency, as the list has it."""
    amount = read_amount(order.value) if order.currency else None
    return order.value if amount is None else money(amount, order.currency)


def as_money(digest: str) -> str:
    """A reported value and its currency as the other pages write them; what is none, as it is.

    >>> as_money("1500 JPY"), as_money("damaged"), as_money("")
    ('1,500 JPY', 'damaged', '')
    """
    value, _, currency = digest.rpartition(" ")
    amount = read_amount(value)
    return digest if amount is None else money(amount, currency)


def _at_most(orders: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for number, order in enumerate(orders, 1):
        if number > _MOST_LINES:
            raise ReconcileError(
                f"it has more than {_MOST_LINES:,} orders, which is too much for a page; in a"
                " terminal, flask adroll reconcile takes a list of any length"
            )
        yield order


# -- the page --------------------------------------------------------------------------------------


def orders_rows(data: Data) -> Iterator[Mapping[str, object]]:
    """The newest orders, or the steps of the order that is looked at."""
    if "found" not in data:
        yield from map(with_times, data["newest"])
        return
    for event in data["found"]["events"]:
        for step in event["steps"]:
            named = {name: event[name] for name in ("id", "name", "order")}
            yield {**named, "step": step["kind"], "at": iso(step["at"]), "said": step["said"]}


PAGE: Final = Page(
    "orders",
    orders_data,
    orders_rows,
    {
        "words": texts("words.toml"),
        "most_lines": _MOST_LINES,
        "shown": _SHOWN,
        "why_not_sent": why_not_sent,
        "may_be_older": may_be_older,
        "as_money": as_money,
        "identifiers": {name: it.title for name, it in IDENTIFIERS.items()},
    },
    questions={"find": find_typed, "compare": compare_upload, "missing": compare_own_list},
    largest=_LARGEST_LIST,
    arguments=_ARGUMENTS,
)

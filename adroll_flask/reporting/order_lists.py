"""What came of a list of paid orders, in words."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, fields
from typing import Any, Final

from adroll_flask.plurals import agreeing

from .reconciliation import Order, Reconciliation

#: What is told of an order that did not reach AdRoll as it should have.
REST_FIELDS: Final = tuple(one.name for one in fields(Order))
#: Why orders were suppressed or cancelled, by the reason that is kept.
_WORDS: Final = {
    "consent_refused": "the visitor had not consented",
    "consent_unknown": "the visitor had not answered whether they consent",
    "consent_gpc": "the visitor's browser says no (Global Privacy Control)",
    "consent_withdrawn": "the visitor took consent back",
    "forgotten": "the visitor asked to be forgotten",
    "before_report": "kept back by the shop's own before_report",
    "cancelled": "by the shop",
    "hold_expired": "held, and not released in time",
    "http_400": "AdRoll refused what the event says (http_400)",
    "http_422": "AdRoll refused what the event says (http_422)",
}


def reached(order: Order) -> bool:
    """Whether *order* reached AdRoll as it should have."""
    return order.status == "delivered" and not order.reported


def rest_fields(order: Order) -> dict[str, Any]:
    """What is told of *order*; its time as ISO 8601 in UTC."""
    told = asdict(order)
    if order.time is not None:
        told["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(order.time))
    return told


def sums(found: Reconciliation) -> dict[str, Any]:
    """What came of a list, for programs."""
    return {
        "orders": found.total,
        **dict(sorted(found.counts.items())),
        "differing": found.differing,
        "reasons": {f"{status}: {why}": n for (status, why), n in found.reasons.most_common()},
        "missing_by_group": dict(found.groups.most_common()),
        "lost_per_cent": round(found.lost * 100, 3),
    }


def summary(found: Reconciliation, group: str | None = None) -> list[tuple[tuple[str, str], str]]:
    """What came of a list, in words that need no manual, each with status and reason of its orders.

    The reason is empty where a line tells of all orders of a status; ``differing`` stands for those
    that were reported with another value.
    """
    counts, total = found.counts, found.total
    if not total:
        return [(("", ""), "the list holds no orders")]
    of_groups = ""
    if found.groups and group:
        most = (f"{n:,} with {group} {it or 'empty'!r}" for it, n in found.groups.most_common(5))
        of_groups = f": {', '.join(most)}"
    # What can be acted on comes first.
    said = {
        "delivered": f"of {total:,} paid order{'s' * (total > 1)} reached AdRoll",
        "missing": "{was|were} never reported",
        "dead": "{was|were} given up: ",
        "differing": "{was|were} reported with another value than the list's",
        "held": "{is|are} held until {it is|they are} released",
        "waiting": "{waits|wait} to be sent",
        "cancelled": "{was|were} cancelled: ",
        "suppressed": "{was|were} not to be reported: ",
        "forgotten": "{is|are} older than what is kept here",
        "duplicate": "line{|s} {has|have} an order that the list had before",
        "not_listed": "{was|were} reported and {is|are} not in the list",
    }
    numbers, lines = counts | Counter(differing=found.differing), []
    for status, text in said.items():
        reasons = {why: n for (of, why), n in found.reasons.most_common() if of == status}
        for why, n in (reasons or {"": numbers[status]}).items():
            if n or status == "delivered":
                more = of_groups if status == "missing" else _WORDS.get(why, why)
                lines.append(((status, why), f"{n:,} {agreeing(text, n)}{more}"))
    if found.not_looked_for:
        text = f"what was reported and is not in the list is not looked for: {found.not_looked_for}"
        lines.append((("not_listed", ""), text))
    return lines

"""What came of a list of paid orders, in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .reconciliation import Order, Reconciliation

#: What is told of an order that did not reach AdRoll as it should have.
REST_FIELDS: Final = (
    *("order_id", "status", "why", "value", "currency", "reported", "time", "group"),
)
#: Why orders were suppressed, by the reason that is kept.
SUPPRESSED_WORDS: Final = {
    "consent_refused": "the visitor had not consented",
    "consent_unknown": "the visitor had not answered whether they consent",
    "consent_gpc": "the visitor's browser says no (Global Privacy Control)",
    "consent_withdrawn": "the visitor took consent back",
    "forgotten": "the visitor asked to be forgotten",
    "before_report": "the shop's own before_report kept them back",
}
CANCELLED_WORDS: Final = {
    "cancelled": "were cancelled",
    "hold_expired": "were held, and nobody released them in time",
}
#: In which order the sums of a list are told.
_IN_ORDER: Final = (
    *("delivered", "waiting", "held", "cancelled", "suppressed", "dead", "missing", "forgotten"),
    *("duplicate", "differing", "not_listed"),
)


def reached(order: Order) -> bool:
    """Whether *order* reached AdRoll as it should have."""
    return order.status == "delivered" and not order.reported


def rest_fields(order: Order) -> dict[str, Any]:
    """What is told of *order*; its time as ISO 8601 in UTC."""
    fields = {name: getattr(order, name) for name in REST_FIELDS}
    if order.time is not None:
        fields["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(order.time))
    return fields


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


def summary(found: Reconciliation, group: str | None = None) -> list[tuple[str, str]]:
    """What came of a list, in words that need no manual, each with the status that it is about."""
    counts, total = found.counts, found.total
    if not total:
        return [("", "the list holds no orders")]
    said = {
        "delivered": f"of {total:,} paid order{'s' * (total > 1)} reached AdRoll",
        "waiting": "wait to be sent",
        "held": "are held until they are released",
        "missing": "were never reported",
        "forgotten": "are older than what is kept here",
        "duplicate": "lines have an order that the list had before",
        "not_listed": "were reported and are not in the list",
    }
    if found.groups and group:
        most = (f"{n:,} with {group} {it or 'empty'!r}" for it, n in found.groups.most_common(5))
        said["missing"] += f": {', '.join(most)}"
    lines = {
        status: [f"{counts[status]:,} {text}"]
        for status, text in said.items()
        if counts[status] or status == "delivered"
    }
    for (status, why), number in found.reasons.most_common():
        lines.setdefault(status, []).append(f"{number:,} {_words(status, why)}")
    if found.differing:
        text = f"{found.differing:,} were reported with another value than the list's"
        lines["differing"] = [text]
    if not (counts["not_listed"] or found.looked_for_unlisted):
        text = "what was reported and is not in the list is not looked for: no column of times"
        lines["not_listed"] = [text]
    return [(status, text) for status in _IN_ORDER for text in lines.get(status, ())]


def _words(status: str, why: str) -> str:
    if status == "suppressed":
        return f"were not to be reported: {SUPPRESSED_WORDS.get(why, why)}"
    if status == "dead":
        return f"could not be sent: {why}"
    return CANCELLED_WORDS.get(why, f"were cancelled: {why}")

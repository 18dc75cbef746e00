"""Which identifiers events carry, how good that is, and the one next step that would add most."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from adroll_flask._version import DOCS_URL
from adroll_flask.events.names import BITS
from adroll_flask.findings.finding import texts
from adroll_flask.findings.sums import by, delays_of, within
from adroll_flask.outbox.model import HistoryColumn, HistorySum
from adroll_flask.outbox.schema import DELAYS
from adroll_flask.plurals import span

from . import figures
from .figures import decimal, percent
from .overview import ARGUMENTS
from .page import Data, Page, Visit

_ALL: Final = "all"
_COLUMNS: Final[tuple[HistoryColumn, ...]] = ("event_name", "outcome", "identifiers")
_EMAIL: Final = BITS["email"] | BITS["email_sha256"] | BITS["email_md5"]
#: What AdRoll knows a visitor by: its name, how people call it, its tone in plots, the bits of the
#: history. The forms of one e-mail address are one.
_IDENTIFIERS: Final = {
    "adct": ("click id", "one", BITS["adct"]),
    "first_party_cookie": ("first-party cookie", "two", BITS["first_party_cookie"]),
    "email": ("e-mail address", "three", _EMAIL),
    "user_id": ("user id", "four", BITS["user_id"]),
    "device_id": ("device id", "five", BITS["device_id"]),
}
#: Events of a day below which days are noise.
_FEW: Final = 20
#: A gain below this is not worth a step; a share of user ids above which the site tells them.
_LITTLE, _SOME = 0.1, 0.05


def data(visit: Visit) -> Data:
    """The identifiers of what was delivered in the chosen span."""
    period = visit.period("month")
    sums = _delivered(visit, period)
    by_event = by(lambda row: row.event_name, sums)
    events = sorted(by_event, key=lambda name: (name != "purchase", name))
    event = visit.argument("event", "purchase" if "purchase" in events else _ALL)
    shown = [row for row in sums if event in (_ALL, row.event_name)]
    total = sum(row.events for row in shown)
    if total < _FEW * len(period.begins):
        period = period.by_weeks()
        shown = period.placed(shown, 0)
    carried = _carried(shown)
    noun, by_step = "order" if event == "purchase" else "event", by(lambda row: row.at, shown)
    return {
        "period": period.name,
        "dates": period.dates,
        "event": event,
        "events": events,
        "delivered": total,
        "grade": _grade(carried["shares"], noun) if total else None,
        "identifiers": [
            {"name": name, "label": label, "tone": tone, "share": carried["shares"][name]}
            for name, (label, tone, _) in _IDENTIFIERS.items()
        ],
        "mean": carried["mean"],
        "next": _next(visit, event),
        "by_event": [{"event": name, **_carried(by_event[name])} for name in events],
        "step": period.step,
        "steps": [{"at": at, **_carried(by_step.get(at, ()))} for at in period.begins],
        "freshness": _freshness(shown),
    }


def _delivered(visit: Visit, period: figures.Period) -> list[HistorySum]:
    rows = period.sums(visit.outbox, _COLUMNS)
    return [row for row in rows if row.outcome == "delivered"]


def _carried(rows: Sequence[HistorySum]) -> dict[str, Any]:
    """How many events *rows* are of, the share with each identifier, and how many one has."""
    events = sum(row.events for row in rows)
    shares = {
        name: sum(row.events for row in rows if row.identifiers & bits) / events if events else None
        for name, (_, _, bits) in _IDENTIFIERS.items()
    }
    mean = sum(share or 0.0 for share in shares.values()) if events else None
    return {"events": events, "mean": mean, "shares": shares}


def _grade(shares: Mapping[str, float | None], noun: str) -> dict[str, Any]:
    """How good that is, against what the shop could have.

    It could have the e-mail address and the cookie of all; click ids only of those who clicked, and
    user ids only of those with an account.
    """
    known = {name: share or 0.0 for name, share in shares.items()}
    has = sum(known.values())
    could = 2.0 + known["adct"] + known["user_id"] + known["device_id"]
    share = has / could
    word, tone = ("very good", "good") if share > 0.9 else ("good", "good")
    if share <= 0.75:
        word, tone = ("fair", "warn") if share > 0.5 else ("poor", "bad")
    reason = f"{noun}s carry {decimal(has)} of the {decimal(could)} identifiers that they could"
    lacking = [
        f"the {_IDENTIFIERS[name][0]} is missing in {percent(1 - known[name])}"
        for name in ("email", "first_party_cookie")
        if known[name] < 1 - _LITTLE
    ]
    sentence = "; ".join([reason, *lacking]) + "."
    return {"word": word, "tone": tone, "has": has, "could": could, "sentence": sentence}


# -- the next step ---------------------------------------------------------------------------------


def _next(visit: Visit, event: str) -> dict[str, Any] | None:
    """The next step, by the last week's events: what is done already needs no advice."""
    week = _delivered(visit, figures.named("days", visit.now, visit.zone))
    rows = [row for row in week if event in (_ALL, row.event_name)]
    if not rows:
        return None
    carried = _carried(rows)
    shares, now = carried["shares"], carried["mean"]
    has_pixel = visit.settings.pixel != "none"
    # The share of events that would carry more, at the most. Not everybody has an account, and
    # where some have user ids the site says who is there.
    gains = {
        "email": 1 - shares["email"],
        "cookie" if has_pixel else "cookie/no-pixel": 1 - shares["first_party_cookie"],
        "login": 0.5 if shares["user_id"] < _SOME else 0.0,
    }
    best, gain = max(gains.items(), key=lambda one: one[1])
    best, gain = (best, gain) if gain >= _LITTLE else ("nothing", 0.0)
    step = texts("next_steps.toml")[best]
    link = f"{DOCS_URL}{step['link']}"
    return {**step, "link": link, "gain": gain, "now": now, "then": now + gain}


# -- tables and plots ------------------------------------------------------------------------------


def _freshness(rows: Sequence[HistorySum]) -> dict[str, Any]:
    """How long it took from event to delivery."""
    delays = delays_of(rows)
    ends, total = (*DELAYS, None), sum(delays)
    buckets = [
        {"within": end, "events": events, "share": passed / total if total else None}
        for end, events, passed in zip(ends, delays, accumulate(delays), strict=False)
    ]
    return {"median": within(delays, 0.5), "most": within(delays, 0.95), "buckets": buckets}


def rows(data: Data) -> Iterable[Mapping[str, object]]:
    """The share of each identifier by event."""
    for one in data["by_event"]:
        for name, share in one["shares"].items():
            written = "" if share is None else f"{share:.4f}"
            told = {"event": one["event"], "delivered": one["events"]}
            yield told | {"identifier": name, "share": written}


#: The histogram's columns, as its table has them; and short, since a phone has room for no more:
#: 15 s, 5 min.
_WITHIN: Final = [*(f"within {span(end)}" for end in DELAYS), "longer"]
_SHORT: Final = [
    re.sub(r"(?<= )(s|min|h|d)[a-z]+", r"\1", name.removeprefix("within ")) for name in _WITHIN
]

PAGE: Final = Page(
    "match-quality", data, rows, {"within": _WITHIN, "short": _SHORT}, arguments=ARGUMENTS
)

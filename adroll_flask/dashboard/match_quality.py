"""Which identifiers events carry, how good that is, and the one next step that would add most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from adroll_flask.events.names import IDENTIFIERS
from adroll_flask.findings.finding import texts
from adroll_flask.findings.sums import by, delays_of, within
from adroll_flask.outbox.model import HistoryColumn, HistorySum

from .formats import decimal, percent, share_of
from .overview import ARGUMENTS, KEPT, about_event, chosen_event
from .page import Data, Page, Visit

_COLUMNS: Final[tuple[HistoryColumn, ...]] = ("event_name", "outcome", "identifiers")
#: The tones of identifiers in plots.
_TONES: Final = ("one", "two", "three", "four", "five")
#: With fewer events a step, steps of a day are noise.
_FEW: Final = 20
#: A gain below this is not worth a step.
_LITTLE = 0.1
#: The share of events with a user id from which on the site says who is logged in.
_SOME = 0.05


def match_quality_data(visit: Visit) -> Data:
    """The identifiers of what was delivered in the chosen span."""
    period = visit.period("days")
    everything = period.sums(visit.lookups, _COLUMNS)
    sums = [row for row in everything if row.outcome == "delivered"]
    by_event = by(lambda row: row.event_name, sums)
    events = sorted(by_event, key=lambda name: (name != "purchase", name))
    event = chosen_event(visit, events)
    shown = about_event(event, sums)
    next_step = _next_step(visit, shown)
    total = sum(row.events for row in shown)
    if total < _FEW * len(period.begins):
        period = period.by_weeks()
        shown = period.placed(shown, 0)
    carried = _identifiers_carried(shown)
    shares = carried["shares"]
    noun = "order" if event == "purchase" else "event"
    by_step = by(lambda row: row.at, shown)
    delays = delays_of(shown)
    return {
        "period": period.name,
        "dates": period.dates,
        "event": event,
        "events": events,
        "delivered": total,
        "grade": _grade(shares, noun) if total else None,
        "identifiers": [
            {"name": name, "label": identifier.title, "tone": tone, "share": shares[name]}
            for (name, identifier), tone in zip(IDENTIFIERS.items(), _TONES, strict=True)
        ],
        "mean": carried["mean"],
        "next": next_step,
        "by_event": [{"event": name, **_identifiers_carried(by_event[name])} for name in events],
        "step": period.step,
        "steps": [{"at": at, **_identifiers_carried(by_step.get(at, ()))} for at in period.begins],
        # Seconds from event to delivery; None: more than a day.
        "freshness": {"median": within(delays, 0.5), "most": within(delays, 0.95)},
    }


def _identifiers_carried(rows: Sequence[HistorySum]) -> dict[str, Any]:
    """How many events *rows* are of, the share with each identifier, and how many identifiers one
    event has (``mean``)."""
    events = sum(row.events for row in rows)
    shares = {
        name: share_of(sum(row.events for row in rows if row.identifiers & it.bits), events)
        for name, it in IDENTIFIERS.items()
    }
    mean = sum(share or 0.0 for share in shares.values()) if events else None
    return {"events": events, "mean": mean, "shares": shares}


def _grade(shares: Mapping[str, float | None], noun: str) -> dict[str, str]:
    """How good *shares* are, against those that the shop could have.

    It could have the e-mail address and the cookie of all visitors; click ids only of those who
    clicked, and user ids only of those with an account.
    """
    shares_of = {name: share or 0.0 for name, share in shares.items()}
    has = sum(shares_of.values())
    could = 2.0 + shares_of["adct"] + shares_of["user_id"] + shares_of["device_id"]
    share = has / could
    word, tone = ("very good", "good") if share > 0.9 else ("good", "good")
    if share <= 0.75:
        word, tone = ("fair", "warn") if share > 0.5 else ("poor", "bad")
    reason = f"{noun}s carry {decimal(has)} of the {decimal(could)} identifiers that they could"
    lacking = [
        f"the {IDENTIFIERS[name].title} is missing in {percent(1 - shares_of[name])}"
        for name in ("email", "first_party_cookie")
        if shares_of[name] < 1 - _LITTLE
    ]
    sentence = "; ".join([reason, *lacking]) + "."
    return {"word": word, "tone": tone, "sentence": sentence}


# -- the next step ---------------------------------------------------------------------------------


def _next_step(visit: Visit, rows: Sequence[HistorySum]) -> dict[str, Any] | None:
    """What would add most to the events of *rows*; ``None``: there are none."""
    if not rows:
        return None
    carried = _identifiers_carried(rows)
    shares = carried["shares"]
    now = carried["mean"]
    has_pixel = visit.settings.pixel != "none"
    # The share of events that would carry one more, at most. Not everybody has an account. Where
    # some have user ids, the site says already who is logged in.
    gains = {
        "email": 1 - shares["email"],
        "cookie" if has_pixel else "cookie/no-pixel": 1 - shares["first_party_cookie"],
        "login": 0.5 if shares["user_id"] < _SOME else 0.0,
    }
    best, gain = max(gains.items(), key=itemgetter(1))
    best, gain = (best, gain) if gain >= _LITTLE else ("nothing", 0.0)
    return {**texts("next_steps.toml")[best], "gain": gain, "now": now, "then": now + gain}


# -- tables and plots ------------------------------------------------------------------------------


def match_quality_rows(data: Data) -> Iterable[Mapping[str, object]]:
    """The share of each identifier by event."""
    for event in data["by_event"]:
        for name, share in event["shares"].items():
            written = "" if share is None else f"{share:.4f}"
            columns = {"event": event["event"], "delivered": event["events"]}
            yield columns | {"identifier": name, "share": written}


PAGE: Final = Page(
    "match-quality",
    match_quality_data,
    match_quality_rows,
    {},
    arguments=ARGUMENTS,
    kept=KEPT,
)

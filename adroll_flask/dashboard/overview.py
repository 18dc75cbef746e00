"""The first page: is it working, what became of what was reported, and how it went over time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any, Final

from adroll_flask.findings.finding import meaning, ok, texts
from adroll_flask.findings.sums import by, total
from adroll_flask.outbox.admin import RISKY
from adroll_flask.outbox.model import AWAY, DRY_RUN, HistoryColumn, HistorySum
from adroll_flask.outbox.schema import DELAYS
from adroll_flask.plurals import agreeing, counted
from adroll_flask.reporting.reconciliation import DAYS

from . import figures
from .figures import Period, count, values, written
from .page import Data, Page, Visit

_ALL: Final = "all"
_COLUMNS: Final[tuple[HistoryColumn, ...]] = ("event_name", "outcome", "reason", "currency")

#: What became of events, in the order of the way; and what the plot over time has.
_WAY: Final = texts("words.toml", "way/")
_PLOTTED: Final = [{"name": name, **word} for name, word in texts("words.toml", "plot/").items()]
#: What is never AdRoll's to have, and is lost to it.
_LOST: Final = ("invalid", "failed", "dead")
#: What of the way is drawn as another.
_DRAWN: Final = dict.fromkeys(_LOST, "dead") | dict.fromkeys(("held", "waiting", "unsure"), "open")
#: What came to the shop, however it ended.
_CAME: Final = ("delivered", "dead", "invalid", "expired", "suppressed", "failed")
#: Of the histogram's columns, the first of those that took more than an hour.
_LATE: Final = DELAYS.index(3600) + 1
#: Seconds without delivery from which on a page tells of them, and the share of a step that they
#: have to take for it to be shaded.
_LONG, _SHARE = 1800, 1 / 24
#: Weeks that say what is usual, and how many of them have to be known.
_WEEKS, _FEWEST = 4, 3
#: The colour of an answer, and how it begins.
_ANSWERS: Final = {"error": ("bad", "No. "), "warning": ("warn", "Look at this: ")}


def data(visit: Visit) -> Data:
    """What became of events in the chosen span."""
    period = visit.period("days")
    everything = period.sums(visit.outbox, _COLUMNS)
    sums = [row for row in everything if row.outcome != DRY_RUN]
    unsettled = [row for row in visit.unsettled if not row.dry_run]
    missing = _missing(visit, period)
    names = {row.event_name for row in (*sums, *unsettled) if row.event_name}
    names |= {"purchase"} if missing else set()
    event = visit.argument("event", "purchase" if "purchase" in names else _ALL)
    if event != _ALL:
        sums = [row for row in sums if row.event_name == event]
        unsettled = [row for row in unsettled if row.event_name == event]
    open_ones = period.placed(unsettled, 0)
    fates = by(_fate, (*sums, *open_ones))
    totals = {name: total(fates.get(name, ())) for name in _WAY}
    # Of lost orders the shop's own list has those that are missing still: they count by that.
    of_orders = event in ("purchase", _ALL)
    missing = missing if of_orders else []
    came, failed = _orders(visit, visit.now if period.step == "week" else period.begin)
    first = max(period.begin, visit.now - DAYS * 86_400)
    last = min(period.end, visit.runtime.paid_orders.told_until())
    listed = sum(number for at, number in failed.items() if first <= at < last) * of_orders
    lost = sum(totals[name]["events"] for name in _LOST) - listed
    never = sum(one["events"] for one in missing)
    reported = sum(one["events"] for one in totals.values())
    usual = _usual(came, period) if event == "purchase" else {}
    steps = _steps(period, (*sums, *open_ones), usual)
    return {
        "verdict": _verdict(visit),
        "findings": [finding.as_dict() for finding in visit.findings],
        "today": _today(visit, came),
        "period": period.name,
        "dates": period.dates,
        "begin": period.begin,
        "end": period.end,
        "event": event,
        "events": sorted(names),
        "health": _health(totals["delivered"]["events"], lost + never),
        "reported": reported,
        "held": total(row for row in unsettled if row.outcome == "held"),
        "dry_runs": sum(row.events for row in everything if row.outcome == DRY_RUN),
        "way": [
            {"name": name, **word}
            | totals[name]
            | {"share": _share(totals[name]["events"], reported)}
            for name, word in _WAY.items()
        ],
        "answer": _answer(totals, "order" if event == "purchase" else "event", never, lost),
        "losses": [*missing, *_losses(fates, reported)],
        "steps": steps,
        "without_delivery": _shaded(visit, period, steps, event),
        "watched": [one._asdict() | {"is_silent": one.is_silent} for one in visit.watched],
    }


def _verdict(visit: Visit) -> dict[str, Any]:
    """The answer: that of the worst thing that is wrong, or that all is well."""
    worst = visit.findings[0] if visit.findings else None
    if worst is not None and (worst.severity in _ANSWERS or worst.code == "nothing-reported"):
        level, begin = _ANSWERS.get(worst.severity, ("idle", ""))
        if worst.code == "reports-silent" and worst.key != "purchase":
            begin = _ANSWERS["warning"][1]  # it is no order that is missed
        answer = {"level": level, "sentence": begin + worst.sentence, "money": values(worst.values)}
        return worst.as_dict() | answer
    day = figures.named("day", visit.now, visit.zone).sums(visit.outbox, ("event_name", "outcome"))
    real = [row for row in day if row.outcome == "delivered"]
    orders = [row for row in real if row.event_name == "purchase"]
    number, noun = sum(row.events for row in orders or real), "order" if orders else "event"
    every = f"All {counted(number, noun)}" if number != 1 else f"The one {noun}"
    sentence = f"Yes. {every} of the last 24 hours that could be delivered reached AdRoll."
    sentence = sentence if number else "Nothing of the last 24 hours was sent yet."
    answer = {"level": "good" if number else "idle", "money": ""}
    return ok("verdict", sentence).as_dict() | answer


# -- what is usual ---------------------------------------------------------------------------------


def _orders(visit: Visit, begin: float) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Orders that came since four weeks before *begin*, and a week earlier, by the hour; and those
    of them that were not kept here.

    The week earlier tells that the shop reported already when the first of the four began.
    """
    came: dict[int, int] = defaultdict(int)
    failed: dict[int, int] = defaultdict(int)
    since = begin - 7 * 86_400 * (_WEEKS + 1)
    for row in visit.outbox.lookups.history(since, ("at", "event_name", "outcome")):
        if row.event_name == "purchase" and row.outcome in _CAME:
            came[row.at] += row.events
            failed[row.at] += row.events * (row.outcome == "failed")
    return came, failed


def _between(came: Mapping[int, int], begin: float, end: float) -> float:
    """How many came between two times; those of an hour are spread over it evenly."""
    hours = range(int(begin // 3600) * 3600, math.ceil(end), 3600)
    parts = ((at, (min(end, at + 3600) - max(begin, at)) / 3600) for at in hours)
    return sum(came.get(at, 0) * part for at, part in parts)


def _before(came: Mapping[int, int], begin: datetime, length: timedelta) -> list[float]:
    """How many came in the same span of each of the last weeks of which there is something.

    By the clock on the wall, which summer time moves.
    """
    thens = (begin - timedelta(weeks=week) for week in range(1, _WEEKS + 1))
    spans = [(then.timestamp(), (then + length).timestamp()) for then in thens]
    return [_between(came, *span) for span in spans if span[0] >= min(came)]


def _today(visit: Visit, came: Mapping[int, int]) -> dict[str, Any] | None:
    """Today's orders, and how many the same weekday had up to this hour in the last four weeks."""
    present = datetime.fromtimestamp(visit.now, visit.zone)
    if not came:
        return None
    begin = figures.midnight(present)
    before = _before(came, begin, present - begin)
    number = round(_between(came, begin.timestamp(), visit.now + 3600))
    its = (row for row in visit.unsettled if row.event_name == "purchase")
    number += sum(row.events for row in its if row.at >= begin.timestamp() and not row.dry_run)
    sentence = f"{counted(number, 'order')} so far today"
    if len(before) < _FEWEST:
        return {"number": number, "usual": None, "sentence": sentence + "."}
    low, high = round(min(before)), round(max(before))
    span = f"{count(low)}" if low == high else f"{count(low)} to {count(high)}"
    sentence += written("; on a %A by %H:%M it is usually ", visit.now, visit.zone) + f"{span}."
    is_low = number < low / 2
    return {"number": number, "usual": median(before), "sentence": sentence, "is_low": is_low}


def _usual(came: Mapping[int, int], period: Period) -> dict[int, float]:
    """Orders of the same step of the week, at the median of the last four weeks."""
    if not came or period.step == "week":
        return {}
    begins = {at: datetime.fromtimestamp(at, period.zone) for at in period.begins}
    known = {at: _before(came, begin, figures.STEPS[period.step]) for at, begin in begins.items()}
    return {at: median(numbers) for at, numbers in known.items() if len(numbers) >= _FEWEST}


# -- the way ---------------------------------------------------------------------------------------


def _fate(row: HistorySum) -> str:
    """Where *row* stands in the way."""
    if row.outcome == "expired":
        return "unreleased" if row.reason == "hold_expired" else "dead"
    # Of what may have arrived nobody knows that it is lost.
    return "unsure" if row.outcome == "dead" and row.reason in RISKY else row.outcome


def _health(delivered: int, lost: int) -> dict[str, Any]:
    """Of what should have arrived, what did; AdRoll's own words for it."""
    could = delivered + lost
    share = _share(delivered, could)
    grades = (("great", "good", 0.85), ("good", "warn", 0.7), ("poor", "bad", -1.0))
    known = ((word, tone) for word, tone, above in grades if share is not None and share > above)
    word, tone = next(known, ("", "idle"))
    return {"share": share, "word": word, "tone": tone, "delivered": delivered, "could": could}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _missing(visit: Visit, period: Period) -> list[dict[str, Any]]:
    """Orders that the shop's own list has, of days that begin in the span, and nobody reported."""
    if not visit.runtime.paid_orders.is_known:
        return []
    told = visit.runtime.paid_orders.told()["missing"]
    # The history's hours begin with those of UTC, and a zone's day within one of them.
    its = [one for one in told if period.begin - 3600 <= one.at < period.end]
    return [_loss("missing", "missing", "", total(its), 0)] if its else []


def _answer(totals: Mapping[str, Mapping[str, Any]], noun: str, never: int, lost: int) -> Data:
    """How many did not arrive, and what they are, in sentences.

    An event counts once, however often it was reported; what is not paid (held, cancelled) is not
    missing.
    """
    events = {name: one["events"] for name, one in totals.items()}
    missed = lost + events["suppressed"] + never
    known = missed + events["delivered"]
    if not known:
        return {"missed": 0, "known": 0, "sentence": "", "beside": ""}
    every = f"{{The one {noun}|Every one of {count(known)} {noun}s}} reached AdRoll."
    sentence = agreeing(every, known)
    if missed:
        *others, last = _counted(
            (never, "that the shop never reported"),
            (events["suppressed"], "not to be reported"),
            (lost, "that could not be delivered"),
        )
        told = f"{', '.join(others)} and {last}" if others else last
        sentence = f"{count(missed)} of {counted(known, noun)} did not reach AdRoll: {told}."
    listed = sum(events[name] for name in _LOST) - lost
    beside = _counted(
        (events["waiting"], "{is|are} on the way"),
        (events["unsure"], "{is|are} unsure, and may have arrived"),
        (events["cancelled"] + events["unreleased"], "{is|are} cancelled, or never released"),
        (listed, "{is|are} lost here, and counted above where missing still"),
        (events["duplicate"], "report{|s} came again, by a reload or a retry, and count{s|} once"),
    )
    more = "Beside these: " + "; ".join(beside) + "." if beside else ""
    return {"missed": missed, "known": known, "sentence": sentence, "beside": more}


def _counted(*parts: tuple[int, str]) -> list[str]:
    """Each number that is not 0 with its words."""
    return [f"{count(number)} {agreeing(words, number)}" for number, words in parts if number]


def _losses(fates: Mapping[str, Sequence[HistorySum]], reported: int) -> list[dict[str, Any]]:
    """What did not reach AdRoll, by reason: what can be changed first, then the most."""
    found = []
    for fate, its in fates.items():
        if fate in ("delivered", "waiting", "held", "unused", "too_late"):
            continue
        for (outcome, reason), rows in by(lambda row: (row.outcome, row.reason), its).items():
            # What was only reported again is no loss, unless it said something else; nor is a
            # release of what nobody held, since its buyer had refused.
            if fate != "duplicate" or reason == "another_value":
                found.append(_loss(fate, outcome, reason, total(rows), reported))
    return sorted(found, key=lambda loss: (_urgency(loss), -loss["events"]))


def _loss(way: str, outcome: str, reason: str, sums: Data, reported: int) -> dict[str, Any]:
    share = {"share": _share(sums["events"], reported)}
    told = {"way": way, "outcome": outcome, "reason": reason}
    return told | sums | share | meaning(outcome, reason)._asdict()


def _urgency(loss: Mapping[str, Any]) -> int:
    """0: can still be delivered or goes on; 1: somebody can change it; 2: as it has to be."""
    if loss["way"] in (*_LOST, "unsure"):
        return 0
    return 1 if loss["who"] == "developer" else 2


def _steps(
    period: Period, sums: Sequence[HistorySum], usual: Mapping[int, float]
) -> list[dict[str, Any]]:
    plotted = [one["name"] for one in _PLOTTED]
    steps = {at: dict.fromkeys((*plotted, "late"), 0) for at in period.begins}
    for row in sums:
        fate = _DRAWN.get(name := _fate(row), name)
        if fate in plotted:
            steps[row.at][fate] += row.events
            steps[row.at]["late"] += sum(row.delays[_LATE:])
    ends = (*period.begins[1:], period.end)
    return [
        {"at": at, "end": end, **counts, "usual": usual.get(at), "shade": ""}
        for (at, counts), end in zip(steps.items(), ends, strict=True)
    ]


def _shaded(visit: Visit, period: Period, steps: Sequence[Data], event: str) -> list[Data]:
    """Times without delivery, and how much of what came in their hours was sent later."""
    lookups, found = visit.outbox.lookups, list[Data]()
    stops = lookups.stops(visit.now - period.begin)
    first = min((began for _, began, *_ in stops), default=visit.now)
    hours = lookups.history(first, ("at", "event_name", "outcome"))
    for _, began, ended, reason in stops:
        until, kind = ended or visit.now, "away" if reason == AWAY else "stopped"
        if until - began < _LONG or began >= period.end:
            continue
        for step in steps:
            inside = min(step["end"], until) - max(step["at"], began)
            long = max(_LONG, (step["end"] - step["at"]) * _SHARE)
            if inside >= long and step["shade"] != "stopped":
                step["shade"] = kind
        its = (row for row in hours if began - 3600 < row.at < until and row.outcome == "delivered")
        late = sum(sum(row.delays[_LATE:]) for row in its if event in (_ALL, row.event_name))
        found.append({"kind": kind, "begin": began, "end": ended, "late": late})
    for step in steps:
        # One or two are orders that were paid, and released, later.
        if not step["shade"] and step["late"] >= max(3, step["delivered"] / 2):
            step["shade"] = "late"
            times = {"begin": step["at"], "end": step["end"]}
            found.append({"kind": "late", **times, "late": step["late"]})
    return sorted(found, key=lambda one: one["begin"])


def rows(data: Data) -> Iterable[Mapping[str, object]]:
    """What did not reach AdRoll and what did, by reason and currency."""
    delivered = {**data["way"][-1], "way": "delivered", "reason": ""}
    for one in (delivered, *data["losses"]):
        for place, (currency, value) in enumerate(one["values"] or [("", Decimal())]):
            yield {
                "event": data["event"],
                "became": one["way"],
                "reason": one["reason"],
                "events": "" if place else one["events"],
                "value": f"{value:f}",
                "currency": currency,
            }


ARGUMENTS: Final = ("period", "since", "until", "event")
PAGE: Final = Page("overview", data, rows, {"plotted": _PLOTTED}, arguments=ARGUMENTS)

"""The first page: is it working, what became of what was reported, and how it went over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from adroll_flask.outbox.record_format import DRY_RUN
from adroll_flask.plurals import counted_as

from . import plots
from .page import Data, Page, Visit
from .periods import PERIOD, PERIODS, chosen, named
from .reasons import meaning
from .verdict import verdict

if TYPE_CHECKING:
    from adroll_flask.outbox.protocol import HistoryColumn, HistorySum

#: The name in the query of which events are shown.
EVENT: Final = "event"
_ALL: Final = "all"
#: Waiting events that are counted; of more we say "or more".
_MOST: Final = 10_000
_COLUMNS: Final[tuple[HistoryColumn, ...]] = ("event_name", "outcome", "reason", "currency")

#: What became of events: name, how a plot calls it, its tone; in the order of the way.
_WAY: Final = (
    ("suppressed", "not to be reported", "soft"),
    ("duplicate", "reported before", "faint"),
    ("unreleased", "never released", "faint"),
    ("cancelled", "cancelled", "faint"),
    ("invalid", "invalid", "warn"),
    ("failed", "not kept", "bad"),
    ("waiting", "waiting", "one"),
    ("held", "held until paid", "one"),
    ("dead", "dead letters", "bad"),
    ("delivered", "delivered", "good"),
)
#: What is never AdRoll's to have, and is lost to it.
_LOST: Final = ("invalid", "failed", "dead")
_PLOTTED: Final = ("delivered", "dead", "suppressed")


def data(visit: Visit) -> Data:
    """What became of events in the chosen span."""
    period, store = chosen(visit.argument(PERIOD)), visit.store
    everything = visit.sums.of(store, period, visit.now, _COLUMNS)
    sums = _real(everything)
    day = visit.sums.of(store, named("day"), visit.now, _COLUMNS)
    week = visit.sums.of(store, named("week"), visit.now, ("outcome",))
    unsettled = () if store is None else store.figures.unsettled(_MOST)
    before = sum(row.events for row in _real(week)) - sum(row.events for row in _real(day))

    names = sorted({row.event_name for row in (*sums, *unsettled) if row.event_name})
    event = visit.argument(EVENT, "purchase" if "purchase" in names else _ALL)
    if event != _ALL:
        sums = [row for row in sums if row.event_name == event]
        unsettled = tuple(row for row in unsettled if row.event_name == event)
    fates = [*((_fate(row), row) for row in sums), *((row.outcome, row) for row in unsettled)]
    totals = {name: _total(fates, name) for name, _, _ in _WAY}
    reported = sum(total["events"] for total in totals.values())
    lost = sum(totals[name]["events"] for name in _LOST)
    delivered = totals["delivered"]["events"]
    return {
        "period": period.name,
        "span": period.title,
        "begin": period.begin(visit.now),
        "event": event,
        "events": names,
        "verdict": verdict(visit, day, unsettled, max(0, before))._asdict(),
        "health": _health(delivered, lost),
        "reported": reported,
        "dry_runs": sum(row.events for row in everything if row.outcome == DRY_RUN),
        "more": any(row.events >= _MOST for row in unsettled),
        "way": [
            {"name": name, "label": label, "share": _share(totals[name]["events"], reported)}
            | totals[name]
            for name, label, _ in _WAY
        ],
        "answer": _answer(visit, totals, "order" if event == "purchase" else "event"),
        "losses": _losses(fates, reported),
        "steps": _steps(period.steps(visit.now), sums),
    }


def _real(rows: Iterable[HistorySum]) -> list[HistorySum]:
    """What AdRoll was to keep."""
    return [row for row in rows if row.outcome != DRY_RUN]


def _fate(row: HistorySum) -> str:
    """Where *row* stands in the way."""
    if row.outcome == "expired":
        return "unreleased" if row.reason == "hold_expired" else "dead"
    return row.outcome


def _total(fates: Iterable[tuple[str, HistorySum]], name: str) -> dict[str, Any]:
    rows = [row for fate, row in fates if fate == name]
    return {"events": sum(row.events for row in rows), "values": _values(rows)}


def _values(rows: Iterable[HistorySum]) -> list[tuple[str, Decimal]]:
    """Sums by currency, the largest first."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        if row.value:
            sums[row.currency] += row.value
    return sorted(sums.items(), key=lambda item: -item[1])


def _health(delivered: int, lost: int) -> dict[str, Any]:
    """Of what could be delivered, what was; the words and bounds are AdRoll's own."""
    share = _share(delivered, delivered + lost)
    word, tone = "", "soft"
    if share is not None:
        word, tone = ("great", "good") if share > 0.85 else ("good", "warn")
        if share <= 0.7:
            word, tone = "poor", "bad"
    return {
        "share": share,
        "word": word,
        "tone": tone,
        "delivered": delivered,
        "could": delivered + lost,
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _answer(visit: Visit, totals: Mapping[str, Mapping[str, Any]], noun: str) -> dict[str, Any]:
    """How many did not arrive, and what they are, in sentences.

    An event counts once, however often it was reported; what is not paid (held, cancelled) is not
    missing.
    """
    count = visit.numbers.count
    events = {name: total["events"] for name, total in totals.items()}
    lost = sum(events[name] for name in _LOST)
    missed = lost + events["suppressed"]
    known = missed + events["delivered"]
    if not known:
        return {"missed": 0, "known": 0, "sentence": "", "beside": ""}
    if not missed:
        sentence = f"Every one of {count(known)} {noun}s" if known > 1 else f"The one {noun}"
        sentence += " reached AdRoll."
    else:
        parts = [
            f"{count(events['suppressed'])} not to be reported" if events["suppressed"] else "",
            f"{count(lost)} that could not be delivered" if lost else "",
        ]
        sentence = (
            f"{count(missed)} of {counted_as(count(known), known, noun)} did not reach AdRoll: "
            + " and ".join(filter(None, parts))
            + "."
        )
    beside = [
        f"{count(number)} {'is' if number == 1 else 'are'} {words}"
        for number, words in (
            (events["waiting"], "on the way"),
            (events["held"], "held until paid"),
            (events["cancelled"] + events["unreleased"], "cancelled, or never released"),
        )
        if number
    ]
    again = events["duplicate"]
    if again:
        reports = counted_as(count(again), again, "report")
        beside.append(f"{reports} came again, by a reload or a retry, and count once")
    return {
        "missed": missed,
        "known": known,
        "sentence": sentence,
        "beside": "Beside these: " + "; ".join(beside) + "." if beside else "",
    }


def _losses(fates: Sequence[tuple[str, HistorySum]], reported: int) -> list[dict[str, Any]]:
    """What did not reach AdRoll, by reason: what can be changed first, then the most."""
    groups: dict[tuple[str, str, str], list[HistorySum]] = defaultdict(list)
    for fate, row in fates:
        # What was only reported again is no loss, unless it said something else.
        if fate != "delivered" and not (fate == "duplicate" and row.reason != "another_value"):
            groups[fate, row.outcome, row.reason].append(row)
    found = []
    for (fate, outcome, reason), rows in groups.items():
        events = sum(row.events for row in rows)
        found.append(
            {"way": fate, "outcome": outcome, "reason": reason, "events": events}
            | {"share": _share(events, reported), "values": _values(rows)}
            | meaning(outcome, reason)._asdict()
        )
    return sorted(found, key=lambda loss: (_urgency(loss), -loss["events"]))


def _urgency(loss: Mapping[str, Any]) -> int:
    """0: can still be delivered or goes on; 1: somebody can change it; 2: as it has to be."""
    if loss["way"] in _LOST:
        return 0
    return 1 if loss["who"] == "developer" else 2


def _steps(begins: Sequence[int], sums: Sequence[HistorySum]) -> list[dict[str, Any]]:
    steps = {at: dict.fromkeys(_PLOTTED, 0) for at in begins}
    for row in sums:
        fate = _fate(row)
        fate = "dead" if fate in _LOST else fate
        if fate in _PLOTTED and row.at in steps:
            steps[row.at][fate] += row.events
    return [{"at": at, **counts} for at, counts in steps.items()]


def rows(data: Data) -> Iterable[Mapping[str, object]]:
    """What did not reach AdRoll and what did, by reason and currency."""
    told = [
        *(way | {"way": way["name"], "reason": ""} for way in data["way"][-1:]),
        *data["losses"],
    ]
    for one in told:
        values = one["values"] or [("", Decimal())]
        for place, (currency, value) in enumerate(values):
            yield {
                "event": data["event"],
                "became": one["way"],
                "reason": one["reason"],
                "events": "" if place else one["events"],
                "value": value,
                "currency": currency,
            }


def view(visit: Visit, data: Data) -> Data:
    """What the template needs beside the data."""
    period, steps = chosen(visit.argument(PERIOD)), data["steps"]
    labels = {"delivered": "delivered", "dead": "lost", "suppressed": "not to be reported"}
    tones = {"delivered": "good", "dead": "bad", "suppressed": "soft"}
    return {
        "periods": PERIODS,
        "bars": _waterfall(data),
        "plot": plots.stacked(
            [period.label(step["at"]) for step in steps],
            [period.full(step["at"]) for step in steps],
            [
                plots.Series(labels[name], tones[name], [step[name] for step in steps])
                for name in _PLOTTED
            ],
        ),
    }


def _waterfall(data: Data) -> list[dict[str, Any]]:
    """The way as bars: what is left on the left, each loss where it is taken away."""
    whole = data["reported"] or 1
    tones = {name: tone for name, _, tone in _WAY}
    left = 100.0
    bars = [
        {
            "label": "reported",
            "events": data["reported"],
            "share": 1.0 if data["reported"] else None,
            "values": [],
            "x": 0.0,
            "width": 100.0,
            "tone": "six",
            "is_stage": True,
        }
    ]
    for way in data["way"]:
        width = 100 * way["events"] / whole
        is_last = way["name"] == "delivered"
        left -= width
        if way["events"] or is_last:
            bars.append(
                way
                | {"x": 0.0 if is_last else round(max(0.0, left), 3), "width": round(width, 3)}
                | {"tone": tones[way["name"]], "is_stage": is_last}
            )
    return bars


PAGE = Page("overview", "Overview", data, rows, view=view, arguments=(PERIOD, EVENT))

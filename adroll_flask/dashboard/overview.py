"""The first page: is it working, what reached AdRoll, what did not, and how it went over time.

All figures are of the one span that is chosen. What is wrong is of this moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from adroll_flask.events.names import IDENTIFIERS
from adroll_flask.findings.finding import meaning, ok, texts
from adroll_flask.findings.rules import MOST_DEAD
from adroll_flask.findings.sums import by, total
from adroll_flask.outbox.model import APART, RISKY, HistoryColumn, HistorySum
from adroll_flask.outbox.schema import DELAYS
from adroll_flask.plurals import agreeing, counted
from adroll_flask.reporting.paid_orders import DAYS
from adroll_flask.times import DAY, iso

from . import earlier_periods
from .formats import count, share_of, values
from .page import Data, Page, Visit
from .periods import Period

#: In the address, in the place of an event's name: the figures are of all events.
ALL: Final = "all"
_COLUMNS: Final[tuple[HistoryColumn, ...]] = ("event_name", "outcome", "reason", "currency")

#: What can become of a report, in the order in which the page shows it.
_WAY: Final = texts("words.toml", "way/")
#: The series of the plot over time.
_PLOTTED: Final = [{"name": name, **word} for name, word in texts("words.toml", "plot/").items()]
#: What AdRoll should have had, and did not get.
_LOST: Final = ("invalid", "failed", "dead")
#: What is drawn in the series of another.
_DRAWN: Final = dict.fromkeys(_LOST, "dead") | dict.fromkeys(("held", "waiting", "unsure"), "open")
#: The first column of the histogram whose events took more than an hour.
_LATE: Final = DELAYS.index(3600) + 1
#: The colour of an answer, and how it begins, by the worst finding's severity.
_ANSWERS: Final = {"error": ("bad", "No. "), "warning": ("warn", "Look at this: ")}
#: By finding, the reason for which its events did not arrive.
_REASON_OF: Final = {
    "never-reported": "missing",
    "paid-not-released": "hold_expired",
    "consent-unknown": "consent_error",
}
#: What is said of events to which no answer came, or of which a copy may have been sent.
_MAY: Final = "may have arrived"
#: What to do about a loss of which nothing waits for a decision.
_OVER: Final = {"advice": "Nothing: it is over, and none of these waits for a decision.", "who": ""}


def overview_data(visit: Visit) -> Data:
    """What became of events in the chosen span."""
    period = visit.period("days")
    everything = period.sums(visit.lookups, _COLUMNS)
    ended = [row for row in everything if row.outcome not in APART]
    other_side = visit.settings.other_side
    ours = (row for row in visit.unsettled if not other_side(row.advertisable_eid))
    unsettled = period.placed((row for row in ours if not row.dry_run), 0)
    missing = _missing(visit, period)
    names = {row.event_name for row in (*ended, *unsettled) if row.event_name}
    if missing:
        names.add("purchase")
    event = chosen_event(visit, names)
    past = _past(visit, period)
    unsettled = about_event(event, unsettled)
    sums = [*about_event(event, ended), *unsettled]
    fates = by(_fate, sums)
    totals = {name: total(fates.get(name, ())) for name in _WAY}
    # The shop's own list shows which lost orders are missing still: they count as missing.
    of_orders = event in ("purchase", ALL)
    missing = missing if of_orders else []
    listed = _failed_but_listed(visit, period, past) if of_orders else 0
    lost = sum(totals[name]["events"] for name in _LOST) - listed
    never = sum(loss["events"] for loss in missing)
    reported = sum(part["events"] for part in totals.values())
    noun = "order" if event == "purchase" else "event"
    usual: dict[int, float] = {}
    if event == "purchase":
        usual = earlier_periods.usual(earlier_periods.by_hour(past), period)
    steps = _plot_steps(period, sums, usual)
    knows_all = len(visit.letters) < MOST_DEAD
    health = _health(totals["delivered"]["events"], lost + never)
    answer = _answer(totals, health, noun, never, lost, visit.settings.receiver)
    delivered = [row for row in about_event(event, past) if row.outcome == "delivered"]
    reached = totals["delivered"]
    return {
        "verdict": _verdict(visit, health, answer),
        "findings": [finding.as_dict() for finding in visit.findings],
        "began": iso(visit.began),
        "compared": visit.runtime.paid_orders.compared_at(),
        "period": period.name,
        "dates": period.dates,
        "begin": period.begin,
        "end": period.end,
        "event": event,
        "events": sorted(names),
        "beside": earlier_periods.compared(period, delivered, reached["events"], reached["values"]),
        "clicked": _clicked(visit, period, event),
        "refunded": total(fates.get("too_late", ())),
        "health": health,
        "reported": reported,
        "held": total(row for row in unsettled if row.outcome == "held"),
        "apart": {
            side: sum(row.events for row in everything if row.outcome == side) for side in APART
        },
        "way": [
            {"name": name, **word}
            | totals[name]
            | {"share": share_of(totals[name]["events"], reported)}
            for name, word in _WAY.items()
        ],
        "answer": answer,
        "losses": _losses(missing, fates, reported, _open_reasons(visit, period), knows_all),
        "steps": steps,
    }


def chosen_event(visit: Visit, names: Collection[str]) -> str:
    """The event that the address names; else orders, or all where none of *names* is an order."""
    return visit.argument("event", "purchase" if "purchase" in names else ALL)


def about_event(event: str, rows: Iterable[HistorySum]) -> list[HistorySum]:
    """Those of *rows* that the page is about: of one event, or of all."""
    return [row for row in rows if event in (ALL, row.event_name)]


def _past(visit: Visit, period: Period) -> Sequence[HistorySum]:
    """The history from before the span to now, by the hour; for thirteen months, of the days alone
    that the shop's own list tells of."""
    since = earlier_periods.since(period) if period.step != "week" else visit.now - DAYS * DAY
    columns: tuple[HistoryColumn, ...] = ("at", "event_name", "outcome", "currency")
    return visit.lookups.history(since, columns)


def _failed_but_listed(visit: Visit, period: Period, past: Iterable[HistorySum]) -> int:
    """How many orders of the span were lost on this host at a time for which the shop's own list
    was compared."""
    first = max(period.begin, visit.now - DAYS * DAY)
    last = min(period.end, visit.runtime.paid_orders.compared_until())
    failed = (row for row in past if row.event_name == "purchase" and row.outcome == "failed")
    return sum(row.events for row in failed if first <= row.at < last)


def _clicked(visit: Visit, period: Period, event: str) -> Data:
    """How many of the delivered events have a click id, and their money."""
    rows = period.sums(visit.lookups, ("event_name", "outcome", "identifiers", "currency"))
    delivered = (row for row in about_event(event, rows) if row.outcome == "delivered")
    return total(row for row in delivered if row.identifiers & IDENTIFIERS["adct"].bits)


def _verdict(visit: Visit, health: Data, answer: Data) -> dict[str, Any]:
    """What is wrong now, the worst of it; else what became of the span that the page shows."""
    worst = visit.findings[0] if visit.findings else None
    if worst is not None and (worst.severity in _ANSWERS or worst.code == "nothing-reported"):
        level, begin = _ANSWERS.get(worst.severity, ("idle", ""))
        if worst.code == "reports-silent" and worst.key != "purchase":
            begin = _ANSWERS["warning"][1]  # "No." is about orders
        elif worst.sentence.startswith("No "):
            begin = ""  # it says so itself
        verdict = {"level": level, "sentence": begin + worst.sentence}
        return worst.as_dict() | verdict | {"money": values(worst.values)}
    level = "idle"
    begin = ""
    if health["could"]:
        level = "good"
        begin = "Yes. " if health["share"] == 1 else "Nothing is open now. "
    sentence = begin + answer["sentence"]
    return ok("verdict", sentence).as_dict() | {"level": level, "money": ""}


# -- the way ---------------------------------------------------------------------------------------


def _fate(row: HistorySum) -> str:
    """What became of the events of *row*: a name of ``_WAY``, or an outcome beside it."""
    if row.outcome == "expired":
        return "unreleased" if row.reason == "hold_expired" else "dead"
    # What may have arrived is not known to be lost.
    return "unsure" if row.outcome == "dead" and row.reason in RISKY else row.outcome


def _health(delivered: int, lost: int) -> dict[str, Any]:
    """The share that AdRoll has of what it should have, and AdRoll's own word for it."""
    could = delivered + lost
    share = share_of(delivered, could)
    word = ""
    tone = "idle"
    if share is not None:
        word = "poor"
        tone = "bad"
        if share > 0.85:
            word = "great"
            tone = "good"
        elif share > 0.7:
            word = "good"
            tone = "warn"
    return {"share": share, "word": word, "tone": tone, "delivered": delivered, "could": could}


def _missing(visit: Visit, period: Period) -> list[dict[str, Any]]:
    """Orders that the shop's own list has, of days that begin in the span, and nobody reported."""
    # The list does not say of which shop an order is, nor whether its visitor said no.
    if visit.account is not None or not visit.settings.remember_suppressed:
        return []
    missing = visit.listed.get("missing", ())
    # The history's hours begin as UTC's do, and a zone's day may begin within one of them.
    rows = [row for row in missing if period.begin - 3600 <= row.at < period.end]
    return [_loss("missing", "missing", "", total(rows), 0)] if rows else []


def _answer(
    totals: Mapping[str, Mapping[str, Any]],
    health: Data,
    noun: str,
    never: int,
    lost: int,
    receiver: str,
) -> dict[str, str]:
    """How many events reached AdRoll of those that it should have, in a sentence. Further ones say
    what became of the others (``beside``).

    An event counts once, however often it was reported. AdRoll should not have what is not to be
    reported, nor what is not paid (held, cancelled).

    :param never: orders that were never reported.
    :param lost: events that were lost, without those that count as never reported.
    """
    events = {name: part["events"] for name, part in totals.items()}
    delivered = health["delivered"]
    due = health["could"]
    # As long as there are such events, we do not say that all have reached AdRoll.
    under_way = _numbered((events["waiting"], "{is|are} on the way"), (events["unsure"], _MAY))
    if not due and under_way:
        sentence = f"No {noun} is known to have reached {receiver}: {_joined(under_way)}."
    elif not due:
        sentence = f"No {noun} of this time was to reach {receiver}."
    elif delivered == due and under_way:
        reached = f"{counted(due, noun)} reached {receiver}"
        sentence = f"{_joined([reached, *under_way])}."
    elif delivered == due:
        sentence = agreeing(f"{{The one {noun}|All {count(due)} {noun}s}} reached {receiver}.", due)
    else:
        why = _numbered(
            (never, "{was|were} never reported by the shop"),
            (lost, "could not be delivered"),
        )
        sentence = (
            f"{count(delivered)} of {count(due)} {noun}s reached {receiver}; {', '.join(why)}."
        )
    unpaid = events["cancelled"] + events["unreleased"]
    listed = sum(events[name] for name in _LOST) - lost
    others = _numbered(
        (events["suppressed"], "{is|are} not to be reported: the visitor or the site said no"),
        (events["waiting"], "{is|are} on the way"),
        (events["unsure"], f"{_MAY}; nobody knows"),
        (unpaid, "{was|were} cancelled, or held and never released"),
        (listed, "{was|were} lost on this host: the shop's list tells which are missing still"),
        (
            events["duplicate"],
            "{is a reload or a retry|are reloads or retries} and {counts|count} once",
        ),
    )
    return {"sentence": sentence, "beside": " ".join(f"{text}." for text in others)}


def _joined(parts: Sequence[str]) -> str:
    """*parts* as a list in a sentence."""
    ends = [", ".join(parts[:-1]), parts[-1]]
    return ", and ".join(filter(None, ends))


def _numbered(*parts: tuple[int, str]) -> list[str]:
    """Each number with its words, without those that are 0."""
    return [f"{count(number)} {agreeing(words, number)}" for number, words in parts if number]


def _open_reasons(visit: Visit, period: Period) -> set[str]:
    """The reasons for which something did not arrive, and still waits for somebody."""
    letters = (letter for letters in visit.problems.values() for letter in letters)
    reasons = {row.reason for row in letters if period.begin <= row.occurred_at <= period.end}
    for finding in visit.findings:
        if finding.code == "event-lost":
            reasons.add(finding.key)
        if finding.code in _REASON_OF:
            reasons.add(_REASON_OF[finding.code])
    return reasons


def _losses(
    missing: Sequence[Data],
    fates: Mapping[str, Sequence[HistorySum]],
    reported: int,
    open_reasons: set[str],
    knows_all: bool,
) -> list[Data]:
    """What did not reach AdRoll, by reason: what is open first, then what can be changed.

    :param knows_all: whether all dead letters were looked at. Otherwise one may wait for a reason
        that *open_reasons* lacks.
    """
    losses = [*missing]
    for fate, of_fate in fates.items():
        if fate in ("delivered", "waiting", "held", "unused", "too_late"):
            continue
        for (outcome, reason), rows in by(lambda row: (row.outcome, row.reason), of_fate).items():
            # A duplicate is no loss, unless it had another value. Nor is a release of what was not
            # held (unused): its buyer had refused.
            if fate != "duplicate" or reason == "another_value":
                losses.append(_loss(fate, outcome, reason, total(rows), reported))
    for loss in losses:
        loss["is_open"] = (loss["reason"] or loss["outcome"]) in open_reasons
        is_over = knows_all and not loss["is_open"]
        if is_over and loss["way"] in (*_LOST, "unsure", "missing"):
            loss |= _OVER
    return sorted(losses, key=lambda loss: (_urgency(loss), -loss["events"]))


def _loss(way: str, outcome: str, reason: str, sums: Data, reported: int) -> dict[str, Any]:
    share = {"share": share_of(sums["events"], reported)}
    names = {"way": way, "outcome": outcome, "reason": reason}
    return names | sums | share | meaning(outcome, reason)._asdict()


def _urgency(loss: Data) -> int:
    """0: the loss goes on now; 1: a developer can end such losses; 2: any other."""
    if loss["is_open"]:
        return 0
    return 1 if loss["who"] == "developer" else 2


def _plot_steps(
    period: Period, sums: Sequence[HistorySum], usual: Mapping[int, float]
) -> list[dict[str, Any]]:
    plotted = [part["name"] for part in _PLOTTED]
    steps = {at: dict.fromkeys((*plotted, "late"), 0) for at in period.begins}
    for row in sums:
        fate = _fate(row)
        fate = _DRAWN.get(fate, fate)
        if fate in plotted:
            steps[row.at][fate] += row.events
            steps[row.at]["late"] += sum(row.delays[_LATE:])
    ends = (*period.begins[1:], period.end)
    return [
        {"at": at, "end": end, **counts, "usual": usual.get(at), "shade": _shade(counts)}
        for (at, counts), end in zip(steps.items(), ends, strict=True)
    ]


def _shade(counts: Mapping[str, int]) -> str:
    """Why a step is shaded; empty: it is not. One or two late orders are usual: they were paid, and
    released, later."""
    return "late" if counts["late"] >= max(3, counts["delivered"] / 2) else ""


def overview_rows(data: Data) -> Iterable[Mapping[str, object]]:
    """What did not reach AdRoll and what did, by reason and currency."""
    delivered = {**data["way"][-1], "way": "delivered", "reason": ""}
    for part in (delivered, *data["losses"]):
        for place, (currency, value) in enumerate(part["values"] or [("", Decimal())]):
            yield {
                "event": data["event"],
                "became": part["way"],
                "reason": part["reason"],
                "events": "" if place else part["events"],
                "value": f"{value:f}",
                "currency": currency,
            }


#: What the query of a page of figures may have.
ARGUMENTS: Final = ("period", "since", "until", "event")
#: What links between the two pages of figures carry on.
KEPT: Final = ("period", "since", "until")
PAGE: Final = Page(
    "overview", overview_data, overview_rows, {"plotted": _PLOTTED}, arguments=ARGUMENTS, kept=KEPT
)

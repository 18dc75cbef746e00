"""What could not be sent: dead letters by cause and what to do about them; AdRoll's state now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final

from adroll_flask.events.event import API_NAMES
from adroll_flask.findings.finding import meaning
from adroll_flask.findings.rules import MOST_DEAD, title_of
from adroll_flask.findings.sums import by, money, of_events
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.model import HistorySum, Row
from adroll_flask.plurals import counted, iso
from adroll_flask.reporting.kept_events import FIELDS, retry_dead

from .orders import listed, with_times
from .page import Data, Done, Page, Visit

logger: Logger = get_logger("adroll_flask.dashboard")

#: The name in the query of the problem that is looked at alone.
PROBLEM: Final = "problem"
#: Events of a problem that are listed.
_LISTED: Final = 20
_DAY: Final = 86_400
#: Days of the curve, and those after which a problem that is solved is no longer told of.
_CURVE: Final = 30
_TOLD: Final = 90
#: Events that one press of a button works on, and seconds after which it stops.
_AT_ONCE: Final = 1000
_SECONDS: Final = 5.0


def data(visit: Visit) -> Data:
    """What is wrong now, with the events of what waits for a decision; the destination."""
    letters, groups = visit.letters, visit.problems
    first_day = _day(visit.now) - (_CURVE - 1) * _DAY
    wanted = visit.argument(PROBLEM)
    found = [
        _open_problem(id, those, first_day)
        for id, those in groups.items()
        if not wanted or id == wanted
    ]
    begin = visit.now - _TOLD * _DAY
    ended = visit.outbox.lookups.history(begin, ("at", "reason"), lost=True)
    still = {letter.reason for letter in letters}
    result: Data = {
        PROBLEM: wanted,
        "findings": [one.as_dict() for one in visit.urgent],
        # What is wrong with it is among the findings.
        "destination": {
            "token": "missing" if "ADROLL_ACCESS_TOKEN" in visit.settings.missing else "set",
            "stopped_since": visit.destination.stopped_since,
            "last_answer": visit.destination.last_error,
            "last_answer_at": visit.destination.last_error_at,
        },
        "open": sorted(found, key=lambda one: -one["last"]),
        "solved": [] if wanted else _solved(ended, still, first_day),
        "first_day": first_day,
        "is_all": len(letters) < MOST_DEAD,
        "looked_at": len(letters),
    }
    if wanted:
        result["events"] = listed(visit, groups.get(wanted, [])[:_LISTED])
    return result


def _open_problem(id: str, letters: Sequence[Row], first_day: int) -> Data:
    newest = letters[0]
    what = meaning("dead", newest.reason)
    return {
        "id": id,
        **what._asdict(),
        **_told(newest.reason, [(one.settled_at or 0.0, 1) for one in letters], first_day),
        "title": title_of(newest.reason, newest.error),
        "likely": what.field or likely_field(newest.error),
        "words": newest.error,
        "names": Counter(letter.name for letter in letters),
        "values": money(of_events(letters)),
    }


def _solved(ended: Iterable[HistorySum], still: set[str], first_day: int) -> list[Data]:
    """Of what history knows, that of which no dead letter is left."""
    over = (one for one in ended if one.reason not in {*still, "hold_expired"})
    found = [
        _told(reason, [(one.at, one.events) for one in those], first_day)
        for reason, those in by(lambda one: one.reason, over).items()
    ]
    return sorted(found, key=lambda one: -one["last"])


def _told(reason: str, times: Sequence[tuple[float, int]], first_day: int) -> Data:
    """What open and solved problems have alike; *times* are when they had how many events."""
    days: Counter[int] = Counter()
    for at, events in times:
        days[_day(at)] += events
    return {
        "title": meaning("dead", reason).title,
        "reason": reason,
        "events": days.total(),
        "first": min(times)[0],
        "last": max(times)[0],
        "days": [days[first_day + n * _DAY] for n in range(_CURVE)],
    }


def likely_field(words: str) -> str:
    """The field that AdRoll's words name, of those that can be set; empty: none.

    >>> likely_field("http_422: [0].conversion_value: must be positive")
    'value'
    """
    return next((name for name in FIELDS if API_NAMES.get(name, name) in words), "")


def _day(at: float) -> int:
    return int(at // _DAY) * _DAY


def rows(data: Data) -> Iterator[Mapping[str, object]]:
    """The problems, or the events of the one that is looked at."""
    if data[PROBLEM]:
        yield from map(with_times, data["events"])
        return
    for state in ("open", "solved"):
        for one in data[state]:
            told = {name: one.get(name, "") for name in ("reason", "words", "events")}
            times = {"first": iso(one["first"]), "last": iso(one["last"])}
            yield {"state": state, "problem": one["title"], **told, **times}


# -- what an operator does -------------------------------------------------------------------------


def _those(visit: Visit) -> tuple[str, list[str]]:
    """The problem that a form names, and its events as far as the form's page has counted them."""
    form = visit.request.form
    problem, until = form.get(PROBLEM, ""), form.get("until", 0.0, type=float)
    its = visit.problems.get(problem, [])
    # A millisecond: the page has it as a text.
    return problem, [letter.id for letter in its if (letter.settled_at or 0.0) <= until + 0.001]


def retry(visit: Visit) -> Done:
    """Send the events of a problem again; with a field that is set in all of them before."""
    problem, ids = _those(visit)
    form = visit.request.form
    value = form.get("value", "").strip()[:2000]
    field = form.get("field", "") if value else ""
    if field not in ("", *FIELDS):
        return Done("There is no such field.", good=False, arguments={PROBLEM: problem})
    reporter = visit.runtime.reporter
    end = time.monotonic() + _SECONDS
    in_time = takewhile(lambda _: time.monotonic() < end, ids[:_AT_ONCE])
    done = retry_dead(reporter, in_time, **({field: value} if field else {}))
    refused = Counter(why for _id, why in done.refused)
    left = len(ids) - done.sent - done.suppressed - refused.total()
    if done.sent:
        reporter.tell("dead letters that are sent again")
    said = [f"{counted(done.sent, 'event')} will be sent again"]
    if done.suppressed:
        said.append(f"{counted(done.suppressed, 'event')} kept back by before_report")
    if refused:
        why, _number = refused.most_common(1)[0]
        said.append(f"{counted(refused.total(), 'event')} not: {why}")
    logger.info(
        "AdRoll dashboard: %d dead letters sent again, %d not",
        done.sent,
        refused.total(),
        extra={"adroll_event": "dashboard-retried"},
    )
    stays = {PROBLEM: problem} if refused or left else {}
    return Done(_sentence(said, left), good=not refused and bool(ids), arguments=stays)


def drop(visit: Visit) -> Done:
    """Remove the events of a problem for good."""
    problem, ids = _those(visit)
    if visit.request.form.get("sure") != "yes":
        text = "Nothing was dropped: tick the box that says that you are sure."
        return Done(text, good=False, arguments={PROBLEM: problem})
    dropped, left = visit.runtime.outbox.admin.drop(ids[:_AT_ONCE]), len(ids[_AT_ONCE:])
    logger.info(
        "AdRoll dashboard: %d dead letters dropped",
        dropped,
        extra={"adroll_event": "dashboard-dropped"},
    )
    said = _sentence([f"{counted(dropped, 'event')} dropped"], left)
    return Done(said, good=bool(dropped), arguments={PROBLEM: problem} if left else {})


def _sentence(said: list[str], left: int) -> str:
    more = [f"{counted(left, 'event')} left: press the button again"] if left else []
    return "; ".join([*said, *more]) + "."


PAGE: Final = Page(
    *("problems", data, rows, {"fields": list(FIELDS), "at_once": _AT_ONCE}),
    actions={"retry": retry, "drop": drop},
    arguments=(PROBLEM,),
)

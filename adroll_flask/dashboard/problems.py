"""What could not be sent: dead letters by cause and what to do about them; AdRoll's state now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from itertools import takewhile
from typing import Final

from adroll_flask.events.event import API_NAMES
from adroll_flask.events.names import FIELD_NAMES
from adroll_flask.findings.finding import meaning
from adroll_flask.findings.rules import MOST_DEAD, refused_field, title_of
from adroll_flask.findings.sums import of_events, worth_of
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.model import RISKY, Row
from adroll_flask.plurals import counted
from adroll_flask.reporting.kept_events import FIELDS, retry_dead
from adroll_flask.times import DAY, iso

from .orders import answer_in_words, event_rows, with_times
from .page import Data, Done, Page, Visit

logger: Logger = get_logger("adroll_flask.dashboard")

#: The name in the query of the problem that is looked at alone.
PROBLEM: Final = "problem"
#: Events of a problem that are listed.
_LISTED: Final = 20
#: Days of the curve.
_CURVE: Final = 30
#: Events that one press of a button works on at most, and seconds after which it stops.
_AT_ONCE: Final = 1000
_SECONDS: Final = 5.0


def problems_data(visit: Visit) -> Data:
    """What is wrong now, the dead letters by cause, and how AdRoll does."""
    letters = visit.letters
    groups = visit.problems
    first_day = _day(visit.now) - (_CURVE - 1) * DAY
    wanted = visit.argument(PROBLEM)
    names = visit.settings.shop_names if visit.account is None else {}
    stopped = [name for eid, name in names.items() if visit.states.get(eid) is visit.destination]
    open_problems = [
        _open_problem(id, those, first_day)
        for id, those in groups.items()
        if not wanted or id == wanted
    ]
    result: Data = {
        PROBLEM: wanted,
        "findings": [finding.as_dict() for finding in visit.urgent],
        # The findings say what is wrong with the destination.
        "destination": {
            "token": "missing" if "ADROLL_ACCESS_TOKEN" in visit.settings.missing else "set",
            # If there are several shops: the one that the lines below are about.
            "shop": stopped[0] if stopped else "",
            "stopped_since": visit.destination.stopped_since,
            "last_answer": visit.destination.last_error,
            "last_answer_at": visit.destination.last_error_at,
        },
        "open": sorted(open_problems, key=lambda problem: -problem["last"]),
        "watched": [
            event._asdict() | {"shop": names.get(event.account, "")} for event in visit.watched
        ],
        "first_day": first_day,
        "is_all": len(letters) < MOST_DEAD,
        "looked_at": len(letters),
    }
    if wanted:
        result["events"] = event_rows(visit, groups.get(wanted, [])[:_LISTED])
    return result


def _open_problem(id: str, letters: Sequence[Row], first_day: int) -> Data:
    newest = letters[0]
    what = meaning("dead", newest.reason)
    own = newest.reason.removeprefix("invalid:")
    place = own if own in FIELD_NAMES else refused_field(newest.reason, newest.error)
    likely = likely_field(place or newest.error)
    times = [letter.settled_at or 0.0 for letter in letters]
    days = Counter(_day(at) for at in times)
    return {
        "id": id,
        **what._asdict(),
        "title": title_of(newest.reason, newest.error),
        "reason": newest.reason,
        "is_risky": newest.reason in RISKY,
        "events": len(letters),
        "first": min(times),
        "last": max(times),
        "days": [days[first_day + n * DAY] for n in range(_CURVE)],
        "likely": likely,
        # Another field: each event has its own value there, and is corrected by itself.
        "elsewhere": "" if likely else place,
        "words": newest.error,
        "names": Counter(letter.name for letter in letters),
        "values": worth_of(of_events(letters)),
    }


def likely_field(words: str) -> str:
    """The field that AdRoll's words name, of those that can be set in many; empty: none.

    >>> likely_field("http_422: [0].conversion_value: must be positive")
    'value'
    """
    return next((name for name in FIELDS if API_NAMES.get(name, name) in words), "")


def _day(at: float) -> int:
    return int(at // DAY) * DAY


def problems_rows(data: Data) -> Iterator[Mapping[str, object]]:
    """The problems, or the events of the one that is looked at."""
    if data[PROBLEM]:
        yield from map(with_times, data["events"])
        return
    for problem in data["open"]:
        columns = {name: problem[name] for name in ("title", "reason", "words", "events")}
        yield columns | {"first": iso(problem["first"]), "last": iso(problem["last"])}


# -- what an operator does -------------------------------------------------------------------------


def _chosen_letters(visit: Visit) -> tuple[str, list[str]]:
    """The problem that a form names, and those of its events that the form's page counted."""
    form = visit.request.form
    problem = form.get(PROBLEM, "")
    until = form.get("until", 0.0, type=float)
    letters = visit.problems.get(problem, [])
    # A millisecond more: the page has the time as a text.
    return problem, [letter.id for letter in letters if (letter.settled_at or 0.0) <= until + 0.001]


def retry_problem(visit: Visit) -> Done:
    """Send the events of a problem again. A field that the form has is set in all of them first."""
    problem, ids = _chosen_letters(visit)
    form = visit.request.form
    value = form.get("value", "").strip()[:2000]
    field = form.get("field", "") if value else ""
    if field not in ("", *FIELDS):
        return Done("There is no such field.", good=False, arguments={PROBLEM: problem})
    letters = visit.problems.get(problem, [])
    if letters and letters[0].reason in RISKY and form.get("sure") != "yes":
        text = "Nothing was sent: tick the box that says that AdRoll does not have it."
        return Done(text, good=False, arguments={PROBLEM: problem})
    reporter = visit.runtime.reporter
    end = time.monotonic() + _SECONDS
    in_time = takewhile(lambda _: time.monotonic() < end, ids[:_AT_ONCE])
    done = retry_dead(reporter, in_time, **({field: value} if field else {}))
    refused = Counter(why for _id, why in done.refused)
    undone = len(ids) - done.sent - done.suppressed - refused.total()
    if done.sent:
        reporter.tell("dead letters that are sent again")
    sentences = [f"{counted(done.sent, 'event')} will be sent again"]
    if done.suppressed:
        sentences.append(f"{counted(done.suppressed, 'event')} kept back by before_report")
    if refused:
        why, _number = refused.most_common(1)[0]
        sentences.append(f"{counted(refused.total(), 'event')} not: {why}")
    logger.info(
        "AdRoll dashboard: %d dead letters sent again, %d not",
        done.sent,
        refused.total(),
        extra={"adroll_event": "dashboard-retried"},
    )
    stays = {PROBLEM: problem} if refused or undone else {}
    return Done(_sentence(sentences, undone), good=not refused and bool(ids), arguments=stays)


def drop_problem(visit: Visit) -> Done:
    """Remove the events of a problem for good."""
    problem, ids = _chosen_letters(visit)
    if visit.request.form.get("sure") != "yes":
        text = "Nothing was dropped: tick the box that says that you are sure."
        return Done(text, good=False, arguments={PROBLEM: problem})
    dropped = visit.runtime.outbox.admin.drop(ids[:_AT_ONCE])
    undone = len(ids[_AT_ONCE:])
    logger.info(
        "AdRoll dashboard: %d dead letters dropped",
        dropped.events,
        extra={"adroll_event": "dashboard-dropped"},
    )
    sentences = [f"{counted(dropped.events, 'event')} dropped"]
    if dropped.delivered:
        delivered = counted(dropped.delivered, "event")
        sentences.append(f"{delivered} delivered meanwhile, and not dropped")
    stays = {PROBLEM: problem} if undone else {}
    return Done(_sentence(sentences, undone), good=bool(dropped.events), arguments=stays)


def _sentence(sentences: list[str], undone: int) -> str:
    more = [f"{counted(undone, 'event')} left: press the button again"] if undone else []
    return "; ".join([*sentences, *more]) + "."


PAGE: Final = Page(
    "problems",
    problems_data,
    problems_rows,
    {"fields": list(FIELDS), "at_once": _AT_ONCE, "utc": UTC, "in_words": answer_in_words},
    actions={"retry": retry_problem, "drop": drop_problem},
    arguments=(PROBLEM,),
)

"""What could not be sent: dead letters by cause and what to do about them; AdRoll's state now."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from adroll_flask.logs import Logger, get_logger
from adroll_flask.plurals import counted
from adroll_flask.reporting.dead_letters import FIELDS, Change, retry_dead

from . import plots
from .numbers import iso, written
from .orders import group_of, order_shown
from .page import Data, Done, Page, Visit
from .reasons import of_dead_letter

if TYPE_CHECKING:
    from adroll_flask.outbox import Outbox
    from adroll_flask.outbox.protocol import DeadLetter, Ended

logger: Logger = get_logger("adroll_flask.dashboard")

#: The name in the query of the problem that is looked at alone.
PROBLEM: Final = "problem"
#: Dead letters that are looked at, the newest, and those that are counted.
MOST: Final = 2000
_COUNTED: Final = 20_000
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
    """The problems, or the one that the address names; the destination."""
    store = visit.store
    letters = () if store is None else store.dead_letters.newest(MOST)
    groups = _grouped(letters)
    first_day = _day(visit.now) - (_CURVE - 1) * _DAY
    wanted = visit.argument(PROBLEM)
    found: list[Data] = []
    for id, those in groups.items():
        if not wanted or id == wanted:
            found.append(_open_problem(id, those, first_day))
    ended = () if store is None else store.dead_letters.ended(visit.now - _TOLD * _DAY)
    solved = [] if wanted else _solved(ended, {letter.reason for letter in letters}, first_day)
    result: Data = {
        PROBLEM: wanted,
        "destination": _destination(visit, store),
        "open": sorted(found, key=lambda one: -one["last"]),
        "solved": solved,
        "first_day": first_day,
        "is_all": len(letters) < MOST,
        "looked_at": len(letters),
        "dead": _dead(store, len(letters)),
        "counted": _COUNTED,
    }
    if wanted:
        result["events"] = _events(store, groups.get(wanted, [])[:_LISTED])
    return result


def _dead(store: Outbox | None, seen: int) -> int:
    """Dead letters, counted up to a bound."""
    return (
        seen if store is None or seen < MOST else store.dead_letters.open_counts(_COUNTED)["dead"]
    )


def _grouped(letters: Iterable[DeadLetter]) -> dict[str, list[DeadLetter]]:
    """Letters by cause; those of forgotten visitors are nobody's problem."""
    groups: dict[str, list[DeadLetter]] = defaultdict(list)
    known: dict[tuple[str, str], str] = {}
    for letter in letters:
        if letter.whole or letter.reason == "damaged":
            pair = letter.reason, letter.error
            if pair not in known:
                known[pair] = group_of(*pair)
            groups[known[pair]].append(letter)
    return groups


def _open_problem(id: str, letters: Sequence[DeadLetter], first_day: int) -> Data:
    newest = letters[0]
    what = of_dead_letter(newest.reason)
    times = [letter.settled_at for letter in letters]
    days = Counter(_day(at) for at in times)
    place = "" if what.is_ours else _place(newest.error)
    return {
        "id": id,
        **what._asdict(),
        "title": f"{what.title}: {place}" if place else what.title,
        "likely": what.field or likely_field(newest.error),
        "reason": newest.reason,
        "words": newest.error,
        "names": Counter(letter.name for letter in letters),
        "events": len(letters),
        "first": min(times),
        "last": max(times),
        "days": [days[first_day + n * _DAY] for n in range(_CURVE)],
    }


def _solved(ended: Iterable[Ended], still: set[str], first_day: int) -> list[Data]:
    """Of what history knows, that of which no dead letter is left."""
    reasons: dict[str, list[Ended]] = defaultdict(list)
    for one in ended:
        if one.reason not in still and one.reason != "hold_expired":
            reasons[one.reason].append(one)
    found = []
    for reason, those in reasons.items():
        days: Counter[int] = Counter()
        for one in those:
            days[one.day] += one.events
        found.append(
            {
                "title": of_dead_letter(reason).title,
                "reason": reason,
                "events": sum(one.events for one in those),
                "first": min(one.first for one in those),
                "last": max(one.last for one in those),
                "days": [days[first_day + n * _DAY] for n in range(_CURVE)],
            }
        )
    return sorted(found, key=lambda one: -one["last"])


def likely_field(words: str) -> str:
    """The field that AdRoll's words name, of those that can be set; empty: none.

    >>> likely_field("http_422: [0].conversion_value: must be positive")
    'value'
    """
    return next((field for field, place in FIELDS.items() if place[-1] in words), "")


#: AdRoll's words on one place of an event: ``http_422: [0].event_attributes.products: …``.
_PLACE: Final = re.compile(r"http_\d+: (?:\[\d+\]\.)?(?:event_attributes\.)?([a-z_]+[a-z_.\d]*): ")


def _place(words: str) -> str:
    """The part of an event that AdRoll's words are about; empty: none that can be told."""
    found = _PLACE.match(words)
    return re.sub(r"\.\d+\b", "", found[1]) if found else ""


def _day(at: float) -> int:
    return int(at // _DAY) * _DAY


def _events(store: Outbox | None, letters: Sequence[DeadLetter]) -> list[Data]:
    if store is None or not letters:
        return []
    rows = {row.id: row for row in store.orders.those([letter.id for letter in letters])}
    return [
        {
            "id": row.id,
            "name": row.name,
            "order": order_shown(row),
            "occurred_at": row.occurred_at,
            "settled_at": row.settled_at,
            "words": row.error,
            "unsure": row.unsure,
        }
        for row in (rows.get(letter.id) for letter in letters)
        if row is not None
    ]


def _destination(visit: Visit, store: Outbox | None) -> Data:
    """How AdRoll stands to us: may we send, does it answer, what did it say last."""
    settings = visit.runtime.settings
    now = None if store is None else store.destination.state()
    state, text = "good", "AdRoll takes what is sent."
    if settings.missing:
        names = " and ".join(settings.missing)
        state, text = "bad", f"{names} not set: nothing can be sent, everything waits."
    elif now is None:
        state, text = "idle", "Nothing was sent yet."
    elif now.held:
        text = f"Nothing is sent: AdRoll refused everything ({now.held}). No event is blamed."
        state = "bad"
    elif now.failures:
        requests = counted(now.failures, "request")
        text = f"AdRoll is away: {requests} in a row failed. It is asked every half minute."
        state = "warn"
    elif now.paused_for > 0:
        wait = counted(max(1, round(now.paused_for)), "second")
        state, text = "warn", f"AdRoll asked us to wait, for {wait} more."
    return {
        "state": state,
        "text": text,
        "held": now.held if now else None,
        "held_since": now.held_since if now else None,
        "paused_for": now.paused_for if now else 0.0,
        "failures": now.failures if now else 0,
        "last_answer": now.last_error if now else None,
        "last_answer_at": now.last_error_at if now else None,
        "token": "missing" if "ADROLL_ACCESS_TOKEN" in settings.missing else "set",
    }


def rows(data: Data) -> Iterator[Mapping[str, object]]:
    """The problems, or the events of the one that is looked at."""
    if data[PROBLEM]:
        for event in data["events"]:
            times = {name: iso(event[name]) for name in ("occurred_at", "settled_at")}
            yield {**event, **times}
        return
    for state in ("open", "solved"):
        for one in data[state]:
            yield {
                "state": state,
                "problem": one["title"],
                "reason": one["reason"],
                "words": one.get("words", ""),
                "events": one["events"],
                "first": iso(one["first"]),
                "last": iso(one["last"]),
            }


def view(_visit: Visit, data: Data) -> Data:
    """What the template has beside the data."""
    plot = None
    if data[PROBLEM] and data["open"]:
        days = [data["first_day"] + n * _DAY for n in range(_CURVE)]
        plot = plots.stacked(
            [written("%-d %b", day) for day in days],
            [written("%a %-d %b %Y", day) for day in days],
            [plots.Series("given up", "bad", data["open"][0]["days"])],
        )
    return {"fields": list(FIELDS), "at_once": _AT_ONCE, "plot": plot}


# -- what an operator does -------------------------------------------------------------------------


def _those(visit: Visit) -> tuple[str, list[str]]:
    """The problem that a form names, and its events as far as the form's page has counted them."""
    form = visit.request.form
    problem = form.get(PROBLEM, "")
    try:
        until = float(form.get("until", ""))
    except ValueError:
        until = 0.0
    store = visit.store
    letters = [] if store is None else _grouped(store.dead_letters.newest(MOST)).get(problem, [])
    # A millisecond: the page has it as a text.
    return problem, [letter.id for letter in letters if letter.settled_at <= until + 0.001]


def retry(visit: Visit) -> Done:
    """Send the events of a problem again; with a field that is set in all of them before."""
    problem, ids = _those(visit)
    form = visit.request.form
    change, value = None, form.get("value", "").strip()[:2000]
    if value:
        if form.get("field") not in FIELDS:
            return Done("There is no such field.", good=False, arguments={PROBLEM: problem})
        change = Change(form["field"], value)
    reporter = visit.runtime.reporter
    sent = suppressed = 0
    refused: list[str] = []

    def send(some: Sequence[str]) -> int:
        nonlocal sent, suppressed
        done = retry_dead(reporter, some, change)
        sent += done.sent
        suppressed += done.suppressed
        refused.extend(why for _id, why in done.refused)
        return len(some)

    left = _in_steps(ids, send, size=20)
    if sent:
        visit.runtime.parts.tell("dead letters that are sent again")
    said = [f"{counted(sent, 'event')} will be sent again"]
    if suppressed:
        said.append(f"{counted(suppressed, 'event')} kept back by before_report")
    if refused:
        why, _number = Counter(refused).most_common(1)[0]
        said.append(f"{counted(len(refused), 'event')} not: {why}")
    if left:
        said.append(f"{counted(left, 'event')} left: press the button again")
    logger.info(
        "AdRoll dashboard: %d dead letters sent again, %d not",
        sent,
        len(refused),
        extra={"adroll_event": "dashboard-retried"},
    )
    stays = {PROBLEM: problem} if refused or left else {}
    return Done("; ".join(said) + ".", good=not refused and bool(ids), arguments=stays)


def drop(visit: Visit) -> Done:
    """Remove the events of a problem for good."""
    problem, ids = _those(visit)
    if visit.request.form.get("sure") != "yes":
        text = "Nothing was dropped: tick the box that says that you are sure."
        return Done(text, good=False, arguments={PROBLEM: problem})
    store = visit.store
    dropped = 0

    def remove(some: Sequence[str]) -> int:
        nonlocal dropped
        dropped += 0 if store is None else store.admin.drop(some)
        return len(some)

    left = _in_steps(ids, remove, size=500)
    logger.info(
        "AdRoll dashboard: %d dead letters dropped",
        dropped,
        extra={"adroll_event": "dashboard-dropped"},
    )
    more = f"; {counted(left, 'event')} left: press the button again" if left else ""
    return Done(
        f"{counted(dropped, 'event')} dropped{more}.",
        good=bool(dropped),
        arguments={PROBLEM: problem} if left else {},
    )


def _in_steps(ids: Sequence[str], work: Callable[[Sequence[str]], int], *, size: int) -> int:
    """Work on *ids* for some seconds at most; how many are left."""
    end = time.monotonic() + _SECONDS
    done = 0
    ours = ids[:_AT_ONCE]
    while done < len(ours) and time.monotonic() < end:
        done += work(ours[done : done + size])
    return len(ids) - done


PAGE: Final = Page(
    "problems",
    "Problems",
    data,
    rows,
    actions={"retry": retry, "drop": drop},
    view=view,
    arguments=(PROBLEM,),
)

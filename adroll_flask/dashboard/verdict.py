"""Is it working? One sentence, what to do if not, and who has to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from adroll_flask.outbox.record_format import DRY_RUN
from adroll_flask.outbox.silence import told
from adroll_flask.plurals import counted, counted_as

from .numbers import span

if TYPE_CHECKING:
    from adroll_flask.outbox import Destination
    from adroll_flask.outbox.protocol import HistorySum

    from .page import Visit

Level: TypeAlias = Literal["good", "warn", "bad", "idle"]

#: Seconds for which an event may be due before we say that nobody delivers.
_LATE: Final = 600.0
#: Share of what could be delivered in a day that may be lost before the answer is "no".
_MANY: Final = 0.05


class Verdict(NamedTuple):
    """The answer.

    :param level: its colour.
    :param sentence: the answer, as a person reads it.
    :param todo: what to do; empty: nothing.
    :param who: who has to: ``developer``, ``marketer``, ``AdRoll``; empty: nobody.
    :param command: what a developer types.
    :param page: the name of the page that shows more.
    """

    level: Level
    sentence: str
    todo: str = ""
    who: str = ""
    command: str = ""
    page: str = ""


def verdict(
    visit: Visit, day: Sequence[HistorySum], unsettled: Sequence[HistorySum], before: int
) -> Verdict:
    """The answer for the last 24 hours.

    :param day: their sums by event, outcome and reason.
    :param unsettled: what waits now.
    :param before: events that were reported in the six days before.
    """
    settings, store = visit.runtime.settings, visit.store
    number = visit.numbers.count
    waiting = sum(row.events for row in unsettled if row.outcome == "waiting")
    wait = f" {number(waiting)} {'event waits' if waiting == 1 else 'events wait'}; none is lost."
    if not settings.enabled:
        return Verdict(
            "bad",
            "No: AdRoll is switched off.",
            "Set ADROLL_ENABLED to True, or remove it.",
            "developer",
        )
    if settings.missing:
        names = " and ".join(settings.missing)
        return Verdict(
            "bad",
            f"No: {names} {'is' if len(settings.missing) == 1 else 'are'} not set, so nothing"
            " can be sent." + (wait if waiting else ""),
            f"Set {names}; AdRoll shows the values. What waits is then sent by itself.",
            "developer",
        )
    failed = _sum(day, "failed")
    if failed:
        return Verdict(
            "bad",
            f"No: {number(failed)} {'report was' if failed == 1 else 'reports were'} lost in the"
            " last 24 hours, since this host's disk did not take them.",
            "Look at the disk of the journal: is it full, may the app write there?",
            "developer",
            "flask adroll check",
        )
    if store is not None:
        stuck = _stuck(visit, store.destination.state(), wait if waiting else "")
        if stuck is not None:
            return stuck
        late = store.queue.oldest_due() or 0.0
        if late > _LATE:
            return Verdict(
                "bad",
                f"No: nobody delivers. The oldest event has been due for {span(late)}.{wait}",
                "Start a worker, and look why the one before ended."
                if settings.delivery == "worker"
                else "Look in the app's log for the reason; requests to the app start delivery.",
                "developer",
                "flask adroll worker" if settings.delivery == "worker" else "flask adroll check",
            )
    if settings.dry_run:
        return _dry_run(visit, day)
    real = [row for row in day if row.outcome != DRY_RUN]
    return _by_figures(visit, real, waiting, before)


def _dry_run(visit: Visit, day: Sequence[HistorySum]) -> Verdict:
    """Where ADROLL_DRY_RUN is set, nothing counts, however well it goes."""
    checked = [row for row in day if row.outcome == DRY_RUN]
    taken = sum(row.events for row in checked if row.reason == "delivered")
    events = counted_as(visit.numbers.count(taken), taken, "event")
    return Verdict(
        "warn",
        f"This is a dry run: AdRoll checked {events} of the last 24 hours, found"
        f" {'it' if taken == 1 else 'them'} good and forgot {'it' if taken == 1 else 'them'}."
        if taken
        else "This is a dry run: AdRoll checks what is sent, and forgets it.",
        "Where real orders are to count, take ADROLL_DRY_RUN out of the settings.",
        "developer",
        page="test",
    )


def _stuck(visit: Visit, destination: Destination, wait: str) -> Verdict | None:
    """What keeps events from AdRoll at present, as far as the outbox knows."""
    since = ""
    if destination.held_since is not None:
        since = f" for {span(visit.now - destination.held_since)}"
    if destination.held in ("http_401", "http_403"):
        return Verdict(
            "bad",
            f"No: AdRoll has refused the access token{since}.{wait}",
            "Make a new token in AdRoll and set ADROLL_ACCESS_TOKEN to it. What waits is then"
            " sent by itself.",
            "marketer and developer",
            "flask adroll send-test",
        )
    if destination.held:
        return Verdict(
            "bad",
            f"No: AdRoll has refused everything{since} ({destination.held}).{wait}",
            "Compare ADROLL_API_URL, ADROLL_ADVERTISABLE_EID and ADROLL_PIXEL_EID with what AdRoll"
            " gave you.",
            "developer",
            "flask adroll send-test",
            "problems",
        )
    if destination.failures:
        return Verdict(
            "warn",
            f"AdRoll is away: {counted(destination.failures, 'request')} in a row failed"
            f" ({destination.last_error or 'no answer'}).{wait}",
            "Nothing: everything is sent within half a minute of AdRoll's return. If it lasts for"
            " hours, see whether this host can reach the Internet.",
            "AdRoll",
            "flask adroll send-test",
        )
    return None


def _by_figures(visit: Visit, day: Sequence[HistorySum], waiting: int, before: int) -> Verdict:
    number = visit.numbers.count
    delivered, lost = _sum(day, "delivered"), _sum(day, "dead", "expired", "invalid")
    if lost and lost >= _MANY * (delivered + lost):
        return Verdict(
            "bad",
            f"Not fully: {number(lost)} of {number(delivered + lost)} events of the last 24 hours"
            " could not be delivered.",
            "See what AdRoll says under Problems, correct it, and send them again from there.",
            "developer",
            page="problems",
        )
    silent = _silent(visit, any(row.events for row in day) or bool(waiting), before)
    if silent is not None:
        return silent
    if not any(row.events for row in day) and not waiting and not before:
        return Verdict(
            "idle",
            "Nothing was reported yet.",
            "Call report_conversion() where an order is paid, then buy something.",
            "developer",
            "flask adroll check",
        )
    orders = [row for row in day if row.event_name == "purchase"]
    what, noun = (orders, "order") if orders else (day, "event")
    done, missed = _sum(what, "delivered"), _sum(what, "dead", "expired", "invalid")
    if lost:
        return Verdict(
            "warn",
            f"Yes, but {number(missed)} of {number(done + missed)} {noun}s of the last 24 hours"
            " could not be delivered."
            if missed
            else f"Yes, but {counted(lost, 'event')} of the last 24 hours could not be delivered.",
            "See the reason under Problems, and send again from there what can be corrected.",
            "developer",
            page="problems",
        )
    if not done and waiting:
        return Verdict("good", f"Yes. {number(waiting)} on the way, none lost.")
    every = f"all {number(done)} {noun}s" if done != 1 else f"the one {noun}"
    return Verdict(
        "good",
        f"Yes. {every.capitalize()} of the last 24 hours that could be delivered reached AdRoll.",
    )


def _silent(visit: Visit, is_there_some: bool, before: int) -> Verdict | None:
    """Too few for the time of day, as the history of a month knows it; or nothing in a day."""
    silences = () if visit.store is None else visit.store.figures.silences()
    todo = (
        "Place an order and look what the app's log says. Was there a new version of the shop, of"
        " the consent banner or of the Content-Security-Policy?"
    )
    for silence in sorted(silences, key=lambda one: one.name != "purchase"):
        text = told(silence)
        return Verdict(
            "bad", f"No: {text}.", todo, "developer", "flask adroll history --by hour --since 2d"
        )
    if before and not is_there_some:
        return Verdict(
            "bad",
            "It is silent: nothing was reported in the last 24 hours, and"
            f" {visit.numbers.count(before)} events in the six days before.",
            todo,
            "developer",
            "flask adroll check",
        )
    return None


def _sum(rows: Sequence[HistorySum], *outcomes: str) -> int:
    """Events of *outcomes*; a hold that nobody released was never to be delivered."""
    return sum(
        row.events for row in rows if row.outcome in outcomes and row.reason != "hold_expired"
    )

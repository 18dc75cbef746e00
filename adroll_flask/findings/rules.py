"""What is wrong now: each rule is a function of settings, history, outbox and destination.

A rule looks at the newest events and at what is so at this moment, never at how the day went: 20
reports in a row that died are an error within a minute, and an old mishap that somebody has dealt
with is none. Nothing here counts the outbox; each question to it ends at a number of rows.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from adroll_flask.errors import ConfigurationError
from adroll_flask.outbox.silence import Silence, told
from adroll_flask.outbox.values import worst
from adroll_flask.plurals import counted, counted_as, span
from adroll_flask.reporting.paid_orders import missing_orders, trouble

from .finding import SEVERITIES, TABLE, Finding, found
from .outbox_place import outbox_trouble
from .reasons import of_dead_letter

if TYPE_CHECKING:
    from adroll_flask.outbox import Destination, Outbox, Row
    from adroll_flask.outbox.values import HistoryColumn, HistoryRow, HistorySum
    from adroll_flask.runtime import Runtime
    from adroll_flask.settings import Settings

Values: TypeAlias = tuple[tuple[str, Decimal], ...]

#: Waiting events and dead letters that are looked at; of more we say "or more".
MOST: Final = 10_000
MOST_DEAD: Final = 2000
#: Waiting events whose account is looked at.
_LISTED: Final = 100
#: Newest events that are looked at, and those of them that are over and tell how it goes.
_NEWEST: Final = 60
_TELLING: Final = 20
#: Seconds for which an event may be due before we say that nobody delivers.
_LATE: Final = 60.0
#: Seconds within which AdRoll is asked again, however long it refuses.
_ASKED: Final = 360.0
#: Bytes that a journal's disk should have.
_ROOM: Final = 1_000_000
_HOUR: Final = 3600
_DAY: Final = 86_400
#: Share of paid orders that were never reported above which that is an error.
_MANY: Final = 0.05
#: Seconds by which clocks of hosts may differ.
_SKEW: Final = 120.0


class Moment:
    """What the rules look at, each part read once.

    :param look: whether to look into the outbox.
    """

    def __init__(self, runtime: Runtime, *, look: bool = True) -> None:
        self.runtime: Runtime = runtime
        self.settings: Settings = runtime.settings
        self.now: float = runtime.clock()
        self.store: Outbox | None = runtime.outbox if look and runtime.may_have_events() else None

    @cached_property
    def outbox(self) -> Outbox:
        """The outbox, for rules that are only asked where there is one."""
        assert self.store is not None  # noqa: S101 - for mypy
        return self.store

    @cached_property
    def destination(self) -> Destination:
        """AdRoll as the workers of that account see it which fares worst, of those served here."""
        served = [one for eid, one in self.states.items() if eid in self.settings.served_accounts]
        return worst(served or self.states.values())

    @cached_property
    def states(self) -> Mapping[str, Destination]:
        """The same of each account."""
        return self.outbox.account_states()

    @cached_property
    def unsettled(self) -> Sequence[HistorySum]:
        """What waits and what is held."""
        return () if self.store is None else self.store.lookups.unsettled(MOST)

    @cached_property
    def waiting(self) -> int:
        return sum(row.events for row in self.unsettled if row.outcome == "waiting")

    @cached_property
    def waits(self) -> str:
        """What waits, as the end of a sentence."""
        number = f"{self.waiting:,}" + (" or more" if self.waiting >= MOST else "")
        verb = "event waits" if self.waiting == 1 else "events wait"
        return f" {number} {verb}; none is lost." if self.waiting else ""

    @cached_property
    def week(self) -> Sequence[HistorySum]:
        """What became of events in the last seven days, by the hour."""
        columns: tuple[HistoryColumn, ...] = ("at", "event_name", "outcome", "reason", "currency")
        return self.outbox.lookups.history_sums(self.now - 7 * _DAY, columns)

    @cached_property
    def watched(self) -> Sequence[Silence]:
        """Events that come often enough to be missed."""
        return () if self.store is None else self.store.lookups.watched()

    @cached_property
    def problems(self) -> dict[str, list[Row]]:
        """The newest dead letters by cause; those of forgotten visitors are nobody's problem."""
        return grouped(self.outbox.lookups.dead_letters(MOST_DEAD))


def open_findings(
    runtime: Runtime, *, look: bool = True, moment: Moment | None = None
) -> list[Finding]:
    """What is wrong now, the worst first.

    Of those as bad, what others come of is the first; then what has more money, or more events.

    :param look: whether to look into the outbox.
    :param moment: what to look at, where somebody else looks at it, too.
    """
    from adroll_flask.outbox import OutboxFailed

    try:
        moment = moment or Moment(runtime, look=look)
    except ConfigurationError as problem:  # there is no outbox over such a database
        return [found("outbox-url", problem.key, problem=problem.problem)]
    findings = [finding for rule in _ALWAYS for finding in rule(moment)]
    if runtime.settings.enabled and moment.store is not None:
        try:
            findings += [finding for rule in _OF_OUTBOX for finding in rule(moment)]
        except OutboxFailed as problem:
            findings.append(outbox_trouble(runtime, problem))
    return sorted(findings, key=_how_bad)


def _how_bad(finding: Finding) -> tuple[int, bool, Decimal, int]:
    money = sum((value for _, value in finding.values), Decimal())
    severity = SEVERITIES.index(finding.severity)
    return severity, not finding.is_cause, -money, -finding.events


# -- dead letters by cause -------------------------------------------------------------------------


def problem_id(reason: str, words: str) -> str:
    """A name for all dead letters of one cause: numbers in the words do not tell causes apart.

    >>> problem_id("refused", "event 3: no EUR") == problem_id("refused", "event 17: no EUR")
    True
    """
    alike = re.sub(r"[0-9]+", "0", words)
    return hashlib.sha256(f"{reason}\0{alike}".encode()).hexdigest()[:16]


def grouped(letters: Iterable[Row]) -> dict[str, list[Row]]:
    """Letters by cause, the newest first."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for letter in letters:
        if letter.whole or letter.reason == "damaged":
            groups[problem_id(letter.reason, letter.error)].append(letter)
    return groups


#: AdRoll's words on one place of an event: ``http_422: [0].event_attributes.products: …``.
_PLACE: Final = re.compile(r"http_\d+: (?:\[\d+\]\.)?(?:event_attributes\.)?([a-z_]+[a-z_.\d]*): ")

_NUMBER: Final = re.compile(r"\.\d+\b")


def title_of(reason: str, words: str) -> str:
    """What happened to a dead letter, with the part of it that AdRoll's words are about."""
    what = of_dead_letter(reason)
    place = None if what.is_ours else _PLACE.match(words)
    return what.title if place is None else f"{what.title}: {_NUMBER.sub('', place[1])}"


def money(digests: Iterable[str]) -> Values:
    """The sums of values such as ``59.90 EUR``, by currency."""
    parts = (digest.partition(" ") for digest in digests)
    return _sums(
        (currency, Decimal(amount))
        for amount, _, currency in parts
        if currency and re.fullmatch(r"[0-9]+(\.[0-9]+)?", amount)
    )


def summed(rows: Iterable[HistorySum | HistoryRow]) -> Values:
    """The values of *rows* by currency, the largest first."""
    return _sums((row.currency, row.value) for row in rows)


def _sums(values: Iterable[tuple[str, Decimal]]) -> Values:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for currency, value in values:
        sums[currency] += value
    return tuple(sorted((one for one in sums.items() if one[1]), key=lambda one: -one[1]))


# -- the rules -------------------------------------------------------------------------------------


def _settings(moment: Moment) -> Iterator[Finding]:
    settings = moment.settings
    if not settings.enabled:
        yield found("disabled", "ADROLL_ENABLED")
        return
    if settings.missing:
        names = ", ".join(settings.missing)
        yield found("account-missing", names, names=names, wait=moment.waits)
    if settings.dry_run:
        yield found("dry-run", "ADROLL_DRY_RUN")
    if moment.store is None:
        yield found("nothing-reported", "reports")


def _about(rows: Iterable[HistorySum]) -> dict[str, Any]:
    """Since when, how many and how much money, as :func:`found` takes it."""
    rows = list(rows)
    since = min((row.at for row in rows), default=None)
    return {"since": since, "number": sum(row.events for row in rows), "values": summed(rows)}


def _about_dead(rows: Sequence[Row]) -> dict[str, Any]:
    """The same of dead letters."""
    since = min(row.settled_at or 0.0 for row in rows)
    return {"since": since, "number": len(rows), "values": money(row.digest for row in rows)}


def _lost(moment: Moment) -> Iterator[Finding]:
    """Reports that the disk did not take: for seven days, or until the history is over."""
    rows = [row for row in moment.week if row.outcome == "failed"]
    for reason in sorted({row.reason for row in rows}):
        about = _about(row for row in rows if row.reason == reason)
        number = about["number"]
        reports = f"{number:,} report was" if number == 1 else f"{number:,} reports were"
        name = f"event-lost/{reason}"
        name = name if name in TABLE else "event-lost"
        about |= {"reports": reports, "reason": reason, "folder": moment.runtime.journal_folder}
        yield found(name, "journal", key=reason, **about)


def _room(moment: Moment) -> Iterator[Finding]:
    """A disk that takes no report now; those that it did not take are known later."""
    folder, settings = moment.runtime.journal_folder, moment.runtime.settings
    if not settings.enabled or settings.outbox_commit == "database":
        return
    with suppress(OSError):  # nothing may be looked at there; other findings say so
        while not folder.exists():
            folder = folder.parent
        if shutil.disk_usage(folder).free < _ROOM:
            yield found("event-lost/no_room", "journal", folder=folder)


def _corrupt(moment: Moment) -> Iterator[Finding]:
    place = moment.runtime.outbox_place
    if not isinstance(place, Path):
        return
    for path in sorted(place.parent.glob(f"{place.name}.corrupt-*")):
        if path.name.endswith(("-wal", "-shm")):
            continue
        at = path.stat().st_mtime
        when = f"{datetime.fromtimestamp(at, moment.settings.zone):on %Y-%m-%d at %H:%M %Z}"
        yield found("outbox-corrupt", "outbox", key=path.name, since=at, path=path, when=when)


def _destination(moment: Moment) -> Iterator[Finding]:
    """What keeps events from AdRoll, as far as the outbox knows; else whether anybody delivers."""
    now, late = moment.destination, moment.outbox.queue.oldest_due() or 0.0
    waiting = _about(row for row in moment.unsettled if row.outcome == "waiting")
    about, wait_for = waiting | {"wait": moment.waits}, span(now.paused_for)
    if now.stopped is not None:
        token = "/token" if now.stopped in ("http_401", "http_403") else ""
        since = now.stopped_since
        whose = [eid for eid, one in moment.states.items() if one is now]
        several = len(moment.settings.served_accounts) > 1
        about |= {"since": since, "reason": now.stopped}
        about |= {"whose": f" for account {whose[0]}" if several and whose else ""}
        long = "" if since is None else f" for {span(moment.now - since)}"
        yield found(f"delivery-stopped{token}", "delivery", for_how_long=long, **about)
    elif now.failures:
        about |= {"since": now.last_error_at, "error": now.last_error or "no answer"}
        about |= {"severity": "error" if late > _HOUR else None}
        about |= {"again": f", asked again in {wait_for}" if now.paused_for > 0 else ""}
        failures = counted(now.failures, "request")
        yield found("request-failed", "delivery", failures=failures, **about)
    elif now.paused_for > 0:
        why = f" ({now.last_error})" if now.last_error else ""
        about |= {"since": None}
        yield found("delivery-paused", "delivery", wait_for=wait_for, why=why, **about)
    elif any(_worker(moment)):
        return
    elif late > _LATE and not moment.settings.missing and not _somebody_sends(moment):
        name = f"events-late/{moment.settings.delivery}"
        name = name if name in TABLE else "events-late"
        about |= {"since": moment.now - late}
        yield found(name, "delivery", late=span(late), **about)


def _missed_for(moment: Moment) -> float:
    """Seconds since a worker that stayed with one of this site's accounts gave a sign of life.

    Where events are delivered by the processes that report, by Celery or cron, nobody stays.
    """
    settings, states = moment.settings, moment.states
    served = [states[eid].unseen_for for eid in settings.served_accounts if eid in states]
    unseen = [seconds for seconds in served if seconds is not None]
    return max(unseen, default=0.0) if settings.delivery == "worker" else 0.0


def _worker(moment: Moment) -> Iterator[Finding]:
    """A worker that is gone, whether or not anything waits for it."""
    from adroll_flask.outbox.values import MISSED_AFTER

    missed = _missed_for(moment)
    if missed > MISSED_AFTER and not moment.settings.missing:
        about = _about(row for row in moment.unsettled if row.outcome == "waiting")
        about |= {"since": moment.now - missed, "wait": moment.waits}
        yield found("worker-gone", "delivery", missed=span(missed), **about)


def _somebody_sends(moment: Moment) -> bool:
    """Whether events are under way: a backlog is old while it is worked off."""
    counts = moment.outbox.lookups.open_counts(1)
    return bool(counts["claimed"] or counts["sending"])


def _other_accounts(moment: Moment) -> Iterator[Finding]:
    """Events that wait for an account that this process does not serve."""
    lookups = moment.outbox.lookups
    for eid, number in lookups.waiting_by_account().items() if moment.waiting else ():
        if eid in ("", *moment.settings.served_accounts):
            continue
        its = lookups.list("waiting", _LISTED, account=eid)
        since = min((row.queued_at for row in its), default=moment.now)
        # Another app that shares the folder may serve it: its worker was seen, or AdRoll asked.
        state = moment.states[eid]
        has_worker = state.unseen_for is not None and state.unseen_for < _LATE
        asked = state.last_error_at or 0.0, _LATE if state.stopped is None else _ASKED
        if has_worker or moment.now - since < _LATE or moment.now - asked[0] < asked[1]:
            continue
        yield found(
            "other-account",
            "delivery",
            key=eid,
            since=since,
            number=number,
            values=money(row.digest for row in its),
            events=counted(number, "event"),
            eid=eid,
        )


def _dead(moment: Moment) -> Iterator[Finding]:
    """Whether the newest reports arrive; and what waits for somebody to decide, however old."""
    newest = moment.outbox.lookups.newest_events(_NEWEST)
    over = [row for row in newest if row.state in ("delivered", "dead") and not row.dry_run]
    over = over[:_TELLING]
    died = [row for row in over if row.state == "dead"]
    if len(died) >= 3 and 2 * len(died) >= len(over):
        causes = Counter(problem_id(row.reason, row.error) for row in died)
        id, _ = causes.most_common(1)[0]
        row = next(row for row in died if problem_id(row.reason, row.error) == id)
        about = _about_dead(died) | _cause(row.reason, row.error)
        about |= {"looked_at": counted(len(over), "event"), "dead": len(died)}
        yield found("reports-die", "delivery", key=id, **about)
    for id, letters in moment.problems.items():
        what, number = of_dead_letter(letters[0].reason), len(letters)
        name = "dead-letters" if what.can_retry or what.field else "dead-letters/final"
        about = _about_dead(letters) | _cause(letters[0].reason, letters[0].error)
        verb = " waits" if number == 1 else " wait"
        yield found(name, "outbox", key=id, events=counted(number, "event"), verb=verb, **about)


def _cause(reason: str, words: str) -> dict[str, str]:
    """What dead letters died of, and what to do."""
    meant = of_dead_letter(reason)
    return {"title": title_of(reason, words), "advice": meant.advice, "whose": meant.who}


def _silent(moment: Moment) -> Iterator[Finding]:
    for one in moment.watched:
        if one.is_silent:
            said = told(one, moment.settings.zone)
            said = said[0].upper() + said[1:]
            yield found("reports-silent", "silence", key=one.name, since=one.last, told=said)


def _kept_back(moment: Moment) -> Iterator[Finding]:
    """Orders that a fault of the site's own kept back, or a hold that nobody ended."""
    day = moment.now - _DAY
    for name, reason, since, noun in (
        ("consent-unknown", "consent_error", day, "event"),
        ("holds-expired", "hold_expired", 0.0, "order"),
    ):
        about = _about(row for row in moment.week if row.reason == reason and row.at >= since)
        if number := about["number"]:
            those = f"{counted(number, noun)} {'was' if number == 1 else 'were'}"
            yield found(name, "orders", those=those, **about)


def _never_reported(moment: Moment) -> Iterator[Finding]:
    """Of the shop's own list of paid orders, those of which nothing is known here."""
    if not moment.runtime.paid_orders.is_known:
        return
    if why := trouble(moment.outbox, moment.now):
        yield found("paid-orders-failed", "@adroll.paid_orders", why=why)
    missing, total = missing_orders(moment.outbox)
    number = sum(one.number for one in missing)
    if not number:
        return
    groups: Counter[str] = Counter()
    for one in missing:
        groups[one.group] += one.number
    told = ""
    if len(groups) == 1 and (only := next(iter(groups))):
        told = f", all with “{only}”" if number > 1 else f", with “{only}”"
    elif any(groups):
        told = ": " + ", ".join(f"{n} with “{name or 'none'}”" for name, n in groups.most_common(5))
    first = datetime.fromisoformat(min(one.day for one in missing))
    yield found(
        "never-reported",
        "orders",
        severity="error" if number >= max(3, total * _MANY) else None,
        since=first.replace(tzinfo=UTC).timestamp(),
        number=number,
        values=money(f"{one.value} {one.currency}" for one in missing),
        orders=counted_as(f"{number:,}", number, "paid order"),
        verb="was" if number == 1 else "were",
        groups=told,
    )


def _clock(moment: Moment) -> Iterator[Finding]:
    newest = moment.outbox.lookups.newest_events(5)
    ahead = max((row.queued_at for row in newest), default=0.0) - moment.now
    if ahead > _SKEW:
        yield found("clock-wrong", "clock", ahead=span(ahead))


def _journal(moment: Moment) -> Iterator[Finding]:
    from adroll_flask.outbox.journal_reader import waiting_bytes

    folder = moment.runtime.journal_folder
    before = waiting_bytes(folder)
    if before and not moment.outbox.queue.take_in() and (size := waiting_bytes(folder)) >= before:
        yield found("journal-not-read", "journal", bytes=counted(size, "byte"))


def delays(moment: Moment) -> Finding | None:
    """What keeps events from AdRoll at present; ``None``: nothing that is known."""
    found = next(_destination(moment), None)
    return None if found is None or found.code == "events-late" else found


#: Every rule; those of an outbox are asked where there is one.
_ALWAYS: Final = (_settings, _room, _corrupt)
_OF_OUTBOX: Final = (
    *(_lost, _destination, _worker, _other_accounts, _dead, _silent),
    *(_kept_back, _never_reported, _clock, _journal),
)

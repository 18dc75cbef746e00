"""What is wrong now: each rule is a function of settings, history, outbox and destination.

A rule looks at the newest events and at what is so at this moment, never at how the day went: 20
reports in a row that died are an error within a minute, and an old mishap that somebody has dealt
with is none. Nothing here counts the outbox; each question to it ends at a number of rows.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from adroll_flask.errors import AdRollError, ConfigurationError
from adroll_flask.outbox import model
from adroll_flask.outbox.history import told
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.plurals import counted, span
from adroll_flask.redaction import safe_url
from adroll_flask.runtime import Runtime
from adroll_flask.settings import Settings

from .finding import SEVERITIES, TABLE, Finding, found, meaning
from .sums import by, of_events, total

#: Waiting events and dead letters that are looked at; of more we say "or more".
MOST: Final = 10_000
MOST_DEAD: Final = 2000
#: Newest events that are looked at, and those of them that are over and tell how it goes.
_NEWEST: Final = 60
_TELLING: Final = 20
#: Seconds for which an event may be due before we say that nobody delivers.
_LATE: Final = 60.0
#: Seconds within which AdRoll is asked again, however long it refuses.
_ASKED: Final = 360.0
#: Bytes that a journal's disk should have.
_ROOM: Final = 1_000_000
_HOUR, _DAY, _WEEK = 3600, 86_400, 7 * 86_400
#: Share of paid orders that were never reported above which that is an error.
_MANY: Final = 0.05
#: Seconds by which clocks of hosts may differ.
_SKEW: Final = 120.0


class Moment:
    """What the rules look at, each part read once.

    :param look: whether to look into the outbox.
    :param trouble: why nobody can, where that is known.
    """

    def __init__(
        self, runtime: Runtime, *, look: bool = True, trouble: AdRollError | None = None
    ) -> None:
        self.runtime: Runtime = runtime
        self.settings: Settings = runtime.settings
        self.now: float = runtime.clock()
        self.looks: bool = look and trouble is None
        self.trouble: AdRollError | None = trouble

    @property
    def outbox(self) -> Outbox:
        """Where nothing was reported yet, nothing is in it."""
        return self.runtime.outbox

    @cached_property
    def is_there(self) -> bool:
        """Whether anything was ever reported here, as far as we look."""
        if self.trouble is not None:
            raise self.trouble
        return self.looks and self.outbox.exists()

    @cached_property
    def destination(self) -> model.Destination:
        """AdRoll as the workers of that account see it which fares worst, of those served here."""
        return model.worst(one for eid, one in self.states.items() if self.settings.serves(eid))

    @cached_property
    def states(self) -> Mapping[str, model.Destination]:
        """The same of each account."""
        return self.outbox.lookups.destinations()

    @cached_property
    def unsettled(self) -> Sequence[model.HistorySum]:
        """What waits and what is held."""
        return self.outbox.lookups.unsettled(MOST) if self.looks else ()

    @cached_property
    def backlog(self) -> dict[str, Any]:
        """What waits for accounts that are served here, as :func:`found` takes it."""
        waiting = (row for row in self.unsettled if row.outcome == "waiting")
        return total(row for row in waiting if self.settings.serves(row.reason))

    @property
    def number(self) -> str:
        """How many wait, as people read it."""
        more = " or more" if self.backlog["events"] >= MOST else ""
        return f"{self.backlog['events']:,}{more}"

    @property
    def waits(self) -> str:
        """What waits, as the end of a sentence."""
        verb = "event waits" if self.number == "1" else "events wait"
        return f" {self.number} {verb}; none is lost." if self.backlog["events"] else ""

    @cached_property
    def recent(self) -> Sequence[model.HistorySum]:
        """What became of events of a week, and of those that were held until then, by the hour."""
        lookups, since = self.outbox.lookups, self.now - _WEEK - self.settings.hold_max
        return lookups.history(since, ("at", "event_name", "outcome", "reason", "currency"))

    @cached_property
    def watched(self) -> Sequence[model.Silence]:
        """Events that come often enough to be missed."""
        return self.outbox.lookups.watched()

    @cached_property
    def letters(self) -> Sequence[model.Row]:
        """The newest dead letters."""
        return self.outbox.lookups.dead_letters(MOST_DEAD)

    @cached_property
    def problems(self) -> dict[str, list[model.Row]]:
        """The same by cause, the newest first; those of forgotten visitors are nobody's problem."""
        letters = (one for one in self.letters if one.has_died)
        return by(lambda letter: problem_id(letter.reason, letter.error), letters)


def open_findings(moment: Moment) -> list[Finding]:
    """What is wrong now, the worst first.

    Of those as bad, what others come of is the first; then what has more money, or more events.
    """
    findings: list[Finding] = []
    try:
        findings += [finding for rule in _ALWAYS for finding in rule(moment)]
        if moment.is_there and moment.settings.enabled:
            findings += [finding for rule in _OF_OUTBOX for finding in rule(moment)]
    except (model.OutboxFailed, ConfigurationError) as problem:
        findings.append(outbox_trouble(moment.runtime, problem))
    return sorted(findings, key=_how_bad)


def _how_bad(finding: Finding) -> tuple[int, bool, Decimal, int]:
    money = sum((value for _, value in finding.values), Decimal())
    severity = SEVERITIES.index(finding.severity)
    return severity, not finding.is_cause, -money, -finding.events


def outbox_trouble(runtime: Runtime, problem: model.OutboxFailed | ConfigurationError) -> Finding:
    """What is wrong with the outbox's database, and the fix; never its user or password."""
    if isinstance(problem, ConfigurationError):  # there is no outbox over such a database
        return found("outbox-url", problem.key, problem=problem.problem)
    place, subject, name = runtime.outbox.place, "ADROLL_OUTBOX_URL", "outbox-unavailable"
    cause = str(problem).partition(": ")[2]
    why = f" ({cause})" if cause else ""
    if isinstance(place, Path):
        what = f"the file {place}"
        name, folder = f"{name}/{problem.reason}", place.parent
        return found(name, subject, what=what, why=why, place=place, folder=folder)
    what = f"the database at {safe_url(place.render_as_string(hide_password=True))}"
    if problem.reason == "unavailable":
        return found(f"{name}/server", subject, what=what, why=why)
    fix = TABLE[name]["server_fix"]
    return found(f"{name}/{problem.reason}", subject, what=what, why=why, fix=fix)


# -- dead letters by cause -------------------------------------------------------------------------


def problem_id(reason: str, words: str) -> str:
    """A name for all dead letters of one cause: numbers in the words do not tell causes apart.

    >>> problem_id("refused", "event 3: no EUR") == problem_id("refused", "event 17: no EUR")
    True
    """
    alike = re.sub(r"[0-9]+", "0", words)
    return hashlib.sha256(f"{reason}\0{alike}".encode()).hexdigest()[:16]


#: AdRoll's words on one place of an event: ``http_422: [0].event_attributes.products: …``.
_PLACE: Final = re.compile(r"http_\d+: (?:\[\d+\]\.)?(?:event_attributes\.)?([a-z_]+[a-z_.\d]*): ")

_NUMBER: Final = re.compile(r"\.\d+\b")


def title_of(reason: str, words: str) -> str:
    """What happened to a dead letter, with the part of it that AdRoll's words are about."""
    what = meaning("dead", reason)
    place = None if what.is_ours else _PLACE.match(words)
    return what.title if place is None else f"{what.title}: {_NUMBER.sub('', place[1])}"


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
    if moment.looks and not moment.is_there:
        yield found("nothing-reported", "reports")


def _lost(moment: Moment) -> Iterator[Finding]:
    """Reports that the disk did not take: for seven days, or until the history is over.

    Nothing of them is known but how many. Which orders are missing since is told by the shop's own
    list of paid ones, where it has been compared: whoever delivers does that every hour.
    """
    told = min(moment.runtime.paid_orders.told_until(), moment.now - 3 * _HOUR)
    failed = (r for r in moment.recent if r.outcome == "failed" and r.at >= moment.now - _WEEK)
    failed = (row for row in failed if row.event_name != "purchase" or row.at >= told)
    for reason, rows in sorted(by(lambda row: row.reason, failed).items()):
        words: Any = {"reason": reason, "folder": moment.runtime.outbox.folder}
        yield found(f"event-lost/{reason}", "journal", key=reason, **words, **total(rows))


def _room(moment: Moment) -> Iterator[Finding]:
    """A disk that takes no report now; those that it did not take are known later."""
    folder, settings = moment.runtime.outbox.folder, moment.runtime.settings
    if not settings.enabled or settings.outbox_commit == "database":
        return
    with suppress(OSError):  # nothing may be looked at there; other findings say so
        while not folder.exists():
            folder = folder.parent
        if shutil.disk_usage(folder).free < _ROOM:
            yield found("event-lost/no_room", "journal", folder=folder)


def _corrupt(moment: Moment) -> Iterator[Finding]:
    place = moment.runtime.outbox.place
    if not isinstance(place, Path):
        return
    old = sorted(place.parent.glob(f"{place.name}.corrupt-*"))
    for path in (one for one in old if not one.name.endswith(("-wal", "-shm"))):
        at = path.stat().st_mtime
        when = f"{datetime.fromtimestamp(at, moment.settings.time_zone):on %Y-%m-%d at %H:%M %Z}"
        yield found("outbox-corrupt", "outbox", key=path.name, since=at, path=path, when=when)


def _destination(moment: Moment) -> Iterator[Finding]:
    """What keeps events from AdRoll, as far as the outbox knows; else whether anybody delivers."""
    now, own = moment.destination, list(moment.settings.served_accounts)
    late = moment.outbox.queue.oldest_due(own or None) or 0.0
    about, wait_for = moment.backlog | {"wait": moment.waits}, span(now.paused_for)
    if now.stopped is not None and "in the future" in (now.last_error or ""):
        yield found("clock-wrong/here", **about | {"since": now.stopped_since})
    elif now.stopped is not None:
        token = "/token" if now.stopped in ("http_401", "http_403") else ""
        whose = [eid for eid, one in moment.states.items() if one is now and len(own) > 1]
        about |= {"since": now.stopped_since, "reason": now.stopped, "key": now.stopped}
        about |= {"whose": f" for account {whose[0]}" if whose else ""}
        long = f" for {span(moment.now - now.stopped_since)}" if now.stopped_since else ""
        yield found(f"delivery-stopped{token}", "delivery", for_how_long=long, **about)
    elif now.failures:
        about |= {"since": now.last_error_at, "error": now.last_error or "no answer"}
        about |= {"severity": "error" if late > _HOUR else None}
        about |= {"again": f", asked again in {wait_for}" if now.paused_for > 0 else ""}
        failures = counted(now.failures, "request").removeprefix("1 ")
        yield found("request-failed", "delivery", failures=failures, **about)
    elif now.paused_for > 0:
        why = f" ({now.last_error})" if now.last_error else ""
        about |= {"since": None}
        yield found("delivery-paused", "delivery", wait_for=wait_for, why=why, **about)
    elif late > _LATE and not moment.settings.missing and not any(_worker(moment)):
        if moment.outbox.queue.is_leased():  # a backlog is old while it is worked off
            return
        about |= {"since": moment.now - late, "late": span(late)}
        yield found(f"events-late/{moment.settings.delivery}", "delivery", **about)


def _worker(moment: Moment) -> Iterator[Finding]:
    """A worker that stayed with one of this site's accounts and is gone, whatever waits for it.

    Where events are delivered by the processes that report, by Celery or cron, nobody stays.
    """
    settings, states = moment.settings, moment.states
    served = [states[eid].unseen_for for eid in settings.served_accounts if eid in states]
    missed = max((seconds for seconds in served if seconds is not None), default=0.0)
    if settings.delivery == "worker" and missed > model.MISSED_AFTER and not settings.missing:
        about = moment.backlog | {"since": moment.now - missed, "wait": moment.waits}
        yield found("worker-gone", "delivery", missed=span(missed), **about)


def _other_accounts(moment: Moment) -> Iterator[Finding]:
    """Events that wait for an account that this process does not serve."""
    waiting, settings = [r for r in moment.unsettled if r.outcome == "waiting"], moment.settings
    # Those of no account are the one's that is there for all hosts, or comes yet.
    adopts = bool(settings.advertisable_eid or not settings.accounts)
    own = (*settings.served_accounts, *("",) * adopts)
    for eid, rows in by(lambda row: row.reason, waiting).items():
        if eid in own:
            continue
        late = moment.outbox.queue.oldest_due([eid]) or 0.0
        # Another app that shares the folder may serve it: its worker was seen, or AdRoll asked.
        state = moment.states.get(eid, model.Destination())  # its first event may have just come in
        has_worker = state.unseen_for is not None and state.unseen_for < _LATE
        asked = moment.now - (state.last_error_at or 0.0)
        if not has_worker and min(asked, late) >= _LATE:
            level = "warning" if state.stopped is not None and asked < _ASKED else None
            about = total(rows) | {"since": moment.now - late}
            name = "other-account" if eid else "other-account/none"
            yield found(name, "delivery", key=eid, eid=eid, severity=level, **about)


def _dead(moment: Moment) -> Iterator[Finding]:
    """Whether the newest reports arrive; and what waits for somebody to decide, however old."""
    newest = moment.outbox.lookups.newest_events(_NEWEST)
    # What was restored is of a file that was damaged, or a copy: not how it goes now.
    mine = [row for row in newest if not row.dry_run and row.reason not in ("restored", "moved")]
    over = [row for row in mine if row.state == "delivered" or row.has_died][:_TELLING]
    died = [row for row in over if row.has_died]
    if len(died) >= 3 and 2 * len(died) >= len(over):
        causes = by(lambda row: problem_id(row.reason, row.error), died)
        id, its = max(causes.items(), key=lambda cause: len(cause[1]))
        about = _about_dead(died, its[0]) | {"looked_at": counted(len(over), "event")}
        yield found("reports-die", "delivery", key=id, **about)
    for id, letters in moment.problems.items():
        what = meaning("dead", letters[0].reason)
        name = "dead-letters" if what.can_retry or what.field else "dead-letters/final"
        yield found(name, "outbox", key=id, **_about_dead(letters, letters[0]))


def _about_dead(letters: Sequence[model.Row], one: model.Row) -> dict[str, Any]:
    """How many, since when, how much; what *one* of them died of, and what to do."""
    meant, title = meaning("dead", one.reason), title_of(one.reason, one.error)
    words = {"title": title, "advice": meant.advice, "whose": meant.who}
    words["answer"] = "" if meant.is_ours else one.error
    return words | total(of_events(letters))


def _silent(moment: Moment) -> Iterator[Finding]:
    for one in moment.watched:
        if one.is_silent:
            said = told(one, moment.settings.time_zone)
            about = {"key": one.name, "since": one.last, "told": said[0].upper() + said[1:]}
            yield found(f"reports-silent/{one.name}", "silence", **about)


def _kept_back(moment: Moment) -> Iterator[Finding]:
    """Orders that a fault of the site's own kept back, or a hold that nobody ended."""
    day = moment.now - _DAY
    kinds = (("consent-unknown", "consent_error", day), ("holds-expired", "hold_expired", 0.0))
    for name, reason, since in kinds:
        about = total(row for row in moment.recent if row.reason == reason and row.at >= since)
        if about["events"]:
            yield found(name, "orders", **about)


def _paid_orders(moment: Moment) -> Iterator[Finding]:
    """Of the shop's own list of paid orders, those that nobody reported or released."""
    if not moment.runtime.paid_orders.is_known:
        return
    if why := moment.runtime.paid_orders.trouble():
        yield found("paid-orders-failed", "@adroll.paid_orders", why=why)
    names = ("never-reported", "paid-not-released", "paid-not-released/expired")
    paid, *lacking = moment.runtime.paid_orders.told().values()
    for name, orders in zip(names, lacking, strict=True):
        if not orders:
            continue
        about: Any = total(orders)
        its = by(lambda one: one.reason, orders)
        groups = Counter({it: sum(one.events for one in some) for it, some in its.items()})
        only, *others = groups
        of = f", {'all ' * (about['events'] > 1)}with “{only}”" if only else ""
        if others:
            of = ": " + ", ".join(f"{n} with “{it or 'none'}”" for it, n in groups.most_common(5))
        is_known = moment.now - about["since"] < 13 * _DAY
        if not is_known:  # it may have been so before the first of the days that are looked at
            about["since"] = None
        many = max(3, sum(one.events for one in paid) * _MANY)
        about["severity"] = "error" if about["events"] >= many else None
        yield found(name, "orders", begin="" if is_known else "At least ", groups=of, **about)


def _clock(moment: Moment) -> Iterator[Finding]:
    """The outbox's clock is ahead of this host's, or something waits that was reported when it was.

    What was sent since, or given up, says nothing of the clocks as they are now.
    """
    newest = moment.outbox.lookups.newest_events(_NEWEST)
    times = [row.occurred_at for row in newest if row.state == "waiting"]
    ahead = max([*times, moment.outbox.database.read(lambda tx: tx.now)]) - moment.now
    if ahead > _SKEW:
        yield found("clock-wrong", "clock", ahead=span(ahead))


def _journal(moment: Moment) -> Iterator[Finding]:
    waiting = moment.outbox.lookups.bytes_waiting
    before = waiting()
    if before and not moment.outbox.ingest.take_in() and (size := waiting()) >= before:
        yield found("journal-not-read", "journal", bytes=counted(size, "byte"))


def delays(moment: Moment) -> Finding | None:
    """What keeps events from AdRoll at present; ``None``: nothing that is known."""
    return next((one for rule in (_destination, _worker) for one in rule(moment)), None)


#: Every rule; those of an outbox are asked where there is one.
_ALWAYS: Final = (_settings, _room, _corrupt)
_OF_OUTBOX: Final = (
    *(_lost, _destination, _worker, _other_accounts, _dead, _silent),
    *(_kept_back, _paid_orders, _clock, _journal),
)

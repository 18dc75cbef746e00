"""What is wrong now: each rule is a function of settings, history, outbox and destination.

A rule looks at the newest events and at the state of this moment, never at how the day went. So 20
reports in a row that died are an error within a minute, and an old fault that somebody has dealt
with is no finding. No rule counts the whole outbox: each question to it stops at a number of rows.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from adroll_flask.accounts import Account
from adroll_flask.amounts import added
from adroll_flask.errors import AdRollError, ConfigurationError
from adroll_flask.outbox import clocks, model, schema
from adroll_flask.outbox.location import is_read_only, wrong_places
from adroll_flask.outbox.lookups import Lookups
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.outbox.too_few import sentence_of
from adroll_flask.plurals import agreeing, counted
from adroll_flask.redaction import safe_url
from adroll_flask.runtime import Runtime
from adroll_flask.settings import Settings
from adroll_flask.times import DAY, HOUR, WEEK, span, written

from .finding import SEVERITIES, TABLE, Finding, Severity, finding_of, meaning
from .sums import by, of_events, total

#: Waiting events and dead letters that are looked at; of more we say "or more".
MOST: Final = 10_000
MOST_DEAD: Final = 2000
#: Newest events that are looked at.
_NEWEST: Final = 60
#: So many events are enough to judge by; of more, the newest are looked at.
_ENOUGH: Final = 20
#: So many dead letters, orders with a proxy's address, or orders as dry runs are no accident.
_NO_ACCIDENT: Final = 3
#: Seconds for which an event may be due before we say that nobody delivers.
_LATE: Final = 60.0
#: Seconds within which a worker asks AdRoll again after AdRoll has refused everything.
_ASKS_AGAIN: Final = 360.0
#: Bytes that should be free on the journal's disk.
_LEAST_ROOM: Final = 1_000_000
#: A finding tells of dead letters so many seconds before they are given up.
_ENDING: Final = 14 * DAY
#: If so large a share of the paid orders is missing, the finding is an error.
_LARGE_SHARE: Final = 0.05
#: By finding: which kind of orders in the shop's own list it is about.
_KIND_OF: Final = {
    "never-reported": "missing",
    "never-reported/dry-run": "dry_run",
    "paid-not-released": "held",
    "paid-not-released/expired": "expired",
}


class Moment:
    """What the rules look at, each part read once.

    :param look: whether to look into the outbox.
    :param account: the advertisable EID of the shop that is looked at; ``None``: all shops.
    """

    def __init__(self, runtime: Runtime, *, look: bool = True, account: str | None = None) -> None:
        self.account: str | None = account
        self.runtime: Runtime = runtime
        self.settings: Settings = runtime.settings
        self.now: float = runtime.clock()
        self.looks: bool = look

    @property
    def outbox(self) -> Outbox:
        """The app's outbox; empty before the first report."""
        return self.runtime.outbox

    @property
    def lookups(self) -> Lookups:
        """Questions to the outbox about the shop that is looked at."""
        return self.outbox.lookups.of(self.account)

    @property
    def accounts(self) -> list[str]:
        """The accounts that are served here and looked at."""
        return [eid for eid in self.settings.served_accounts if self.account in (None, eid)]

    @cached_property
    def shops(self) -> Sequence[Moment]:
        """A moment of each shop, where several are looked at; else this one alone."""
        if len(self.accounts) < 2:
            return [self]
        return [Moment(self.runtime, look=self.looks, account=eid) for eid in self.accounts]

    @cached_property
    def site(self) -> Moment:
        """The moment of the whole site."""
        return self if self.account is None else Moment(self.runtime, look=self.looks)

    @cached_property
    def is_there(self) -> bool:
        """Whether anything was ever reported here; false where nobody looks."""
        return self.looks and self.outbox.exists()

    @cached_property
    def destination(self) -> model.Destination:
        """AdRoll as its workers see it, for the account served here that fares worst."""
        return model.worst(state for eid, state in self.states.items() if self.settings.serves(eid))

    @cached_property
    def states(self) -> Mapping[str, model.Destination]:
        """AdRoll as its workers see it, by account."""
        return self.lookups.destinations()

    @cached_property
    def unsettled(self) -> Sequence[model.HistorySum]:
        """What waits and what is held, of every account."""
        return self.lookups.unsettled(MOST) if self.looks else ()

    @cached_property
    def waiting(self) -> Mapping[str, list[model.HistorySum]]:
        """What waits, by account, served here or not."""
        waiting = (row for row in self.unsettled if row.outcome == "waiting")
        return by(lambda row: row.advertisable_eid, waiting)

    @cached_property
    def backlog(self) -> dict[str, Any]:
        """What waits for accounts that are served here, as :func:`finding_of` takes it."""
        served = [eid for eid in self.waiting if self.settings.serves(eid)]
        here = [eid for eid in served if not self.settings.other_side(eid)]
        return total(row for eid in here for row in self.waiting[eid])

    @property
    def number_waiting(self) -> str:
        """How many wait, as people read it."""
        more = " or more" if self.backlog["events"] >= MOST else ""
        return f"{self.backlog['events']:,}{more}"

    @property
    def waits(self) -> str:
        """What waits, as the end of a sentence."""
        events = self.backlog["events"]
        text = agreeing(" {event waits|events wait}; none is lost.", events)
        return f" {self.number_waiting}{text}" if events else ""

    @cached_property
    def recent(self) -> Sequence[model.HistorySum]:
        """What became of events, by the hour: of a week, and of the longest hold before it."""
        since = self.now - WEEK - self.settings.hold_max
        return self.lookups.history(since, ("at", "event_name", "outcome", "reason", "currency"))

    @cached_property
    def watched(self) -> Sequence[model.Watched]:
        """Events that come often enough to be missed."""
        return self.lookups.watched()

    @cached_property
    def listed(self) -> Mapping[str, list[model.HistorySum]]:
        """What the shop's own list of paid orders tells, by kind; empty: there is no such list."""
        paid_orders = self.runtime.paid_orders
        return paid_orders.sums_by_kind() if paid_orders.is_known else {}

    @cached_property
    def began(self) -> float | None:
        """When the outbox began, seconds since the epoch; ``None``: there is none yet."""
        return self.outbox.lookups.knowledge().began if self.is_there else None

    @cached_property
    def letters(self) -> Sequence[model.Row]:
        """The newest dead letters, without those of the other side: the sandbox or AdRoll."""
        letters = self.lookups.dead_letters(MOST_DEAD)
        return [row for row in letters if not self.settings.other_side(row.advertisable_eid)]

    @cached_property
    def problems(self) -> dict[str, list[model.Row]]:
        """:attr:`letters` by cause, without those of forgotten visitors; the newest first."""
        letters = (row for row in self.letters if row.has_died)
        return by(lambda letter: problem_id(letter.reason, letter.error), letters)


def open_findings(moment: Moment, trouble: AdRollError | None = None) -> list[Finding]:
    """What is wrong now, the worst first.

    If one shop is looked at, findings about other shops are left out. Those about the whole site
    stay. Of equally severe findings, one that causes others comes first. Then the one with more
    money comes first, then the one with more events.

    :param trouble: why nobody can look into the outbox, where that is known.
    """
    findings: list[Finding] = []
    try:
        findings += [finding for rule in _ALWAYS for finding in rule(moment)]
        if trouble is not None:
            raise trouble  # it is told below, as if a rule had met it
        if moment.is_there and moment.settings.enabled:
            findings += [finding for rule in _OF_SHOP for finding in rule(moment)]
            mine = ("", _shop_of(moment, moment.accounts))
            of_site = (finding for rule in _OF_SITE for finding in rule(moment.site))
            findings += [other for other in of_site if moment.account is None or other.shop in mine]
    except (model.OutboxFailed, ConfigurationError) as problem:
        findings.append(outbox_trouble(moment.runtime, problem))
    return sorted(findings, key=_how_bad)


def _how_bad(finding: Finding) -> tuple[int, bool, Decimal, int]:
    money = added(value for _, value in finding.values)
    severity = SEVERITIES.index(finding.severity)
    return severity, not finding.is_cause, money.copy_negate(), -finding.events


def outbox_trouble(runtime: Runtime, problem: model.OutboxFailed | ConfigurationError) -> Finding:
    """What is wrong with the outbox's database, and the fix, without its user and password."""
    if isinstance(problem, model.ForeignFile):
        place = runtime.outbox.place
        name = f"outbox-foreign/{problem.variant}"
        return finding_of(name, problem.key, problem=problem.problem, place=place)
    if isinstance(problem, ConfigurationError):  # there is no outbox over such a database
        return finding_of("outbox-url", problem.key, problem=problem.problem)
    place = runtime.outbox.place
    name = f"outbox-unavailable/{problem.reason}"
    cause = str(problem).partition(": ")[2]
    words: dict[str, Any] = {"why": f" ({cause})" if cause else ""}
    if isinstance(place, Path):
        words |= {"what": f"the file {place}", "place": place, "folder": place.parent}
        if problem.reason == "read_only" and is_read_only(place.parent):
            name += "_disk"
        return finding_of(name, **words)
    words["what"] = f"the database at {safe_url(place.render_as_string(hide_password=True))}"
    # The table says what to do about a file, and apart from that what to do about a server.
    entry = TABLE.get(name, TABLE["outbox-unavailable"])
    words["is"] = entry.get("server_is", entry["is"])
    return finding_of(name, fix=entry["server_fix"], **words)


# -- dead letters by cause -------------------------------------------------------------------------


def problem_id(reason: str, words: str) -> str:
    """The id of all dead letters of one cause. Words that differ in numbers alone are one cause.

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
    place = refused_field(reason, words)
    return f"AdRoll refused the event's {place}" if place else meaning("dead", reason).title


def refused_field(reason: str, words: str) -> str:
    """The part of a dead letter that AdRoll's words are about; empty: none that is known.

    >>> refused_field("refused", "http_422: [0].event_attributes.products.0.price: takes a decimal")
    'products.price'
    """
    place = None if meaning("dead", reason).is_ours else _PLACE.match(words)
    return "" if place is None else _NUMBER.sub("", place[1])


# -- the rules -------------------------------------------------------------------------------------


def _not_sending(moment: Moment) -> Iterator[Finding]:
    settings = moment.settings
    if not settings.enabled:
        yield finding_of("disabled")
        return
    if settings.missing:
        names = ", ".join(settings.missing)
        yield finding_of("account-missing", names, names=names, wait=moment.waits)
    if settings.dry_run:
        yield finding_of("dry-run")
    if moment.looks and not moment.is_there:
        yield finding_of("nothing-reported")


def _lately(moment: Moment, seconds: float, outcome: str) -> list[model.HistorySum]:
    """The sums of the last *seconds* that have *outcome*."""
    since = moment.now - seconds
    return [row for row in moment.recent if row.outcome == outcome and row.at >= since]


def _failed(moment: Moment) -> Iterator[Finding]:
    """Reports that were lost in the last seven days, as on a full disk. Only their number is known.

    A lost purchase is a finding for three hours at least, and until the shop's own list of paid
    orders has been compared for the hour of the loss. From then on the list tells which orders are
    missing. Whoever delivers compares the list every hour.
    """
    list_tells_until = min(moment.runtime.paid_orders.compared_until(), moment.now - 3 * HOUR)
    failed = _lately(moment, WEEK, "failed")
    lost = [row for row in failed if row.event_name != "purchase" or row.at >= list_tells_until]
    for reason, rows in sorted(by(lambda row: row.reason, lost).items()):
        about: Any = meaning("failed", reason)._asdict() | total(rows)
        yield finding_of(f"event-lost/{reason}", key=reason, folder=moment.outbox.folder, **about)


def _room(moment: Moment) -> Iterator[Finding]:
    """A disk without room for reports.

    The reports that it refuses are counted only once it has room again. This tells it before.
    """
    folder = moment.outbox.folder
    if not moment.settings.enabled or moment.settings.outbox_commit == "database":
        return
    with suppress(OSError):  # the folder may not be looked at; another finding says so
        while not folder.exists():
            folder = folder.parent
        if shutil.disk_usage(folder).free < _LEAST_ROOM:
            yield finding_of("event-lost/no_room", folder=folder)


def _unwritable(moment: Moment) -> Iterator[Finding]:
    """Places where events cannot be kept.

    The reports that the journal refuses are counted only once it can be written again. This tells
    it before.
    """
    folder = Path(moment.runtime.folder)
    for variant, key, place, problem in wrong_places(moment.settings, folder):
        if variant != "group":  # a hint for who starts the site as root
            name = f"folder-not-writable/{variant or key}"
            yield finding_of(name, key, key=key, problem=problem, folder=place)


def _corrupt(moment: Moment) -> Iterator[Finding]:
    place = moment.outbox.place
    if not isinstance(place, Path):
        return
    # The name of a database that was moved ends in a process's id. The names of its log's files end
    # in -wal and -shm.
    for path in sorted(place.parent.glob(f"{place.name}.corrupt-*[0-9]")):
        at = path.stat().st_mtime
        when = _when(moment, at)
        yield finding_of("outbox-corrupt", key=path.name, since=at, path=path, when=when)


def _elsewhere(moment: Moment) -> Iterator[Finding]:
    """Reports that went to another outbox's database. They are told until a week after the last."""
    for at in map(float, moment.outbox.lookups.notes(schema.ELSEWHERE).values()):
        if at >= moment.now - WEEK:
            yield finding_of("session-elsewhere", since=at)


def _destination(moment: Moment) -> Iterator[Finding]:
    """What keeps events from AdRoll, as far as the outbox knows; for each shop apart."""
    for shop in moment.shops:
        yield from _destination_of(shop)


def _destination_of(moment: Moment) -> Iterator[Finding]:
    state = moment.destination
    nobody_delivers = list(_nobody_delivers(moment))
    yield from nobody_delivers
    error = state.last_error or ""
    about = moment.backlog | {"wait": moment.waits}
    own = own_settings(moment)
    if state.stopped is not None and "in the future" in error:
        yield finding_of("clock-wrong/here", **about | {"since": state.stopped_since})
    elif state.stopped is not None:
        token = "/token" if state.stopped in ("http_401", "http_403") else ""
        since = state.stopped_since
        about |= {"since": since, "reason": state.stopped, "key": state.stopped} | own
        about["for_how_long"] = f" for {span(moment.now - since)}" if since else ""
        yield finding_of(f"delivery-stopped{token}", **about)
    elif state.failures and not nobody_delivers:
        due_for = moment.outbox.queue.oldest_due(moment.accounts or None) or 0.0
        again = f", asked again in {span(state.paused_for)}" if state.paused_for > 0 else ""
        # A sentence has "the last request", or "the last 3 requests".
        failures = counted(state.failures, "request").removeprefix("1 ")
        about |= {"since": state.last_error_at, "severity": "error" if due_for > HOUR else None}
        about |= {"failures": failures, "error": error or "no answer", "again": again} | own
        answered = "/answered" if error.startswith("http_") else ""
        yield finding_of(f"request-failed{answered}", **about)
    elif state.paused_for > 0:
        about |= {"since": None, "wait_for": span(state.paused_for)} | own
        yield finding_of("delivery-paused", why=f" ({error})" if error else "", **about)


def own_settings(moment: Moment) -> dict[str, str]:
    """The words of findings for the shop that is looked at: its name, and its settings' names."""
    settings = moment.settings
    eid = moment.accounts[0] if moment.accounts else ""
    words = {name: settings.setting_of(eid, name) for name in Account.__annotations__}
    shop = settings.shop_names.get(eid, "")
    if not shop:
        return words | {"whose": "", "shop_option": ""}
    option = f" --shop {shlex.quote(shop.partition(', ')[0])}"
    return words | {"key": eid, "shop": shop, "whose": f" of {shop}", "shop_option": option}


def _when(moment: Moment, at: float) -> str:
    """A time as sentences have it: ``12 Sep 2026 at 13:05 CEST``."""
    return written("%-d %b %Y at %H:%M %Z", at, moment.settings.time_zone)


def _shop_of(moment: Moment, accounts: Iterable[str]) -> str:
    """What people call the shop that has all *accounts*.

    Empty where they are of several shops, or where the site has one shop only.
    """
    names = moment.settings.shop_names
    shops = {names.get(eid, eid) for eid in accounts} if names else set()
    return shops.pop() if len(shops) == 1 else ""


def _nobody_delivers(moment: Moment) -> Iterator[Finding]:
    """Events that are due for accounts that are served here, and that nobody tries to send."""
    if moment.settings.missing:
        return
    untried = {eid: _untried_for(moment, eid) for eid in moment.accounts}
    late = {eid: seconds for eid, seconds in untried.items() if seconds > _LATE}
    if not late:
        return
    seconds = max(late.values())
    about = total(row for eid in late for row in moment.waiting.get(eid, ()))
    about |= own_settings(moment) | {"since": moment.now - seconds, "late": span(seconds)}
    yield finding_of(f"nobody-delivers/{moment.settings.delivery}", **about)


def _untried_for(moment: Moment, account: str) -> float:
    """Seconds for which nobody has tried to send what is due.

    0 where somebody has it in hand, or where nothing has been due for more than a minute.
    """
    queue = moment.outbox.queue
    due_for = queue.oldest_due([account])
    if due_for is None or due_for <= _LATE or queue.is_leased(account):
        return 0.0
    state = moment.states.get(account, model.Destination())
    # The oldest event of a backlog waits long while others are delivered. And while AdRoll is away,
    # nobody asks it during a pause.
    delivered_for = moment.outbox.lookups.delivered_for(account)
    return min(due_for, state.free_for, delivered_for)


def _unserved(moment: Moment) -> Iterator[Finding]:
    """Events that wait for an account that this process does not serve."""
    settings = moment.settings
    served = set(settings.served_accounts)
    # Events without an account go to the account of all other hosts, once there is one. Where no
    # account at all is set, another finding says so.
    if settings.advertisable_eid or not settings.accounts:
        served.add("")
    for eid, rows in moment.waiting.items():
        if eid in served:
            continue
        due_for = moment.outbox.queue.oldest_due([eid]) or 0.0
        # Another app that shares the folder may serve it. Signs: a worker of the account was seen
        # lately, or a request for it failed lately.
        state = moment.states.get(eid, model.Destination())  # its first event may have just come in
        has_worker = state.unseen_for is not None and state.unseen_for < _LATE
        since_error = moment.now - (state.last_error_at or 0.0)
        if not has_worker and min(since_error, due_for) >= _LATE:
            # While AdRoll refuses everything, a worker asks it more rarely: there may be one.
            level = "warning" if state.stopped is not None and since_error < _ASKS_AGAIN else None
            about = total(rows) | {"since": moment.now - due_for}
            about |= {"shop": _shop_of(moment, [eid]), "key": eid, "eid": eid, "severity": level}
            yield finding_of("other-account" if eid else "other-account/none", **about)


def _reports_die(moment: Moment) -> Iterator[Finding]:
    """Newest reports of which half or more cannot be delivered; their commonest cause is told."""
    newest = moment.lookups.newest_events(_NEWEST)
    # A restored event comes from a damaged file or a copy: it does not tell how it goes now.
    new = [row for row in newest if not row.dry_run and row.reason not in ("restored", "moved")]
    new = [row for row in new if not moment.settings.other_side(row.advertisable_eid)]
    ended = [row for row in new if row.state == "delivered" or row.has_died][:_ENOUGH]
    died = [row for row in ended if row.has_died]
    if len(died) >= _NO_ACCIDENT and 2 * len(died) >= len(ended):
        causes = by(lambda row: problem_id(row.reason, row.error), died)
        id, letters = max(causes.items(), key=lambda cause: len(cause[1]))
        about = _about_dead(moment, died, example=letters[0])
        yield finding_of("reports-die", key=id, looked_at=counted(len(ended), "event"), **about)


def _dead_letters(moment: Moment) -> Iterator[Finding]:
    """Dead letters that somebody has to decide on, by their cause."""
    for id, letters in moment.problems.items():
        what = meaning("dead", letters[0].reason)
        name = "dead-letters" if what.can_retry or what.field else "dead-letters/final"
        yield finding_of(name, key=id, **_about_dead(moment, letters, letters[0]))


def _ending(moment: Moment) -> Iterator[Finding]:
    """Dead letters that could still be sent, and will soon lose their content."""
    letters = moment.outbox.lookups.ending_letters(_ENDING, MOST_DEAD)
    ending = [row for row in letters if meaning("dead", row.reason).can_retry]
    if ending:
        first_end = ending[0].due_at
        when = written("%-d %b %Y", first_end, moment.settings.time_zone)
        about = _sums_of(moment, ending) | {"since": first_end - _ENDING}
        yield finding_of("dead-letters-ending", when=when, **about)


def _about_dead(moment: Moment, letters: Sequence[model.Row], example: model.Row) -> dict[str, Any]:
    """The words and sums of a finding about *letters*. One of them, *example*, gives the words."""
    what = meaning("dead", example.reason)
    words = what._asdict() | {"title": title_of(example.reason, example.error)}
    return words | {"answer": "" if what.is_ours else example.error} | _sums_of(moment, letters)


def _sums_of(moment: Moment, events: Sequence[model.Row]) -> dict[str, Any]:
    """When the first of *events* was, how many they are, how much money, and of which shop."""
    shop = _shop_of(moment, (row.advertisable_eid for row in events))
    return total(of_events(events)) | {"shop": shop}


def _too_few(moment: Moment) -> Iterator[Finding]:
    """Events that do not come as they usually do."""
    for event in moment.watched:
        if not event.level:
            continue
        sentence = sentence_of(event, moment.now, moment.settings.time_zone)
        shop = _shop_of(moment, [event.account])
        sentence = f"{shop}: {sentence}" if shop else sentence
        is_only = [other.name for other in moment.watched].count(event.name) == 1
        key = event.name if is_only else f"{event.name}:{event.account}"
        since = event.last if event.has_stopped else None
        code = "reports-silent" if event.level == "silent" else "reports-low"
        name = f"{code}/{event.name}"
        yield finding_of(
            name, key=key, shop=shop, since=since, told=sentence[0].upper() + sentence[1:]
        )


def _errors_named(moment: Moment) -> Iterator[Finding]:
    """Events that AdRoll took with a success whose words name errors. It may not count them all."""
    taken = _lately(moment, DAY, "delivered")
    about = total(row for row in taken if row.reason == model.ERRORS_NAMED)
    if about["events"]:
        yield finding_of("accepted-with-errors", **about)


def _addresses(moment: Moment) -> Iterator[Finding]:
    """Whether the newest orders have a proxy's address in the place of their visitor's."""
    newest = moment.lookups.newest_events(_NEWEST, "purchase")
    orders = [row for row in newest if not row.dry_run][:_ENOUGH]
    looked_at = counted(len(orders), "order")
    # With the sandbox a request from this machine is a developer's own.
    wrong = ("none", "private") if moment.settings.sandbox else ("none", "private", "local")
    unknown = [row for row in orders if row.sender in wrong]
    if len(unknown) >= _NO_ACCIDENT:
        without = [row for row in unknown if row.sender == "none"]
        name = "proxy-address/none" if 2 * len(without) > len(unknown) else "proxy-address"
        yield finding_of(name, looked_at=looked_at, **_sums_of(moment, unknown))
    elif _share_a_proxy(orders):
        yield finding_of("proxy-address/shared", looked_at=looked_at, **_sums_of(moment, orders))


def _share_a_proxy(orders: Sequence[model.Row]) -> bool:
    """Whether all of twenty orders have one address, though ``X-Forwarded-For`` has others."""
    notes = [row.sender.split(":") for row in orders if row.sender.startswith("proxy:")]
    proxies = {proxy for _, proxy, _ in notes}
    visitors = {visitor for _, _, visitor in notes}
    # A visitor can forge the header, but only in their own orders.
    return len(notes) >= _ENOUGH and len(proxies) == 1 and len(visitors) >= _NO_ACCIDENT


def _consent_unknown(moment: Moment) -> Iterator[Finding]:
    """Orders that the site kept back, since it could not say whether the visitor agreed."""
    suppressed = _lately(moment, DAY, "suppressed")
    about = total(row for row in suppressed if row.reason == "consent_error")
    if about["events"]:
        advice = meaning("suppressed", "consent_error").advice
        yield finding_of("consent-unknown", advice=advice, **about)


def _all_suppressed(moment: Moment) -> Iterator[Finding]:
    """Events that are all suppressed: of one name, in the last week.

    In a shop that never reported one, no other finding tells of it. They are not fewer than before
    (:func:`_too_few`), and a suppressed event alone is no fault.
    """
    lately = [row for row in moment.recent if row.at >= moment.now - WEEK]
    unsettled = {row.event_name for row in moment.unsettled}
    are_others_reported = bool(unsettled) or any(row.outcome != "suppressed" for row in lately)
    for name, rows in by(lambda row: row.event_name, lately).items():
        reasons: Counter[str] = Counter()
        for row in rows:
            reasons[row.reason] += row.events
        [(reason, _)] = reasons.most_common(1)
        is_all = {row.outcome for row in rows} == {"suppressed"} and name not in unsettled
        # A site may leave out all events of one name on purpose, by a before_report function that
        # lets other events through.
        is_meant = reason == "before_report" and are_others_reported
        is_told = reason == "consent_error"  # by another rule
        if is_all and reasons.total() >= _ENOUGH and not is_meant and not is_told:
            why = meaning("suppressed", reason).title
            finding = f"all-suppressed/{reason}"
            yield finding_of(finding, key=name, name=name, why=why, **total(rows))


def _dry_runs(moment: Moment) -> Iterator[Finding]:
    """Orders that AdRoll forgot, since ``ADROLL_HOSTS`` does not list where they came from."""
    rows = [row for row in _lately(moment, DAY, model.DRY_RUN) if row.event_name == "purchase"]
    about = total(rows)
    if moment.settings.hosts and not moment.settings.dry_run and about["events"] >= _NO_ACCIDENT:
        yield finding_of("host-not-listed/orders", **about)


def _paid_orders(moment: Moment) -> Iterator[Finding]:
    """What the shop's own list of paid orders tells, and whether the list can be used."""
    if not moment.listed:
        return
    if why := moment.runtime.paid_orders.trouble():
        yield finding_of("paid-orders-failed", why=why)
    yield from _not_reported(moment)
    if not moment.listed["all"]:
        until = moment.runtime.paid_orders.compared_until()
        delivered = _lately(moment, WEEK, "delivered")
        delivered = [row for row in delivered if row.event_name == "purchase"]
        if any(row.at < until for row in delivered):  # a later one need not be in the list yet
            yield finding_of("paid-orders-empty", **total(delivered))


def _not_reported(moment: Moment) -> Iterator[Finding]:
    """Orders of the shop's own list of paid ones that nobody reported or released."""
    many = max(3, sum(row.events for row in moment.listed["all"]) * _LARGE_SHARE)
    others = sum(row.events for row in moment.listed["not_listed"])
    for usual_name, kind in _KIND_OF.items():
        name = usual_name
        orders = moment.listed[kind]
        # Where all is a dry run, another finding says so.
        if not orders or (kind == "dry_run" and moment.settings.dry_run):
            continue
        about = total(orders)
        if moment.now - about["since"] >= 13 * DAY:
            # It may have begun before the first of the 14 days that are compared.
            about |= {"since": None, "begin": "At least "}
        level = "error" if about["events"] >= many else None
        if kind == "missing" and not moment.settings.remember_suppressed:
            level = None
            name = "never-reported/or-refused"
        elif kind == "missing" and others >= about["events"]:
            # They may be the same orders: reported by their numbers, and listed by their keys.
            name = "never-reported/other-ids"
            about |= {"others": others}
        about |= {"severity": level, "groups": _groups_of(orders)}
        yield finding_of(name, advice=meaning("missing", "").advice, **about)


def _groups_of(orders: Iterable[model.HistorySum]) -> str:
    """What *orders* of the list have in common, as the end of a sentence."""
    groups: Counter[str] = Counter()
    for row in orders:
        groups[row.reason] += row.events
    if len(groups) > 1:
        commonest = groups.most_common(5)
        return ": " + ", ".join(f"{number} with “{it or 'none'}”" for it, number in commonest)
    [(group, number)] = groups.items()
    return agreeing(f", {{with|all with}} “{group}”", number) if group else ""


def _new(moment: Moment) -> Iterator[Finding]:
    """An outbox that began lately, where something says that there was another before."""
    knowledge = moment.outbox.lookups.knowledge()
    if moment.now - knowledge.began > 14 * DAY:
        return
    about = total(moment.listed.get("unknown", ()))
    signs = []
    if number := about["events"]:
        paid = f"{counted(number, 'order')} of the shop's list of paid orders {{was|were}} paid"
        signs.append(agreeing(f"{paid} before", number))
    if knowledge.has_older_cookies:
        signs.append("visitors bring cookies of ours that are older")
    if signs:
        about |= {"since": knowledge.began, "when": _when(moment, knowledge.began)}
        yield finding_of("outbox-new", signs=" and ".join(signs), **about)


def _clock(moment: Moment) -> Iterator[Finding]:
    """Hosts whose clock is wrong, perhaps this one; and waiting events whose time is yet to come.

    Each host has noted how its clock differs. Events that are sent or given up are not looked at:
    they say nothing of the clocks as they are now.
    """
    wrong = {(clock.other, clock.host): clock for clock in moment.outbox.lookups.wrong_clocks()}
    database = moment.outbox.database
    if database.dialect != "sqlite":
        ahead = clocks.ahead_of_database(database, moment.runtime.clock)
        here = clocks.WrongClock("database", clocks.this_host(), ahead)
        wrong[here.other, here.host] = here  # in the place of its note
    for clock in wrong.values():
        yield from wrong_clock(clock)
    newest = moment.outbox.lookups.newest_events(_NEWEST)
    latest = max((row.occurred_at for row in newest if row.state == "waiting"), default=0.0)
    early = latest - moment.now
    if early >= clocks.WARNS_FROM:
        yield finding_of("clock-wrong/event", severity=_clock_severity(early), early=span(early))


def wrong_clock(clock: clocks.WrongClock) -> Iterator[Finding]:
    """The finding about a host's clock, where it differs by too much."""
    if abs(clock.ahead) < clocks.WARNS_FROM:
        return
    way = "ahead of" if clock.ahead > 0 else "behind"
    words: Any = {"host": clock.host, "by": span(abs(clock.ahead)), "way": way}
    words |= {"key": f"{clock.other} {clock.host}", "severity": _clock_severity(clock.ahead)}
    yield finding_of(f"clock-wrong/{clock.other}", **words)


def _clock_severity(difference: float) -> Severity:
    return "error" if abs(difference) >= clocks.WRONG_FROM else "warning"


def _journal(moment: Moment) -> Iterator[Finding]:
    """A journal from which nothing can be taken in. The rule tries it: it takes a batch in."""
    bytes_waiting = moment.outbox.lookups.bytes_waiting
    before = bytes_waiting()
    if before and not moment.outbox.ingest.take_in():
        after = bytes_waiting()
        if after >= before:
            yield finding_of("journal-not-read", bytes=counted(after, "byte"))


def what_delays(moment: Moment) -> Finding | None:
    """The first finding that says what keeps events from AdRoll; ``None``: nothing is known."""
    return next(_destination(moment), None)


#: Rules that always apply.
_ALWAYS: Final = (_not_sending, _unwritable, _room, _corrupt)
#: Rules that apply where there is an outbox: to the shop that is looked at, and to the whole site.
_OF_SHOP: Final = (
    _destination,
    _reports_die,
    _dead_letters,
    _errors_named,
    _ending,
    _too_few,
    _consent_unknown,
    _all_suppressed,
    _dry_runs,
)
_OF_SITE: Final = (_failed, _elsewhere, _unserved, _addresses, _paid_orders, _new, _clock, _journal)

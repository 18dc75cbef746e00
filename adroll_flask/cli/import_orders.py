"""Reporting events that were kept elsewhere: an export, API payloads, a shop's own list.

Everything is checked first; what is good waits in temporary files meanwhile, what is not goes to a
file that can be fixed and imported again. Then the good ones go into the journal, as every report
does, some thousands to a file, and from there into the outbox. Memory does not grow with the file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from adroll_flask.errors import AdRollError, EventError
from adroll_flask.hosts import host_of
from adroll_flask.outbox import NewEvent, OutboxFailed, new_id

from .import_checks import Outcome, outcomes
from .import_lines import Line, Source
from .import_rejected import Rejected
from .import_spool import Spool
from .import_values import ValueForms

if TYPE_CHECKING:
    from adroll_flask.events.context import EventDefaults
    from adroll_flask.events.event import Event
    from adroll_flask.runtime import Runtime

#: Events of one transaction of the outbox, while which others wait. Small ones write the same pages
#: of its indexes again and again.
KEEP: Final = 5000
#: Lines that take one step together before the next: its code is still in the processor's cache
#: then, which takes a quarter off.
_TOGETHER: Final = 25
#: Seconds that the last look waits for another process that takes in.
_PATIENCE: Final = 2.0
_NEEDED: Final = {
    "order_id": "a purchase takes the shop's order id: by it the order is reported once",
    "value": "a purchase takes its value",
}

Progress = Callable[[int], None]


@dataclass(slots=True)
class Summary:
    """What became of a file's lines.

    :param checked: lines that were looked at.
    :param good: of them, those that can be reported.
    :param rejected: of them, those that cannot.
    :param suppressed: of them, those whose visitor's token carries no consent.
    :param kept: events that the journal has.
    :param duplicates: of them, those whose key was known, as this process saw.
    :param stopped: ``""``, ``interrupted``, or why the journal took no more.
    """

    checked: int = 0
    good: int = 0
    rejected: int = 0
    suppressed: int = 0
    kept: int = 0
    duplicates: int = 0
    stopped: str = ""
    rejected_file: str | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(slots=True)
class Import:
    """One file on its way into the outbox.

    :param event_name: of lines that name no event.
    """

    runtime: Runtime
    source: Source
    forms: ValueForms
    rejected: Rejected
    event_name: str = "purchase"
    summary: Summary = field(default_factory=Summary)
    _spool: Spool | None = None

    def check(self, progress: Progress, *, keep: bool) -> None:
        """Look at every line.

        :param progress: told now and then how many bytes were read since the last time.
        :param keep: the good ones are remembered, for :meth:`keep`.
        """
        began = time.monotonic()
        maker = EventMaker(self.runtime, self.forms, self.event_name)
        # Beside the journal: what fits there fits the disk, and /tmp may be memory.
        self._spool = Spool(self.runtime.journal_folder.parent) if keep else None
        summary, read = self.summary, 0
        try:
            for found in outcomes(self.source, maker.outcomes, self._spool):
                summary.checked += found.lines
                summary.good += found.good
                summary.suppressed += found.suppressed
                summary.rejected += len(found.rejected)
                for line, problem in found.rejected:
                    column = self.forms.column_of(problem.field.partition("[")[0])
                    self.rejected.add(line, "" if column == "line" else column, problem)
                position = self.source.position()
                progress(position - read)
                read = position
        except KeyboardInterrupt:
            summary.stopped = "interrupted"
        finally:
            self.rejected.close()
            summary.rejected_file = self.rejected.kept_as
            summary.seconds += time.monotonic() - began

    def keep(self, progress: Progress) -> None:
        """Report what :meth:`check` found good.

        :param progress: told now and then how many events were kept since the last time.
        """
        spool = self._spool
        if spool is None:
            return
        began = time.monotonic()
        runtime, summary = self.runtime, self.summary
        before = runtime.counters.get("event_duplicate")
        try:
            for part in spool.parts():
                runtime.outbox.record_file(part.token, spool.frames(part), part.length)
                summary.kept += part.records
                self._take_in()
                progress(part.records)
        except KeyboardInterrupt:
            summary.stopped = "interrupted"
        except OutboxFailed as failure:
            summary.stopped = failure.reason
        while self._take_in(_PATIENCE):
            pass
        summary.duplicates = runtime.counters.get("event_duplicate") - before
        summary.seconds += time.monotonic() - began
        if summary.kept:
            self._tell_workers()

    def close(self) -> None:
        """Let go of what is open."""
        if self._spool is not None:
            self._spool.close()
        self.source.close()

    def _take_in(self, patience: float = 0.0) -> int:
        try:
            return self.runtime.outbox.queue.take_in(KEEP, patience=patience)
        except OutboxFailed:
            return 0  # the journal has them: whoever delivers takes them in

    def _tell_workers(self) -> None:
        with suppress(OutboxFailed):  # they come by without being told
            self.runtime.outbox.queue.announce()


class _Read(NamedTuple):
    """What a line says.

    :param identifiers: see :class:`.NewEvent`, like *known_since*.
    """

    event: Event
    key: str
    payload: bytes
    identifiers: int
    known_since: float | None


class EventMaker:
    """Makes events of lines; what it loads, it loads once.

    :param event_name: of lines that name no event.
    """

    def __init__(self, runtime: Runtime, forms: ValueForms, event_name: str) -> None:
        from adroll_flask.events import build as events
        from adroll_flask.events.dedupe_key import kept_key
        from adroll_flask.outbox.record_format import encode_event
        from adroll_flask.outbox.states import clean_key

        self._runtime = runtime
        self._settings = runtime.settings
        self._forms = forms
        self._event_name = event_name
        self._events = events
        self._encode = encode_event
        self._clean = clean_key
        self._kept = kept_key
        self._secret = runtime.services.records.dedupe_secret
        #: All are reported at one time, so that they stay in the order of their lines.
        self._began = runtime.clock()

    @cached_property
    def _defaults(self) -> EventDefaults:
        return self._runtime.reporter.defaults()

    def _is_dry_run(self, location: str) -> bool:
        settings = self._settings
        if settings.dry_run or not settings.hosts:
            return settings.dry_run
        return not settings.is_real(host_of(location))

    def outcomes(self, lines: Sequence[Line]) -> list[Outcome]:
        """For each line, what the journal keeps of it, what is wrong, or that nobody consented."""
        found: list[Outcome] = []
        for start in range(0, len(lines), _TOGETHER):
            read = [self._read(line) for line in lines[start : start + _TOGETHER]]
            events = [self.event(one) if isinstance(one, _Read) else one for one in read]
            found += [
                self._encode(one, self._began) if isinstance(one, NewEvent) else one
                for one in events
            ]
        return found

    def _read(self, line: Line) -> _Read | EventError | None:
        try:
            return line.problem or self.read(line)
        except AdRollError as problem:
            return _as_event_error(problem)

    def read(self, line: Line) -> _Read | None:
        """What a line says; ``None``: its visitor's token carries no consent.

        :raises AdRollError: no event.
        """
        data: Mapping[str, Any] = line.fields
        key: Any = None
        if data and isinstance(data.get("event"), Mapping):  # an export's line
            key = data.get("deduplication_key")
            data = data["event"]
        if "event_name" in data:
            event = self._events.recheck_wire(
                json.dumps(data), email_forms=self._settings.email, now=self._runtime.clock()
            )
            key = key or event.order_id
            payload, known_since = self._events.wire_bytes(event), None
            coverage = event.coverage
        else:
            data = self._forms.values(line.raw if line.is_text else data)
            values = dict(data)
            name = values.pop("name", self._event_name)
            defaults, known_since = self._defaults, None
            defaults.now = self._runtime.clock()
            token = values.pop("visitor", None)
            if token is not None:
                defaults, why = self._runtime.reporter.defaults_of(token)
                known_since = defaults.known_since
                if why:
                    return None
            if name == "purchase":
                for needed, text in _NEEDED.items():
                    if needed not in values:
                        raise EventError(needed, text)
            built = self._events.build(name, values, defaults, strict=True)
            event, key, payload = built.event, built.key, built.payload
            coverage = built.coverage
        if key is None:
            # Not by what happened at the time of the import, so that it is the same one again.
            said = repr(sorted(data.items())).encode("utf-8", "surrogatepass")
            key = "import:" + hashlib.sha256(said).hexdigest()[:40]
        return _Read(event, str(key), payload, coverage.mask, known_since)

    def event(self, read: _Read) -> NewEvent:
        """The outbox's event of what a line says."""
        event = read.event
        return NewEvent(
            id=new_id(self._runtime.clock()),
            name=event.event_name,
            advertisable_eid=event.advertisable_eid or self._settings.advertisable_eid or "",
            dry_run=self._is_dry_run(event.page_location),
            key=self._clean(self._kept(read.key, self._secret)),
            payload=read.payload,
            occurred_at=event.timestamp,
            digest=self._events.value_digest(event),
            identifiers=read.identifiers,
            known_since=read.known_since,
        )


def _as_event_error(problem: AdRollError) -> EventError:
    """What is wrong, of a visitor's token too."""
    return problem if isinstance(problem, EventError) else EventError("visitor", str(problem))

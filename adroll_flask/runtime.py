"""One app's parts, made when first needed; both adapters hold one of these and nothing else."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .counters import Counters
from .delivery import uwsgi
from .delivery.late_events import LateWatch
from .delivery.tracing import parent_of
from .errors import AdRollError, help_url
from .logs import Logger, get_logger
from .outbox.location import tell_of_unwritable_places
from .page.cookie_domains import Domains
from .page.snippet import Snippet
from .reporting.holding import Holding
from .reporting.parts import Parts
from .reporting.reporter import Reporter
from .signals import announce, event_delivered, event_rejected, reports_silent, visitor_identified
from .visitor.records import Records, Visitor
from .visitor.tracked_request import TrackedRequest, VisitorServices

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from blinker import NamedSignal
    from sqlalchemy import URL

    from .delivery.client import Transport
    from .delivery.deliverer import Deliverer
    from .delivery.thread import DeliveryThread
    from .delivery.tracing import Tracing
    from .events.context import KnownIdentity
    from .outbox import Outbox
    from .reporting.receipt import Receipt
    from .reporting.site_functions import BeforeReport
    from .settings import Settings
    from .visitor.record import Record

logger: Logger = get_logger("adroll_flask")


T = TypeVar("T")


def _load_delivery() -> None:
    from .delivery import thread  # noqa: F401 - the first report starts it


class Runtime:
    """What one app needs to capture, report and deliver.

    :param settings: the app's.
    :param folder: where the SQLite outbox and the journal live by default.
    :param keys: returns the signing keys, newest first; asked at the first request.
    :param strict: says whether programmer errors raise now.
    :param request_of: turns an environ into what ``ADROLL_CONSENT``'s callable takes.
    :param before_report: returns the site's own functions, in the order in which they are asked.
    :param identity: asks the site who is logged in at a request.
    :param key_names: the settings that may hold a signing key, for the warning that none does.
    :param sender: the sender of the signals; held weakly.
    :param outbox: an outbox to use instead of the configured one (tests).
    :param transport: a transport to use instead of requests' (tests).
    :param clock: returns epoch seconds (tests).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        folder: str,
        keys: Callable[[], tuple[str | bytes, ...]],
        strict: Callable[[], bool],
        request_of: Callable[[WSGIEnvironment], object],
        before_report: Callable[[], Sequence[BeforeReport]],
        identity: Callable[[TrackedRequest], object],
        key_names: str,
        sender: object,
        outbox: Outbox | None = None,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.counters: Counters = Counters()
        self.domains: Domains = Domains(settings.cookie_domain)
        self.snippet: Snippet = Snippet(settings)
        self.clock = clock
        self.folder = folder
        self._keys = keys
        self._key_names = key_names
        self._strict = strict
        self._request_of = request_of
        self._sender = weakref.ref(sender)
        self._outbox = outbox
        self._outbox_given = outbox is not None
        self.transport = transport
        self._made: dict[str, Any] = {}
        self._services: VisitorServices | None = None
        self._deliverer: Deliverer | None = None
        self._thread: DeliveryThread | None = None
        self._late: LateWatch | None = None
        self._begun_in: int | None = None
        self._collecting = False
        #: Told after each commit where another process delivers; set by ``adroll_flask.celery``.
        self.nudge: Callable[[], None] | None = None
        self.tracing: Tracing | None = None  #: Set by ``adroll_flask.opentelemetry``.
        #: What reports are made of.
        self.parts: Parts = Parts(
            settings=settings,
            counters=self.counters,
            clock=clock,
            records=lambda: self.services.records,
            outbox=lambda: self.outbox,
            strict=strict,
            before_report=before_report,
            identity=identity,
            queued=self._queued,
            announce=self.announce,
            trace=lambda: parent_of(self.tracing),
        )
        self.reporter: Reporter = Reporter(self.parts)
        self.holding: Holding = Holding(self.parts)
        if settings.enabled and settings.missing:
            logger.warning(
                "AdRoll: %s not set; pages work and events wait in the outbox (%s)",
                " and ".join(settings.missing),
                help_url("account-missing"),
            )
        if settings.enabled and not self._outbox_given:
            tell_of_unwritable_places(settings, Path(folder).absolute())

    def _first(self, name: str, made: T) -> T:
        """Of what several threads make at once, the one that all of them take.

        Without a lock, which a fork may leave locked: setdefault is atomic, and what is made opens
        nothing.
        """
        kept: T = self._made.setdefault(name, made)
        return kept

    @property
    def strict(self) -> bool:
        """True where programmer errors raise."""
        return self._strict()

    @property
    def services(self) -> VisitorServices:
        """What tracked requests share. Keys are read here: apps set ``SECRET_KEY`` late."""
        services = self._services
        if services is None:
            records = Records(self.settings, self.counters, keys=self._keys(), clock=self.clock)
            if not records.can_sign and self.settings.enabled:
                self.counters.add("secret_key_missing")
                logger.warning(
                    "AdRoll: no %s is set: no visitor is kept from one request to the next, and "
                    "there are no tokens (%s)",
                    self._key_names,
                    help_url("secret-key-missing"),
                )
            made = VisitorServices(
                self.settings, records, self.counters, self.clock, self._request_of
            )
            services = self._services = self._first("services", made)
        return services

    def signing_keys(self) -> tuple[str | bytes, ...]:
        """The keys that texts of ours are signed with, newest first; empty where none is set."""
        return self._keys()

    def tracked(self, environ: WSGIEnvironment) -> TrackedRequest:
        """A request's visitor, yet to be looked at."""
        return TrackedRequest(self.services, environ)

    # -- outbox and delivery -------------------------------------------------------------

    @property
    def outbox(self) -> Outbox:
        """The app's one outbox; opened at the first use."""
        outbox = self._outbox
        if outbox is None:
            from .outbox import open_outbox

            opened = open_outbox(
                self.settings,
                folder=self.folder,
                clock=self.clock,
                counters=self.counters,
                on_forward=self._look_for_late_events,
                amend=self._amend,
            )
            outbox = self._outbox = self._first("outbox", opened)
        return outbox

    @property
    def outbox_place(self) -> Path | URL | None:
        """The SQLite file or the database of the configuration; ``None``: an outbox was given.

        :raises ConfigurationError: there is no outbox over such a database.
        """
        from .outbox.location import locate

        if self._outbox_given:
            return None
        return locate(self.settings.outbox_url, Path(self.folder).absolute())

    @property
    def journal_folder(self) -> Path:
        """Where this host's journal is."""
        from .outbox.intake import journal_folder

        return journal_folder(self.settings, Path(self.folder).absolute())

    def may_have_events(self) -> bool:
        """False where nothing was ever kept: then looking must not make a database."""
        return self._outbox_given or self.outbox.exists()

    @property
    def deliverer(self) -> Deliverer:
        """What takes events from the outbox to AdRoll."""
        deliverer = self._deliverer
        if deliverer is None:
            from .delivery.client import Client
            from .delivery.deliverer import Deliverer

            made = Deliverer(
                self.outbox,
                Client(self.settings, self.transport, clock=self.clock),
                self.settings,
                self.counters,
                clock=self.clock,
                on_outcome=self._settled,
                tracing=lambda: self.tracing,
                on_silence=lambda silence: self.announce(reports_silent, **silence._asdict()),
            )
            deliverer = self._deliverer = self._first("deliverer", made)
        return deliverer

    @property
    def thread(self) -> DeliveryThread:
        """The background thread of ``ADROLL_DELIVERY="thread"``; not started by asking for it."""
        thread = self._thread
        if thread is None:
            from .delivery.thread import DeliveryThread

            thread = self._thread = self._first("thread", DeliveryThread(self.deliverer))
        return thread

    def begin(self) -> None:
        """Called with every request: a backlog from before must not wait for the next sale."""
        pid = os.getpid()
        if pid == self._begun_in or self._collecting:
            return
        self._begun_in = pid
        if self.settings.enabled and self.settings.delivery == "thread":
            try:
                if self.may_have_events():
                    self.thread.ensure_started()
                else:
                    self._preload(_load_delivery)
            except AdRollError as failure:  # an outbox without its driver, say
                self.counters.add("delivery_error", "not_started")
                logger.error(
                    "AdRoll's delivery cannot start: %s (%s)",
                    failure,
                    help_url("delivery-cannot-start"),
                )
        elif self.settings.enabled:
            self._preload(lambda: None)
        if self.settings.delivery == "thread":
            for problem in uwsgi.running_problems():
                logger.error(
                    "AdRoll under uWSGI: %s; %s (%s)",
                    problem.text,
                    problem.fix,
                    help_url("uwsgi-threads"),
                )

    @staticmethod
    def _preload(also: Callable[[], object]) -> None:
        from .delivery.preload import PRELOAD

        PRELOAD.begin(also)

    @contextmanager
    def collecting(self, outbox: Any) -> Iterator[None]:
        """Put *outbox* in the place of the app's for a while, and deliver nothing."""
        before = self._outbox, self._collecting, self.services.assume_cookie
        self._outbox, self._collecting, self.services.assume_cookie = outbox, True, True
        try:
            yield
        finally:
            self._outbox, self._collecting, self.services.assume_cookie = before

    @contextmanager
    def dry_requests(self) -> Iterator[None]:
        """For requests that only try the app out: nothing is kept, nothing delivered."""
        from .outbox.discard import DiscardOutbox

        with self.collecting(DiscardOutbox()):
            yield

    def _queued(self) -> None:
        if self._collecting:
            return
        if self.settings.delivery == "thread":
            self.thread.nudge()
        elif self.settings.delivery == "sync":
            self.deliverer.flush(timeout=10.0)
        elif self.nudge is not None:
            self.nudge()

    def _amend(self, payload: bytes, changes: Mapping[str, Any]) -> tuple[bytes, str, float]:
        from .events.release import amend

        return amend(payload, changes, email_forms=self.settings.email, clock=self.clock)

    def _look_for_late_events(self) -> None:
        """The only sign of life where a worker should deliver and does not."""
        watch = self._late
        if watch is None:
            watch = self._late = LateWatch(self.outbox, self.counters)
        watch.look()

    def flush(self, timeout: float) -> int:
        """Deliver what is due now; how many events still wait.

        :param timeout: seconds that this may take at most.
        """
        if not self.settings.enabled or self._collecting or not self.may_have_events():
            return 0
        if self.settings.delivery == "worker":
            return self.outbox.queue.waiting()
        if self.settings.delivery == "thread":
            return self.thread.flush(timeout)
        return self.deliverer.flush(timeout)

    def _settled(self, kind: str, claimed: Any, reason: str) -> None:
        if kind == "delivered":
            self.announce(event_delivered, id=claimed.id, name=claimed.name, unsure=claimed.unsure)
        elif kind == "dead":
            self.announce(event_rejected, id=claimed.id, name=claimed.name, reason=reason)

    # -- visitors ------------------------------------------------------------------------

    def report(
        self,
        name: str,
        fields: Mapping[str, Any],
        *,
        tracked: TrackedRequest | None,
        known: KnownIdentity,
    ) -> Receipt:
        """Report an event; see :func:`adroll_flask.report_event`."""
        return self.reporter.report(name, fields, tracked=tracked, known=known)

    def identified(self, tracked: TrackedRequest, record: Record) -> None:
        """Tell who listens that a visitor's record was written."""
        if visitor_identified.receivers:
            visitor = self.services.records.visitor(
                record,
                ip=tracked.ip,
                host=tracked.host or None,
                consent=True,
                user_agent=tracked.user_agent,
            )
            self.announce(visitor_identified, visitor=visitor)

    def withdraw(self, record: Record | Visitor) -> None:
        """A visitor says no: what waits of them is erased, and what they left earlier is not sent.

        Never fails a request. What the journal does not take is counted and logged.
        """
        cookie, adct = record.first_party_cookie, record.adct
        if not (cookie or adct):
            return
        from .outbox import OutboxFailed
        from .outbox.record_format import Withdrawal

        try:
            self.outbox.record(Withdrawal(self.clock(), cookie, adct))
        except OutboxFailed as failure:
            self.counters.add("forget_failed", failure.reason)
            logger.error(
                "AdRoll: a visitor's events are not erased: %s (%s)",
                failure.reason,
                help_url("event-lost"),
            )
            return
        self._queued()

    def announce(self, signal: NamedSignal, **values: object) -> None:
        """Send one of :mod:`adroll_flask.signals`."""
        sender = self._sender()
        if signal.receivers and sender is not None:
            announce(self.counters, sender, signal, **values)

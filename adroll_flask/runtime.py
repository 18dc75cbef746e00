"""One app's parts, made when first needed; both adapters hold one of these and nothing else."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import uwsgi
from .counters import Counters
from .domains import Domains
from .errors import AdRollError
from .exchange import Exchange, Site
from .forgetting import Erasure, matcher
from .reporting import Reporter
from .signals import announce, event_delivered, event_rejected, visitor_identified
from .snippet import Snippet
from .visitor import Records, Visitor

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from blinker import NamedSignal
    from sqlalchemy import URL

    from .client import Transport
    from .context import Known
    from .delivery import Deliverer
    from .events import Event
    from .lateness import LateWatch
    from .outbox import NewEvent, Outbox, Put
    from .receipt import Receipt
    from .record import Record
    from .settings import Settings
    from .thread import DeliveryThread

_LOG = logging.getLogger("adroll_flask")


class Runtime:
    """What one app needs to capture, report and deliver.

    :param settings: the app's.
    :param folder: where the SQLite outbox and the spill file live by default.
    :param keys: returns the signing keys, newest first; asked at the first request.
    :param strict: says whether programmer errors raise now.
    :param request_of: turns an environ into what ``ADROLL_CONSENT``'s callable takes.
    :param before_report: returns the site's own function, if it set one.
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
        before_report: Callable[[], Callable[[Event], Event | None] | None],
        sender: object,
        outbox: Outbox | None = None,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.counters = Counters()
        self.domains = Domains(settings.cookie_domain)
        self.snippet = Snippet(settings)
        self.clock = clock
        self.folder = folder
        self._keys = keys
        self._strict = strict
        self._request_of = request_of
        self._sender = weakref.ref(sender)
        self._outbox = outbox
        self._outbox_given = outbox is not None
        self.transport = transport
        self._site: Site | None = None
        self._deliverer: Deliverer | None = None
        self._thread: DeliveryThread | None = None
        self._late: LateWatch | None = None
        self._begun_in: int | None = None
        self._collecting = False
        #: Told after each commit where another process delivers; set by ``adroll_flask.celery``.
        self.nudge: Callable[[], None] | None = None
        self.reporter = Reporter(
            settings,
            lambda: self.site.records,
            self.counters,
            clock=clock,
            outbox=lambda: self.outbox,
            strict=strict,
            before_report=before_report,
            queued=self._queued,
            announce=self.announce,
        )
        if settings.enabled and settings.missing:
            _LOG.warning(
                "AdRoll: %s not set; pages work and events wait in the outbox",
                " and ".join(settings.missing),
            )

    @property
    def strict(self) -> bool:
        """True where programmer errors raise."""
        return self._strict()

    @property
    def site(self) -> Site:
        """What exchanges share. The keys are read here, since apps set ``SECRET_KEY`` late."""
        site = self._site
        if site is None:
            records = Records(self.settings, self.counters, keys=self._keys(), clock=self.clock)
            site = self._site = Site(
                self.settings, records, self.counters, self.clock, self._request_of
            )
        return site

    def exchange(self, environ: WSGIEnvironment) -> Exchange:
        """A new exchange for a request."""
        return Exchange(self.site, environ)

    # -- outbox and delivery -------------------------------------------------------------

    @property
    def outbox(self) -> Outbox:
        """The app's one outbox; opened at the first use."""
        outbox = self._outbox
        if outbox is None:
            from .outbox import open_outbox

            outbox = self._outbox = open_outbox(
                self.settings, folder=self.folder, clock=self.clock, counters=self.counters
            )
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
    def spill_path(self) -> Path:
        """The file that takes events which the database does not."""
        from .outbox.facade import SPILL_NAME

        return Path(self.folder).absolute() / SPILL_NAME

    def may_have_events(self) -> bool:
        """False where nothing was ever kept: then looking must not make a database."""
        if self._outbox is not None:
            return True
        where = self.outbox_place
        return not isinstance(where, Path) or where.exists() or self.spill_path.exists()

    @property
    def deliverer(self) -> Deliverer:
        """What takes events from the outbox to AdRoll."""
        deliverer = self._deliverer
        if deliverer is None:
            from .client import Client
            from .delivery import Deliverer

            deliverer = self._deliverer = Deliverer(
                self.outbox,
                Client(self.settings, self.transport, clock=self.clock),
                self.settings,
                self.counters,
                clock=self.clock,
                on_outcome=self._settled,
            )
        return deliverer

    @property
    def thread(self) -> DeliveryThread:
        """The background thread of ``ADROLL_DELIVERY="thread"``; not started by asking for it."""
        thread = self._thread
        if thread is None:
            from .thread import DeliveryThread

            thread = self._thread = DeliveryThread(self.deliverer)
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
            except AdRollError as failure:  # an outbox without its driver, say
                self.counters.add("delivery_error", "not_started")
                _LOG.error("AdRoll's delivery cannot start: %s", failure)
        if self.settings.delivery == "thread":
            for problem in uwsgi.running_problems():
                _LOG.error("AdRoll under uWSGI: %s; %s", problem.text, problem.mend)

    @contextmanager
    def collecting(self, outbox: Any) -> Iterator[None]:
        """Put *outbox* in the place of the app's for a while, and deliver nothing."""
        before = self._outbox, self._collecting, self.site.generous
        self._outbox, self._collecting, self.site.generous = outbox, True, True
        try:
            yield
        finally:
            self._outbox, self._collecting, self.site.generous = before

    @contextmanager
    def trying(self) -> Iterator[None]:
        """For requests that only try the app out: nothing is kept, nothing delivered."""
        with self.collecting(_Nowhere()):
            yield

    def _queued(self) -> None:
        if self._collecting:
            return
        if self.settings.delivery == "thread":
            self.thread.nudge()
        elif self.settings.delivery == "sync":
            self.deliverer.flush(timeout=10.0)
        else:
            # The only sign of life where a worker should deliver and does not.
            self._late_watch().look()
            if self.nudge is not None:
                self.nudge()

    def _late_watch(self) -> LateWatch:
        watch = self._late
        if watch is None:
            from .lateness import LateWatch

            watch = self._late = LateWatch(self.outbox, self.counters)
        return watch

    def flush(self, timeout: float) -> int:
        """Deliver what is due now; how many events still wait.

        :param timeout: seconds that this may take at most.
        """
        if not self.settings.enabled or self._collecting or not self.may_have_events():
            return 0
        if self.settings.delivery == "worker":
            return self.outbox.waiting()
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
        exchange: Exchange | None,
        known: Known,
    ) -> Receipt:
        """Report an event; see :func:`adroll_flask.report_event`."""
        return self.reporter.report(name, fields, exchange=exchange, known=known)

    def identified(self, exchange: Exchange, record: Record) -> None:
        """Tell who listens that a visitor's record was written."""
        if visitor_identified.receivers:
            visitor = self.site.records.visitor(
                record, ip=exchange.ip, host=exchange.host or None, consent=True
            )
            self.announce(visitor_identified, visitor=visitor)

    def drop_waiting(self, record: Record | Visitor) -> int:
        """Erase the waiting events of one visitor; how many there were.

        What takes longer than a request may wait goes on beside it, and is not counted.
        """
        cookie, adct = record.first_party_cookie, record.adct
        if not (cookie or adct) or not self.may_have_events():
            return 0
        return Erasure(
            self.outbox,
            matcher(cookie=cookie, adct=adct),
            by=("the visitor's own request",),
            counters=self.counters,
        ).run()

    def announce(self, signal: NamedSignal, **values: object) -> None:
        """Send one of :mod:`adroll_flask.signals`."""
        sender = self._sender()
        if signal.receivers and sender is not None:
            announce(self.counters, sender, signal, **values)


class _Nowhere:
    """In the outbox's place while an app is tried out: the shop's own hooks may report."""

    def put(self, event: NewEvent, *, session: Any = None) -> Put:
        from .outbox import Put

        return Put("queued", event.id)

    def put_dead(self, event: NewEvent, reason: str, error: str) -> str:
        return event.id

    def waiting(self) -> int:
        return 0

    def forget(self, match: object) -> int:
        return 0

"""One app's parts, each made when it is first needed; both adapters hold one of these.

::

    AdRoll, AdRollMiddleware      translate for a framework
        Runtime                   makes and keeps what one app needs
            visitors              what requests share: who a visitor is, what signs it
            reporter              what calls become
            outbox                where events wait
            deliverer, thread     from there to AdRoll
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .counters import Counters
from .delivery.thread import DeliveryThread, threads_are_on
from .errors import let_through
from .forks import made_once
from .logs import logger
from .outbox.location import tell_of_unwritable_places
from .outbox.outbox import Outbox
from .page.response import Page, prepare_response
from .page.snippet import Snippet
from .redaction import describe
from .reporting.reporter import Reporter, SiteFunctions, say_outcome
from .settings import Settings
from .signals import visitor_identified
from .visitor.record import Visitors

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from blinker import NamedSignal
    from werkzeug.datastructures import Headers

    from .delivery.deliverer import Deliverer
    from .delivery.transport import Transport
    from .reporting.reconciliation import PaidOrders
    from .visitor.tracked_request import TrackedRequest

_T = TypeVar("_T")


@dataclass(kw_only=True, eq=False, repr=False)
class Runtime:
    """What one app needs to capture, report and deliver.

    :param settings: the app's.
    :param functions: the site's own functions.
    :param folder: where the SQLite outbox and the journal live by default.
    :param config: a Flask app's own, in which its keys and its mode may still change.
    :param request_of: turns an environ into what ``ADROLL_CONSENT``'s callable takes.
    :param sender: the sender of the signals; held weakly.
    :param transport: a transport to use instead of requests' (tests).
    :param clock: returns epoch seconds (tests).
    """

    settings: Settings
    functions: SiteFunctions
    folder: str
    request_of: Callable[[WSGIEnvironment], object]
    sender: InitVar[object]
    config: Mapping[str, Any] = field(default_factory=dict)
    transport: Transport | None = None
    clock: Callable[[], float] = time.time
    counters: Counters = field(default_factory=Counters)
    _collecting: bool = False
    #: The process that has begun, see :meth:`begin`.
    _begun_in: int | None = None

    def __post_init__(self, sender: object) -> None:
        settings = self.settings
        self._sender = weakref.ref(sender)
        self.snippet: Snippet = Snippet(settings)
        #: What runs beside the requests.
        self.thread: DeliveryThread = DeliveryThread(
            lambda: self.deliverer, self.counters, settings.delivery
        )
        if not settings.enabled:
            return
        if settings.missing:
            logger.warning(
                "AdRoll: %s not set; pages work and events wait in the outbox [account-missing]",
                " and ".join(settings.missing),
            )
        tell_of_unwritable_places(settings, Path(self.folder).absolute())

    def is_strict(self) -> bool:
        """Whether programmer errors raise now."""
        of_app = self.config.get("DEBUG") or self.config.get("TESTING") or False
        return of_app if self.settings.strict is None else self.settings.strict

    def signing_keys(self) -> tuple[str | bytes, ...]:
        """The keys that texts of ours are signed with, newest first: our own, else the app's."""
        of_app = [self.config.get("SECRET_KEY"), *(self.config.get("SECRET_KEY_FALLBACKS") or ())]
        keys = tuple(key for key in of_app if isinstance(key, str | bytes) and key)
        return self.settings.secret_key or keys

    def forgive(self, problem: Exception, name: str, reason: str = "") -> None:
        """Count a fault of ours that in production is not the shop's; to be called as it is caught.

        :raises Exception: *problem*, where programmer errors raise.
        """
        let_through(problem)
        if self.is_strict():
            raise problem
        self.counters.add(name, reason)

    @made_once
    def visitors(self) -> Visitors:
        """What requests share. Keys are read here: apps set ``SECRET_KEY`` late."""
        settings, counters, keys = self.settings, self.counters, self.signing_keys()
        if not keys and settings.enabled:
            counters.add("secret_key_missing")
            logger.warning(
                "AdRoll: no %s is set: no visitor is kept from one request to the next, and "
                "there are no tokens [secret-key-missing]",
                "SECRET_KEY or ADROLL_SECRET_KEY" if self.config else "secret_key",
            )
        return Visitors(settings, counters, keys, self.clock, self.request_of)

    def of_visitor(self, work: Callable[[], _T], otherwise: _T) -> _T:
        """What *work* on a visitor gives; *otherwise* after a fault of ours (promise 1).

        :raises Exception: the fault, where programmer errors raise.
        """
        try:
            return work()
        except Exception as problem:
            self.forgive(problem, "visitor_unread", "fault")
            logger.error("AdRoll: visitor unreadable: %s [internal-fault]", describe(problem))
            return otherwise

    # -- pages ---------------------------------------------------------------------------

    def prepare(
        self, tracked: TrackedRequest, status: int, headers: Headers, *, is_buffered: bool
    ) -> Page | None:
        """Change a response's *headers*, see :func:`.prepare_response`, and :meth:`conclude`."""
        try:
            return prepare_response(tracked, status, headers, tag=self.tag, is_buffered=is_buffered)
        finally:  # where the snippet failed, cookies go out all the same
            self.conclude(tracked)

    def tag(self, tracked: TrackedRequest) -> bytes:
        """The snippet for this request."""
        provider = self.settings.csp_nonce
        given = (tracked.environ,) if self.functions.takes_environ else ()
        return self.snippet.tag(tracked, provider(*given) if provider is not None else None)

    # -- reports -------------------------------------------------------------------------

    @made_once
    def reporter(self) -> Reporter:
        """What reports, and what all else is made of that works with reports."""
        return Reporter(
            *(self.settings, self.functions, self.counters, self.clock, self.visitors),
            open_outbox=lambda: self.outbox,
            strict=self.is_strict,
            queued=self._queued,
            announce=self.announce,
        )

    def conclude(self, tracked: TrackedRequest) -> None:
        """What follows where a response carries a visitor's record, or takes the cookies back."""
        if tracked.withdrawn:
            # Only what we signed: anybody can send any visitor's cookie along.
            self.reporter.withdraw(tracked.seen.record)
        if tracked.written is not None and visitor_identified.receivers:
            self.announce(visitor_identified, visitor=tracked.visitor_of(tracked.written, True))

    def announce(self, signal: NamedSignal, **values: object) -> None:
        """Send one of :mod:`adroll_flask.signals`; a receiver that raises stops nobody."""
        if self.settings.debug:
            say_outcome(signal, values)
        sender = self._sender()
        for receiver in () if sender is None else signal.receivers_for(sender):
            try:
                receiver(sender, **values)
            except Exception as problem:
                let_through(problem)
                self.counters.add("receiver_failed", signal.name.removeprefix("adroll-"))
                logger.error(
                    "a receiver of %s failed: %s [receiver-failed]", signal.name, describe(problem)
                )

    # -- outbox and delivery -------------------------------------------------------------

    @made_once
    def outbox(self) -> Outbox:
        """The app's one outbox; opened at the first use.

        :raises ConfigurationError: there is none over such a database.
        """
        from .events.fix import amend

        return Outbox(
            self.settings,
            folder=self.folder,
            clock=self.clock,
            counters=self.counters,
            amend=lambda event, changes: amend(event, changes, self.reporter.bare({})),
        )

    @made_once
    def deliverer(self) -> Deliverer:
        """What takes events from the outbox to AdRoll."""
        from .delivery.deliverer import Deliverer

        return Deliverer(
            self.outbox,
            self.settings,
            self.counters,
            transport=self.transport,
            clock=self.clock,
            announce=self.announce,
            also=lambda: self.paid_orders.look(),
        )

    @made_once
    def paid_orders(self) -> PaidOrders:
        """The shop's own list of paid orders, compared now and then."""
        from .reporting.reconciliation import PaidOrders

        return PaidOrders(self.reporter, self._site_context)

    def _site_context(self) -> AbstractContextManager[object]:
        """What a function of the site's runs in: the app's context, or the middleware's."""
        site = self._sender()
        enter: Any = getattr(site, "app_context", None) or getattr(site, "context", nullcontext)
        context: AbstractContextManager[object] = enter()
        return context

    def begin(self) -> None:
        """Called with every request: a backlog from before must not wait for the next sale, and a
        first order must not wait for imports."""
        pid = os.getpid()
        if pid == self._begun_in or self._collecting or not self.settings.enabled:
            return
        self._begun_in = pid
        try:
            self.thread.start()
        except Exception as problem:
            self.forgive(problem, "delivery_error", "not_started")
            logger.error(
                "AdRoll's delivery cannot start: %s [delivery-cannot-start]", describe(problem)
            )
            return
        if self.settings.delivery == "thread" and not threads_are_on():
            logger.error(
                "AdRoll under uWSGI: enable-threads is off, no delivery thread is started, events "
                "wait in the outbox; set enable-threads = true, or run flask adroll worker "
                "[uwsgi-threads]"
            )

    def _queued(self) -> None:
        if self.settings.delivery == "sync":
            self.thread.measure()  # which has no thread then
            self.deliverer.flush(timeout=10.0)
            return
        self.thread.nudge()

    def flush(self, timeout: float) -> int:
        """Deliver what is due now; how many events still wait.

        :param timeout: seconds that this may take at most.
        """
        if not self.settings.enabled or self._collecting or not self.outbox.exists():
            return 0
        if self.settings.delivery == "worker":
            until = time.monotonic() + timeout
            return self.outbox.queue.waiting(self.deliverer.accounts, until)
        own_thread = self.settings.delivery == "thread"
        return (self.thread if own_thread else self.deliverer).flush(timeout)

    # -- trials --------------------------------------------------------------------------

    @contextmanager
    def collecting(self, outbox: Any) -> Iterator[None]:
        """Put *outbox* in the place of the app's for a while, and deliver nothing.

        :param outbox: ``None``: nothing is reported, in requests that only try the app out.
        """
        before = self._collecting, self.reporter
        settings = replace(self.settings, enabled=self.settings.enabled and outbox is not None)
        parts: Any = {"open_outbox": lambda: outbox, "queued": lambda: None}
        self.reporter = replace(self.reporter, settings=settings, assume_cookie=True, **parts)
        self._collecting = True
        try:
            yield
        finally:
            self._collecting, self.reporter = before

"""One app's parts, each made at its first use. Each adapter holds one :class:`Runtime`.

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .counters import Counters
from .delivery.thread import DeliveryThread
from .errors import let_through
from .forks import made_once, threads_are_on
from .logs import logger
from .outbox.location import tell_of_unwritable_places
from .outbox.outbox import Outbox
from .page.placement import Places
from .page.response import OutgoingPage, left_alone, prepare_response, put_cookies
from .page.snippet import Snippet
from .redaction import describe
from .reporting.receipt import say_outcome
from .reporting.reporter import Reporter
from .reporting.site_functions import SiteFunctions
from .settings import Settings
from .signals import visitor_identified
from .visitor.visitors import Visitors

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from blinker import NamedSignal
    from werkzeug.datastructures import Headers

    from .delivery.deliverer import Deliverer
    from .delivery.transport import Transport
    from .reporting.paid_orders import PaidOrders
    from .visitor.tracked_request import TrackedRequest

_T = TypeVar("_T")


@dataclass(kw_only=True, eq=False, repr=False)
class Runtime:
    """What one app needs to capture, report and deliver.

    :param settings: the app's.
    :param functions: the site's own functions.
    :param folder: where the SQLite outbox and the journal live by default; absolute.
    :param config: a Flask app's own; the app may still change its keys and its mode in it.
    :param request_of: makes the request that ``ADROLL_CONSENT``'s callable takes, of an environ.
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
    #: The id of the process in which :meth:`begin` has run.
    _begun_in: int | None = None

    def __post_init__(self, sender: object) -> None:
        settings = self.settings
        self._sender = weakref.ref(sender)
        #: Where the environ of a request has it as this app tracks it.
        self.environ_key: str = f"adroll_flask.request.{id(self)}"
        self.snippet: Snippet = Snippet(settings)
        self._places = Places()
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
        tell_of_unwritable_places(settings, Path(self.folder))

    def is_strict(self) -> bool:
        """Whether programmer errors raise now."""
        of_app = self.config.get("DEBUG") or self.config.get("TESTING") or False
        return of_app if self.settings.strict is None else self.settings.strict

    def signing_keys(self) -> tuple[str | bytes, ...]:
        """The keys that sign records and tokens, newest first: our setting's, else the app's."""
        of_app = [self.config.get("SECRET_KEY"), *(self.config.get("SECRET_KEY_FALLBACKS") or ())]
        keys = tuple(key for key in of_app if isinstance(key, str | bytes) and key)
        return self.settings.secret_key or keys

    def forgive(self, problem: Exception, name: str, reason: str = "") -> None:
        """Count a fault of ours, and let the shop go on; called in an ``except``.

        :raises Exception: *problem*, where programmer errors raise.
        """
        let_through(problem)
        if self.is_strict():
            raise problem
        self.counters.add(name, reason)

    @made_once
    def visitors(self) -> Visitors:
        """What requests share. The keys are read at its first use: apps set ``SECRET_KEY`` late."""
        settings = self.settings
        counters = self.counters
        keys = self.signing_keys()
        if not keys and settings.enabled:
            counters.add("secret_key_missing")
            logger.warning(
                "AdRoll: no %s is set: no visitor is kept from one request to the next, and "
                "there are no tokens [secret-key-missing]",
                "SECRET_KEY or ADROLL_SECRET_KEY" if self.config else "secret_key",
            )
        return Visitors(settings, counters, keys, self.clock, self.request_of)

    def of_visitor(self, work: Callable[[], _T], otherwise: _T) -> _T:
        """What *work* on a visitor returns; after a fault of ours *otherwise*.

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
        self,
        tracked: TrackedRequest,
        status: int,
        headers: Headers,
        *,
        is_buffered: bool,
        is_last: bool = True,
    ) -> OutgoingPage | None:
        """Change a response's *headers*, see :func:`.prepare_response`, and :meth:`conclude`."""
        page = None
        try:
            page = prepare_response(
                tracked,
                status,
                headers,
                tag=self.tag,
                places=self._places,
                is_buffered=is_buffered,
                is_last=is_last,
            )
        except Exception as problem:
            self.leave_alone(problem)
        finally:  # the cookies are sent also where the snippet failed
            if is_last:
                self.conclude(tracked)
        return page

    def put_cookies(self, tracked: TrackedRequest, headers: Headers) -> None:
        """Give a response the cookies for which it waits, see :func:`.put_cookies`, and
        :meth:`conclude`."""
        try:
            put_cookies(tracked, headers)
        finally:
            self.conclude(tracked)

    def leave_alone(self, problem: Exception) -> None:
        """The page goes out as the site made it; called in an ``except``.

        :raises Exception: as of :meth:`forgive`.
        """
        self.forgive(problem, "page_untouched", "fault")
        left_alone(problem)

    def tag(self, tracked: TrackedRequest) -> bytes:
        """The snippet for this request."""
        provider = self.settings.csp_nonce
        nonce = None if provider is None else provider(*self.functions.arguments(tracked.environ))
        return self.snippet.tag(tracked, nonce)

    # -- reports -------------------------------------------------------------------------

    @made_once
    def reporter(self) -> Reporter:
        """Reports the app's events."""
        return Reporter(
            self.settings,
            self.functions,
            self.counters,
            self.clock,
            self.visitors,
            open_outbox=lambda: self.outbox,
            strict=self.is_strict,
            queued=self._queued,
            announce=self.announce,
        )

    def conclude(self, tracked: TrackedRequest) -> None:
        """Send the signal for a record that the response writes, and erase the waiting events of a
        visitor who says no."""
        if tracked.withdrawn:
            self.of_visitor(partial(self.reporter.withdraw, tracked.record_id), None)
        if tracked.written is not None and visitor_identified.receivers:
            self.announce(visitor_identified, visitor=tracked.visitor_of(tracked.written, True))

    def announce(self, signal: NamedSignal, **values: object) -> None:
        """Send one of :mod:`adroll_flask.signals`; a receiver that raises stops nobody."""
        if self.settings.debug:
            say_outcome(signal, values)
        if not signal.receivers:  # most sites have none: this saves each report the rest
            return
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
            amend=lambda event, changes: amend(event, changes, self.reporter.defaults_at({})),
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
        """Compares the shop's own list of paid orders with the outbox, by the hour and the day."""
        from .reporting.paid_orders import PaidOrders

        return PaidOrders(self.reporter, self._site_context)

    def _site_context(self) -> AbstractContextManager[object]:
        """The context for a function of the site's: the app's, or the middleware's."""
        site = self._sender()
        enter: Any = getattr(site, "app_context", None) or getattr(site, "context", nullcontext)
        context: AbstractContextManager[object] = enter()
        return context

    def begin(self) -> None:
        """Start delivery in this process; called with every request.

        So events of an earlier process do not wait for the next sale, and the first order does not
        wait for imports.
        """
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

    def resume(self) -> None:
        """Begin as a server starts up, also after an :meth:`end`.

        What the first request and the first report need is made now, while nobody waits for it.
        """
        self.thread.resume()
        self.begin()
        if self.settings.enabled:
            from .events.build import warm

            warm()
            self.visitors  # noqa: B018 - made at its first use

    def end(self) -> None:
        """Send what waits for its batch, and end the delivery thread, as a server shuts down."""
        if self._begun_in == os.getpid():
            self._begun_in = None
            self.thread.stop()

    def _queued(self) -> None:
        if self.settings.delivery == "sync":
            self.thread.measure()  # no thread does it here
            self.deliverer.flush(timeout=10.0)
            if self.outbox.lookups.take_turn("housekeeping", 60.0):
                self.outbox.admin.keep_house()  # which nobody else does here
            return
        self.thread.nudge()

    def flush(self, timeout: float) -> int:
        """Deliver what is due now; returns how many events still wait.

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

        :param outbox: ``None``: nothing is reported.
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


def exempt_from_csrf(app: Any, blueprint: object) -> None:
    """Exempt our *blueprint* from Flask-WTF's CSRFProtect, where *app* has it.

    The blueprint's endpoints check the origin of a request themselves.
    """
    csrf = app.extensions.get("csrf")
    if hasattr(csrf, "exempt"):
        csrf.exempt(blueprint)

"""The Flask extension: translates between Flask and the runtime, and decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, current_app
from flask.sessions import SecureCookieSessionInterface
from markupsafe import Markup
from werkzeug.wsgi import ClosingIterator

from . import request_state
from .endpoints import answer
from .errors import ConfigurationError, refuse_asgi
from .page.cookies import give_up_cookies
from .page.response import left_alone, whole_again
from .reporting.reporter import PaidOrdersFunction, SiteFunctions
from .runtime import Runtime
from .settings import Settings

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as WerkzeugResponse

    from .delivery.transport import Transport
    from .events.event import Event
    from .reporting.reconciliation import Reconciliation
    from .visitor.tracked_request import TrackedRequest

#: How our endpoints' names begin: their responses are no pages of the site.
_OWN = ("adroll.", "adroll_dashboard.")


class AdRoll:
    """AdRoll for a Flask app: captures visitors, reports conversions, delivers them.

    ::

        adroll = AdRoll()

        def create_app():
            app = Flask(__name__)
            adroll.init_app(app)
            return app

    Configuration is read from ``app.config`` by :meth:`init_app`, once; every key is described
    in ``adroll_flask.settings.Settings``.

    :param app: the app, where there is no factory.
    :param transport: a transport to use instead of requests'.
    :param clock: returns epoch seconds.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._functions = SiteFunctions(known=request_state.known)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set AdRoll up on *app*. Opens no connection, makes no table, starts no thread.

        :raises ConfigurationError: a setting is wrong, *app* has an AdRoll already, or is no WSGI
            app.
        """
        refuse_asgi(app, "init_app")
        if request_state.EXTENSION in app.extensions:
            raise ConfigurationError(
                "init_app",
                "this app has an AdRoll already; remove either AdRoll(app) or init_app(app)",
                slug="set-up-twice",
            )
        # Nothing here may hold on to the app itself: Flask sees to it that an app is freed with
        # its last reference (pallets/flask#3761).
        settings = Settings.from_mapping(app.config)
        runtime = Runtime(
            settings=settings,
            functions=self._functions,
            folder=app.instance_path,
            config=app.config,
            request_of=lambda _environ: request_state.request(),
            sender=app,
            transport=self._transport,
            clock=self._clock,
        )
        app.extensions[request_state.EXTENSION] = runtime
        adapter = _Adapter(runtime)
        app.context_processor(adapter.template_names)
        if settings.enabled:
            # A callable may look into the session, which is not there yet when it is opened.
            mirrors = settings.session == "always" and not callable(settings.consent)
            if mirrors and type(app.session_interface) is SecureCookieSessionInterface:
                app.session_interface = request_state.MirroringSessions(runtime)
            app.register_blueprint(adapter.blueprint(app))
            if earlier := app.after_request_funcs.get(None):
                # Flask calls them in reverse order: those after ours, and this one after all.
                earlier.insert(0, adapter.last)
                adapter.looks_again = True
            app.after_request(adapter.after_request)
            if find_spec("flask_login") is not None:
                from flask_login import user_logged_out

                user_logged_out.connect(adapter.logged_out, app)

    def identity(
        self, function: Callable[[], Mapping[str, Any] | None]
    ) -> Callable[[], Mapping[str, Any] | None]:
        """Set the function that says who is logged in; use it as a decorator.

        It is asked at each report in a request of a visitor who consents, and returns a dict of
        ``email``, ``user_id`` and ``device_id`` (any of them), or ``None``. What the call itself
        gives counts first; what :func:`~adroll_flask.identify` said counts last.

        ::

            @adroll.identity
            def who():
                if current_user.is_authenticated:
                    return {"email": current_user.email, "user_id": current_user.id}

        :raises ConfigurationError: there is one already.
        """
        return self._functions.set_once("identity", function)

    def before_report(
        self, function: Callable[[Event], Event | None]
    ) -> Callable[[Event], Event | None]:
        """Add a function that sees each event before it is kept; use it as a decorator.

        It takes the checked event and returns it, another one (``event.replace(...)``, which is
        checked again) or ``None``: then the event is suppressed. Several are asked in the order in
        which they were added, each with what the one before it returned.
        """
        self._functions.before_report.append(function)
        return function

    def paid_orders(self, function: PaidOrdersFunction) -> PaidOrdersFunction:
        """Set the function that lists the shop's paid orders; use it as a decorator.

        It is asked once an hour for the last three days and once a day for the last fourteen, in
        the app's context, in a thread of its own, by one process of all. What was never reported is
        then a finding of ``flask adroll check`` and the dashboard, with its number and money.

        It takes two aware datetimes and gives a mapping for each order that was paid between them:
        ``order_id`` and, where known, ``value``, ``currency``, ``at`` (when it was paid) and
        ``group``, by which missing orders are counted.

        ::

            @adroll.paid_orders
            def paid(since, until):
                for order in Order.paid_between(since, until):
                    yield {"order_id": order.id, "value": order.total, "at": order.paid_at}

        :raises ConfigurationError: there is one already.
        """
        return self._functions.set_once("paid_orders", function)

    def flush(self, timeout: float = 2.0) -> int:
        """Deliver what is due now; how many events of the current app still wait.

        Outside of a request or a command it needs an app context, which says which app is meant.
        With ``ADROLL_DELIVERY="worker"`` it sends nothing: it takes in what this host's journal
        holds, and counts what waits.

        :param timeout: seconds that this may take at most.
        :raises RuntimeError: there is no app context.
        :raises AdRollError: the outbox cannot be worked with.

        ::

            with app.app_context():
                adroll.flush()
        """
        return request_state.runtime_of(current_app, "flush").flush(timeout)

    def reconcile(
        self,
        orders: Iterable[Mapping[str, Any]],
        *,
        columns: Mapping[str, str] | None = None,
        group: str | None = None,
    ) -> Reconciliation:
        """Compare the shop's paid orders with what was reported; iterate over what it returns.

        :param orders: one mapping an order, with its id and what else is known: value, currency,
            time.
        :param columns: what these are called where it cannot be guessed, such as
            ``{"order_id": "Order no."}``.
        :param group: a column by whose values orders are counted that were never reported.

        ::

            found = adroll.reconcile(paid_orders)
            lost = [order for order in found if order.status == "missing"]
        """
        from .reporting.reconciliation import Reconciliation

        reporter = request_state.runtime_of(current_app, "reconcile").reporter
        return Reconciliation(reporter, orders, columns=columns, group=group)

    def dashboard(
        self,
        app: Flask,
        *,
        access: Callable[[], Any],
        operator: Callable[[], Any] | None = None,
        url_prefix: str = "/adroll-dashboard",
    ) -> None:
        """Put the dashboard into *app*: pages that say whether every paid order reached AdRoll.

        Call it after :meth:`init_app`. Its pages show visitors' data redacted.

        :param access: says who may look; asked at each request, in the request. ``True`` lets in,
            ``False`` does not, and another value is a no that says so. A response that it returns,
            such as a redirect to the login, is sent instead.
        :param operator: says who may also act: send again, drop. Default: nobody.
        :param url_prefix: where it is.
        :raises ConfigurationError: *access* or *operator* is no function, *url_prefix* is no path,
            or *app* has no AdRoll, or a dashboard already.

        ::

            adroll.dashboard(
                app,
                access=lambda: current_user.is_authenticated and current_user.is_staff,
                operator=lambda: current_user.is_admin,
            )
        """
        from .dashboard import mount

        runtime = request_state.runtime_of(app, "dashboard")
        mount(app, runtime, access=access, operator=operator, url_prefix=url_prefix)

    def counters(self) -> dict[str, int]:
        """What happened in this process of the current app, by name and reason.

        Outside of a request or a command it needs an app context, which says which app is meant.

        :raises RuntimeError: there is no app context.

        ::

            with app.app_context():
                adroll.counters()  # {"event_queued": 1, "event_suppressed:consent_refused": 2}
        """
        return request_state.runtime_of(current_app, "counters").counters.snapshot()


class _Adapter:
    """Flask's hooks of one app."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        #: Functions run after ours.
        self.looks_again = False

    # -- our endpoints -------------------------------------------------------------------

    def blueprint(self, app: Flask) -> Blueprint:
        blueprint = Blueprint("adroll", __name__, url_prefix=self._runtime.settings.url_prefix)
        rule: Any = {"methods": ("GET", "POST", "OPTIONS"), "provide_automatic_options": False}
        blueprint.add_url_rule("/<name>", "endpoint", self._answer, **rule)
        if app.url_map.host_matching or app.subdomain_matching:
            # Pages are on any host, of which the rule above has none, or the domain itself.
            rule |= dict.fromkeys(("host", "subdomain"), "<adroll_host>")
            blueprint.add_url_rule("/<name>", "endpoint", self._answer, **rule)

        # Runs before any before_request function, and for our endpoints only: whichever of the
        # two extensions came first, CSRFProtect knows of the exemption in time.
        @blueprint.url_value_preprocessor
        def exempt(_endpoint: str | None, _values: dict[str, Any] | None) -> None:
            csrf = request_state.app().extensions.get("csrf")
            if csrf is not None and hasattr(csrf, "exempt"):
                csrf.exempt(blueprint)

        return blueprint

    def _answer(self, name: str, **_host: str) -> WerkzeugResponse:
        tracked = request_state.tracked(self._runtime)
        response = answer(tracked, self._runtime, name)
        request_state.keep(tracked)
        return response

    def logged_out(self, _app: Flask, **_values: object) -> None:
        """Flask-Login's signal: what ``identify()`` said is no longer of the browser's user."""
        request_state.forget(mirror=False)

    # -- every response ------------------------------------------------------------------

    def after_request(self, response: Response) -> Response:
        context = request_state.context()
        runtime, environ = self._runtime, context.request.environ
        tracked: TrackedRequest | None = environ.get(request_state.TRACKED_REQUEST)
        try:
            runtime.begin()
            # Nothing of ours can change another response, of which this costs nearly nothing.
            concerned = (
                "html" in response.headers.get("Content-Type", "").lower()
                or "adct=" in environ.get("QUERY_STRING", "")
                or response.status_code == 304
                or (tracked is not None and (tracked.viewed or tracked.forgotten))
            )
            if concerned and not (context.request.endpoint or "").startswith(_OWN):
                self._prepare(request_state.tracked(runtime), response)
            if request_state.may_join(context):
                request_state.join(request_state.tracked(runtime))
            else:
                environ.setdefault(request_state.TRACKED_REQUEST, None)
        except Exception as problem:
            # Promise 1: the page goes out as the site made it.
            runtime.forgive(problem, "page_untouched", "fault")
            left_alone(problem)
        return response

    def _prepare(self, tracked: TrackedRequest, response: Response) -> None:
        if response.status_code == 206 and self._runtime.settings.inject:
            whole_again(tracked, response)
        status, is_buffered = response.status_code, not response.direct_passthrough
        tracked.is_last = not self.looks_again
        page = self._runtime.prepare(tracked, status, response.headers, is_buffered=is_buffered)
        if tracked.is_last:
            request_state.keep(tracked)
        if page is not None:
            body: Any = response.response
            if isinstance(body, list | tuple):
                response.response = [page.whole(b"".join(response.iter_encoded()))]
            else:
                page.begin()
                placed = page.stream(response.iter_encoded())
                response.response = ClosingIterator(placed, getattr(body, "close", None))
                response.call_on_close(page.count)

    def last(self, response: Response) -> Response:
        """What says that caches may keep a response may have come after us; the session is yet to
        be saved."""
        tracked: Any = request_state.request().environ.get(request_state.TRACKED_REQUEST)
        try:
            is_prepared = tracked is not None and tracked.refused is not None
            if is_prepared and not give_up_cookies(tracked, response.headers):
                request_state.keep(tracked)
        except Exception as problem:
            self._runtime.forgive(problem, "page_untouched", "fault")
        return response

    # -- templates -----------------------------------------------------------------------

    def template_names(self) -> dict[str, Any]:
        # Also a true global, for macros imported without context; set here and not at start,
        # since looking at jinja_env freezes the app's jinja_options.
        request_state.app().jinja_env.globals.setdefault("adroll_snippet", self.snippet)
        return {"adroll_snippet": self.snippet}

    def snippet(self) -> Markup:
        """``{{ adroll_snippet() }}``: the tag, for sites that place it themselves."""
        runtime, tag = self._runtime, b""
        try:
            if runtime.settings.enabled:
                tracked = request_state.tracked(runtime)
                tracked.snippet_given = True
                tag = runtime.tag(tracked)
        except Exception as problem:  # the nonce's callable is the site's; a mail has no request
            runtime.forgive(problem, "page_untouched", "fault")
            left_alone(problem)
        return Markup(tag.decode("ascii"))  # noqa: S704 - ours

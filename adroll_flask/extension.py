"""The Flask extension: translates between Flask and the runtime, and decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, current_app
from markupsafe import Markup
from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from . import request_state, session_mirror
from .endpoints import answer
from .errors import ConfigurationError, refuse_asgi
from .page.response import OutgoingPage, content_type, is_concerned
from .reporting.site_functions import PaidOrdersFunction, SiteFunctions
from .runtime import Runtime, exempt_from_csrf
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
        self._functions = SiteFunctions(identified=request_state.identified)
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
        # Nothing here may keep a reference to the app: Flask frees an app with its last one
        # (pallets/flask#3761).
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
            app.url_value_preprocessor(adapter.find_sessions)
            app.register_blueprint(adapter.blueprint(app))
            earlier = app.after_request_funcs.get(None)
            if earlier:
                # Flask calls these functions in reverse order. Those that stand here already run
                # after ours; the one at the front runs last.
                earlier.insert(0, adapter.after_all)
                adapter.is_followed = True
            app.after_request(adapter.after_request)
            # It may be there and be none of the site's: a release that this Werkzeug does not fit.
            with suppress(ImportError):
                from flask_login import user_logged_out

                user_logged_out.connect(adapter.logged_out, app)

    def identity(
        self, function: Callable[[], Mapping[str, Any] | None]
    ) -> Callable[[], Mapping[str, Any] | None]:
        """Set the function that says who is logged in; use it as a decorator.

        It is asked at each report in a request of a visitor who consents, and returns a dict of
        ``email``, ``user_id`` and ``device_id`` (any of them), or ``None``. The call's own
        arguments count first, then what the function returns, then what
        :func:`~adroll_flask.identify` was given.

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
        the app's context and a thread of its own, by one of the app's processes. Then ``flask
        adroll check`` and the dashboard tell how many orders were never reported, and their money.

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
        """Deliver what is due now; returns how many events of the current app still wait.

        Outside of a request or a command it needs an app context, which says which app is meant.
        With ``ADROLL_DELIVERY="worker"`` it sends nothing: it takes this host's journal into the
        outbox, and counts the events that wait.

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

        :param orders: a mapping for each order: its id and, where known, value, currency and time.
        :param columns: the names of these columns where they cannot be guessed, such as
            ``{"order_id": "Order no."}``.
        :param group: a column; orders that were never reported are counted by its values.

        ::

            orders = adroll.reconcile(paid_orders)
            missing = [order for order in orders if order.status == "missing"]
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
            ``False`` does not; nor does another value, and the log says so. A response that it
            returns, such as a redirect to the login, is sent instead of the page.
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


def _copy_of(thing: Any) -> Any:
    """A copy of *thing*, with lists of its own. ``copy.copy()`` takes three times as long.

    Attributes are set one by one: Python is slower with an object whose ``__dict__`` was written.
    """
    copied = object.__new__(type(thing))
    for name, value in vars(thing).items():
        setattr(copied, name, value[:] if type(value) is list else value)
    return copied


def _headers_of(response: Response) -> Headers:
    """The *response*'s headers, which a view may have set as a dict or as pairs."""
    headers: Any = response.headers
    if not isinstance(headers, Headers):
        # Pairs also of a mapping that is no dict, which Werkzeug takes from 3.1 on only.
        response.headers = Headers([*headers.items()] if isinstance(headers, Mapping) else headers)
    return response.headers


def _with_headers(response: Response, headers: Headers) -> Response:
    """A copy of *response* with *headers*, or itself where it has the same."""
    if vars(headers) == vars(response.headers):
        return response
    copied: Response = _copy_of(response)
    copied.headers = headers
    return copied


class _Adapter:
    """Flask's hooks of one app."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        #: Functions of the site run after :meth:`after_request`, and :meth:`after_all` after those.
        self.is_followed = False

    # -- the session ---------------------------------------------------------------------

    def find_sessions(self, _endpoint: str | None, _values: dict[str, Any] | None) -> None:
        """Called once, at the first request: a site may set its own sessions after init_app()."""
        app = request_state.app()
        session_mirror.watch(app, request_state.current_session())
        functions = app.url_value_preprocessors[None]
        others = [function for function in functions if function != self.find_sessions]
        # A new list: another thread may be going through the old one.
        app.url_value_preprocessors[None] = others

    # -- our endpoints -------------------------------------------------------------------

    def blueprint(self, app: Flask) -> Blueprint:
        blueprint = Blueprint("adroll", __name__, url_prefix=self._runtime.settings.url_prefix)
        rule: Any = {"methods": ("GET", "POST", "OPTIONS"), "provide_automatic_options": False}
        blueprint.add_url_rule("/<name>", "endpoint", self._answer, **rule)
        if app.url_map.host_matching or app.subdomain_matching:
            # The rule above holds for one host, or for the domain itself; pages are on any host.
            rule |= {"host": "<adroll_host>", "subdomain": "<adroll_host>"}
            blueprint.add_url_rule("/<name>", "endpoint", self._answer, **rule)

        # This runs before any before_request function, and for our endpoints only. So CSRFProtect
        # knows of the exemption in time, whichever of the two extensions was set up first.
        @blueprint.url_value_preprocessor
        def exempt(_endpoint: str | None, _values: dict[str, Any] | None) -> None:
            exempt_from_csrf(current_app, blueprint)

        return blueprint

    def _answer(self, name: str, **_host: str) -> WerkzeugResponse:
        tracked = request_state.tracked(self._runtime)
        response = answer(tracked, self._runtime, name)
        session_mirror.keep(tracked, response.headers)
        # A site may set cookies with the kit's file, too. Its session's comes after every function.
        response.get_wsgi_headers = partial(_private_with_cookies, response)  # type: ignore[method-assign]
        return response

    def logged_out(self, _app: Flask, **_values: object) -> None:
        """Flask-Login's signal: ``identify()`` was given a user who is gone."""
        request_state.forget()

    # -- every response ------------------------------------------------------------------

    def after_request(self, response: Response) -> Response:
        runtime = self._runtime
        request = request_state.request()
        environ = request.environ
        tracked: TrackedRequest | None = environ.get(runtime.environ_key)
        try:
            runtime.begin()
            kind = content_type(_headers_of(response))
            may_change = is_concerned(environ, tracked, response.status_code, kind)
            if may_change and not (request.endpoint or "").startswith(_OWN):
                tracked = tracked or request_state.tracked_in(environ, runtime)
                response = self._prepared(tracked, response)
            request_state.tell_middleware(runtime, environ)
        except Exception as problem:
            runtime.leave_alone(problem)
        return response

    def _prepared(self, tracked: TrackedRequest, response: Response) -> Response:
        """*response* with what it takes of ours, or as it is where it takes nothing.

        A site may send one response to everybody, made as it started or kept in a dict. What one
        visitor's has of ours is in a copy.
        """
        is_last = not self.is_followed
        headers = _copy_of(response.headers)
        page = self._runtime.prepare(
            tracked,
            response.status_code,
            headers,
            is_buffered=not response.direct_passthrough,
            is_last=is_last,
        )
        if is_last:
            session_mirror.keep(tracked, headers)
        if page is None:
            return _with_headers(response, headers)
        response = _copy_of(response)
        response.headers = headers
        _place_snippet(page, response)
        return response

    def after_all(self, response: Response) -> Response:
        """The response gets its cookies where none of the site's functions sees them: one may keep
        the response and send it to others, or may let caches do so.

        Flask saves the session after this.
        """
        tracked = request_state.tracked_before(self._runtime)
        try:
            if tracked is not None and tracked.awaits_cookies:
                headers = _copy_of(_headers_of(response))
                self._runtime.put_cookies(tracked, headers)
                session_mirror.keep(tracked, headers)
                response = _with_headers(response, headers)
        except Exception as problem:
            self._runtime.leave_alone(problem)
        return response

    # -- templates -----------------------------------------------------------------------

    def template_names(self) -> dict[str, Any]:
        # It is a global, too: macros that are imported without context have globals alone. It is
        # set here and not in init_app(): the first look at jinja_env fixes the app's jinja_options.
        request_state.app().jinja_env.globals.setdefault("adroll_snippet", self.snippet)
        return {"adroll_snippet": self.snippet}

    def snippet(self) -> Markup:
        """``{{ adroll_snippet() }}``: the tag, for sites that place it themselves."""
        runtime = self._runtime
        tag = b""
        try:
            if runtime.settings.enabled:
                tracked = request_state.tracked(runtime)
                tracked.snippet_given = True
                tag = runtime.tag(tracked)
        except Exception as problem:
            # The site's csp_nonce failed, or there is no request, as in a mail.
            runtime.leave_alone(problem)
        return Markup(tag.decode("ascii"))  # noqa: S704 - ours


def _place_snippet(page: OutgoingPage, response: Response) -> None:
    body: Any = response.response
    if isinstance(body, list | tuple):
        # Flask makes nearly all bodies of one part.
        html = body[0] if len(body) == 1 else None
        if not isinstance(html, bytes):
            html = b"".join(response.iter_encoded())
        response.response = [page.whole(html)]
        return
    page.begin()
    placed = page.stream(response.iter_encoded())
    response.response = ClosingIterator(placed, getattr(body, "close", None))
    response.call_on_close(page.count)


def _private_with_cookies(response: WerkzeugResponse, environ: dict[str, Any]) -> Headers:
    """The headers of an answer of our endpoints: no shared cache keeps one that sets a cookie."""
    headers = type(response).get_wsgi_headers(response, environ)
    if "Set-Cookie" in headers:
        control = headers.get("Cache-Control", "no-store")
        headers["Cache-Control"] = control.replace("public", "private")
    return headers

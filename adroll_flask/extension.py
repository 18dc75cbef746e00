"""The Flask extension: translates between Flask and the runtime, and decides nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response
from markupsafe import Markup

from . import current
from .caching import Look, look
from .endpoints import identity, kit
from .errors import ConfigurationError
from .page import dress, is_html
from .redaction import describe
from .runtime import Runtime
from .settings import Settings, app_keys

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.wrappers import Response as WerkzeugResponse

    from .client import Transport
    from .events import Event
    from .exchange import Exchange
    from .outbox import Outbox

_LOG = logging.getLogger("adroll_flask")

#: How our endpoints' names begin.
_OWN = "adroll."


class AdRoll:
    """AdRoll for a Flask app: captures visitors, reports conversions, delivers them.

    ::

        adroll = AdRoll()

        def create_app():
            app = Flask(__name__)
            adroll.init_app(app)
            return app

    Configuration is read from ``app.config`` by :meth:`init_app`, once; every key is described
    in :class:`adroll_flask.settings.Settings`.

    :param app: the app, where there is no factory.
    :param outbox: an outbox to use instead of the configured one.
    :param transport: a transport to use instead of requests'.
    :param clock: returns epoch seconds.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        outbox: Outbox | None = None,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._transport = transport
        self._clock = clock
        self._before_report: Callable[[Event], Event | None] | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set AdRoll up on *app*. Opens no connection, makes no table, starts no thread.

        :raises ConfigurationError: a setting is wrong, or *app* has an AdRoll already.
        """
        if current.EXTENSION in app.extensions:
            raise ConfigurationError(
                "init_app",
                "this app has an AdRoll already; remove either AdRoll(app) or init_app(app)",
            )
        # Nothing here may hold on to the app itself: Flask sees to it that an app is freed with
        # its last reference (pallets/flask#3761).
        config = app.config
        settings = Settings.from_mapping(config)
        runtime = Runtime(
            settings,
            folder=app.instance_path,
            keys=lambda: settings.secret_key or app_keys(config),
            strict=lambda: (
                config["DEBUG"] or config["TESTING"] if settings.strict is None else settings.strict
            ),
            request_of=_request_of,
            before_report=lambda: self._before_report,
            sender=app,
            outbox=self._outbox,
            transport=self._transport,
            clock=self._clock,
        )
        app.extensions[current.EXTENSION] = runtime
        _add_commands(app)
        adapter = _Adapter(runtime)
        app.context_processor(adapter.template_names)
        if settings.enabled:
            app.register_blueprint(adapter.blueprint())
            app.after_request(adapter.after_request)

    def before_report(
        self, function: Callable[[Event], Event | None]
    ) -> Callable[[Event], Event | None]:
        """Set the one function that sees each event before it is kept; use it as a decorator.

        It takes the checked event and returns it, another one (``event.replace(...)``, which is
        checked again) or ``None``: then the event is suppressed.
        """
        self._before_report = function
        return function

    def flush(self, timeout: float = 2.0) -> int:
        """Deliver what is due now; how many events of the current app still wait.

        Outside of a request or a command it needs an app context, which says which app is meant.

        :param timeout: seconds that this may take at most.
        :raises RuntimeError: there is no app context.

        ::

            with app.app_context():
                adroll.flush()
        """
        return current.runtime("flush").flush(timeout)

    def counters(self) -> dict[str, int]:
        """What happened in this process of the current app, by name and reason.

        Outside of a request or a command it needs an app context, which says which app is meant.

        :raises RuntimeError: there is no app context.

        ::

            with app.app_context():
                adroll.counters()  # {"event_queued": 1, "event_suppressed:no_consent": 2}
        """
        return current.runtime("counters").counters.snapshot()


class _Adapter:
    """Flask's hooks of one app."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    # -- our endpoints -------------------------------------------------------------------

    def blueprint(self) -> Blueprint:
        blueprint = Blueprint("adroll", __name__, url_prefix=self._runtime.settings.url_prefix)
        blueprint.add_url_rule("/identity", "identity", self._identity, methods=["POST"])
        blueprint.add_url_rule("/<name>", "kit", self._kit)

        # Runs before any before_request function, and for our endpoints only: whichever of the
        # two extensions came first, CSRFProtect knows of the exemption in time.
        @blueprint.url_value_preprocessor
        def exempt(_endpoint: str | None, _values: dict[str, Any] | None) -> None:
            csrf = current.app().extensions.get("csrf")
            if csrf is not None and hasattr(csrf, "exempt"):
                csrf.exempt(blueprint)

        return blueprint

    def _identity(self) -> WerkzeugResponse:
        runtime = self._runtime
        exchange = current.exchange(runtime)
        identified = identity(exchange, runtime.domains)
        if identified.record is not None:
            current.mirror(identified.record)
            runtime.identified(exchange, identified.record)
        if exchange.forgotten:
            current.forget()
        if identified.withdrawn is not None:
            runtime.drop_waiting(identified.withdrawn)
        return identified.response

    def _kit(self, name: str) -> WerkzeugResponse:
        return kit(current.exchange(self._runtime), self._runtime.snippet, name)

    # -- every response ------------------------------------------------------------------

    def after_request(self, response: Response) -> Response:
        request = current.request()
        environ = request.environ
        runtime = self._runtime
        exchange: Exchange | None = environ.get(current.EXCHANGE)
        try:
            runtime.begin()
            seen = look(response.headers)
            if exchange is None:
                if (
                    not is_html(seen.get("content-type"))
                    and "adct=" not in environ.get("QUERY_STRING", "")
                    and response.status_code != 304
                ):
                    # The hot path: nothing of ours can change this response.
                    environ[current.EXCHANGE] = None
                    return response
                exchange = current.exchange(runtime)
            if not (request.endpoint or "").startswith(_OWN):
                self._dress(exchange, response, seen)
        except Exception as problem:
            # Promise 1: the page goes out as the site made it.
            if runtime.strict:
                raise
            runtime.counters.add("page_untouched", "fault")
            _LOG.error("AdRoll left a page alone, a fault of adroll_flask: %s", describe(problem))
        return response

    def _dress(self, exchange: Exchange, response: Response, seen: Look) -> None:
        runtime = self._runtime
        dressed = dress(
            exchange,
            response.status_code,
            response.headers,
            seen,
            domains=runtime.domains,
            tag=self.tag,
            whole=not response.direct_passthrough,
        )
        if dressed.record is not None:
            current.mirror(dressed.record)
            runtime.identified(exchange, dressed.record)
        if dressed.taken_back:
            current.forget()
        if dressed.page is not None:
            body: Any = response.response
            if isinstance(body, list | tuple):
                one = len(body) == 1 and isinstance(body[0], bytes)
                whole = body[0] if one else b"".join(response.iter_encoded())
                response.response = [dressed.page.whole(whole)]
            else:
                close = getattr(body, "close", None)
                response.response = dressed.page.stream(response.iter_encoded(), close)

    # -- templates -----------------------------------------------------------------------

    def template_names(self) -> dict[str, Any]:
        # Also a true global, for macros imported without context; set here and not at start,
        # since looking at jinja_env freezes the app's jinja_options.
        current.app().jinja_env.globals.setdefault("adroll_snippet", self.snippet)
        return {"adroll_snippet": self.snippet}

    def snippet(self) -> Markup:
        """``{{ adroll_snippet() }}``: the tag, for sites that place it themselves."""
        if not self._runtime.settings.enabled:
            return Markup("")
        exchange = current.exchange(self._runtime)
        exchange.snippet_given = True
        return Markup(self.tag(exchange).decode("ascii"))  # noqa: S704 - ours

    def tag(self, exchange: Exchange) -> bytes:
        provider = self._runtime.settings.csp_nonce
        nonce = provider() if provider is not None else None
        return self._runtime.snippet.tag(exchange.script_root, nonce)


def _request_of(environ: WSGIEnvironment) -> object:
    return current.request()


def _add_commands(app: Flask) -> None:
    from .cli import commands

    app.cli.add_command(commands)

"""The Flask extension: translates between Flask and the runtime, and decides nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from flask import Blueprint, Flask, Response, current_app, has_request_context, request
from flask.globals import request_ctx
from markupsafe import Markup

from .context import NOBODY, Known
from .endpoints import identity, kit
from .errors import ConfigurationError, EventError
from .exchange import Exchange
from .page import dress, is_html
from .redaction import describe
from .runtime import Runtime
from .settings import Settings, app_keys
from .visitor import Record, Visitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.wrappers import Response as WerkzeugResponse

    from .client import Transport
    from .events import Event
    from .names import EventName, Product
    from .outbox import Outbox
    from .receipt import Receipt

_LOG = logging.getLogger("adroll_flask")

#: The key of ``app.extensions``.
EXTENSION = "adroll"
#: Where a request's exchange waits in the environ; the middleware looks whether it is there.
EXCHANGE = "adroll_flask.exchange"
#: How our endpoints' names begin.
_OWN = "adroll."
#: The mirror of the visitor's record in the session, for views.
MIRROR = "adroll"
#: Where ``identify()`` keeps hashes in the session.
IDENTITY = "adroll_identity"


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
        if EXTENSION in app.extensions:
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
        app.extensions[EXTENSION] = runtime
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
        return _runtime("flush").flush(timeout)

    def counters(self) -> dict[str, int]:
        """What happened in this process of the current app, by name and reason.

        Outside of a request or a command it needs an app context, which says which app is meant.

        :raises RuntimeError: there is no app context.

        ::

            with app.app_context():
                adroll.counters()  # {"event_queued": 1, "event_suppressed:no_consent": 2}
        """
        return _runtime("counters").counters.snapshot()


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
            csrf = current_app.extensions.get("csrf")
            if csrf is not None and hasattr(csrf, "exempt"):
                csrf.exempt(blueprint)

        return blueprint

    def _identity(self) -> WerkzeugResponse:
        runtime = self._runtime
        exchange = _exchange(runtime)
        identified = identity(exchange, runtime.domains)
        if identified.record is not None:
            _mirror(identified.record)
            runtime.identified(exchange, identified.record)
        if exchange.forgotten:
            _forget_session()
        if identified.withdrawn is not None:
            runtime.drop_waiting(identified.withdrawn)
        return identified.response

    def _kit(self, name: str) -> WerkzeugResponse:
        return kit(_exchange(self._runtime), self._runtime.snippet, name)

    # -- every response ------------------------------------------------------------------

    def after_request(self, response: Response) -> Response:
        environ = request.environ
        runtime = self._runtime
        exchange: Exchange | None = environ.get(EXCHANGE)
        try:
            runtime.begin()
            if exchange is None:
                if (
                    not is_html(response.headers.get("Content-Type"))
                    and "adct=" not in environ.get("QUERY_STRING", "")
                    and response.status_code != 304
                ):
                    # The hot path: nothing of ours can change this response.
                    environ[EXCHANGE] = None
                    return response
                exchange = _exchange(runtime)
            if not (request.endpoint or "").startswith(_OWN):
                self._dress(exchange, response)
        except Exception as problem:
            # Promise 1: the page goes out as the site made it.
            if runtime.strict:
                raise
            runtime.counters.add("page_untouched", "fault")
            _LOG.error("AdRoll left a page alone, a fault of adroll_flask: %s", describe(problem))
        return response

    def _dress(self, exchange: Exchange, response: Response) -> None:
        runtime = self._runtime
        dressed = dress(
            exchange,
            response.status_code,
            response.headers,
            domains=runtime.domains,
            tag=self.tag,
            whole=not response.direct_passthrough,
        )
        if dressed.record is not None:
            _mirror(dressed.record)
            runtime.identified(exchange, dressed.record)
        if dressed.taken_back:
            _forget_session()
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
        current_app.jinja_env.globals.setdefault("adroll_snippet", self.snippet)
        return {"adroll_snippet": self.snippet}

    def snippet(self) -> Markup:
        """``{{ adroll_snippet() }}``: the tag, for sites that place it themselves."""
        if not self._runtime.settings.enabled:
            return Markup("")
        exchange = _exchange(self._runtime)
        exchange.snippet_given = True
        return Markup(self.tag(exchange).decode("ascii"))  # noqa: S704 - ours

    def tag(self, exchange: Exchange) -> bytes:
        provider = self._runtime.settings.csp_nonce
        nonce = provider() if provider is not None else None
        return self._runtime.snippet.tag(exchange.script_root, nonce)


# -- what views call -----------------------------------------------------------------------


class EventFields(TypedDict, total=False):
    """What :func:`report_event` takes beside the event's name; ``docs/events.md`` has the forms."""

    order_id: str | int | None
    value: str | int | float | Decimal | None
    currency: str | None
    products: Sequence[Product | Mapping[str, Any] | object] | None
    product_map: Mapping[str, str] | None
    email: str | Sequence[str] | None
    user_id: str | int | None
    device_id: str | None
    keywords: str | None
    total: str | int | float | Decimal | None
    page_location: str | None
    ip: str | None
    user_agent: str | None
    timestamp: datetime | float | int | None
    external_data: object
    device_os: str | None
    device_type: str | None
    package_app_name: str | None
    package_app_version: str | None
    adct: str | None
    first_party_cookie: str | None
    deduplication_key: str | None
    visitor: Visitor | str | None
    session: Any


def report_event(name: EventName, **fields: Unpack[EventFields]) -> Receipt:
    """Report one of AdRoll's thirteen events for the current visitor, durably and at once.

    :param name: for example ``"addToCart"``.
    :param fields: see ``docs/events.md``. ``visitor`` takes a :class:`Visitor` or the text of
        :meth:`Visitor.token` where there is no browser; ``session`` an SQLAlchemy session on the
        outbox's database, whose commit then is the event's.
    :raises EventError: with ``ADROLL_STRICT`` only: a field is wrong. Otherwise the event is
        kept as a dead letter, and the receipt says why.

    ::

        report_event("addToCart", products=[{"product_id": "mug", "price": "29.95"}])
    """
    runtime = _runtime("report_event")
    exchange, known = None, NOBODY
    if has_request_context() and runtime.settings.enabled:
        exchange = _exchange(runtime)
        if fields.get("visitor") is None:
            known = _known()
    return runtime.report(name, fields, exchange=exchange, known=known)


def report_conversion(**fields: Unpack[EventFields]) -> Receipt:
    """Report a purchase for the current visitor: :func:`report_event` with ``"purchase"``.

    An ``order_id`` is reported once, over reloads, retries, processes and hosts.

    ::

        report_conversion(order_id="1001", value="59.90", currency="EUR", email=user.email)
    """
    return report_event("purchase", **fields)


def identify(
    *,
    email: str | Sequence[str] | None = None,
    user_id: str | int | None = None,
    device_id: str | None = None,
) -> None:
    """Say who the visitor is, after a login: known from now on for this visitor's events.

    Kept in the session; of an e-mail address only hashes, in the forms of ``ADROLL_EMAIL``.

    :raises EventError: with ``ADROLL_STRICT`` only: an argument is wrong.
    """
    runtime = _runtime("identify")
    if not runtime.settings.enabled or not _exchange(runtime).decision.granted:
        return
    from .identifiers import accept_device_id, accept_user_id, email_forms

    known: dict[str, Any] = {}
    try:
        if email:
            forms = tuple(form for form in runtime.settings.email if form != "plain")
            known |= {
                key: values
                for key, values in email_forms(email, forms or ("sha256",)).items()
                if key != "email"
            }
        if user_id is not None:
            known["user_id"] = accept_user_id(user_id)
        if device_id:
            known["device_id"] = accept_device_id(device_id)
    except EventError as problem:
        if runtime.strict:
            raise
        runtime.counters.add("identify_invalid", problem.field.partition("[")[0])
        _LOG.error("AdRoll identify: %s", problem)
        return
    known = {key: value for key, value in known.items() if value}
    session = _session()
    try:
        session[IDENTITY] = {**(session.get(IDENTITY) or {}), **known}
    except RuntimeError:
        # Flask's NullSession: there is no SECRET_KEY.
        if runtime.strict:
            raise
        runtime.counters.add("identify_invalid", "no_session")
        _LOG.error("AdRoll identify: set SECRET_KEY, the session keeps it")


def current_visitor() -> Visitor:
    """What is known of the current request's visitor.

    The page then depends on the visitor: the response gets ``Vary: Cookie``.
    """
    runtime = _runtime("current_visitor")
    if not runtime.settings.enabled:
        return Visitor()
    exchange = _exchange(runtime)
    exchange.viewed = True
    return exchange.visitor()


def forget_visitor() -> int:
    """Forget the current visitor: cookies, session keys and waiting events.

    :returns: how many waiting events were erased.
    """
    runtime = _runtime("forget_visitor")
    if not runtime.settings.enabled:
        return 0
    exchange = _exchange(runtime)
    record = exchange.seen.merged
    exchange.forget()
    _forget_session()
    return runtime.drop_waiting(record)


# -- between Flask and the above -----------------------------------------------------------


def _runtime(call: str) -> Runtime:
    runtime: Runtime | None = current_app.extensions.get(EXTENSION)
    if runtime is None:
        raise ConfigurationError(
            call, "this app has no AdRoll; call AdRoll(app) or adroll.init_app(app) first"
        )
    return runtime


def _exchange(runtime: Runtime) -> Exchange:
    environ = request.environ
    exchange: Exchange | None = environ.get(EXCHANGE)
    if exchange is None:
        exchange = environ[EXCHANGE] = runtime.exchange(environ)
    return exchange


def _request_of(environ: WSGIEnvironment) -> object:
    return request._get_current_object()  # type: ignore[attr-defined]


def _session() -> MutableMapping[str, Any]:
    """The session without marking it as accessed: our looking must not set ``Vary``."""
    found = getattr(request_ctx, "_session", None)
    session: MutableMapping[str, Any] = request_ctx.session if found is None else found
    return session


def _look(key: str) -> Any:
    session = _session()
    # dict.get: the session's own would mark it as accessed in some versions.
    return dict.get(session, key) if isinstance(session, dict) else session.get(key)


def _known() -> Known:
    kept = _look(IDENTITY)
    if not isinstance(kept, dict):
        return NOBODY
    return Known(
        email_sha256=tuple(kept.get("email_sha256") or ()),
        email_md5=tuple(kept.get("email_md5") or ()),
        user_id=kept.get("user_id"),
        device_id=kept.get("device_id"),
    )


def _mirror(record: Record) -> None:
    session = _session()
    if not session and hasattr(current_app, "login_manager"):
        # Flask-Login takes a session that it did not begin for a stolen one; with strong
        # protection it then forgets a remembered user. Such a session is not ours to begin.
        return
    if not current_app.session_interface.is_null_session(session):
        session[MIRROR] = {
            "adct": record.adct,
            "first_party_cookie": record.first_party_cookie,
        }


def _forget_session() -> None:
    session = _session()
    for key in (MIRROR, IDENTITY):
        if _look(key) is not None:
            del session[key]


def _add_commands(app: Flask) -> None:
    from .cli import commands

    app.cli.add_command(commands)

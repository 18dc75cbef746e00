"""The current request, as Flask or the middleware has it: its runtime, its visitor, the session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask, Request, has_app_context, has_request_context
from flask import globals as proxies
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

from .errors import ConfigurationError
from .events.names import KNOWN
from .visitor.tracked_request import TrackedRequest

if TYPE_CHECKING:
    from flask.ctx import RequestContext

    from .runtime import Runtime
    from .visitor.record import Record

_T = TypeVar("_T")

#: The key of ``app.extensions``.
EXTENSION = "adroll"
#: Where the tracked request waits in the environ; the middleware looks whether it is there.
TRACKED_REQUEST = "adroll_flask.request"
#: The mirror of the visitor's record in the session, for views.
_MIRROR = "adroll"
#: Where ``identify()`` keeps hashes in the session.
_IDENTITY = "adroll_identity"
_HASHES = frozenset({"email_sha256", "email_md5"})

# A proxy looks its object up with each attribute, for half a microsecond; these give the object.
app: Callable[[], Flask] = proxies.current_app._get_current_object  # type: ignore[attr-defined]
request: Callable[[], Request] = proxies.request._get_current_object  # type: ignore[attr-defined]
# Flask 3.2 merges the request's context with the app's; asking it for the former name warns.
context: Callable[[], RequestContext] = (
    vars(proxies).get("request_ctx", proxies.app_ctx)._get_current_object
)


class MiddlewareRequest:
    """The request that :class:`~adroll_flask.AdRollMiddleware` is working on, or none at all.

    :param tracked: ``None`` in ``with middleware.context():``.
    """

    __slots__ = ("_token", "identity", "runtime", "tracked")

    def __init__(self, runtime: Runtime, tracked: TrackedRequest | None) -> None:
        self.runtime: Runtime = runtime
        self.tracked: TrackedRequest | None = tracked
        #: Where ``identify()`` keeps what it is told: WSGI has no session, so it is for this
        #: request only.
        self.identity: dict[str, Any] = {}

    def run(self, function: Callable[..., _T], *args: Any, **named: Any) -> _T:
        """Call *function*, code of the wrapped app; ours that it calls find their way here."""
        token = _middleware_request.set(self)
        try:
            return function(*args, **named)
        finally:
            _middleware_request.reset(token)

    # The same for what runs inside ``with``.

    def __enter__(self) -> None:
        self._token = _middleware_request.set(self)

    def __exit__(self, *_raised: object) -> None:
        _middleware_request.reset(self._token)


_middleware_request: ContextVar[MiddlewareRequest | None] = ContextVar(
    "adroll_flask.middleware_request", default=None
)


def find(call: str) -> tuple[Runtime, TrackedRequest | None]:
    """The AdRoll that *call* is meant for, and the current request where there is one.

    :param call: the name of the function that needs it, for the error.
    :raises ConfigurationError: there is no AdRoll here.
    """
    in_flask = has_app_context()
    found: Runtime | None = app().extensions.get(EXTENSION) if in_flask else None
    if found is not None:
        return found, tracked(found) if has_request_context() else None
    under = _middleware_request.get()
    if under is not None:
        return under.runtime, under.tracked
    if in_flask:
        return runtime_of(app(), call), None  # which raises
    raise ConfigurationError(
        call,
        "there is no app here: call it in a request that comes through AdRollMiddleware (Django's "
        "runserver: WSGI_APPLICATION names it) or Flask; outside of one (tasks, threads, scripts) "
        "in `with middleware.context():`, with Flask in `with app.app_context():`",
        slug="no-app",
    )


def runtime_of(app: Any, call: str) -> Runtime:
    """The runtime of *app*: a Flask app, the current one's proxy, or an ``AdRollMiddleware``.

    :param call: the name of the function that needs it, for the error.
    :raises ConfigurationError: the app has none.
    :raises RuntimeError: there is no current app.
    """
    extensions = getattr(app, "extensions", None) or {EXTENSION: getattr(app, "runtime", None)}
    found: Runtime | None = extensions.get(EXTENSION)
    if found is None:
        raise ConfigurationError(
            call,
            "this app has no AdRoll; call AdRoll(app) or adroll.init_app(app) first",
            slug="no-app",
        )
    return found


def tracked(runtime: Runtime) -> TrackedRequest:
    """Flask's current request as it is tracked, the same object all through it."""
    environ = request().environ
    found: TrackedRequest | None = environ.get(TRACKED_REQUEST)
    if found is None:
        found = environ[TRACKED_REQUEST] = TrackedRequest(runtime.visitors, environ)
    return found


# -- the session ---------------------------------------------------------------------------


def known() -> Mapping[str, Any]:
    """What ``identify()`` said of the visitor."""
    kept = _look(_session(), _IDENTITY)
    return {name: kept[name] for name in KNOWN if name in kept} if isinstance(kept, dict) else {}


def remember(said: dict[str, Any]) -> None:
    """Add *said* to what is known of the visitor.

    :raises ConfigurationError: the app has no ``SECRET_KEY`` (Flask's ``NullSession``).
    """
    session = _session()
    if has_request_context() and app().session_interface.is_null_session(session):
        raise ConfigurationError("SECRET_KEY", "set it: the session keeps what identify() says")
    kept = _look(session, _IDENTITY) or {}
    # With a new address: a hash of the former one may be somebody else's.
    gone = frozenset() if _HASHES.isdisjoint(said) else _HASHES
    known = {key: kept[key] for key in kept if key not in gone} | said
    if known != kept:  # else the session would be begun, or saved with each request, for nothing
        session[_IDENTITY] = known


def keep(tracked: TrackedRequest) -> None:
    """Have the session show views what the response leaves of the visitor."""
    if tracked.written is not None:
        _mirror(tracked, tracked.written)
    if tracked.forgotten or tracked.refused:
        forget()


def join(tracked: TrackedRequest) -> None:
    """The site has a session now: views find the visitor in it from the next request on."""
    record = tracked.seen.record
    if record is not None and tracked.decision.granted and not tracked.forgotten:
        _mirror(tracked, record)


def _mirror(tracked: TrackedRequest, record: Record) -> None:
    session, sessions = _session(), app().session_interface
    # Where sessions show the visitor anyway, none is begun for that.
    begin = tracked.visitors.settings.session == "always" and not _guards_sessions(app())
    begin = begin and not isinstance(sessions, MirroringSessions)
    if (session or begin) and not sessions.is_null_session(session):
        session[_MIRROR] = _shown(record)


def _shown(record: Record) -> dict[str, str | None]:
    return {"adct": record.adct, "first_party_cookie": record.first_party_cookie}


def _guards_sessions(app: Flask) -> bool:
    """Whether Flask-Login is there: it takes a session that it did not begin for a stolen one, and
    with strong protection it then forgets a remembered user. Such a session is not ours to begin.
    """
    return hasattr(app, "login_manager")


class MirroringSessions(SecureCookieSessionInterface):
    """Flask's own sessions, which show the visitor to views though nobody has begun a session.

    What is shown is no change: it is saved with what the site saves, and sets no cookie by itself.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        session, environ = super().open_session(app, request), request.environ
        is_known = self._runtime.settings.cookie_name in environ.get("HTTP_COOKIE", "")
        if is_known and session is not None and (session or not _guards_sessions(app)):
            try:
                found = environ[TRACKED_REQUEST] = TrackedRequest(self._runtime.visitors, environ)
                record = found.seen.record
                if record is not None and found.decision.granted:
                    # Past the session's own way, which would mark it as modified.
                    dict.__setitem__(session, _MIRROR, _shown(record))
            except Exception as problem:
                self._runtime.forgive(problem, "mirror_failed")
        return session


def may_join(context: RequestContext) -> bool:
    """True where the site has just begun, or changed, a session that has no mirror yet.

    :param context: Flask's current one.
    """
    found = getattr(context, "_session", None)
    session = context.session if found is None else found
    # Nearly always it is unchanged, which each answer of the site pays for: no further call.
    is_changed: bool = getattr(session, "modified", False)
    return is_changed and bool(session) and not _look(session, _MIRROR)


def forget(*, mirror: bool = True) -> None:
    """Take what ``identify()`` said out of the session, and the *mirror*."""
    session = _session()
    for key in (_IDENTITY, _MIRROR) if mirror else (_IDENTITY,):
        if _look(session, key) is not None:
            del session[key]


def _session() -> MutableMapping[str, Any]:
    """The session without marking it as accessed: our looking must not set ``Vary``."""
    under = _middleware_request.get()
    if under is not None and not (has_request_context() and EXTENSION in app().extensions):
        # A site's own session is none of ours to write into: what is there nobody takes out.
        return under.identity
    of = context()
    found: MutableMapping[str, Any] | None = getattr(of, "_session", None)
    return of.session if found is None else found


def _look(session: MutableMapping[str, Any], key: str) -> Any:
    # dict.get: the session's own would mark it as accessed in some versions.
    return dict.get(session, key) if isinstance(session, dict) else session.get(key)

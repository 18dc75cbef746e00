"""The current request, as Flask or the middleware has it: its runtime, its visitor, the session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flask import Flask, Request, has_app_context, has_request_context
from flask import globals as proxies

from .errors import ConfigurationError
from .events.names import KNOWN
from .runtime import Runtime
from .visitor.tracked_request import TrackedRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask.ctx import RequestContext

_T = TypeVar("_T")

#: The key of ``app.extensions``.
EXTENSION = "adroll"
#: Where ``identify()`` keeps hashes in the session.
_IDENTITY = "adroll_identity"
_HASHES = frozenset({"email_sha256", "email_md5"})

#: Where middleware keeps the app that it wraps: werkzeug's, WhiteNoise's, Paste's, Starlette's and
#: ours; and where Flask, Quart, Starlette and FastAPI keep what is around their own.
_WRAPPED = ("middleware_stack", "app", "application", "wsgi_app", "asgi_app", "_app")
_DEEPEST = 20

# A proxy looks its object up with each attribute, for half a microsecond; these give the object.
app: Callable[[], Flask] = proxies.current_app._get_current_object  # type: ignore[attr-defined]
request: Callable[[], Request] = proxies.request._get_current_object  # type: ignore[attr-defined]
# Flask 3.2 merges the request's context with the app's; asking it for the former name warns.
context: Callable[[], RequestContext] = (
    vars(proxies).get("request_ctx", proxies.app_ctx)._get_current_object
)


#: Seconds after a request's end for which a task that it began reports for its visitor. Background
#: tasks of Starlette, FastAPI and Litestar are over when the app's call returns; Quart's, and
#: what a view leaves to ``asyncio.create_task``, are not: at once would be too soon for a report
#: that waits for a payment provider's answer, and the sale would be nobody's.
_TASKS_LAST: Final = 60.0


class MiddlewareRequest:
    """The request that a middleware of ours is working on, or none at all.

    :param tracked: ``None`` in ``with middleware.context():``.
    """

    __slots__ = ("_token", "ended_at", "identity", "runtime", "tracked")

    def __init__(self, runtime: Runtime, tracked: TrackedRequest | None) -> None:
        self.runtime: Runtime = runtime
        self.tracked: TrackedRequest | None = tracked
        #: When it was over, by the monotonic clock; tasks that it began may last.
        self.ended_at: float | None = None
        #: Where ``identify()`` keeps what it is told: there is no session, so it is for this
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
        # FastAPI runs the two halves of a dependency with ``yield`` in a copy of the context each.
        try:  # noqa: SIM105 - each request would pay for suppress()
            _middleware_request.reset(self._token)
        except ValueError:
            pass
        self.ended_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether what still runs in the request's context no longer belongs to the request.

        A task inherits the context of the request that began it. A long task may do the work of
        many requests; its context is that of the first, whose visitor is not the others'.
        """
        return self.ended_at is not None and time.monotonic() - self.ended_at > _TASKS_LAST


_middleware_request: ContextVar[MiddlewareRequest | None] = ContextVar(
    "adroll_flask.middleware_request", default=None
)


def find(call: str) -> tuple[Runtime, TrackedRequest | None]:
    """The AdRoll that *call* is meant for, and the current request where there is one.

    :param call: the name of the function that needs it, for the error.
    :raises ConfigurationError: there is no AdRoll here.
    """
    in_flask = has_app_context()
    runtime: Runtime | None = app().extensions.get(EXTENSION) if in_flask else None
    if runtime is not None:
        return runtime, tracked(runtime) if has_request_context() else None
    under = _middleware_request.get()
    if under is not None:
        return under.runtime, None if under.is_over else under.tracked
    if in_flask:
        return runtime_of(app(), call), None  # which raises
    raise ConfigurationError(
        call,
        "there is no app here: call it in a request that comes through AdRollMiddleware (Django's "
        "runserver: WSGI_APPLICATION names it), AdRollASGIMiddleware or Flask; outside of one "
        "(tasks, threads, scripts) in `with middleware.context():`, with Flask in `with "
        "app.app_context():`",
        slug="no-app",
    )


def runtime_of(app: Any, call: str) -> Runtime:
    """The runtime of *app*: a Flask app, the current one's proxy, or what has a middleware of
    ours, as :func:`layer_with_adroll` looks for it.

    :param call: the name of the function that needs it, for the error.
    :raises ConfigurationError: the app has none.
    :raises RuntimeError: there is no current app.
    """
    runtime = _runtime(layer_with_adroll(app))
    if runtime is None:
        raise ConfigurationError(
            call,
            "this app has no AdRoll; call AdRoll(app) or adroll.init_app(app) first",
            slug="no-app",
        )
    return runtime


def layer_with_adroll(app: Any) -> Any:
    """Our middleware or the Flask app with an AdRoll: around *app*, or, as FastAPI and Starlette
    have it by ``add_middleware``, within it; ``None``: nowhere."""
    return next((layer for layer in layers(app) if _runtime(layer) is not None), None)


def _runtime(layer: Any) -> Runtime | None:
    extensions: Any = getattr(layer, "extensions", None)
    runtime = getattr(layer, "runtime", None)
    if isinstance(extensions, dict):
        runtime = extensions.get(EXTENSION)
    return runtime if isinstance(runtime, Runtime) else None


def layers(app: Any) -> Iterator[Any]:
    """*app* and what it wraps, from the outside: middleware, as far as it says what it wraps."""
    layer = app
    for _ in range(_DEEPEST):
        if layer is None:
            return
        yield layer
        # FastAPI and Starlette make theirs with the first request.
        build = getattr(layer, "build_middleware_stack", None)
        if build is not None and layer.middleware_stack is None:
            layer.middleware_stack = build()
        wrapped = (getattr(layer, name, None) for name in _WRAPPED)
        layer = next((inner for inner in wrapped if callable(inner)), None)


def tracked(runtime: Runtime) -> TrackedRequest:
    """Flask's current request as it is tracked, the same object all through it."""
    return tracked_in(request().environ, runtime)


def tracked_in(environ: WSGIEnvironment, runtime: Runtime) -> TrackedRequest:
    """The request of *environ* as *runtime*'s app tracks it.

    In one request there may be two apps with an AdRoll each: a view enters the other app's context,
    or lets the other app answer. Each has its own consent and its own keys.
    """
    before: TrackedRequest | None = environ.get(runtime.environ_key)
    if before is not None:
        return before
    environ[runtime.environ_key] = new = TrackedRequest(runtime.visitors, environ)
    return new


def tracked_before(runtime: Runtime) -> TrackedRequest | None:
    """Flask's current request, where something of *runtime*'s has looked at its visitor."""
    return request().environ.get(runtime.environ_key) if has_request_context() else None


def tell_middleware(runtime: Runtime, environ: WSGIEnvironment) -> None:
    """Tell the middleware of ours around this app, if any, that *runtime*'s is at work within it.

    What is between the two may have made an environ of its own, as a bridge from ASGI does. A view
    may also ask an app, its own or another one, for something else than it was asked for itself:
    then there is nothing to tell.

    :param environ: of the request that *runtime*'s app has.
    """
    under = _middleware_request.get()
    if under is None or under.tracked is None or under.runtime is runtime:
        return
    outer = under.tracked
    inner = TrackedRequest(runtime.visitors, environ)
    # What is between may change the path (a locale) or the host (ProxyFix), but hardly both.
    is_of_browser = outer.path == inner.path or outer.host == inner.host
    query = environ.get("QUERY_STRING", "")
    if is_of_browser and outer.environ.get("QUERY_STRING", "") == query:
        outer.is_served_within = True


# -- the session ---------------------------------------------------------------------------


def identified() -> Mapping[str, Any]:
    """What ``identify()`` said of the visitor."""
    kept = _look(current_session(), _IDENTITY)
    if not isinstance(kept, dict):
        return {}
    return {name: value for name, value in kept.items() if name in KNOWN}


def remember(identity: dict[str, Any]) -> None:
    """Add *identity* to what is known of the visitor.

    :raises ConfigurationError: the app has no ``SECRET_KEY`` (Flask's ``NullSession``).
    """
    session = current_session()
    if has_request_context() and app().session_interface.is_null_session(session):
        raise ConfigurationError("SECRET_KEY", "set it: the session keeps what identify() says")
    kept = _look(session, _IDENTITY) or {}
    # With a new address, or as another user: a hash of the former address may be somebody else's.
    is_other = "user_id" in identity and kept.get("user_id") not in (None, identity["user_id"])
    gone = _HASHES if is_other or not _HASHES.isdisjoint(identity) else frozenset()
    updated = {key: kept[key] for key in kept if key not in gone} | identity
    if updated != kept:  # else the session would be begun, or saved with each request, for nothing
        session[_IDENTITY] = updated


def forget() -> bool:
    """Take what ``identify()`` said out of the session; whether there was anything."""
    session = current_session()
    was_there = _look(session, _IDENTITY) is not None
    if was_there:
        del session[_IDENTITY]
    return was_there


def current_session() -> MutableMapping[str, Any]:
    """The session without marking it as accessed: our looking must not set ``Vary``."""
    under = _middleware_request.get()
    if under is not None and not (has_request_context() and EXTENSION in app().extensions):
        # A site's own session is none of ours to write into: what is there nobody takes out.
        return {} if under.is_over else under.identity
    current = context()
    session: MutableMapping[str, Any] | None = getattr(current, "_session", None)
    return current.session if session is None else session


def _look(session: MutableMapping[str, Any], key: str) -> Any:
    # dict.get: the session's own would mark it as accessed in some versions.
    return dict.get(session, key) if isinstance(session, dict) else session.get(key)

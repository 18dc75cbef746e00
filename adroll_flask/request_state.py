"""The current request, as Flask or the middleware has it: its runtime, its visitor, the session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from flask import globals as proxies
from flask import has_app_context, has_request_context
from flask.helpers import get_debug_flag

from .errors import ConfigurationError
from .events.context import NO_IDENTITY, KnownIdentity

if TYPE_CHECKING:
    from flask import Flask, Request
    from flask.ctx import RequestContext

    from .runtime import Runtime
    from .visitor.record import Record
    from .visitor.tracked_request import TrackedRequest

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
_context: Callable[[], RequestContext] = (
    vars(proxies).get("request_ctx", proxies.app_ctx)._get_current_object
)


class MiddlewareRequest:
    """The request that :class:`~adroll_flask.AdRollMiddleware` is working on."""

    __slots__ = ("identity", "runtime", "tracked")

    def __init__(self, runtime: Runtime, tracked: TrackedRequest) -> None:
        self.runtime: Runtime = runtime
        self.tracked: TrackedRequest = tracked
        #: Where ``identify()`` keeps what it is told: WSGI has no session, so it is for this
        #: request only.
        self.identity: dict[str, Any] = {}

    def run(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call *function*, code of the wrapped app; ours that it calls find their way here."""
        token = _middleware_request.set(self)
        try:
            return function(*args)
        finally:
            _middleware_request.reset(token)


_middleware_request: ContextVar[MiddlewareRequest | None] = ContextVar(
    "adroll_flask.middleware_request", default=None
)


def find(call: str) -> tuple[Runtime, TrackedRequest | None]:
    """The AdRoll that *call* is meant for, and the current request where there is one.

    :param call: the name of the function that needs it, for the error.
    :raises ConfigurationError: there is no AdRoll here.
    """
    if has_app_context():
        found: Runtime | None = app().extensions.get(EXTENSION)
        if found is not None:
            return found, tracked(found) if has_request_context() else None
    under = _middleware_request.get()
    if under is not None:
        return under.runtime, under.tracked
    if has_app_context():
        raise _no_extension(call)
    raise ConfigurationError(
        call,
        "there is no app here: call it in a request, in `with app.app_context():` (Celery tasks, "
        "threads, scripts), or in an app that AdRollMiddleware wraps",
        slug="no-app",
    )


def strict_without_runtime() -> bool:
    """Whether a programmer's error raises where no AdRoll says so: in development and in tests."""
    for name in ("FLASK_ADROLL_STRICT", "ADROLL_STRICT"):
        try:
            said = json.loads(os.environ.get(name, "null").lower())
        except ValueError:
            continue
        if said is not None:
            return bool(said)
    if has_app_context() and (app().debug or app().testing):
        return True
    return get_debug_flag() or "PYTEST_CURRENT_TEST" in os.environ


def _no_extension(call: str) -> ConfigurationError:
    return ConfigurationError(
        call,
        "this app has no AdRoll; call AdRoll(app) or adroll.init_app(app) first",
        slug="no-app",
    )


def runtime(call: str) -> Runtime:
    """The current Flask app's runtime.

    :param call: the name of the function that needs it, for the error.
    :raises ConfigurationError: the app has none.
    :raises RuntimeError: there is no app context.
    """
    return runtime_of(app(), call)


def runtime_of(app: Flask, call: str) -> Runtime:
    """The runtime of *app*, likewise."""
    found: Runtime | None = app.extensions.get(EXTENSION)
    if found is None:
        raise _no_extension(call)
    return found


def tracked(runtime: Runtime) -> TrackedRequest:
    """Flask's current request as it is tracked, the same object all through it."""
    environ = request().environ
    found: TrackedRequest | None = environ.get(TRACKED_REQUEST)
    if found is None:
        found = environ[TRACKED_REQUEST] = runtime.tracked(environ)
    return found


# -- the session ---------------------------------------------------------------------------


def known() -> KnownIdentity:
    """What ``identify()`` said of the visitor."""
    kept = _look(_session(), _IDENTITY)
    if not isinstance(kept, dict):
        return NO_IDENTITY
    return KnownIdentity(
        email_sha256=_first(kept.get("email_sha256")),
        email_md5=_first(kept.get("email_md5")),
        user_id=kept.get("user_id"),
        device_id=kept.get("device_id"),
    )


def remember(said: Mapping[str, Any]) -> None:
    """Add *said* to what is known of the visitor.

    :raises RuntimeError: the app has no ``SECRET_KEY`` (Flask's ``NullSession``).
    """
    session = _session()
    kept = dict(session.get(_IDENTITY) or {})
    if not _HASHES.isdisjoint(said):
        # A new address: a hash of the former one may be somebody else's.
        kept = {key: value for key, value in kept.items() if key not in _HASHES}
    session[_IDENTITY] = {**kept, **said}


def _first(kept: Any) -> str | None:
    """The hash of a session; the first of a list, which former versions wrote."""
    if isinstance(kept, list | tuple):
        kept = kept[0] if kept else None
    return kept if isinstance(kept, str) else None


def mirror(record: Record, *, begin: bool) -> None:
    """Show *record* to views, where the session may be written.

    :param begin: a session may be begun for it.
    """
    session = _session()
    if not session and (not begin or hasattr(app(), "login_manager")):
        # Flask-Login takes a session that it did not begin for a stolen one; with strong
        # protection it then forgets a remembered user. Such a session is not ours to begin.
        return
    if not app().session_interface.is_null_session(session):
        session[_MIRROR] = {
            "adct": record.adct,
            "first_party_cookie": record.first_party_cookie,
        }


def may_join() -> bool:
    """True where the site has just begun, or changed, a session that has no mirror yet."""
    session = _session()
    return (
        bool(getattr(session, "modified", False)) and bool(session) and not _look(session, _MIRROR)
    )


def forget_identity() -> None:
    """Take what ``identify()`` said out of the session."""
    _remove(_IDENTITY)


def forget() -> None:
    """Take all of ours out of the session."""
    _remove(_MIRROR, _IDENTITY)


def _remove(*keys: str) -> None:
    session = _session()
    for key in keys:
        if _look(session, key) is not None:
            del session[key]


def _session() -> MutableMapping[str, Any]:
    """The session without marking it as accessed: our looking must not set ``Vary``."""
    if not has_request_context():
        under = _middleware_request.get()
        if under is not None:
            return under.identity
    context = _context()
    found: MutableMapping[str, Any] | None = getattr(context, "_session", None)
    return context.session if found is None else found


def _look(session: MutableMapping[str, Any], key: str) -> Any:
    # dict.get: the session's own would mark it as accessed in some versions.
    return dict.get(session, key) if isinstance(session, dict) else session.get(key)

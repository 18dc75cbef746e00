"""The current request as Flask has it: its app's runtime, its exchange, what the session keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from flask import globals as proxies

from .context import NOBODY, Known
from .errors import ConfigurationError

if TYPE_CHECKING:
    from flask import Flask, Request
    from flask.ctx import RequestContext

    from .exchange import Exchange
    from .record import Record
    from .runtime import Runtime

#: The key of ``app.extensions``.
EXTENSION = "adroll"
#: Where a request's exchange waits in the environ; the middleware looks whether it is there.
EXCHANGE = "adroll_flask.exchange"
#: The mirror of the visitor's record in the session, for views.
_MIRROR = "adroll"
#: Where ``identify()`` keeps hashes in the session.
_IDENTITY = "adroll_identity"

# A proxy looks its object up with each attribute, for half a microsecond; these give the object.
app: Callable[[], Flask] = proxies.current_app._get_current_object  # type: ignore[attr-defined]
request: Callable[[], Request] = proxies.request._get_current_object  # type: ignore[attr-defined]
_context: Callable[[], RequestContext] = proxies.request_ctx._get_current_object  # type: ignore[attr-defined]


def runtime(call: str) -> Runtime:
    """The current app's runtime.

    :param call: the name of the function that needs it, for the error.
    :raises ConfigurationError: the app has none.
    """
    found: Runtime | None = app().extensions.get(EXTENSION)
    if found is None:
        raise ConfigurationError(
            call, "this app has no AdRoll; call AdRoll(app) or adroll.init_app(app) first"
        )
    return found


def exchange(runtime: Runtime) -> Exchange:
    """The current request's exchange, the same one all through it."""
    environ = request().environ
    found: Exchange | None = environ.get(EXCHANGE)
    if found is None:
        found = environ[EXCHANGE] = runtime.exchange(environ)
    return found


# -- the session ---------------------------------------------------------------------------


def known() -> Known:
    """What ``identify()`` said of the visitor."""
    kept = _look(_session(), _IDENTITY)
    if not isinstance(kept, dict):
        return NOBODY
    return Known(
        email_sha256=tuple(kept.get("email_sha256") or ()),
        email_md5=tuple(kept.get("email_md5") or ()),
        user_id=kept.get("user_id"),
        device_id=kept.get("device_id"),
    )


def remember(said: Mapping[str, Any]) -> None:
    """Add *said* to what is known of the visitor.

    :raises RuntimeError: the app has no ``SECRET_KEY`` (Flask's ``NullSession``).
    """
    session = _session()
    session[_IDENTITY] = {**(session.get(_IDENTITY) or {}), **said}


def mirror(record: Record) -> None:
    """Show *record* to views, where the session may be written."""
    session = _session()
    if not session and hasattr(app(), "login_manager"):
        # Flask-Login takes a session that it did not begin for a stolen one; with strong
        # protection it then forgets a remembered user. Such a session is not ours to begin.
        return
    if not app().session_interface.is_null_session(session):
        session[_MIRROR] = {
            "adct": record.adct,
            "first_party_cookie": record.first_party_cookie,
        }


def forget() -> None:
    """Take all of ours out of the session."""
    session = _session()
    for key in (_MIRROR, _IDENTITY):
        if _look(session, key) is not None:
            del session[key]


def _session() -> MutableMapping[str, Any]:
    """The session without marking it as accessed: our looking must not set ``Vary``."""
    context = _context()
    found: MutableMapping[str, Any] | None = getattr(context, "_session", None)
    return context.session if found is None else found


def _look(session: MutableMapping[str, Any], key: str) -> Any:
    # dict.get: the session's own would mark it as accessed in some versions.
    return dict.get(session, key) if isinstance(session, dict) else session.get(key)

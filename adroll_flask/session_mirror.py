"""``session["adroll"]``: the visitor's record as views see it, and its copy in what a site saves.

A view of the record costs nothing until it is read: it is not counted, not iterated and not
stored, and sets no cookie. Where the site saves a session that is not empty, a copy is saved with
it; at opening it is taken out again. The site's own key of that name comes first. No report reads
any of this.

Sessions may be of any class that is a dict, as Flask's and those of its extensions are: those of
the app's interface get a subclass of their own class. Others have no view, and nothing else is
missing.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, has_request_context
from flask.sessions import SecureCookieSessionInterface

from . import request_state
from .page.cookies import keep_private, put_ours_last
from .page.shared_caches import may_be_shared, read_headers

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers
    from werkzeug.wrappers import Response

    from .runtime import Runtime
    from .visitor.tracked_request import TrackedRequest

_KEY: Final = "adroll"
#: Bytes of a session's cookie, name and value, that it may have with the copy: browsers drop a
#: cookie beyond 4,096 (RFC 6265bis, section 5.4), its attributes included in some.
LONGEST_COOKIE: Final = 3800

_Mirror = dict[str, str | None]


# -- the view --------------------------------------------------------------------------------


def _view_of(own: type) -> type:
    """A class of sessions that is *own* to whoever asks for its name, and has the view.

    :raises TypeError: such sessions are no dicts, or take no attributes.
    """
    if not (issubclass(own, dict) and own.__dictoffset__):
        raise TypeError

    class View(own):  # type: ignore[misc]
        __slots__ = ()

        #: The class that the session has without us.
        _adroll_own = own
        #: The copy that was in what the site had saved.
        _adroll_saved: _Mirror | None = None
        #: The site is being asked for the visitor's consent.
        _adroll_hidden = False

        def __getitem__(self, key: Any) -> Any:
            try:
                return super().__getitem__(key)
            except KeyError:
                mirror = _shown(self) if key == _KEY else None
                if mirror is None:
                    raise
                return mirror

        def __contains__(self, key: object) -> bool:
            return super().__contains__(key) or (key == _KEY and _shown(self) is not None)

        def get(self, key: Any, default: Any = None) -> Any:
            if key == _KEY and key in self:
                return self[key]
            return super().get(key, default)

        def __reduce_ex__(self, protocol: Any) -> Any:
            # A pickle is of the site's own class, and has nothing of ours. Protocol 1 says the
            # class; later ones compare it with the object's.
            plain: Any = dict.__new__(own)
            dict.update(plain, self)
            _set(plain, "__dict__", {k: v for k, v in vars(self).items() if k[:7] != "_adroll"})
            return plain.__reduce_ex__(min(protocol, 1))

    return _named_like(own, View)


def _quiet(own: type) -> type:
    """A class of responses that is *own*, and does not warn of a long cookie."""
    return type(own.__name__, (own,), {"__slots__": (), "max_cookie_size": 0})


def _named_like(own: type, subclass: type) -> type:
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(subclass, name, getattr(own, name))
    return subclass


def _runtime_of(app: Flask) -> Runtime | None:
    # Two apps may share what opens their sessions, and one of them have no AdRoll.
    return app.extensions.get(request_state.EXTENSION)


def _set(session: Any, name: str, value: object) -> None:
    # Past the session's own way: some keep attributes among their items.
    object.__setattr__(session, name, value)


def _shown(session: Any) -> _Mirror | None:
    """The mirror as a view of the site's sees it."""
    if session._adroll_hidden:
        return None
    if not has_request_context():  # a test's own
        return session._adroll_saved  # type: ignore[no-any-return]
    runtime = _runtime_of(request_state.app())
    if runtime is None:
        return None
    tracked = request_state.tracked(runtime)
    tracked.viewed = True
    # A site's function that is asked for the consent may look into the session, and finds nothing.
    _set(session, "_adroll_hidden", True)
    try:
        return runtime.of_visitor(lambda: _of_request(tracked, session), None)
    finally:
        _set(session, "_adroll_hidden", False)


def _of_request(tracked: TrackedRequest, session: Any) -> _Mirror | None:
    if tracked.forgotten or not tracked.decision.granted:
        return None
    # What the response has set, where it is saved; else what the request tells.
    record = tracked.written or tracked.record
    if record.adct is None and record.first_party_cookie is None:
        return session._adroll_saved  # type: ignore[no-any-return]
    return {"adct": record.adct, "first_party_cookie": record.first_party_cookie}


# -- opened and saved ------------------------------------------------------------------------


def _watching(own: Any) -> type:
    """A class of session interfaces that shows and saves the mirror, and else is *own*."""

    classes: dict[type, type] = {}

    class Sessions(own):  # type: ignore[misc]
        __slots__ = ()

        #: Classes that were made here, by those that they are of.
        _adroll_classes = classes

        def open_session(self, app: Flask, request: Any) -> Any:
            # Not super(), which each answer of the site would pay for.
            session = own.open_session(self, app, request)
            view = classes.get(type(session))
            if view is None or _KEY in session:
                return _opened(self, app, session)
            session.__class__ = view  # as nearly always: there is nothing in it of ours
            return session

        def make_null_session(self, app: Flask) -> Any:
            return _opened(self, app, super().make_null_session(app))

        def save_session(self, app: Flask, session: Any, response: Response) -> None:
            if not session and not getattr(session, "modified", True):
                own.save_session(self, app, session, response)  # which saves nothing
                return
            save = partial(super().save_session, app, session, response)
            mirror = _to_save(self, app, session, response) if session else None
            if mirror is None:
                save()
            else:
                quiet = _class_for(self, type(response), _quiet)
                if not _is_saved_with(mirror, session, response, quiet, save):
                    count = app.extensions[request_state.EXTENSION].counters.add
                    count("session_mirror", "too_large")
                    save()
            runtime = _runtime_of(app)
            tracked = None if runtime is None else request_state.tracked_before(runtime)
            if tracked is not None and tracked.carries_cookies:
                put_ours_last(tracked, response.headers)

    return _named_like(own, Sessions)


def _class_for(sessions: Any, own: type, make: Callable[[type], type]) -> type:
    classes: dict[type, type] = sessions._adroll_classes
    return classes.get(own) or classes.setdefault(own, make(own))


def watch(app: Flask, session: Any) -> None:
    """Have the *app*'s session interface, whichever it is, show and save the mirror from now on.

    :param session: the one of the current request, which it has opened already.
    """
    sessions: Any = app.session_interface
    runtime: Runtime = app.extensions[request_state.EXTENSION]
    try:
        if not hasattr(sessions, "_adroll_classes"):
            if "session_interface" not in vars(app):  # Flask's own is that of all apps
                sessions = copy(sessions)
            sessions.__class__ = _watching(type(sessions))
            app.session_interface = sessions
        _opened(sessions, app, session)
    except Exception as problem:
        _forgive(runtime, problem)


def _opened(sessions: Any, app: Flask, session: Any) -> Any:
    """*session* with the view, and without the copy that was saved with it."""
    runtime = _runtime_of(app)
    if session is None or runtime is None:
        return session
    try:
        # One that is kept as it is, from one request to the next, has a view already.
        own = getattr(type(session), "_adroll_own", type(session))
        view = _class_for(sessions, own, _view_of)
        saved = dict.get(session, _KEY)
        # With other keys it is the site's own.
        if isinstance(saved, dict) and saved.keys() == {"adct", "first_party_cookie"}:
            dict.pop(session, _KEY)  # which is no change of the site's
            _set(session, "_adroll_saved", saved)
        session.__class__ = view
    except Exception as problem:
        _forgive(runtime, problem)
    return session


def _forgive(runtime: Runtime, problem: Exception) -> None:
    """A session of a kind that takes no other class has no view: nothing else is missing."""
    if not isinstance(problem, TypeError | AttributeError):
        runtime.forgive(problem, "mirror_failed")
    else:
        runtime.counters.add("session_mirror", "unsupported")


def _to_save(sessions: Any, app: Flask, session: Any, response: Response) -> _Mirror | None:
    """What to save of the visitor with what the site saves."""
    runtime = _runtime_of(app)
    if runtime is None or not hasattr(type(session), "_adroll_own"):
        return None
    try:
        # Known is only when Flask's own interface saves: others have other rules.
        is_flasks = isinstance(sessions, SecureCookieSessionInterface)
        if is_flasks and not sessions.should_set_cookie(app, session):
            return None
        if dict.get(session, _KEY) is not None:
            return None
        tracked = request_state.tracked(runtime)
        if may_be_shared(tracked, read_headers(response.headers)):
            return None
        return _of_request(tracked, session)
    except Exception as problem:
        runtime.forgive(problem, "mirror_failed")
        return None


def _is_saved_with(
    mirror: _Mirror, session: Any, response: Response, quiet: type, save: Callable[[], object]
) -> bool:
    """Save the session with *mirror*, and take that out again.

    :param quiet: the response's class, which does not warn of a long cookie.
    :returns: False where its cookie is too long for browsers: it is off the response again.
    """
    before = response.headers.getlist("Set-Cookie")
    usual: Any = type(response)
    dict.__setitem__(session, _KEY, mirror)
    response.__class__ = quiet
    try:
        save()
    finally:
        response.__class__ = usual
        dict.pop(session, _KEY, None)
    lines = response.headers.getlist("Set-Cookie")[len(before) :]
    if all(len(line.partition(";")[0]) - 1 <= LONGEST_COOKIE for line in lines):
        return True
    response.headers.setlist("Set-Cookie", before)
    return False


# -- withdrawn -------------------------------------------------------------------------------


def keep(tracked: TrackedRequest, headers: Headers) -> None:
    """Have the session forget a visitor who is forgotten, or said no: it is saved once without.

    :param headers: the response's. One that a shared cache may keep carries no cookie for our sake.
    """
    if not (tracked.forgotten or tracked.refused) or may_be_shared(tracked, read_headers(headers)):
        return
    session: Any = request_state.current_session()
    had_copy = getattr(session, "_adroll_saved", None) is not None
    if had_copy:
        _set(session, "_adroll_saved", None)
        session.modified = True
    if request_state.forget() or had_copy:
        keep_private(tracked, headers)

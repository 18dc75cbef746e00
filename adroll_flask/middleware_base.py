"""What both middlewares share: settings, the request's calls, our endpoints, what a response takes.

The adapters, :mod:`.middleware` for WSGI and :mod:`.asgi` for ASGI, translate their protocol to
an environ, werkzeug's ``Headers`` and bytes, and back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, Unpack

from flask import Flask
from werkzeug.local import LocalProxy
from werkzeug.wrappers import Request

from . import request_state
from .endpoints import answer
from .errors import ConfigurationError
from .page.response import is_concerned
from .public_functions import cancel_conversion, release_conversion, report_event
from .reporting.site_functions import BeforeReport, PaidOrdersFunction, SiteFunctions
from .request_state import MiddlewareRequest
from .runtime import Runtime
from .settings import Settings, SettingValues
from .visitor.tokens import Visitor
from .visitor.tracked_request import TrackedRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .delivery.transport import Transport

_App = TypeVar("_App")


class BaseMiddleware(Generic[_App]):
    """What ``AdRollMiddleware`` and ``AdRollASGIMiddleware`` have in common.

    :param app: the wrapped app.
    :param before_report: as ``AdRoll.before_report`` takes it, or a list of such functions.
    :param identity: as ``AdRoll.identity`` takes it, but it takes the environ, or the scope.
    :param paid_orders: as ``AdRoll.paid_orders`` takes it.
    :param folder: where the SQLite outbox lives if ``outbox_url`` is not given; default
        ``instance`` below the working directory.
    :param settings: the ``ADROLL_*`` settings in lower case without the prefix.
    :raises ConfigurationError: a setting is wrong, an argument is unknown, the app is of the
        other protocol, or *identity*, *before_report* or ``csp_nonce`` is an ``async def``; with
        ``strict`` also where there is no ``secret_key``.
    """

    #: Refuses an app of the other protocol.
    _refuse_other: ClassVar[staticmethod[[object, str], None]]
    #: The key of the environ under which the site's functions find what they take; ``None``: they
    #: take the environ itself.
    _scope_key: ClassVar[str | None] = None

    def __init__(
        self,
        app: _App,
        *,
        before_report: BeforeReport | Sequence[BeforeReport] = (),
        identity: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None,
        paid_orders: PaidOrdersFunction | None = None,
        folder: str | None = None,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
        **settings: Unpack[SettingValues],
    ) -> None:
        self._refuse_other(app, type(self).__name__)
        self._app = app
        others = BaseMiddleware.__init__.__kwdefaults__ or ()
        checked = Settings.checked(settings, "argument", str, others)
        if checked.strict and checked.enabled and not checked.secret_key:
            raise ConfigurationError(
                "secret_key", "set it: without one no visitor is kept from one request to the next"
            )
        hooks = [before_report] if callable(before_report) else list(before_report)
        functions: dict[str, Sequence[object]] = {"before_report": hooks}
        functions |= {"identity": [identity], "csp_nonce": [checked.csp_nonce]}
        for name, several in functions.items():
            if any(map(iscoroutinefunction, several)):
                raise ConfigurationError(
                    name,
                    "takes a plain function, which nobody awaits. Let it read what a "
                    'middleware has loaded before, such as scope["user"]',
                )
        key = self._scope_key
        self.runtime: Runtime = Runtime(
            settings=self._adapted(checked),
            functions=SiteFunctions(
                hooks,
                identity,
                lambda environ: (environ if key is None else environ[key],),
                paid_orders,
                request_state.identified,
            ),
            folder=os.path.abspath(folder or "instance"),  # a server may change to another one
            request_of=Request,
            sender=self,
            transport=transport,
            clock=clock,
        )

    def _adapted(self, settings: Settings) -> Settings:
        """*settings* as this protocol needs them."""
        return settings

    def context(self) -> AbstractContextManager[None]:
        """Let the package's functions work where there is no request: in tasks, threads, scripts.

        ::

            with middleware.context():
                release_conversion("1001")
        """
        return MiddlewareRequest(self.runtime, None)

    def flush(self, timeout: float = 2.0) -> int:
        """Deliver what is due now; how many events still wait.

        With ``delivery="worker"`` it sends nothing: it takes in what this host's journal holds,
        and counts what waits.

        :param timeout: seconds that this may take at most.
        :raises AdRollError: the outbox cannot be worked with.
        """
        return self.runtime.flush(timeout)

    def dashboard(
        self,
        *,
        access: Callable[[], Any],
        operator: Callable[[], Any] | None = None,
        url_prefix: str = "/adroll-dashboard",
    ) -> WSGIApplication:
        """A WSGI app with the dashboard alone, to be put beside this one's, behind its login.

        The arguments are those of ``AdRoll.dashboard``; *access* and *operator* find the request
        as ``flask.request``.

        :raises ConfigurationError: as ``AdRoll.dashboard``.
        """
        from .dashboard import mount

        app = Flask("adroll_dashboard", static_folder=None)
        mount(app, self.runtime, access=access, operator=operator, url_prefix=url_prefix)
        return app

    def endpoints(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """A WSGI app of our endpoints alone, for ``check``; nothing else is asked of it."""
        name = self._endpoint(environ["PATH_INFO"]) or ""
        return answer(self._begin(environ)[1], self.runtime, name)(environ, start_response)

    # -- for the adapters ----------------------------------------------------------------

    def _begin(self, environ: WSGIEnvironment) -> tuple[MiddlewareRequest, TrackedRequest]:
        """Begin a request."""
        self.runtime.begin()
        if self.runtime.settings.enabled:
            request_state.tell_middleware(self.runtime, environ)
        tracked = TrackedRequest(self.runtime.visitors, environ)
        return MiddlewareRequest(self.runtime, tracked), tracked

    def _endpoint(self, path: str) -> str | None:
        """The name of our endpoint at *path*; ``None``: it is the app's."""
        settings = self.runtime.settings
        prefix = settings.url_prefix + "/"
        is_ours = settings.enabled and path.startswith(prefix)
        return path.removeprefix(prefix) if is_ours else None

    def _offer(
        self, request: MiddlewareRequest, tracked: TrackedRequest, to: MutableMapping[str, Any]
    ) -> None:
        """Put visitor and calls into *to*, the environ or the scope that the app sees."""
        runtime = self.runtime
        # A proxy: cookies are read and consent is asked only where the app looks at the visitor.
        look = tracked.visitor if runtime.settings.enabled else Visitor
        to["adroll.visitor"] = LocalProxy(partial(runtime.of_visitor, look, Visitor()))
        to["adroll.report"] = partial(request.run, report_event)
        to["adroll.release"] = partial(request.run, release_conversion)
        to["adroll.cancel"] = partial(request.run, cancel_conversion)

    def _concerns(self, tracked: TrackedRequest, status: int, kind: str) -> bool:
        """Whether a response of this ``Content-Type`` may take anything of ours."""
        return (
            self.runtime.settings.enabled
            and not tracked.is_served_within
            and is_concerned(tracked.environ, tracked, status, kind)
        )

"""Ways to start a sandbox: in this thread, or beside a test."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

from . import local_only
from .app import API, create_app
from .event_checks import Account
from .faults import fault_from
from .journeys import Record
from .parts import Sandbox
from .server import Server


def make_server(
    app: Flask,
    host: str = "127.0.0.1",
    port: int = 5001,
    *,
    ssl_context: ssl.SSLContext | None = None,
    quiet: bool = True,
) -> Server:
    """Bind a server for a sandbox made by :func:`create_app`.

    :param port: 0 picks a free one.
    :raises local_only.Unsafe: for an address that other machines reach, unless that was allowed.
    """
    sandbox: Sandbox = app.extensions["adroll_sandbox"]
    local_only.check_binding(host, allow_remote=sandbox.allow_remote)
    clock = sandbox.state.clock
    return Server(app, host, port, ssl_context=ssl_context, quiet=quiet, clock=clock)


def serve(
    host: str = "127.0.0.1",
    port: int = 5001,
    *,
    quiet: bool = True,
    announce: Callable[[str], object] | None = None,
    **options: Any,
) -> Record:
    """Serve a sandbox until interrupted and return what it has counted.

    :param host: the address to bind; loopback, unless ``allow_remote=True``.
    :param port: the port.
    :param announce: called with the sandbox's URL once it listens.
    :param options: as for :func:`create_app`.
    """
    app = create_app(**options)
    sandbox: Sandbox = app.extensions["adroll_sandbox"]
    server = make_server(app, host, port, quiet=quiet)
    try:
        if announce is not None:
            announce(server.url)
        server.serve()
    except KeyboardInterrupt:
        pass
    finally:
        sandbox.close()
    return sandbox.state.totals()


class RunningSandbox:
    """A sandbox that runs in a thread of this process; see :func:`running`."""

    def __init__(self, app: Flask, server: Server) -> None:
        self.app = app
        self._server = server
        self._sandbox: Sandbox = app.extensions["adroll_sandbox"]

    @property
    def account(self) -> Account:
        """The account that it accepts: EIDs and token."""
        return self._sandbox.account

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        """Its address without a slash at the end, for example ``http://127.0.0.1:40123``."""
        return self._server.url

    @property
    def api_url(self) -> str:
        """For ``ADROLL_API_URL``."""
        return self.url + API

    @property
    def pixel_url(self) -> str:
        """For ``ADROLL_PIXEL_URL``, with the place for the advertisable EID."""
        return self.url + "/j/{advertisable_eid}/roundtrip.js"

    def url_at(self, host: str) -> str:
        """Return its address under another name, for example ``adroll.example``."""
        return self._server.url_at(host)

    def events(self, event_name: str | None = None, **match: Any) -> list[Record]:
        """Return what the event API was sent, oldest first, whatever the verdict.

        :param match: values that a record must have, for example ``verdict="accepted"``,
            ``order_id="1001"``, ``dry_run=False``.
        """
        if event_name is not None:
            match["event_name"] = event_name
        return self._sandbox.state.events(**match)

    def accepted(self, event_name: str | None = None, **match: Any) -> list[Record]:
        """Return the events that were accepted and were no dry run."""
        return self.events(event_name, verdict="accepted", dry_run=False, **match)

    def purchases(self, **match: Any) -> list[Record]:
        """Return the purchases that were accepted and were no dry run."""
        return self.accepted("purchase", **match)

    def tracked(self) -> list[Record]:
        """Return what pages told the pixel (``adroll.track``, ``identify``)."""
        return self._sandbox.state.tracked()

    def requests(self) -> list[Record]:
        """Return the requests to the event API, with status, outcome and number of events."""
        return self._sandbox.state.requests()

    def clicks(self) -> list[Record]:
        """Return the clicks on the ad, each with its click id."""
        return self._sandbox.state.clicks()

    def totals(self) -> Record:
        return self._sandbox.state.totals()

    def click(self, to: str) -> str:
        """Click on the ad as a browser would and return the URL that it leads to."""
        answer = self.app.test_client().get("/click", query_string={"to": to})
        if answer.status_code != 302:
            raise ValueError("a click may not lead there")
        return str(answer.headers["Location"])

    def fault(self, **spec: Any) -> int:
        """Set a fault, as ``POST /faults`` does, and return its number.

        >>> with running() as adroll:
        ...     number = adroll.fault(status=503, times=2, headers={"Retry-After": "1"})
        """
        fault = fault_from(json.loads(json.dumps(spec)))
        if fault.refuse is not None:
            self._server.refuse(fault.refuse)
            return 0
        return self._sandbox.faults.add(fault).id

    def clear_faults(self, number: int | None = None) -> None:
        """Delete all faults, or one; a port that was closed is opened again."""
        self._sandbox.faults.clear(number)
        if number is None:
            self._server.refuse(0)

    def reset(self) -> None:
        """Forget everything and delete all faults."""
        self.clear_faults()
        self._sandbox.state.clear()

    def wait(
        self, count: int = 1, event_name: str | None = None, *, timeout: float = 5.0, **match: Any
    ) -> list[Record]:
        """Wait until ``count`` events of a kind were accepted and return them.

        :param timeout: seconds.
        :raises TimeoutError: it says how many there were.
        """
        state = self._sandbox.state
        with state.changed:
            state.changed.wait_for(
                lambda: len(self.accepted(event_name, **match)) >= count, timeout
            )
            accepted = self.accepted(event_name, **match)
        if len(accepted) < count:
            what = "event" if count == 1 else "events"
            raise TimeoutError(f"{len(accepted)} of {count} {what} after {timeout:g} s")
        return accepted


@contextmanager
def running(
    port: int = 0,
    *,
    ssl_context: ssl.SSLContext | None = None,
    **options: Any,
) -> Iterator[RunningSandbox]:
    """Run a sandbox in a thread, for tests.

    :param port: 0 picks a free one.
    :param ssl_context: serve TLS with this context.
    :param options: as for :func:`create_app`.

    >>> with running() as adroll:
    ...     adroll.purchases()
    []
    """
    app = create_app(**options)
    sandbox: Sandbox = app.extensions["adroll_sandbox"]
    try:
        server = make_server(app, port=port, ssl_context=ssl_context)
        thread = threading.Thread(target=server.serve, daemon=True, name="adroll-sandbox-accept")
        thread.start()
        try:
            yield RunningSandbox(app, server)
        finally:
            sandbox.close()
            server.stop()
            thread.join(5)
    finally:
        sandbox.close()

"""The sandbox as a Flask application: event API, pixel, ad, live view, JSON for programs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from flask import Flask, Response, request
from jinja2 import PackageLoader

from . import ad, event_api, json_routes, live, local_only, pixel
from .event_checks import Account
from .faults import FAULT, Fault, Faults, FaultyApp
from .journeys import Record
from .parts import Sandbox, error_answer, json_answer
from .state import SandboxState

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_RECORD = "adroll_sandbox.record"
#: At the end of a ``Host``; an IPv6 address stands in brackets.
_PORT = re.compile(r":[0-9]*\Z")
API = "/api"
#: The documented path, and the one of AdRoll's samples.
_API_PATHS = (API, API + "/")


def create_app(
    *,
    account: Account | None = None,
    keep: int = 5000,
    state_file: str | Path | None = None,
    shop_url: str = "http://127.0.0.1:5000/",
    hosts: frozenset[str] = frozenset(),
    strict: bool = False,
    allow_remote: bool = False,
    allow_production: bool = False,
    clock: Callable[[], float] = time.time,
) -> Flask:
    """Make a sandbox.

    :param account: the advertisable, pixel and token that it accepts.
    :param keep: how many events, requests and visitors are kept in full.
    :param state_file: a file in which the state survives a restart.
    :param shop_url: where a click on the ad leads.
    :param hosts: host names beside loopback, ``.test``, ``.example`` and ``.localhost`` under
        which it answers, and to which a click may lead.
    :param strict: refuse what AdRoll's own samples do beside AdRoll's documentation (``token`` in
        another case, ``/api/``, an event that is no array, ``dry_run`` in the event), which
        otherwise gets a warning.
    :param allow_remote: answer other machines too.
    :param allow_production: start even where the environment says that this is production.
    :param clock: the time, epoch seconds.
    :raises local_only.Unsafe: in production.

    >>> app = create_app()
    >>> app.test_client().get("/events").status_code
    200
    """
    local_only.check_stage(allow_production=allow_production)
    app = Flask(__name__, static_folder=None)
    app.jinja_loader = PackageLoader("adroll_flask.sandbox")  # Flask's own reads no zip
    sandbox = Sandbox(
        state=SandboxState(keep=keep, journal=state_file, clock=clock),
        faults=Faults(),
        account=account or Account(),
        shop_url=shop_url,
        hosts=frozenset(host.lower() for host in hosts),
        allow_remote=allow_remote or os.environ.get(local_only.ALLOW_REMOTE) == "1",
        strict=strict,
    )
    app.extensions["adroll_sandbox"] = sandbox
    app.before_request(lambda: _guard(sandbox))
    for number, path in enumerate(_API_PATHS):
        app.add_url_rule(
            path,
            f"api{number}",
            lambda: _api(sandbox),
            methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
            provide_automatic_options=False,
        )
    for part in (pixel, ad, live, json_routes):
        app.register_blueprint(part.blueprint(sandbox))
    app.wsgi_app = FaultyApp(  # type: ignore[method-assign]
        app.wsgi_app,
        sandbox.faults,
        partial(_witness, sandbox),
        immune=frozenset({"/", "/faults", "/events", "/requests", "/live", "/totals"}),
    )
    return app


def _guard(sandbox: Sandbox) -> Response | None:
    """Answer this machine only, and only under local names (DNS rebinding)."""
    if sandbox.allow_remote:
        return None
    # A peer on loopback with a forwarding header is a proxy that lets others in.
    proxied = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    peer = request.environ.get("REMOTE_ADDR") or ""
    if proxied or not local_only.is_loopback(peer):
        return error_answer(
            403,
            "forbidden",
            f"the sandbox answers this machine only; see {local_only.ALLOW_REMOTE}",
        )
    if not local_only.is_local_name(_PORT.sub("", request.host), sandbox.hosts):
        return error_answer(
            403, "forbidden", "the sandbox is not known under this name; see --host-name"
        )
    return None


def _api(sandbox: Sandbox) -> Response:
    environ = request.environ
    record = sandbox.state.start_request(request.method, request.path, _connection(environ))
    environ[_RECORD] = record
    fault = environ.get(FAULT)
    reading = event_api.Reading(strict=sandbox.strict)
    try:
        status, answer = _take(sandbox, record, reading)
    except event_api.RequestRefused as refused:
        status = refused.status
        answer = {"errors": [refused.error]}
    sandbox.state.note(
        record,
        status=status,
        outcome="answered",
        fault=fault.id if fault else None,
        warnings=reading.warnings,
    )
    response = json_answer(answer, status)
    if status == 405:
        response.headers["Allow"] = "POST"
    if status == 401:
        response.headers["WWW-Authenticate"] = "Token"
    return response


def _take(
    sandbox: Sandbox, record: Record, reading: event_api.Reading
) -> tuple[int, dict[str, Any]]:
    event_api.check_path(request.path, reading)
    if request.method != "POST":
        raise event_api.RequestRefused(405, "method", "the event API takes POST", "method")
    event_api.authorise(request.headers.get("Authorization"), sandbox.account, reading)
    query = parse_qs(request.query_string.decode("latin-1"), keep_blank_values=True)
    account, dry_run = event_api.check_query(query, sandbox.account)
    record["dry_run"] = dry_run
    gzipped = record["gzip"] = event_api.check_type(
        request.headers.get("Content-Type"), request.headers.get("Content-Encoding")
    )
    body = request.stream.read(event_api.MOST_BYTES + 1)
    record["bytes"] = len(body)
    events = event_api.parse(event_api.unpack(body, gzipped=gzipped), reading)
    record["events"] = len(events)
    now = sandbox.state.clock()
    batch = [
        event_api.judge(event, account=account, dry_run=dry_run, now=now, reading=reading)
        for event in events
    ]
    record["dry_run"] = dry_run = all(judged.dry_run for judged in batch)
    sandbox.state.add_batch(batch, request=record["id"])
    if errors := event_api.errors(batch):
        return 400, {"errors": errors[:100]}
    return 200, {"results": {"received": len(events), "dry_run": dry_run}}


def _witness(
    sandbox: Sandbox, environ: WSGIEnvironment, fault: Fault, outcome: str, status: int | None
) -> None:
    """Keep what a fault did to a request to the event API."""
    if environ["PATH_INFO"] not in _API_PATHS:
        sandbox.state.touch()
        return
    record = environ.get(_RECORD)
    if record is None:
        record = sandbox.state.start_request(
            environ["REQUEST_METHOD"], environ["PATH_INFO"], _connection(environ)
        )
    sandbox.state.note(record, status=status, outcome=outcome, fault=fault.id)


def _connection(environ: WSGIEnvironment) -> str:
    """Name the connection, so that a test sees whether it was used again."""
    return f"{environ.get('REMOTE_ADDR')}:{environ.get('REMOTE_PORT')}"

"""Faults on demand: what can go wrong between a shop and AdRoll, said in one JSON object."""

from __future__ import annotations

import fnmatch
import io
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from flask import Response

from . import event_api, event_checks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Key in the WSGI environ: a callable that takes seconds and closes the listening socket for so
#: long, so that connections are refused.
REFUSE = "adroll_sandbox.refuse"
#: Key in the WSGI environ: the fault that met this request.
FAULT = "adroll_sandbox.fault"


class Dropped(ConnectionResetError):
    """The connection is to be reset without an answer."""


@dataclass(slots=True)
class Fault:
    """One fault. Which requests it meets, then what it does to them."""

    id: int = 0
    #: Path, with ``*`` for anything: ``/api``, ``/j/*``.
    path: str = "/api"
    method: str | None = None
    #: Only requests that carry an event with this order id, or this name.
    order_id: str | None = None
    event_name: str | None = None
    #: Requests that are let through first.
    skip: int = 0
    #: For so many requests; ``None``: until deleted.
    times: int | None = None
    #: For so many seconds; ``None``: until deleted.
    seconds: float | None = None

    #: Seconds of waiting before anything else.
    latency: float = 0.0
    #: ``"before"``: the connection is reset before the body is read; ``"after"``: the batch is
    #: taken first.
    reset: str | None = None
    #: Seconds during which nothing is answered, then a reset.
    hang: float | None = None
    #: Seconds during which each connection is reset at once.
    offline: float | None = None
    #: Seconds during which the port is closed: connections are refused. For every path.
    refuse: float | None = None
    #: The answer instead of the sandbox's own.
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: A text; or an object, a list or a number, which is sent as JSON.
    body: Any = None
    content_type: str | None = None
    #: With ``status``, ``body`` or ``hang``: whether the sandbox judges and takes the batch first.
    take: bool = False
    #: The answer's second half is never sent.
    truncate: bool = False
    #: For the pixel: ``"never"``, or seconds until ``get_cookie`` answers.
    get_cookie: str | float | None = None
    #: For the pixel's consent check: ``"ask"``, the visitor has to be asked.
    consent: str | None = None
    #: Requests met so far.
    met: int = 0


class BadFault(ValueError):
    """A description of a fault that cannot be understood."""


_KINDS: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "method": (str,),
    "order_id": (str,),
    "event_name": (str,),
    "skip": (int,),
    "times": (int,),
    "seconds": (int, float),
    "latency": (int, float),
    "reset": (str,),
    "hang": (int, float),
    "offline": (int, float),
    "refuse": (int, float),
    "status": (int,),
    "headers": (dict,),
    "body": (str, dict, list, int, float),
    "content_type": (str,),
    "take": (bool,),
    "truncate": (bool,),
    "get_cookie": (str, int, float),
    "consent": (str,),
}
_LONGEST = 3600.0


def fault_from(spec: Any) -> Fault:
    """Make a fault of a JSON object.

    :raises BadFault: it names the key and what it takes.
    """
    if not isinstance(spec, dict):
        raise BadFault("a fault is a JSON object")
    value: Any
    for key, value in spec.items():
        kinds = _KINDS.get(key)
        if kinds is None:
            raise BadFault(f"{key}: there is no such key; there are {', '.join(_KINDS)}")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise BadFault(f"{key}: takes {' or '.join(kind.__name__ for kind in kinds)}")
        if kinds == (int, float) and not 0 <= cast(float, value) <= _LONGEST:
            raise BadFault(f"{key}: takes 0 to {_LONGEST:.0f} seconds")
    fault = Fault(**spec)
    if fault.reset not in (None, "before", "after"):
        raise BadFault('reset: takes "before" or "after"')
    if fault.status is not None and not 200 <= fault.status <= 599:
        raise BadFault("status: takes 200 to 599")
    if (fault.times is not None and fault.times < 1) or fault.skip < 0:
        raise BadFault("times: takes 1 or more; skip: 0 or more")
    if isinstance(fault.get_cookie, str) and fault.get_cookie != "never":
        raise BadFault('get_cookie: takes "never" or seconds')
    if fault.consent not in (None, "ask"):
        raise BadFault('consent: takes "ask"')
    for name, value in fault.headers.items():
        if not isinstance(value, str) or not (name + value).isprintable():
            raise BadFault("headers: takes an object of plain texts")
    if fault.offline is not None:
        fault.seconds = fault.offline
    return fault


class Faults:
    """The faults that are set, in order; the first that meets a request is done to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[tuple[Fault, float]] = []
        self._next = 1
        #: Set while nothing may go on waiting: replaced whenever the faults are deleted.
        self._released = threading.Event()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            fault.id = self._next
            self._next += 1
            self._faults.append((fault, time.monotonic()))
        return fault

    def list(self) -> list[dict[str, Any]]:
        """Describe the faults that are set; ``left`` is how many seconds each has to go."""
        with self._lock:
            now = time.monotonic()
            return [
                {
                    **asdict(fault),
                    "left": None if fault.seconds is None else since + fault.seconds - now,
                }
                for fault, since in self._faults
                if not _over(fault, since)
            ]

    def clear(self, number: int | None = None) -> None:
        """Delete all faults, or one; requests that wait because of a fault go on."""
        with self._lock:
            self._faults = [
                pair for pair in self._faults if number is not None and pair[0].id != number
            ]
            self._released.set()
            self._released = threading.Event()

    def wait(self, seconds: float) -> None:
        self._released.wait(seconds)

    def meet(self, method: str, path: str, body: Callable[[], bytes]) -> Fault | None:
        """Return the fault for this request, counted; ``body`` is called only when one asks."""
        with self._lock:
            self._faults = [pair for pair in self._faults if not _over(*pair)]
            pending = [pair[0] for pair in self._faults if _fits(pair[0], method, path)]
        if not pending:
            return None
        needs_body = any(fault.order_id or fault.event_name for fault in pending)
        events = _events(body()) if needs_body else []
        with self._lock:
            for fault in pending:
                if not _about(fault, events) or (fault.times is not None and fault.times < 1):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.met += 1
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


def _over(fault: Fault, since: float) -> bool:
    lapsed = fault.seconds is not None and time.monotonic() - since >= fault.seconds
    return lapsed or (fault.times is not None and fault.times < 1)


def _fits(fault: Fault, method: str, path: str) -> bool:
    # The event API answers under /api/ as well.
    paths = (path, path.removesuffix("/"))
    fits = any(fnmatch.fnmatchcase(form, fault.path) for form in paths)
    return fits and (fault.method or method) == method


def _events(body: bytes) -> list[Any]:
    """Read the events leniently: a fault may be about a body that is itself at fault."""
    try:
        value = json.loads(event_api.unpack(body, gzipped=body[:2] == b"\x1f\x8b"))
    except (ValueError, RecursionError, event_api.RequestRefused):
        return []
    return value if isinstance(value, list) else [value]


def _about(fault: Fault, events: Iterable[Any]) -> bool:
    if fault.order_id is None and fault.event_name is None:
        return True
    for event in events:
        name, order = event_checks.name_and_order(event)
        if fault.order_id in (None, order) and fault.event_name in (None, name):
            return True
    return False


#: Told of a request that a fault ended or answered: its environ, the fault, what became of it, and
#: the status of the answer, if any.
Witness = Callable[["WSGIEnvironment", Fault, str, int | None], None]


class FaultyApp:
    """WSGI middleware that does the faults to the requests they are for."""

    def __init__(
        self, app: WSGIApplication, faults: Faults, witness: Witness, immune: frozenset[str]
    ) -> None:
        self._app = app
        self._faults = faults
        self._witness = witness
        self._immune = immune

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path in self._immune:
            return self._app(environ, start_response)
        fault = self._faults.meet(environ["REQUEST_METHOD"], path, lambda: _keep_body(environ))
        if fault is None:
            return self._app(environ, start_response)
        environ[FAULT] = fault
        self._faults.wait(fault.latency)
        if fault.offline is not None or fault.reset == "before":
            raise self._dropped(environ, fault, "reset before reading")
        answers = fault.status is not None or fault.body is not None
        takes = fault.take or not (answers or fault.hang is not None)
        answer = _run(self._app, environ) if takes else Response()
        if takes and fault.reset == "after":
            raise self._dropped(environ, fault, "reset after taking")
        if fault.hang is not None:
            self._faults.wait(fault.hang)
            raise self._dropped(environ, fault, "hung after taking" if takes else "hung")
        if answers:
            answer = _answer_of(fault)
        answer.headers.extend(fault.headers)
        body = answer.get_data()
        answer.headers["Content-Length"] = str(len(body))
        outcome = "answered"
        if fault.truncate:
            outcome = "truncated"
            answer.response = [body[: len(body) // 2]]
        self._witness(environ, fault, outcome, answer.status_code)
        return answer(environ, start_response)

    def _dropped(self, environ: WSGIEnvironment, fault: Fault, outcome: str) -> Dropped:
        self._witness(environ, fault, outcome, None)
        return Dropped(outcome)


def _keep_body(environ: WSGIEnvironment) -> bytes:
    # Bounded: the server's stream ends at Content-Length, and what is longer than the API takes
    # is refused there.
    body = environ["wsgi.input"].read(event_api.MOST_BYTES + 1)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return bytes(body)


def _run(app: WSGIApplication, environ: WSGIEnvironment) -> Response:
    """Return the sandbox's own answer; werkzeug's ways to it hand the app a copy of *environ*."""
    answer: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        answer.update(status=status, headers=headers)

    chunks = app(environ, start_response)
    try:
        body = b"".join(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    return Response(body, **answer)


def _answer_of(fault: Fault) -> Response:
    status = fault.status or 200
    body = fault.body
    kind = "text/html; charset=utf-8" if isinstance(body, str) else "application/json"
    if body is None:
        body = {"errors": [{"message": "a fault on demand", "code": "fault", "field": ""}]}
        if status < 300:
            body = {"results": {}}
    text = body if isinstance(body, str) else json.dumps(body)
    return Response(text, status=status, content_type=fault.content_type or kind)

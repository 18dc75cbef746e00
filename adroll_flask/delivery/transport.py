"""One POST over the network: what came back, or why nothing did and whether it may have been taken.

A request of which no byte went out was *surely* not taken, and can be sent again. Of any other one
that is *unsure*: it may have been taken. An exception's type does not tell which: urllib3's read
time-out and its TLS error occur both before and after the request leaves. So the connection itself
notes when the request begins.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager

from adroll_flask.errors import DeliveryError, causes
from adroll_flask.forks import PerProcess
from adroll_flask.host_names import is_loopback

#: Bytes of an answer that are read; what AdRoll says fits many times over.
MAX_BODY = 65_536
#: Seconds after which an idle kept connection is not trusted any more: many servers close theirs
#: after a minute or less, and a request that meets such a close is unsure.
MAX_IDLE = 15.0


class Timeouts(NamedTuple):
    """Seconds: to connect, between two reads, and for the whole answer."""

    connect: float = 5.0
    read: float = 15.0
    total: float = 25.0


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. ``headers`` have lower-case names; ``body`` is at most :data:`MAX_BODY`."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    #: The body ended early, or could not be read in time.
    truncated: bool = False


class NoAnswer(DeliveryError):
    """No answer came.

    :param reason: a short name such as ``"refused"``.
    :param sure: True where no byte of the request left, so that it was certainly not taken.
    """

    def __init__(self, reason: str, *, sure: bool) -> None:
        super().__init__(reason)
        self.sure = sure


class Transport(Protocol):
    """Sends one POST; tests give their own."""

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send *body* and return the answer whatever its status.

        :raises NoAnswer: there is none.
        """


class _Connection:
    """A connection that is kept from one request to the next, and how far its request is."""

    def __init__(self) -> None:
        #: When its last request began, by ``time.monotonic()``, as the two deadlines below.
        self.used: float = 0.0
        #: Whether its connections tell when a request begins: else each may have begun.
        self.tells = True
        self.has_begun = False
        #: When the request has to begin at the latest, and when the answer has to be there.
        self.begin_by: float = 0.0
        self.until: float = 0.0
        self.session: requests.Session = requests.Session()
        self.session.trust_env = False
        self.session.headers.clear()
        # A cookie of AdRoll's would tie the events of all visitors to one another.
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, _MarkingAdapter(self))


class RequestsTransport:
    """The network, through one :class:`requests.Session` for each request that is under way.

    Redirects are not followed, since they would carry the token elsewhere. TLS is always
    verified; the usual environment variables may name another CA bundle and a proxy, but a
    ``.netrc`` is not read, because requests would put its password in the token's place.

    :param timeouts: of each request.
    """

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        self._timeouts = Timeouts() if timeouts is None else timeouts
        #: Connections that no request uses at the moment, the one that was used last at the end. A
        #: forked child leaves its parent's connections alone, and does not close them.
        self._idle = PerProcess(list[_Connection])

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """See :meth:`Transport.send`."""
        timeout = self._timeouts
        connection = self._take()
        connection.has_begun = not connection.tells
        connection.used = time.monotonic()
        # The time to connect comes on top of the time for the whole answer.
        connection.until = connection.used + timeout.connect + timeout.total
        connection.begin_by = connection.until - timeout.read
        try:
            with connection.session.post(
                url,
                data=body,
                headers=dict(headers),
                timeout=(timeout.connect, timeout.read),
                allow_redirects=False,
                stream=True,
                # requests' own two variables, which trust_env=False would leave out. Neither can
                # switch verification off: an empty one is ignored and a wrong path fails.
                verify=os.environ.get("REQUESTS_CA_BUNDLE")
                or os.environ.get("CURL_CA_BUNDLE")
                or True,
                proxies=_proxies(url),
            ) as answer:
                names = {name.lower(): value for name, value in answer.headers.items()}
                response = Response(answer.status_code, names, *_body_of(answer.raw))
        # requests' own errors are OSErrors. urllib3 raises a ValueError for a URL or a proxy that
        # it cannot use.
        except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
            reason = _failure_of(error, has_begun=connection.has_begun)
        else:
            self._idle.own().append(connection)
            return response
        # Outside the handler, so that nothing is chained: requests' exceptions carry the request
        # with its Authorization header.
        connection.session.close()
        raise NoAnswer(reason, sure=not connection.has_begun)

    def _take(self) -> _Connection:
        """The idle line that was used last, or a new one."""
        idle = self._idle.own()
        try:
            connection = idle.pop()
        except IndexError:
            return _Connection()
        if time.monotonic() - connection.used > MAX_IDLE:
            connection.session.close()  # it opens another connection
        return connection

    def close(self) -> None:
        """Close the connections that no request uses."""
        idle = self._idle.own()
        while idle:
            idle.pop().session.close()


def _proxies(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        # A proxy would be given the token in the clear.
        return {}
    return dict(requests.utils.get_environ_proxies(url, no_proxy=None))


def _body_of(raw: Any) -> tuple[bytes, bool]:
    """The body's first :data:`MAX_BODY` bytes, and whether it broke off."""
    body = b""
    try:
        while part := raw.read(min(16_384, MAX_BODY - len(body)), decode_content=False):
            body += part
    except (urllib3.exceptions.HTTPError, HTTPException, OSError):
        return body, True
    return body, False


def _failure_of(error: BaseException, *, has_begun: bool) -> str:
    """A short name for what happened, from a fixed set."""
    chain = list(causes(error))

    def among(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in chain)

    timed_out = among(TimeoutError, urllib3.exceptions.TimeoutError)
    if has_begun:
        return "read_timeout" if timed_out else "reset"
    # requests raises a bare OSError where the CA bundle that the environment names is not there.
    no_bundle = isinstance(error, OSError) and "CA certificate bundle" in str(error)
    reasons = {
        # urllib3's error of an unknown name is one of its time-outs as well.
        "dns": among(urllib3.exceptions.NameResolutionError, socket.gaierror),
        "refused": among(ConnectionRefusedError),
        "proxy": isinstance(error, requests.exceptions.ProxyError),
        "connect_timeout": timed_out,
        "tls": among(requests.exceptions.SSLError, urllib3.exceptions.SSLError) or no_bundle,
    }
    return next((reason for reason, is_it in reasons.items() if is_it), "unreachable")


class _MarkingAdapter(HTTPAdapter):
    """An adapter whose connections tell when a request begins and keep its deadline."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._pools = _pool_classes(connection)
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._give_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        self._give_pools(manager)
        return manager

    def _give_pools(self, manager: Any) -> None:
        """Let *manager* make our connections, and note where this urllib3 makes others."""
        manager.pool_classes_by_scheme = self._pools
        pool = PoolManager.connection_from_host(manager, "localhost", 80, "http")
        if not isinstance(pool, self._pools["http"]):
            self._connection.tells = False


def _pool_classes(connection: _Connection) -> dict[str, type[HTTPConnectionPool]]:
    class TimedResponse(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(cast("Any", _Timed(sock, connection.until)), *args, **kwargs)

        def _read_status(self) -> tuple[str, int, str]:
            # Any number of 1xx may come before the answer (RFC 9110, section 15.2: "A client MUST
            # be able to parse one or more 1xx responses"), 103 with hints as of a CDN's. Python
            # skips 100 alone and would take the first other one for the answer.
            version, status, reason = cast("Any", super())._read_status()
            interim = 100 < status < 200 and status != 101
            return version, 100 if interim else status, reason

    class Plain(HTTPConnection):
        response_class = TimedResponse

        def endheaders(self, *args: Any, **kwargs: Any) -> None:
            if self.sock is None:
                self.connect()
            # Each address of a host name may take the whole time-out. With too little time left for
            # the answer, what AdRoll took would be unsure.
            if time.monotonic() > connection.begin_by:
                raise TimeoutError
            connection.has_begun = True
            super().endheaders(*args, **kwargs)

    class Secure(HTTPSConnection, Plain):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Timed(io.RawIOBase):
    """A socket as Python reads an answer from it, up to a deadline.

    A socket's time-out starts anew with each byte; a server that trickles its answer would keep a
    request open past its lease, and another worker would send the batch again.
    """

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._until = until
        self._patience = sock.gettimeout()

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the answer took too long")
        patience = self._patience
        self._sock.settimeout(remaining if patience is None else min(remaining, patience))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

"""One POST over the network: what came back, or why nothing did and whether it may have been taken.

The difference that everything above rests on is *sure* or *unsure*: a request of which no byte
went out can be sent again without a thought, any other may have been taken. It is not read off an
exception's type, since both urllib3's read time-out and its TLS error occur before and after the
request leaves; the connection itself notes when the request begins.
"""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

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


class _Thread(threading.local):
    """One thread's session, and how far its present request has come."""

    session: requests.Session | None = None
    used: float = 0.0
    begun: bool = False
    #: When it has to begin at the latest, and when the answer has to be there.
    begin_by: float = 0.0
    until: float = 0.0


class RequestsTransport:
    """The network, through one :class:`requests.Session` per thread and process.

    Redirects are not followed, since they would carry the token elsewhere. TLS is always
    verified; the usual environment variables may name another CA bundle and a proxy, but a
    ``.netrc`` is not read, because requests would put its password in the token's place.

    :param timeouts: of each request.
    """

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        self._timeouts = Timeouts() if timeouts is None else timeouts
        # A forked child leaves its parent's connections alone, and does not close them.
        self._threads = PerProcess(_Thread)

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """See :meth:`Transport.send`."""
        timeout, env = self._timeouts, os.environ
        mine, now = self._threads.own(), time.monotonic()
        if now - mine.used > MAX_IDLE:
            self.close()
        # The answer's clock starts with the call; connecting has its own, shorter one.
        mine.begun, mine.used, mine.until = False, now, now + timeout.connect + timeout.total
        mine.begin_by = mine.until - timeout.read
        session = mine.session = mine.session or _session(mine)
        try:
            with session.post(
                url,
                data=body,
                headers=dict(headers),
                timeout=(timeout.connect, timeout.read),
                allow_redirects=False,
                stream=True,
                # requests' own two variables, which trust_env=False would leave out. Neither can
                # switch verification off: an empty one is ignored and a wrong path fails.
                verify=env.get("REQUESTS_CA_BUNDLE") or env.get("CURL_CA_BUNDLE") or True,
                proxies=_proxies(url),
            ) as answer:
                said = {name.lower(): value for name, value in answer.headers.items()}
                return Response(answer.status_code, said, *_read(answer.raw))
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            HTTPException,
            OSError,
            ValueError,  # urllib3 on a URL or a proxy setting that it cannot use
        ) as error:
            reason = _reason(error, begun=mine.begun)
        # Outside the handler, so that nothing is chained: requests' exceptions carry the request
        # with its Authorization header.
        self.close()
        raise NoAnswer(reason, sure=not mine.begun)

    def close(self) -> None:
        """Close this thread's kept connection."""
        session = self._threads.own().session
        if session is not None:
            session.close()


def _session(mine: _Thread) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers.clear()
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter(mine))
    return session


def _proxies(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        # A proxy would be given the token in the clear.
        return {}
    return dict(requests.utils.get_environ_proxies(url, no_proxy=None))


def _read(raw: Any) -> tuple[bytes, bool]:
    """The body's first :data:`MAX_BODY` bytes, and whether it broke off."""
    body = b""
    try:
        while part := raw.read(min(16_384, MAX_BODY - len(body)), decode_content=False):
            body += part
    except (urllib3.exceptions.HTTPError, HTTPException, OSError):
        return body, True
    return body, False


def _reason(error: BaseException, *, begun: bool) -> str:
    """A short name for what happened, from a fixed set."""
    chain = list(causes(error))

    def among(*types: type[BaseException]) -> bool:
        return any(isinstance(one, types) for one in chain)

    timed_out = among(TimeoutError, urllib3.exceptions.TimeoutError)
    if begun:
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


class _Adapter(HTTPAdapter):
    """An adapter whose connections tell when a request begins and keep its deadline."""

    def __init__(self, mine: _Thread) -> None:
        self._pools = _pool_classes(mine)
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        cast("Any", self.poolmanager).pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _pool_classes(mine: _Thread) -> dict[str, type[HTTPConnectionPool]]:
    class Answer(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_Reader(raw, sock, mine.until))

        def _read_status(self) -> tuple[str, int, str]:
            # Any number of 1xx may come before the answer (RFC 9110, section 15.2: "A client MUST
            # be able to parse one or more 1xx responses"), 103 with hints as of a CDN's. Python
            # skips 100 alone and would take the first other one for the answer.
            version, status, reason = cast("Any", super())._read_status()
            interim = 100 < status < 200 and status != 101
            return version, 100 if interim else status, reason

    class Plain(HTTPConnection):
        response_class = Answer

        def endheaders(self, *args: Any, **kwargs: Any) -> None:
            if self.sock is None:
                self.connect()
            # Each of a name's addresses has the time-out anew: what AdRoll took would be unsure.
            if time.monotonic() > mine.begin_by:
                raise TimeoutError
            mine.begun = True
            super().endheaders(*args, **kwargs)

    class Secure(HTTPSConnection, Plain):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Reader(io.RawIOBase):
    """An answer's bytes up to a deadline.

    A socket's time-out starts anew with each byte; a server that trickles its answer would keep a
    request open past its lease, and another worker would send the batch again.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, until: float) -> None:
        self._raw = raw
        self._sock = sock
        self._until = until
        self._patience = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        patience = self._patience
        self._sock.settimeout(left if patience is None else min(left, patience))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

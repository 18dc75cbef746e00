"""Firefox and WebKitGTK, beside Playwright's Chromium: the little that the tests need of them.

Firefox is driven over WebDriver BiDi, which it speaks itself; WebKitGTK by its WebDriver, on a
display of its own. Both reach every host at 127.0.0.1 through a small proxy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from . import PATIENCE, lacking, started
from .certificates import make_certificate

#: What each engine needs, and the Debian package that has it.
NEEDED = {
    "firefox": {"firefox-esr": "firefox-esr"},
    "webkit": {"WebKitWebDriver": "webkit2gtk-driver", "Xvfb": "xvfb"},
}
#: Headers of one connection (RFC 9110, section 7.6.1).
_HOP_BY_HOP = {"connection", "proxy-connection", "keep-alive", "transfer-encoding"}


def demand(name: str) -> None:
    """Skip the test where the machine lacks engine *name*; on CI, fail. Says how to get it."""
    packages = [package for program, package in NEEDED[name].items() if not shutil.which(program)]
    if packages:
        lacking(f"no {name}: apt-get install {' '.join(packages)}")


# -- what all of them can do -------------------------------------------------------------------


def until(engine: Engine, expression: str, seconds: float = PATIENCE) -> Any:
    """The value of *expression* once it is true; a page that is about to go answers later."""
    end = time.monotonic() + seconds
    problem: Exception | None = None
    while time.monotonic() < end:
        try:
            value = engine.evaluate(expression)
            if value:
                return value
        except Exception as caught:
            problem = caught
        time.sleep(0.05)
    pytest.fail(f"not true within {seconds:g} s: {expression} ({problem})")


def click(engine: Engine, find: str) -> None:
    """Click what the JavaScript expression *find* gives, and wait for the page that follows."""
    engine.evaluate("void (window.before = true)")
    until(engine, f"document.readyState == 'complete' && !!({find})")
    # Not within the call: a page that goes away answers nobody.
    engine.evaluate(f"void setTimeout(() => ({find}).click())")
    until(engine, "!window.before && document.readyState == 'complete'")


def by_text(tag: str, text: str) -> str:
    """The expression for the first *tag* that shows *text*."""
    says = f"one.textContent.trim().includes({json.dumps(text)})"
    return f"[...document.querySelectorAll({json.dumps(tag)})].find((one) => {says})"


# -- Firefox -----------------------------------------------------------------------------------


class Firefox:
    """Firefox over WebDriver BiDi (W3C), one command at a time."""

    def __init__(self, socket: Any, process: subprocess.Popen[str]) -> None:
        self._socket = socket
        self._process = process
        self._count = 0
        # The tests' certificates are nobody's.
        wanted = {"alwaysMatch": {"acceptInsecureCerts": True}}
        self.command("session.new", capabilities=wanted)
        contexts = self.command("browsingContext.getTree")["contexts"]
        self._context: str = contexts[0]["context"]

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._count:
                if answer["type"] == "error":
                    raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def goto(self, url: str) -> None:
        self.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        result = self.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"].get("value", "null"))

    def cookies(self) -> dict[str, dict[str, Any]]:
        found = self.command(
            "storage.getCookies", partition={"type": "context", "context": self._context}
        )
        host = self.evaluate("location.hostname")
        return {
            one["name"]: {**one, "value": one["value"]["value"]}
            for one in found["cookies"]
            if f".{host}".endswith("." + one["domain"].lstrip("."))
        }

    def clear(self) -> None:
        self.command("storage.deleteCookies")

    @property
    def tab(self) -> str:
        return self._context

    def open_tab(self) -> str:
        self._context = str(self.command("browsingContext.create", type="tab")["context"])
        return self._context

    def use_tab(self, tab: str) -> None:
        self._context = tab

    def close_tab(self, tab: str) -> None:
        self.command("browsingContext.close", context=tab)

    def begin(self, url: str) -> None:
        self.command("browsingContext.navigate", context=self._context, url=url, wait="none")

    def is_alive(self) -> bool:
        try:
            self.command("session.status")
        except Exception:
            return False
        return True

    def quit(self) -> None:
        """End as by its menu: what it keeps is on the disk afterwards."""
        self.command("browser.close")
        self._process.wait(60)


_PREFERENCES = {
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.ssl": "127.0.0.1",
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.disabledForTesting": True,
    "browser.safebrowsing.downloads.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "dom.security.https_first": False,
}


@contextmanager
def firefox(folder: Path, proxy_port: int) -> Iterator[Firefox]:
    """A Firefox with its profile in *folder*, a fresh one where there is none."""
    import websocket

    demand("firefox")
    folder.mkdir(exist_ok=True)
    ports = {"network.proxy.http_port": proxy_port, "network.proxy.ssl_port": proxy_port}
    preferences = _PREFERENCES | ports
    (folder / "user.js").write_text(
        "".join(f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in preferences.items())
    )
    log = folder / "firefox.log"
    command = ("firefox-esr", "--headless", "--no-remote", "--profile", folder)
    home = os.environ | {"HOME": str(folder)}
    with started(
        *command, "--remote-debugging-port", "0", log=log, gently=True, env=home
    ) as process:
        address = _said(process, log, re.compile(r"WebDriver BiDi listening on (ws://\S+)"))
        socket = websocket.create_connection(f"{address}/session", suppress_origin=True, timeout=60)
        try:
            yield Firefox(socket, process)
        finally:
            socket.close()


# -- WebKit ------------------------------------------------------------------------------------


class WebKit:
    """WebKitGTK, which is as near to Safari as Linux comes."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def goto(self, url: str) -> None:
        self._driver.get(url)

    def evaluate(self, expression: str) -> Any:
        script = (
            "const done = arguments[arguments.length - 1];"
            f"(async () => JSON.stringify(await ({expression})))()"
            ".then((text) => done([text]), (fault) => done([null, String(fault)]));"
        )
        text, *fault = self._driver.execute_async_script(script)
        if fault:
            raise RuntimeError(fault[0])
        return json.loads(text) if text else None

    def cookies(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self._driver.get_cookies()}

    def clear(self) -> None:
        self._driver.delete_all_cookies()

    @property
    def tab(self) -> str:
        return str(self._driver.current_window_handle)

    def open_tab(self) -> str:
        self._driver.switch_to.new_window("tab")
        return str(self._driver.current_window_handle)

    def use_tab(self, tab: str) -> None:
        self._driver.switch_to.window(tab)

    def close_tab(self, tab: str) -> None:
        self._driver.switch_to.window(tab)
        self._driver.close()

    def is_alive(self) -> bool:
        """False where the driver has lost its browser, as it does on a machine at full load."""
        try:
            self._driver.switch_to.window(self._driver.window_handles[0])
            return bool(self.evaluate("1") == 1)
        except Exception:
            return False

    def begin(self, url: str) -> None:
        self._driver.execute_script("setTimeout(() => (location.href = arguments[0]))", url)


@contextmanager
def webkit(folder: Path, proxy_port: int) -> Iterator[WebKit]:
    """A WebKitGTK browser on a display of its own."""
    demand("webkit")
    from selenium.webdriver import WebKitGTK, WebKitGTKOptions
    from selenium.webdriver.webkitgtk.service import Service

    folder.mkdir()
    display_log = folder / "display"
    command = ("Xvfb", "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp")
    with started(*command, log=display_log, gently=True) as screen:
        display = _said(screen, display_log, re.compile(r"^(\d+)\n", re.MULTILINE))
        environment = {
            **os.environ,
            "DISPLAY": f":{display}",
            "HOME": str(folder),
            # Root's processes may not be put into a sandbox of their own.
            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",
            "NO_AT_BRIDGE": "1",
            "GIO_USE_VFS": "local",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            # With the capability for it, the browser would speak TLS with a proxy for https.
            **dict.fromkeys(("http_proxy", "https_proxy"), f"http://127.0.0.1:{proxy_port}"),
            "no_proxy": "127.0.0.1",  # where the driver meets its browser
        }
        options = WebKitGTKOptions()
        options.set_capability("acceptInsecureCerts", True)
        service = Service(shutil.which("WebKitWebDriver"), env=environment)
        with warnings.catch_warnings():
            # Selenium's driver for WebKitGTK still calls what Selenium itself deprecates.
            warnings.filterwarnings("ignore", "setting remote_server_addr", DeprecationWarning)
            driver: Any = WebKitGTK(options=options, service=service)
        try:
            driver.command_executor.client_config.timeout = PATIENCE  # a driver that hangs is dead
            driver.set_script_timeout(PATIENCE / 2)
            yield WebKit(driver)
        finally:
            with suppress(Exception):  # it may be dead
                driver.quit()
            service.stop()


# -- their surroundings ------------------------------------------------------------------------


def _said(process: subprocess.Popen[str], log: Path, pattern: re.Pattern[str]) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        found = pattern.search(log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    pytest.fail(f"{process.args!r} did not start: {log.read_text(errors='replace')[-2000:]}")


class _Forward(BaseHTTPRequestHandler):
    """One request to whatever host, handed to its port on 127.0.0.1."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _forward(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy: ForwardProxy = self.server.proxy  # type: ignore[attr-defined]
        if proxy.is_stopped(self.path):
            self.close_connection = True
            return
        if parts.port is None and parts.path == BLANK:
            self._blank(parts.query)
            return
        named = [(k, v) for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP]
        if not (parts.hostname or "").endswith((".test", ".example")) or parts.port is None:
            # A browser's own errands: there is no network here.
            self.send_error(502)
            return
        connection = HTTPConnection("127.0.0.1", parts.port, timeout=30)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.putrequest(
                self.command, target or "/", skip_host=True, skip_accept_encoding=True
            )
            for name, value in named:
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            if proxy.head and answer.getheader("Content-Type", "").startswith("text/html"):
                content = content.replace(b"<head>", b"<head>" + proxy.head.encode(), 1)
            self.send_response_only(answer.status, answer.reason)
            if not proxy.scripts:
                self.send_header("Content-Security-Policy", "script-src 'none'")
            for name, value in answer.getheaders():
                if name.lower() not in (*_HOP_BY_HOP, "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.send_error(502)
        finally:
            connection.close()

    def _blank(self, query: str) -> None:
        """An empty page of any host, with the cookies that the query names."""
        self.send_response_only(200)
        for cookie in parse_qs(query).get("cookie", []):
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_OPTIONS = do_HEAD = _forward

    def do_CONNECT(self) -> None:
        """A tunnel for https, in which nothing is changed; without a port, to the empty page."""
        self.close_connection = True
        host, _, port = self.path.rpartition(":")
        if not host.endswith((".test", ".example")):
            self.send_error(502)
            return
        if port == "443":
            self.send_response_only(200)
            self.end_headers()
            proxy: ForwardProxy = self.server.proxy  # type: ignore[attr-defined]
            with suppress(OSError), proxy.tls.wrap_socket(self.connection, server_side=True) as it:
                _Forward(it, self.client_address, self.server)
            return
        try:
            shop = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
        except OSError:
            self.send_error(502)
            return
        with shop:
            self.send_response_only(200)
            self.end_headers()
            back = threading.Thread(target=_hand_on, args=(shop, self.connection), daemon=True)
            back.start()
            _hand_on(self.connection, shop)
            back.join()


def _hand_on(one: socket.socket, other: socket.socket) -> None:
    """Send to *other* what *one* says, until it says no more."""
    with suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)


#: The path, on every host without a port, of a page with nothing in it.
BLANK = "/blank"


class _TLS(ssl.SSLSocket):
    """Closed at its end, whoever has it: one whose client has reset it is not given to anybody."""

    def __del__(self) -> None:
        self.close()


class ForwardProxy:
    """What the proxy does beside forwarding, as a test wants it."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self.port = port
        self.tls = tls
        tls.sslsocket_class = _TLS
        #: Put into the head of each page.
        self.head = ""
        #: Whether pages may run scripts; drivers do, whatever a page may.
        self.scripts = True
        self._stopped: list[tuple[str, bool]] = []
        self._over = threading.Event()

    def stop(self, pattern: str, *, hang: bool) -> None:
        """Requests to URLs of this pattern are not answered: they fail at once, or hang."""
        self._stopped.append((pattern, hang))

    def is_stopped(self, url: str) -> bool:
        """Whether *url* gets no answer; returns when the browser may know."""
        over = self._over
        for pattern, hang in self._stopped:
            if fnmatch(url, pattern):
                if hang:
                    over.wait(60)
                return True
        return False

    def reset(self) -> None:
        """Forward everything again, as it is."""
        self._stopped.clear()
        self.head = ""
        self.scripts = True
        self._over.set()
        self._over = threading.Event()


@contextmanager
def forward_proxy() -> Iterator[ForwardProxy]:
    """A proxy that finds every host of the tests at 127.0.0.1; what it can do beside forwarding,
    it does over plain http alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Forward)
    server.daemon_threads = True
    with TemporaryDirectory() as folder:
        tls = make_certificate(Path(folder), "shop.test", "*.shop.test", "brand.example")
    proxy = server.proxy = ForwardProxy(server.server_port, tls)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.reset()
        server.shutdown()
        server.server_close()
        thread.join()


Engine = Firefox | WebKit
#: How each is started.
START: dict[str, Callable[[Path, int], Any]] = {"firefox": firefox, "webkit": webkit}

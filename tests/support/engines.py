"""Firefox and WebKitGTK, to be used as Playwright's Chromium is: what the tests call of it.

Playwright drives builds of its own of these engines and not those that people have. Firefox is
driven over WebDriver BiDi, which it speaks itself; WebKitGTK by its WebDriver, on a display of its
own. Both reach every host at 127.0.0.1 by a small tunnel.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from . import PATIENCE, eventually, program, said, started
from .certificates import make_certificate
from .serving import serving

# -- the engines -------------------------------------------------------------------------------


class Firefox:
    """Firefox over WebDriver BiDi (W3C), one command at a time."""

    def __init__(self, socket: Any, process: subprocess.Popen[str]) -> None:
        self._socket = socket
        self._process = process
        self._count = 0
        # The tests' certificates are nobody's.
        wanted = {"alwaysMatch": {"acceptInsecureCerts": True}}
        self.command("session.new", capabilities=wanted)
        self.tab = self.first = self.command("browsingContext.getTree")["contexts"][0]["context"]

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
        self.command("browsingContext.navigate", context=self.tab, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        result = self.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self.tab},
            awaitPromise=True,
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"].get("value", "null"))

    def cookies(self) -> list[dict[str, Any]]:
        """Those of the current page."""
        place = {"type": "context", "context": self.tab}
        host = self.evaluate("location.hostname")
        return [
            {**one, "value": one["value"]["value"]}
            for one in self.command("storage.getCookies", partition=place)["cookies"]
            if f".{host}".endswith("." + one["domain"].lstrip("."))
        ]

    def clear(self) -> None:
        self.command("storage.deleteCookies")

    def open_tab(self) -> None:
        self.tab = self.command("browsingContext.create", type="tab")["context"]

    def use_tab(self, tab: str) -> None:
        self.tab = tab

    def close_tab(self) -> None:
        self.command("browsingContext.close", context=self.tab)

    def quit(self) -> None:
        """End as by its menu: what it keeps is on the disk afterwards."""
        self.command("browser.close")
        self._process.wait(60)


_PREFERENCES = {
    "network.proxy.type": 1,
    "network.proxy.socks": "127.0.0.1",
    "network.proxy.socks_remote_dns": True,
    "dom.security.https_first": False,
}


@contextmanager
def firefox(folder: Path, tunnel: int) -> Iterator[Firefox]:
    """A Firefox with its profile in *folder*, a fresh one where there is none."""
    import websocket

    folder.mkdir(exist_ok=True)
    preferences = _PREFERENCES | {"network.proxy.socks_port": tunnel}
    (folder / "user.js").write_text(
        "".join(f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in preferences.items())
    )
    log = folder / "firefox.log"
    firefox = program("firefox-esr", "firefox-esr")
    command = (firefox, "--headless", "--no-remote", "--profile", folder)
    home = os.environ | {"HOME": str(folder)}
    with started(
        *command, "--remote-debugging-port", "0", log=log, gently=True, env=home
    ) as process:
        address = said(process, log, r"WebDriver BiDi listening on (ws://\S+)")
        socket = websocket.create_connection(f"{address}/session", suppress_origin=True, timeout=60)
        try:
            yield Firefox(socket, process)
        finally:
            socket.close()


class WebKit:
    """WebKitGTK, which is as near to Safari as Linux comes."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.first = self.tab
        self.goto = driver.get
        self.cookies = driver.get_cookies
        self.clear = driver.delete_all_cookies
        self.use_tab = driver.switch_to.window
        self.close_tab = driver.close

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

    @property
    def tab(self) -> str:
        return str(self._driver.current_window_handle)

    def open_tab(self) -> None:
        self._driver.switch_to.new_window("tab")


@contextmanager
def webkit(folder: Path, tunnel: int) -> Iterator[WebKit]:
    """A WebKitGTK browser on a display of its own."""
    from selenium.webdriver import WebKitGTK, WebKitGTKOptions
    from selenium.webdriver.webkitgtk.service import Service

    driver_path = program("WebKitWebDriver", "webkit2gtk-driver")
    folder.mkdir()
    display_log = folder / "display"
    command = (
        program("Xvfb", "xvfb"),
        "-displayfd",
        "1",
        "-screen",
        "0",
        "1024x768x24",
        "-nolisten",
        "tcp",
    )
    with started(*command, log=display_log, gently=True) as screen:
        environment = {
            **os.environ,
            "DISPLAY": ":" + said(screen, display_log, r"(?m)^(\d+)\n"),
            "HOME": str(folder),
            # Root's processes may not be put into a sandbox of their own.
            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",
            "NO_AT_BRIDGE": "1",
            "GIO_USE_VFS": "local",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            **dict.fromkeys(("http_proxy", "https_proxy"), f"socks5://127.0.0.1:{tunnel}"),
            "no_proxy": "127.0.0.1",  # where the driver meets its browser
        }
        options = WebKitGTKOptions()
        options.set_capability("acceptInsecureCerts", True)
        service = Service(driver_path, env=environment)
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


Engine = Firefox | WebKit
#: How each is started.
START: dict[str, Callable[[Path, int], Any]] = {"firefox": firefox, "webkit": webkit}


def is_alive(engine: Engine) -> bool:
    """False where a driver has lost its browser, as it does on a machine at full load."""
    try:
        engine.use_tab(engine.first)
        return bool(engine.evaluate("1") == 1)
    except Exception:
        return False


# -- how they find the tests' hosts -------------------------------------------------------------


class _Tunnel(StreamRequestHandler):
    """A connection to whatever host, by SOCKS 5 (RFC 1928): to its port on 127.0.0.1."""

    def handle(self) -> None:
        self.rfile.read(self.rfile.read(2)[1])  # the ways in which the browser could log in
        self.wfile.write(b"\x05\x00")
        # A browser may give up before it says where to.
        *_, kind, length = self.rfile.read(5) or (0, 0)
        host = self.rfile.read(length)
        port = int.from_bytes(self.rfile.read(2))
        if kind != 3 or not host.endswith((b".test", b".example")):
            return  # a browser's own errand: there is no network here
        ports: dict[int, int] = self.server.ports  # type: ignore[attr-defined]
        with (
            suppress(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", ports.get(port, port))) as shop,
        ):
            self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
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


def _blank(environ: Any, start_response: Any) -> list[bytes]:
    """An empty page, with the cookie that its query is."""
    headers = [("Content-Type", "text/html")]
    if cookie := unquote(environ["QUERY_STRING"]):
        headers.append(("Set-Cookie", cookie))
    start_response("200 OK", headers)
    return [b""]


@contextmanager
def tunnel() -> Iterator[int]:
    """The port at which each host of the tests is found, and without a port an empty page."""
    with TemporaryDirectory() as folder:
        tls = make_certificate(Path(folder), "shop.test", "*.shop.test", "brand.example")
    with (
        serving(_blank) as http,
        serving(_blank, tls) as https,
        ThreadingTCPServer(("127.0.0.1", 0), _Tunnel) as server,
    ):
        server.ports = {80: http, 443: https}  # type: ignore[attr-defined]
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


# -- as Playwright has it -----------------------------------------------------------------------

#: Hosts on which the kit's tests leave cookies.
HOSTS = ("shop.test", "www.shop.test", "pay.shop.test")


def _found_by(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)})"


class EngineContext:
    """What the tabs of one test share."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._tabs: list[str] = []

    def on(self, event: str, _handler: object) -> None:
        """Neither driver hands on what a page says on the console."""

    def new_page(self) -> EnginePage:
        self.engine.open_tab()
        self._tabs.append(self.engine.tab)
        return EnginePage(self, self.engine.tab)

    def forget(self, tab: str) -> None:
        """Close a tab; the first one stays, so that the browser does."""
        self._tabs.remove(tab)
        self.engine.use_tab(tab)
        self.engine.close_tab()
        self.engine.use_tab(self.engine.first)

    def cookies(self, url: str = "") -> list[dict[str, Any]]:
        """Those of the current page, or of the host of *url*."""
        host = urlsplit(url).hostname
        if host is None or host == self.engine.evaluate("location.hostname"):
            return self.engine.cookies()
        # WebKit's driver knows the current page's alone. A cookie is of all ports, and https sees
        # all of them.
        before = self.engine.tab
        self.engine.use_tab(self.engine.first)
        self.engine.goto(f"https://{host}/")
        found = self.engine.cookies()
        self.engine.use_tab(before)
        return found

    def add_cookies(self, cookies: Sequence[dict[str, str]]) -> None:
        for cookie in cookies:
            host = cookie["domain"].lstrip(".")
            text = f"{cookie['name']}={cookie['value']}; Path={cookie['path']}"
            text += f"; Domain={host}" * cookie["domain"].startswith(".")
            self.engine.goto(f"http://{host}/?{quote(text)}")

    def clear_cookies(self) -> None:
        self.engine.use_tab(self.engine.first)
        for host in HOSTS:  # WebKit's driver knows the cookies of the current page's host alone
            self.engine.goto(f"https://{host}/")
            self.engine.clear()

    def close(self) -> None:
        """End the test's tabs and forget what they left."""
        for tab in list(self._tabs):
            # The next test's server may come to have this one's port.
            self.engine.use_tab(tab)
            with suppress(Exception):  # a page without an origin
                self.engine.evaluate("void localStorage.clear()")
            self.forget(tab)
        self.clear_cookies()


class EnginePage:
    """One tab."""

    def __init__(self, context: EngineContext, tab: str) -> None:
        self.context = context
        self._tab = tab

    @property
    def _engine(self) -> Engine:
        self.context.engine.use_tab(self._tab)
        return self.context.engine

    def goto(self, url: str, wait_until: str = "load") -> None:
        if wait_until == "load":
            self._engine.goto(url)
            return
        self._engine.evaluate(f"void setTimeout(() => (location.href = {json.dumps(url)}))")
        self.wait_for_function(f"location.href == {json.dumps(url)}")

    def evaluate(self, text: str, argument: Any = None) -> Any:
        """The value of *text*: statements, an expression, or a function of *argument*."""
        # A page's Content-Security-Policy may forbid eval(), which only statements need.
        value = text if text.startswith("(") else f"(0, eval)({json.dumps(text)})"
        return self._engine.evaluate(
            f"((found) => typeof found == 'function' ? found({json.dumps(argument)}) : found)"
            f"({value})"
        )

    def wait_for_function(self, text: str) -> None:
        """Until *text* is true; a page that is about to go answers later."""

        def is_true() -> bool:
            with suppress(Exception):
                return bool(self._engine.evaluate(f"!!({text})"))
            return False

        eventually(is_true)

    @property
    def url(self) -> str:
        return str(self._engine.evaluate("location.href"))

    def wait_for_url(self, matches: Callable[[str], bool]) -> None:
        eventually(lambda: matches(self.url))

    def inner_text(self, selector: str) -> str:
        self.wait_for_function(_found_by(selector))
        return str(self._engine.evaluate(f"{_found_by(selector)}.innerText"))

    def fill(self, selector: str, value: str) -> None:
        self.wait_for_function(_found_by(selector))
        self._engine.evaluate(f"{_found_by(selector)}.value = {json.dumps(value)}")

    def click(self, selector: str) -> None:
        self._leave(f"{_found_by(selector)}.click()", selector)

    def dblclick(self, selector: str, delay: float = 0) -> None:
        """Click twice, *delay* milliseconds apart."""
        twice = f"one.click(); setTimeout(() => one.click(), {delay})"
        self._leave(f"((one) => {{ {twice} }})({_found_by(selector)})", selector)

    def reload(self) -> None:
        self._leave("location.reload()", "html")

    def _leave(self, script: str, selector: str) -> None:
        """Run what leads to another page once *selector* is there, and wait for that page."""
        self._engine.evaluate("void (window.before = true)")
        self.wait_for_function(f"document.readyState == 'complete' && ({_found_by(selector)})")
        # Not within the call: a page that goes away answers nobody.
        self._engine.evaluate(f"void setTimeout(() => {script})")
        self.wait_for_function("!window.before && document.readyState == 'complete'")

    def wait_for_timeout(self, milliseconds: float) -> None:
        time.sleep(milliseconds / 1000)

    def close(self) -> None:
        self.context.forget(self._tab)


@pytest.fixture(params=[*START])
def context(request: Any, started: Callable[[str], Engine]) -> Iterator[EngineContext]:
    """To be imported, with :func:`page`, where these engines take Chromium's place."""
    why = getattr(request.module, "DIFFERS", {}).get((request.param, request.function.__name__))
    if why:
        pytest.skip(why)
    context = EngineContext(started(request.param))
    yield context
    context.close()


@pytest.fixture
def page(context: EngineContext) -> EnginePage:
    return context.new_page()

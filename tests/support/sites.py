"""A small site behind each of the two adapters, and what an attacker or an auditor looks at."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask, request
from werkzeug.test import Client, TestResponse

from adroll_flask import (
    AdRoll,
    AdRollMiddleware,
    Visitor,
    current_visitor,
    forget_visitor,
    report_conversion,
)
from adroll_flask.runtime import Runtime
from tests.support import visits
from tests.support.asgi import Bridged

HOST = "shop.example"
#: The record's cookie over HTTPS.
RECORD = "__Host-adroll_visitor"
ADDRESS = "93.184.216.34"
PAGE = "<!doctype html><html><head><title>Shop</title></head><body>Hello</body></html>"
EIDS = {
    "ADVERTISABLE_EID": "SANDBOXADVERTISABLE01X",
    "PIXEL_EID": "SANDBOXPIXEL0000000001",
    "ACCESS_TOKEN": "sandbox-token",
}


def described(visitor: Visitor) -> dict[str, Any]:
    """What a site sees of its visitor."""
    names = ("adct", "adct_source", "first_party_cookie", "first_party_cookie_source")
    return {name: getattr(visitor, name) for name in (*names, "consent", "ip")}


@dataclass
class Clock:
    """Time that stands still until a test moves it."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Site:
    """One site: its WSGI app, what is behind it, and a browser in front of it."""

    app: Any
    runtime: Runtime
    clock: Clock
    outbox_file: Path
    browser: Client = field(init=False)

    def __post_init__(self) -> None:
        self.browser = self.new_browser()

    def new_browser(self) -> Client:
        return Client(self._served)

    def _served(self, environ: Any, start_response: Any) -> Any:
        environ.setdefault("REMOTE_ADDR", ADDRESS)
        return self.app(environ, start_response)

    def get_with(self, cookies: str, path: str = "/") -> TestResponse:
        """A GET whose ``Cookie`` header is *cookies* as it is, by nobody's browser."""
        sender = Client(self._served, use_cookies=False)
        return sender.get(
            path, base_url=f"https://{HOST}", environ_overrides={"HTTP_COOKIE": cookies}
        )

    def close(self) -> None:
        self.runtime.outbox.close()

    def get(self, path: str = "/", **kwargs: Any) -> TestResponse:
        return self.browser.get(path, base_url=f"https://{HOST}", **kwargs)

    def tell(self, body: Any = None, *, headers: Any = None, **kwargs: Any) -> TestResponse:
        """POST the kit's message, by default exactly as the kit does."""
        data = body if isinstance(body, str | bytes) else json.dumps({} if body is None else body)
        given = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
        given = {k: v for k, v in (given | (headers or {})).items() if v is not None}
        return self.browser.post(
            "/_adroll/identity", base_url=f"https://{HOST}", data=data, headers=given, **kwargs
        )

    def stored(self) -> str:
        """All rows of the outbox's database, with what is in their payloads."""
        with closing(sqlite3.connect(self.outbox_file)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            rows = [[*connection.execute(f"SELECT * FROM {name}")] for (name,) in tables.fetchall()]
        return repr(rows)

    @property
    def counts(self) -> dict[str, int]:
        return self.runtime.counters.snapshot()

    def cookie(self, name: str) -> str | None:
        found = self.browser.get_cookie(name, HOST, "/")
        return None if found is None else found.value

    def visitor(self) -> dict[str, Any]:
        """What the site itself sees of this browser's visitor."""
        seen: dict[str, Any] = json.loads(self.get("/who").data)
        return seen

    def events(self) -> list[dict[str, Any]]:
        """Every payload in the outbox, whatever its state."""
        if not self.runtime.outbox.exists():
            return []
        return visits.kept(self.runtime)


def add_views(app: Flask) -> None:
    @app.get("/")
    def index() -> str:
        return PAGE

    @app.get("/who")
    def who() -> dict[str, Any]:
        return described(current_visitor())


def _with_views(app: Flask) -> Flask:
    add_views(app)

    @app.route("/buy", methods=["GET", "POST"])
    def buy() -> dict[str, Any]:
        said = request.args
        of: Any = {"visitor": said["token"]} if "token" in said else {}
        receipt = report_conversion(
            order_id=said.get("order", "1001"),
            value="59.90",
            currency="EUR",
            hold="hold" in said,
            **of,
        )
        return {"status": receipt.status, "reason": receipt.reason}

    @app.get("/token")
    def token() -> str:
        return current_visitor().token()

    @app.get("/forget")
    def forget() -> str:
        forget_visitor()
        return "forgotten"

    return app


def flask_site(folder: Path, clock: Clock, config: dict[str, Any]) -> Site:
    app = Flask(__name__, instance_path=str(folder))
    app.config.update({"SECRET_KEY": "a key of this shop", **config})
    AdRoll(app, clock=clock)
    return Site(_with_views(app), app.extensions["adroll"], clock, folder / "adroll-outbox.sqlite")


def wsgi_site(
    folder: Path, clock: Clock, config: dict[str, Any], middleware: Any = AdRollMiddleware
) -> Site:
    """The same app, which has no AdRoll itself."""
    settings = {key.removeprefix("ADROLL_").lower(): value for key, value in config.items()}
    settings.setdefault("secret_key", "a key of this shop")
    app = _with_views(Flask(__name__)).wsgi_app
    served = middleware(app, clock=clock, folder=str(folder), **settings)
    return Site(served, served.runtime, clock, folder / "adroll-outbox.sqlite")


def asgi_site(folder: Path, clock: Clock, config: dict[str, Any]) -> Site:
    """The same app behind the ASGI middleware."""
    return wsgi_site(folder, clock, config, Bridged)


MakeSite = Callable[..., Site]


def configuration(config: dict[str, Any]) -> dict[str, Any]:
    named = {key if key.isupper() else f"ADROLL_{key.upper()}": config[key] for key in config}
    # Production's way: nothing raises; and no thread that delivers while a test looks.
    ours = {"ADROLL_STRICT": False, "ADROLL_DELIVERY": "worker"}
    return {f"ADROLL_{key}": value for key, value in EIDS.items()} | ours | named

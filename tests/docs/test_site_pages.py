"""README and the pages about what stands around a shop: front ends, trackers, the dashboard."""

import importlib
import json
import logging
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, redirect
from flask import request as flask_request
from flask import session as flask_session
from flask_login import LoginManager, UserMixin, login_user
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from werkzeug.test import Client

from adroll_flask import (
    AdRoll,
    AdRollASGIMiddleware,
    event_delivered,
    event_rejected,
    report_conversion,
    report_event,
)
from adroll_flask.sandbox import running
from adroll_flask.signals import reports_silent
from adroll_flask.testing import reports
from tests.conftest import PAGE, AppMaker
from tests.support import ROOT, page_shop
from tests.support.asgi import as_wsgi
from tests.support.pages import ENV, SHOP, Page, Shell
from tests.support.serving import serving
from tests.support.visits import VISIT as BASE
from tests.support.visits import kept, report, visit

API: dict[str, Any] = {"base_url": "https://api.shop.example", "environ_base": page_shop.ADDRESS}


WWW = "https://www.shop.example"


def save_order(*_data: object) -> SimpleNamespace:
    return SimpleNamespace(
        id="1001",
        total="59.90",
        currency="EUR",
        email="jo@example.com",
        user_id="42",
        products=[{"product_id": "mug", "price": "29.95", "quantity": 2}],
    )


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.py").write_text(SHOP)
    with running(strict=True) as sandbox:
        account = sandbox.account
        replace = {
            # With this very Python, so that make installs nothing.
            "make demo": f"make --directory {ROOT} VENV={sys.prefix} "
            f"--assume-old={sys.prefix}/.demo demo",
            "ADVERTISABLE_EID=…": f"ADVERTISABLE_EID={account.advertisable_eid}",
            "PIXEL_EID=…": f"PIXEL_EID={account.pixel_eid}",
            "ACCESS_TOKEN=…": f"ACCESS_TOKEN={account.access_token}",
        }
        env = {"FLASK_ADROLL_API_URL": sandbox.api_url}
        for key, value in {**ENV, "FLASK_TESTING": "true"}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("FLASK_ADROLL_JOURNAL_FOLDER", str(tmp_path / "journal"))
        monkeypatch.setenv("FLASK_ADROLL_OUTBOX_URL", f"sqlite:///{tmp_path / 'outbox.sqlite'}")
        with Shell(tmp_path, env, replace) as shell, Page("README.md", shell) as page:
            app = page.run("adroll_flask", save_order=save_order, __name__="shop")["app"]
            page.run()
        assert sandbox.events()
    client = app.test_client()
    client.get("/?adct=click123", **API)
    with reports(app) as reported:
        assert client.post("/checkout", **API).status_code == 303
    purchase = reported.one("purchase")
    assert (purchase.order_id, purchase.currency) == ("1001", "EUR")
    assert purchase.email_sha256 is not None
    assert [reason for reason in shell.untyped.values() if "environment" not in reason] == []


def test_front_ends(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SHOP)
    env = {**ENV, "FLASK_ADROLL_ORIGINS": f'["{WWW}"]'}
    same, other = (Flask(name, instance_path=str(tmp_path / name)) for name in ("same", "other"))
    for app in (same, other):
        app.config.update(TESTING=True, SECRET_KEY="k" * 32, ADROLL_DELIVERY="worker")
    with Shell(tmp_path, env) as shell, Page("docs/how-to/front-ends.md", shell) as page:
        names = page.run("Another host of the same site", app=same, save_order=save_order)
        names = page.run(
            "Another domain, or a page that may set no cookies", **{**names, "app": other}
        )
    other.config["ADROLL_ORIGINS"] = same.config["ADROLL_ORIGINS"]
    for app in (same, other):
        AdRoll(app)
    headers = {"Origin": WWW, "User-Agent": "Mozilla/5.0 (X11) Firefox/145.0"}
    sent: dict[str, Any] = {"headers": headers, **API}
    word, order = {"adct": "click123"}, {"page": f"{WWW}/checkout"}

    browser = same.test_client()
    assert browser.post("/_adroll/identity", json=word, **sent).status_code < 300
    with reports(same) as reported:
        answer = browser.post("/orders", json=order, **sent)
    assert answer.headers["Access-Control-Allow-Origin"] == WWW
    purchase = reported.one("purchase")
    assert (purchase.adct, purchase.page_location) == ("click123", order["page"])

    without_cookies = other.test_client(use_cookies=False)
    told = without_cookies.post("/_adroll/identity", json=word | {"token": True}, **sent).get_json()
    with reports(other) as reported:
        without_cookies.post("/orders", json=order | {"adroll": told["token"]}, **sent)
    purchase = reported.one("purchase")
    assert (purchase.adct, purchase.user_id) == ("click123", "42")
    assert purchase.user_agent == headers["User-Agent"]

    # A blocker kept the kit out; a visitor's no counts all the same.
    landing = f"{WWW}/?adct=click456&utm_source=x"
    with reports(other) as reported:
        without_cookies.post("/orders", json={"page": landing}, **sent)
    purchase = reported.one("purchase")
    assert (purchase.adct, purchase.ip) == ("click456", "203.0.113.7")
    assert purchase.user_agent == headers["User-Agent"]
    assert purchase.email_sha256 is not None
    refusing: dict[str, Any] = {**sent, "headers": headers | {"Sec-GPC": "1"}}
    with reports(other) as reported:
        without_cookies.post("/orders", json={"page": landing}, **refusing)
    assert list(reported) == []


def test_where_click_ids_get_lost(tmp_path: Path) -> None:
    # Flask looks for templates beside the app's module.
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "consent.html").write_text("{{ target|safe }}")
    languages, asking = (Flask(name, root_path=str(tmp_path)) for name in ("languages", "asking"))
    languages.add_url_rule("/<lang>/", "home", lambda lang: PAGE)
    asking.add_url_rule("/", "home", lambda: PAGE)
    (tmp_path / "app.py").write_text(SHOP)
    elsewhere = Flask("a shop without AdRoll, and a tracker")
    elsewhere.add_url_rule("/mugs", "mugs", lambda: PAGE)
    with serving(elsewhere) as port:
        mugs = f"http://localhost:{port}/mugs"
        elsewhere.add_url_rule("/c/123", "click", lambda: redirect(mugs))
        tracker = f"http://127.0.0.1:{port}"
        replace = {"https://track.example": tracker, "https://www.shop.example/mugs": mugs}
        with (
            Shell(tmp_path, dict(ENV), replace) as shell,
            Page("docs/how-to/click-trackers.md", shell) as page,
        ):
            page.run("Where click ids get lost")
            page.run("A choice of language", app=languages)
            page.run("Consent and age pages", app=asking)
    # Names of url_for()'s own arguments, and one that comes twice.
    query = "adct=click123&lang=fr&x=1&x=2&endpoint=y&_external=1"
    assert languages.test_client().get(f"/?{query}").location == f"/en/?{query}"
    asked = asking.test_client().get(f"/?{query}")
    assert asked.location == f"/consent?{query}"
    assert asking.test_client().get(asked.location).text == f"/?{query}"


class Account(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, id: str) -> None:
        self.id = id
        self.is_staff = id != "customer"
        self.is_admin = id == "admin"


def test_the_dashboard(make_app: AppMaker, tmp_path: Path) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    LoginManager(app).user_loader(Account)
    app.add_url_rule("/login/<id>", "login", lambda id: str(login_user(Account(id))))
    (tmp_path / "app.py").write_text(SHOP)
    with Shell(tmp_path, dict(ENV)) as shell, Page("docs/how-to/dashboard.md", shell) as page:
        page.run(adroll=adroll, app=app)
    seen = {}
    for who in ("nobody", "customer", "staff", "admin"):
        browser = app.test_client()
        if who != "nobody":
            browser.get(f"/login/{who}", **API)
        answer = browser.get("/adroll-dashboard/problems", **API)
        refused = browser.post("/adroll-dashboard/problems/drop", **API)
        seen[who] = (answer.status_code, "operator= says no" in refused.text)
    assert seen["staff"][0] == seen["admin"][0] == 200
    assert seen["nobody"][0] == seen["customer"][0] == 403
    assert (seen["staff"][1], seen["admin"][1]) == (True, False)


# -- the pages for sites on other frameworks than Flask, each with the framework itself -----------


def test_any_wsgi_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = {
        "/var/lib/shop": str(tmp_path / "lib"),
        "postgresql://adroll@db/adroll": f"sqlite:///{tmp_path / 'adroll.sqlite'}",
        "ADROLL_ADVERTISABLE_EID=…": "ADROLL_ADVERTISABLE_EID=ADVERTISABLE0000000001",
        "ADROLL_PIXEL_EID=…": "ADROLL_PIXEL_EID=PIXEL00000000000000001",
        "ADROLL_ACCESS_TOKEN=…": "ADROLL_ACCESS_TOKEN=a-token",
    }
    env = {"ADROLL_ACCESS_TOKEN": "a-token", "ADROLL_SECRET_KEY": "a long random text"}
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    with Shell(tmp_path, env, replace) as shell, Page("docs/how-to/wsgi.md", shell) as page:
        page.run("Around your app")
        page.run("Report an order")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.chdir(tmp_path)
        wsgi = importlib.import_module("shop.wsgi")
        try:
            names: dict[str, Any] = {name: getattr(wsgi, name) for name in ("app", "account")}
            names["AdRollMiddleware"] = wsgi.AdRollMiddleware
            with_identity = page.run("Who is logged in", **names)["application"]
            with_proxy = page.run("Around other middleware", **names)["application"]
            page.run("Outside of a request")
            wsgi.application.runtime.outbox.close()
        finally:
            for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
                del sys.modules[name]
        page.run("Commands")
    for application, middleware, sent, expected in (
        (with_identity, with_identity, {"REMOTE_USER": "ann"}, ("203.0.113.7", "ann")),
        (with_proxy, with_proxy.app, {"HTTP_X_FORWARDED_FOR": "8.8.8.8"}, ("8.8.8.8", None)),
    ):
        browser = Client(application)
        page_of = browser.get("/?adct=click123", environ_overrides=page_shop.ADDRESS)
        assert "data-adroll" in page_of.text
        with reports(middleware) as reported:
            browser.post("/orders", environ_overrides={**page_shop.ADDRESS, **sent})
        purchase = reported.one("purchase")
        assert (purchase.adct, purchase.ip, purchase.user_id) == ("click123", *expected)


# -- docs/how-to/asgi.md, as it stands, with the dashboard behind a login ------------------------


def test_any_asgi_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("a2wsgi")
    monkeypatch.setenv("ADROLL_SECRET_KEY", "a long random text")
    monkeypatch.syspath_prepend(str(tmp_path))
    replace = {"/var/lib/shop": str(tmp_path / "lib")}
    with Shell(tmp_path, {}, replace) as shell, Page("docs/how-to/asgi.md", shell) as page:
        page.run("Around your app")
        application = importlib.import_module("shop").application
        served = page.run("The dashboard", application=application)["with_dashboard"]
    browser = Client(as_wsgi(application))
    assert "data-adroll" in browser.get("/?adct=click123", **API).text
    with reports(application) as reported:
        browser.post("/orders", **API)
    assert reported.one("purchase").adct == "click123"
    for user, status in (("ann", 200), ("bob", 403)):

        async def logged_in(scope: Any, *rest: Any, user: str = user) -> None:
            await served({**scope, "user": user}, *rest)

        board = Client(as_wsgi(logged_in)).get("/adroll-dashboard/problems", **API)
        assert board.status_code == status
        below = API | {"base_url": "https://api.shop.example/below"}
        board = Client(as_wsgi(logged_in)).get("/adroll-dashboard/problems", **below)
        assert board.status_code == status


def test_the_dashboard_is_a_mount_of_the_apps_own(tmp_path: Path) -> None:
    """As docs/how-to/asgi.md has it: behind what tells who is logged in, which the app has."""
    a2wsgi = pytest.importorskip("a2wsgi")
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    class Login:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "user": "ann"}, receive, send)

    app = Starlette(middleware=[Middleware(Login)])
    application = AdRollASGIMiddleware(
        app, sandbox=True, secret_key="a key for tests", folder=str(tmp_path)
    )

    def access() -> bool:
        return bool(flask_request.environ["asgi.scope"]["user"] == "ann")

    board = application.dashboard(access=access)
    app.mount("", a2wsgi.WSGIMiddleware(board))
    for base_url in ("https://api.shop.example", "https://api.shop.example/below"):
        browser = Client(as_wsgi(application))
        page = browser.get("/adroll-dashboard/problems", **API | {"base_url": base_url})
        assert page.status_code == 200
        assert browser.get("/nowhere", **API | {"base_url": base_url}).status_code == 404


# -- the pages of docs/reference/ run -------------------------------------------------------------


def test_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SHOP)
    env = {"FLASK_SECRET_KEY": "a key"}
    with Shell(tmp_path, env) as shell, Page("docs/reference/sandbox.md", shell) as page:
        page.run()
    assert shell.untyped == {}


def test_signals(make_app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.logger.setLevel(logging.INFO)

    @app.post("/buy")
    def buy() -> str:
        report_conversion(order_id="1001", value="59.90", currency="EUR")
        return ""

    with Page("docs/reference/signals.md") as page:
        # What the page's functions are kept by is their module; here that is this.
        kept = page.run(app=app)
    shop = app.test_client()
    shop.get("/?adct=click123", **BASE)
    for _ in range(2):
        shop.post("/buy", **BASE)
    told = [record.getMessage() for record in caplog.records if record.name == app.logger.name]
    assert told[0] == "a visitor with an ad click"
    assert told[1].startswith("purchase: 2 of 6: adct, first_party_cookie")
    assert told[2] == "purchase not reported: duplicate"
    runtime = app.extensions["adroll"]
    for signal, values in (
        (event_delivered, {"id": "01a2", "name": "purchase", "unsure": True}),
        (event_rejected, {"id": "01a2", "name": "purchase", "reason": "refused"}),
        (reports_silent, {"name": "purchase", "away": 18_000.0, "longest_pause": 7200.0}),
    ):
        assert signal.receivers
        runtime.announce(signal, **values)
    told = [record.getMessage() for record in caplog.records if record.name == app.logger.name]
    assert told[3:] == [
        "AdRoll has purchase 01a2, perhaps twice",
        "look at it: flask adroll outbox show 01a2 (purchase, refused)",
        "no purchase for 5 h, the longest pause was 2 h",
    ]
    assert kept


def test_counters(make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    app.test_client().get("/", **BASE)
    with Page("docs/reference/counters.md") as page:
        names = page.run(app=app, adroll=adroll)
    assert names["counts"] == {"page_injected": 1}
    assert names["lost"] == {}


def test_endpoint_and_kit(make_app: AppMaker) -> None:
    with Page("docs/reference/kit.md") as page:
        page.run(app=make_app())


def test_log_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Loggers of the test's own.
    monkeypatch.setattr(logging.Logger, "manager", logging.Manager(logging.root))
    with Page("docs/reference/logging.md") as page:
        page.run("Set it up")
        formatter = page.run("Names that stay")["AsJson"]()
    record = logging.makeLogRecord({"msg": "no", "adroll_event": "event-invalid"})
    assert json.loads(formatter.format(record))["event"] == "event-invalid"
    logging.getLogger("adroll_flask.delivery").error("AdRoll refuses everything")
    logging.getLogger("adroll_flask.delivery").warning("not this")
    [handler] = logging.getLogger("adroll_flask").handlers
    handler.close()
    said = (tmp_path / "adroll.log").read_text()
    assert "ERROR adroll_flask.delivery: AdRoll refuses" in said
    assert "not this" not in said


def test_events(make_app: AppMaker) -> None:
    app = make_app()
    article = SimpleNamespace(sku="mug", unit_price=Decimal("29.95"))
    names = {
        "user": SimpleNamespace(email="ada@example.com", id=42),
        "order": SimpleNamespace(lines=[SimpleNamespace(article=article, amount=2)]),
        "client_ip": "203.0.113.9",
        "idfa": "EA7583CD-A667-48BC-B806-42ECB2B48606",
        "report_event": report_event,
        "report_conversion": report_conversion,
    }
    with (
        reports(app) as reported,
        app.test_request_context("/thanks?adct=click123", **BASE),
        Page("docs/reference/events.md") as page,
    ):
        page.run("Events", **names)
        page.run("Products", **names)
        reported.clear()
        page.run("Without a browser", **names)
        assert reported.one("purchase").page_location.startswith("https://app.example.com/?")
        reported.clear()
        page.run("AdRoll's samples", **names)
    assert [event.event_name for event in reported] == [
        *("addToCart", "purchase", "productSearch", "pageView")
    ]
    assert reported.one("purchase").value == Decimal("123.45")


# -- the pages of docs/explanation/, and others that need an app or a shell alone, run ------------


def shell_of(app: Flask, folder: Path, **replace: str) -> Shell:
    """A shell whose `flask` finds an app on the same outbox as *app*'s."""
    (folder / "app.py").write_text(
        SHOP.replace("__name__", f"__name__, instance_path={app.instance_path!r}")
    )
    return Shell(folder, dict(ENV), replace)


def test_how_a_visitor_is_known(make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    user = SimpleNamespace(is_authenticated=True, email="ann@example.com", id=17)
    with Page("docs/explanation/visitor.md") as page:
        page.run(adroll=adroll, current_user=user)
    with reports(app) as reported:
        report(app)
    assert reported.one("purchase").user_id == "17"
    assert reported.one("purchase").email_md5 is not None


ASKED = {"OptanonAlertBoxClosed": "2026"}
#: A platform's cookies, and what the visitor answered.
PLATFORM: list[tuple[dict[str, str], bool | None]] = [
    ({}, None),
    ({"OptanonConsent": "groups=C0001%3A1%2CC0004%3A1"}, None),
    (ASKED | {"OptanonConsent": "v=1&groups=C0001%3A1%2CC0004%3A1"}, True),
    (ASKED | {"OptanonConsent": "v=1&groups=C0001%3A1%2CC0004%3A0"}, False),
    (ASKED, False),
]


def test_consent_and_privacy(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app()
    named: list[dict[str, Any]] = [
        {"email": "ann@example.com"},
        {"user_id": 4711},
        {"first_party_cookie": "46d41c62e88bb2e267c1e15314bb8837-1667065540836"},
        {},
    ]
    for number, fields in enumerate(named):
        report(app, str(number), **fields)
    assert len(kept(app)) == 4
    with shell_of(app, tmp_path) as shell, Page("docs/explanation/privacy.md", shell) as page:
        page.run("A consent platform's own cookie", app=app)
        for cookies, expected in PLATFORM:
            assert app.config["ADROLL_CONSENT"](SimpleNamespace(cookies=cookies)) is expected
        page.run("AdRoll's own banner", app=app)
        page.run("Erase a person's data (GDPR)", app=app, redirect=redirect)
    assert app.config["ADROLL_CONSENT"] == "tcf"
    # Of the four the commands erased three.
    assert [event["event_attributes"]["order_id"] for event in kept(app)] == ["3"]
    shop = app.test_client()
    shop.get("/?adct=click123", **BASE)
    assert shop.get_cookie("__Host-adroll_visitor", domain="shop.test")
    assert shop.post("/privacy/forget", **BASE).status_code == 302
    assert not shop.get_cookie("__Host-adroll_visitor", domain="shop.test")
    with shop:
        shop.get("/", **BASE)
        assert "click123" not in str(flask_session.get("adroll"))


def test_a_key_is_rotated(make_app: AppMaker, tmp_path: Path) -> None:
    with (
        shell_of(make_app(), tmp_path) as shell,
        Page("docs/how-to/secret-key.md", shell) as page,
    ):
        page.run()


def test_one_door(make_app: AppMaker, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.sqlite'}"
    app = make_app(ADROLL_OUTBOX_URL=url)
    engine = create_engine(url)
    app.extensions["adroll"].outbox.database.create_tables()
    named: dict[str, Any] = {}
    context = SimpleNamespace(configure=lambda *_given, **given: named.update(given))
    order = SimpleNamespace(id="1001", total="59.90")
    names = {"context": context, "order": order, "report_conversion": report_conversion}
    with Session(engine) as session, visit(app), Page("docs/explanation/outbox.md") as page:
        page.run(db=SimpleNamespace(session=session), **names)
    engine.dispose()
    assert [event["event_attributes"]["order_id"] for event in kept(app)] == ["1001"]
    assert named["include_name"]("adroll_event", "table", {}) is False
    assert named["include_name"]("orders", "table", {}) is True


def test_the_sandbox_s_rules(make_app: AppMaker, tmp_path: Path) -> None:
    # The page sets the address in the configuration of an app that is made after it.
    app = Flask("shop")

    def checkout(_path: str) -> None:
        made = make_app(
            ADROLL_ADVERTISABLE_EID="SANDBOXADVERTISABLE01X",
            ADROLL_PIXEL_EID="SANDBOXPIXEL0000000001",
            ADROLL_ACCESS_TOKEN="sandbox-token",
            ADROLL_DELIVERY="sync",
            ADROLL_LINGER=0,
            **{key: value for key, value in app.config.items() if key.startswith("ADROLL_")},
        )
        report(made)
        while made.extensions["adroll"].flush(5.0):
            pass

    with Shell(tmp_path) as shell, Page("adroll_flask/sandbox/README.md", shell) as page:
        page.run("The sandbox's rules")
        page.run("In a test", app=app, client=SimpleNamespace(post=checkout))
        page.run("Faults")


def test_commands(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app(ADROLL_STRICT=False)
    report(app, value="a lot")
    [dead] = app.extensions["adroll"].outbox.lookups.list("dead")
    replace = {"01a20f418b2870c3a2f1d4e5b6a7c8d9": dead.id}
    with (
        shell_of(app, tmp_path, **replace) as shell,
        Page("docs/reference/commands.md", shell) as page,
    ):
        shell.type("""export EDITOR='sed -i s/"a.lot"/"59.90"/'""")
        page.run()
    assert kept(app, "waiting")[0]["conversion_value"] == "59.90"

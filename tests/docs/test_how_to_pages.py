"""How-to pages whose code runs here as it stands."""

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask, g, redirect, request
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user
from flask_sqlalchemy import SQLAlchemy
from jinja2 import DictLoader

import adroll_flask
from adroll_flask import AdRoll, current_visitor, release_conversion, report_conversion
from adroll_flask.testing import reports
from tests.conftest import ADVERTISABLE, PIXEL, AppMaker, Patch
from tests.support import eventually, outbox_engines, visits
from tests.support.page_shop import ADDRESS, AGENT, SITE, PageShop, page_shop
from tests.support.pages import Page, Shell

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
HTML = "<!doctype html><html><head></head><body>Shop</body></html>"


def bare(tmp_path: Path) -> Flask:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, SECRET_KEY="k" * 32, ADROLL_DELIVERY="worker")
    app.config.update(ADROLL_ADVERTISABLE_EID=ADVERTISABLE, ADROLL_PIXEL_EID=PIXEL)
    app.add_url_rule("/", "home", lambda: HTML)
    return app


def site_of(page: Page, folder: Path, section: str | None = None, **names: Any) -> Flask:
    """An app that the blocks of a page were put into, and then AdRoll."""
    app = bare(folder)
    page.run(section, app=app, **names)
    AdRoll(app)
    return app


def test_the_policies_of_the_page_let_kit_and_pixel_through(tmp_path: Any) -> None:
    with Shell(tmp_path) as shell, Page("docs/how-to/content-security-policy.md", shell) as page:
        for section, has_nonce in (("A list of hosts", False), ("A nonce", True)):
            app = site_of(page, tmp_path / section, section)
            answer = app.test_client().get("/")
            policy = answer.headers["Content-Security-Policy"]
            nonce = answer.text.partition('nonce="')[2].partition('"')[0]
            assert bool(nonce) == has_nonce
            hosts = "https://s.adroll.com https://d.adroll.com"
            assert (f"'nonce-{nonce}'" if has_nonce else hosts) in policy


def test_pages_that_a_cache_keeps_carry_no_cookie_of_ours(tmp_path: Any) -> None:
    with Page("docs/how-to/caches.md") as page:
        app = site_of(page, tmp_path)
    app.jinja_loader = DictLoader({"mugs.html": HTML})
    client = app.test_client()
    for path in ("/mugs?adct=click123", "/?adct=click123"):
        answer = client.get(path)
        assert "data-adroll" in answer.text
        assert "Set-Cookie" not in answer.headers


def test_each_currency_is_reported_as_it_was_paid(tmp_path: Any) -> None:
    with Page("docs/how-to/currencies.md") as page:
        app = site_of(page, tmp_path, report_conversion=report_conversion)
    client = app.test_client()
    client.get("/?adct=click123")
    with reports(app) as reported:
        for currency in ("eur", "usd", "jpy"):
            client.post(f"/checkout/{currency}", environ_base=ADDRESS)
    assert [(str(one.value), one.currency) for one in reported.named("purchase")] == [
        ("59.90", "EUR"),
        ("64.00", "USD"),
        ("9800", "JPY"),
    ]


def test_our_addresses_take_another_name(tmp_path: Any) -> None:
    with Page("docs/how-to/blockers.md") as page:
        app = site_of(page, tmp_path)
    client = app.test_client()
    text = client.get("/").text
    assert "_adroll" not in text
    assert client.get(text.partition('src="')[2].partition('"')[0]).status_code == 200
    told = client.post("/assets/visit/identity", json={"adct": "click1"}, headers=OWN_PAGE)
    assert told.status_code == 204
    assert client.post("/_adroll/identity", json={}, headers=OWN_PAGE).status_code == 404


def test_where_no_disk_lasts_a_report_is_in_the_database(tmp_path: Any, monkeypatch: Patch) -> None:
    app = bare(tmp_path)
    with (
        outbox_engines.database("postgresql") as url,
        Page("docs/how-to/deploy/ephemeral-disks.md") as page,
    ):
        monkeypatch.setenv("DATABASE_URL", url.replace("postgresql+psycopg://", "postgres://"))
        page.run(app=app)
        AdRoll(app)
        outbox = app.extensions["adroll"].outbox
        outbox.database.create_tables()
        assert visits.report(app).status == "queued"
        assert not list(tmp_path.rglob("*.journal")), "the disk has nothing that could be lost"
        eventually(lambda: outbox.queue.waiting() == 1)  # the thread may be about to take it in
        outbox.close()


COOKIEBOT = "{stamp:'x',necessary:true,preferences:false,statistics:true,marketing:%s,ver:1}"


COOKIEYES = "consentid:x,consent:yes,action:%s,necessary:yes,analytics:no,advertisement:%s"


#: By section of the page: a platform's cookie, and what it is understood as.
ANSWERS: dict[str, list[tuple[str, bool | None]]] = {
    "A platform of the TCF": [],
    "Cookiebot": [
        ("", None),
        ("-1", True),
        (quote(COOKIEBOT % "true"), True),
        (quote(COOKIEBOT % "false"), False),
    ],
    "CookieYes": [
        ("", None),
        (COOKIEYES % ("", "no"), None),
        (COOKIEYES % ("yes", "yes"), True),
        (COOKIEYES % ("yes", "no"), False),
    ],
    "Usercentrics without the TCF": [],
    "AdRoll's own banner": [],
}


def test_consent_platforms_answers_are_understood(tmp_path: Any) -> None:
    with Page("docs/how-to/consent.md") as page:
        for number, (section, answers) in enumerate(ANSWERS.items()):
            app = site_of(page, tmp_path / str(number), section)
            client = app.test_client()
            client.get("/?adct=click123")
            assert client.get_cookie("adroll_visitor") is None, section
            for cookie, expected in answers:
                names = ("CookieConsent", "cookieyes-consent")
                asked = SimpleNamespace(cookies=dict.fromkeys(names, cookie))
                assert app.config["ADROLL_CONSENT"](asked) is expected, cookie


def test_an_opt_out_is_asked_for_as_the_page_says(tmp_path: Any) -> None:
    asks = {
        "Opt-outs in the United States": "gpp",
        "A link of your own, without a platform": "ask",
    }
    with Page("docs/how-to/us-opt-outs.md") as page:
        for section, whom in asks.items():
            client = site_of(page, tmp_path / whom, section).test_client()
            assert f'data-consent="{whom}"' in client.get("/").text
            client.set_cookie("opted_out", "yes")
            client.get("/?adct=click123")
            assert client.get_cookie("adroll_visitor") is None
    client.delete_cookie("opted_out")
    client.get("/?adct=click123")
    assert client.get_cookie("adroll_visitor") is not None


def test_a_containers_pixel_is_the_only_one_and_staging_reports_dry_runs(tmp_path: Any) -> None:
    with Page("docs/how-to/google-tag-manager.md") as page:
        app = site_of(page, tmp_path / "container")
    assert "roundtrip.js" not in app.test_client().get("/").text
    assert app.config["ADROLL_PIXEL"] == "present"
    with Page("docs/how-to/staging.md") as page:
        app = site_of(page, tmp_path / "staging")
    settings = app.extensions["adroll"].settings
    assert settings.is_real("www.shop.example")
    assert not settings.is_real("staging.shop.example")


def test_a_sites_own_tests_run_as_the_page_has_them(make_app: AppMaker, tmp_path: Any) -> None:
    app = make_app()
    app.add_url_rule("/", "home", lambda: HTML)

    @app.post("/checkout")
    def checkout() -> str:
        return report_conversion(order_id="1001", value="59.90", currency="EUR").status

    @app.post("/orders/<number>")
    def order(number: str) -> str:
        return report_conversion(order_id=number, value="10", currency="EUR", hold=True).status

    @app.post("/webhook")
    def webhook() -> str:
        told = request.get_json()
        return release_conversion(told["order"]).status if told["paid"] else ""

    @app.post("/token")
    def token() -> str:
        return current_visitor().token()

    @app.post("/webhook-with-token")
    def with_token() -> str:
        told = request.get_json()
        return report_conversion(
            visitor=told["adroll"], order_id=told["order"], value="1", currency="EUR"
        ).status

    with Page("docs/how-to/testing.md") as page:
        past = Flask("past", instance_path=str(tmp_path / "past"))
        past.config.update(TESTING=True, SECRET_KEY="k" * 32)
        page.run("A shop with a past", app=past)
        tests = page.run(reports=reports)
    days = past.extensions["adroll"].outbox.lookups.history(0, ("at", "outcome"), hours=24)
    assert sum(day.events for day in days if day.outcome == "delivered") == 28
    assert len({day.at for day in days}) > 5
    found = [test for name, test in tests.items() if name.startswith("test_")]
    assert len(found) == 3
    for test in found:
        test(app, app.test_client())


def test_what_the_sample_posts_by_hand_is_reported(tmp_path: Any) -> None:
    app = bare(tmp_path)
    with Page("docs/how-to/migrate.md") as page:
        names = page.run(app=app, request=request, report_conversion=report_conversion)
    assert app.config["ADROLL_PIXEL"] == "present"
    AdRoll(app)
    client = app.test_client()
    client.get("/?adct=click123")
    with reports(app) as reported:
        client.post("/checkout", data={"email": "jo@example.com"}, environ_base=ADDRESS)
    purchase = reported.one("purchase")
    assert purchase.adct == "click123"
    assert purchase.value == Decimal("59.90")
    assert purchase.email_sha256 is not None

    bought = {"product_id": "507f1f77", "sku": "mug", "name": "Mug", "price": 29.95, "quantity": 2}
    segments = {"order_id": "1002", "total": 64.9, "revenue": 59.9, "currency": "EUR"}
    with reports(app) as reported, app.test_request_context("/", environ_base=ADDRESS):
        names["order_completed"](segments | {"products": [bought]})
    ordered = reported.one("purchase")
    assert (ordered.order_id, str(ordered.value)) == ("1002", "64.90")
    assert [(p.product_id, p.quantity) for p in ordered.products] == [("mug", 2)]


# -- docs/how-to/several-shops.md, as it stands ---------------------------------------------------


def test_accounts_by_host_and_names_for_two_shops(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("FRENCH_TOKEN", "s3cret")
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, SECRET_KEY="secret", ADROLL_DELIVERY="worker")
    with Page("docs/how-to/several-shops.md") as page:
        page.run("One app, an account for each host", app=app, os=os)
        page.run("Hosts that visitors make up", app=app)
        app.config["TRUSTED_HOSTS"] = None  # what follows has other hosts
        page.run("Two shops on one host", app=app)
        page.run("Links between two domains of yours", app=app)
        AdRoll(app)
        with reports(app) as reported:
            with app.test_request_context("/", base_url="https://shop.fr", environ_base=ADDRESS):
                order: dict[str, Any] = {"order_id": "1002", "value": 5, "currency": "EUR"}
                report_conversion(**order, adct="click123", hold=True)
            with app.app_context():
                page.run("Orders that are paid later", release_conversion=release_conversion)
        assert reported.one("purchase").advertisable_eid == "FRENCHADVERTISABLE0001"
        client = app.test_client()
        client.get("/?adct=click123")
        assert client.get_cookie("wine_visitor") is not None
        assert client.get("/to-brand").location == "https://brand.example/?adct=click123"
        assert app.test_client().get("/to-brand").location == "https://brand.example/"


# -- the pages about apps that call a Flask API, in the browser and on phones, run as they stand --


SHOP = "https://shop.test"


GAID = "38400000-8cf0-11bd-b23e-10b96e40000d"


NAMES: dict[str, Any] = {"request": request, "report_conversion": report_conversion}
NAMES["report_event"] = adroll_flask.report_event


# -- a single-page app -------------------------------------------------------------------------


def call(browser: FlaskClient, path: str, data: dict[str, Any]) -> Any:
    # As fetch() calls.
    sent = {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
    return browser.post(path, json=data, base_url=SHOP, headers=sent)


def test_a_single_page_app_reports_with_the_page_that_it_shows(tmp_path: Path) -> None:
    numbers = count(1001)

    def place_order(lines: list[dict[str, Any]]) -> SimpleNamespace:
        return SimpleNamespace(id=str(next(numbers)), total=Decimal("9.90") * len(lines))

    with page_shop(tmp_path) as shop, Page("docs/how-to/single-page-apps.md") as page:
        page.run(app=shop.app, place_order=place_order, **NAMES)
        shop.start()
        browser = shop.browser()
        call(browser, "/api/cart", {"sku": "mug", "count": 2, "page": f"{SHOP}/mugs"})
        foreign = ["https://evil.example/", "https://shop.test.evil.example/", "https://[", None, 5]
        for shown in (f"{SHOP}/checkout#payment", *foreign):
            call(browser, "/api/orders", {"lines": [{}, {}], "page": shown})
        assert shop.sold()[0] == ("1001", Decimal("19.80"), "click123")
        [added], sales = shop.sandbox.accepted("addToCart"), shop.sandbox.purchases()
        assert added["event"]["page_location"] == f"{SHOP}/mugs"
        shown, *others = [one["event"]["page_location"] for one in sales]
        assert shown.startswith(f"{SHOP}/checkout")
        assert others == [f"{SHOP}/api/orders"] * len(foreign)


# -- a mobile app ------------------------------------------------------------------------------

CALL = {"os": "iOS", "version": "14.1.3", "total": "12.00", "account": "17"}


def test_a_mobile_app_reports_with_the_click_of_its_universal_link(tmp_path: Path) -> None:
    with page_shop(tmp_path, ADROLL_STRICT=False) as shop:
        with Page("docs/how-to/mobile-apps.md") as page:
            page.run(app=shop.app, **NAMES)
        shop.start()
        client = shop.app.test_client(use_cookies=False)
        client.environ_base.update(ADDRESS)
        statuses = []
        # It asks for the visitor's consent, and sends again what got no answer.
        for consent, order in (("no", "A-1"), ("yes", "A-2"), ("yes", "A-2")):
            told = CALL | {"order": order, "adct": "click123", "device_id": GAID}
            answer = client.post("/api/app/orders", json=told, headers={"X-Ads-Consent": consent})
            assert answer.status_code == 201
            statuses.append(answer.get_json()["report"])
        assert statuses == ["suppressed", "queued", "duplicate"]
        assert shop.sold() == [("A-2", Decimal("12.00"), "click123")]
        event = shop.sandbox.purchases()[0]["event"]
        assert event["identifiers"]["device_id"] == GAID
        assert event["identifiers"]["user_id"] == "17"
        assert event["page_location"].startswith("https://shop.example/?device_os=iOS")


# -- the pages about B2B sites and products from a database, run as they stand --------------------


PRODUCTS = "docs/how-to/products.md"


def test_a_b2b_site_reports_demo_requests_and_trials(tmp_path: Path) -> None:
    with page_shop(tmp_path) as shop, Page("docs/how-to/b2b.md") as page:
        user = SimpleNamespace(id=17, email="jo@example.com")
        page.run(app=shop.app, new_user=lambda _form: user, **NAMES)
        shop.start()
        browser = shop.browser()
        browser.post("/demo", data={"email": "Jo@Example.com"}, **SITE)
        browser.post("/trial", **SITE)
        assert shop.sold() == []
        [asked] = shop.sandbox.accepted("demoRequest")
        [signed_up] = shop.sandbox.accepted("signupTrial")
    known = asked["event"]["identifiers"]
    assert known["email_sha256"] == hashlib.sha256(b"jo@example.com").hexdigest()
    assert (known["adct"], signed_up["event"]["identifiers"]["user_id"]) == ("click123", "17")


@pytest.mark.filterwarnings("ignore:Dialect sqlite:sqlalchemy.exc.SAWarning")
def test_a_flask_sqlalchemy_shop_passes_its_rows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.sqlite"
    with page_shop(tmp_path, ADROLL_OUTBOX_URL=url, SQLALCHEMY_DATABASE_URI=url) as shop:
        db = SQLAlchemy()
        names: dict[str, Any] = {}
        db.init_app(shop.app)

        def cart() -> Any:
            line = names["Line"](sku="mug", unit_price=Decimal("29.95"), count=2)
            return names["Order"](total=Decimal("59.90"), lines=[line])

        with Page(PRODUCTS) as page:
            names.update(page.run(app=shop.app, db=db, order_of_cart=cart, **NAMES))

        @shop.app.post("/one-transaction")
        def one_transaction() -> str:
            names["place_in_one_transaction"](cart())
            return ""

        shop.start()
        with shop.app.app_context():
            db.create_all()
            shop.app.extensions["adroll"].outbox.database.create_tables()
        assert shop.browser().post("/orders", **SITE).text == "Thank you for order 1!"
        assert shop.sold() == [("1", Decimal("59.90"), "click123")]
        assert shop.sandbox.purchases()[0]["event"]["event_attributes"]["products"] == [
            {"product_id": "mug", "price": "29.95", "quantity": 2}
        ]

        shop.browser().post("/one-transaction", **SITE)
        assert len(shop.sold()) == 2
        with shop.app.app_context():
            db.session.remove()
            db.engine.dispose()


# -- docs/how-to/flask-login.md, whose code runs here as it stands there, with Flask-Login itself -


class Account(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, id: str, *, is_staff: bool = False) -> None:
        self.id = id
        self.email = f"{id}@example.com"
        self.is_staff = is_staff


ACCOUNTS = {"ann": Account("ann"), "sam": Account("sam", is_staff=True)}


def login_shop(stack: ExitStack, folder: Path, load: Callable[[str], Any]) -> PageShop:
    """A shop with accounts, whose sessions Flask-Login protects."""
    # As in production: a function that raises makes a dead letter, not an error.
    config = {"ADROLL_STRICT": False, "ADROLL_DELIVERY": "worker"}
    shop = stack.enter_context(page_shop(folder, **config))
    manager = LoginManager(shop.app)
    manager.session_protection = "strong"
    manager.user_loader(load)
    shop.app.add_url_rule("/login/<id>", "login", lambda id: str(login_user(load(id))))
    shop.app.add_url_rule("/token", "token", lambda: current_visitor().token())
    sale: dict[str, Any] = {"value": "59.90", "currency": "EUR"}
    shop.app.add_url_rule(
        "/buy/<order>", "buy", lambda order: report_conversion(order_id=order, **sale).status
    )
    return shop


def logged_in(shop: PageShop, who: str) -> FlaskClient:
    browser = shop.browser()
    browser.get(f"/login/{who}", **SITE, headers=AGENT)
    return browser


def buy(browser: FlaskClient, order: str) -> str:
    return browser.get(f"/buy/{order}", **SITE, headers=AGENT).text


def last(shop: PageShop) -> dict[str, Any]:
    found: dict[str, Any] = visits.kept(shop.app)[-1]["identifiers"]
    return found


def test_accounts_and_staff(tmp_path: Path) -> None:
    with ExitStack() as stack, Page("docs/how-to/flask-login.md") as page:
        shop = login_shop(stack, tmp_path / "staff", ACCOUNTS.get)
        names = page.run("Who it is", adroll=shop.adroll, **NAMES)
        names = page.run("Staff left out", **names)
        page.run("Logout", **names, app=shop.app, redirect=redirect)
        guests_and_customers_buy_and_staff_do_not(shop)
        shop = login_shop(stack, tmp_path / "customers", ACCOUNTS.get)
        shop.adroll.identity(names["who"])
        page.run("Staff who order for a customer", **names | {"adroll": shop.adroll})
        staff_who_order_for_a_customer_report_the_customer(shop, names["paid"])
        db = SQLAlchemy()
        users: dict[str, Any] = {}
        shop = login_shop(
            stack, tmp_path / "months", lambda id: db.session.get(users["User"], int(id))
        )
        shop.app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://")
        db.init_app(shop.app)
        users |= page.run("Accounts that buy after months", **NAMES, app=shop.app, db=db)
        an_account_buys_after_months_without_a_browser(shop, **users)


def guests_and_customers_buy_and_staff_do_not(shop: PageShop) -> None:
    shop.start()
    assert buy(shop.browser(), "1") == "queued"
    assert "email_sha256" not in last(shop)
    assert buy(logged_in(shop, "ann"), "2") == "queued"
    assert last(shop)["email_sha256"] == hashlib.sha256(b"ann@example.com").hexdigest()
    assert last(shop)["user_id"] == "ann"
    assert buy(logged_in(shop, "sam"), "3") == "suppressed"


def staff_who_order_for_a_customer_report_the_customer(
    shop: PageShop, paid: Callable[[Any], object]
) -> None:
    order = SimpleNamespace(id="1", total="59.90", email="ann@example.com", user_id="ann")

    @shop.app.get("/order-for")
    def order_for() -> str:
        g.ordering_for_customer = True
        paid(order)
        return ""

    shop.start()
    order.adroll = shop.browser().get("/token", **SITE).text
    staff = logged_in(shop, "sam")
    assert buy(staff, "2") == "suppressed"
    staff.get("/order-for", **SITE, headers=AGENT)
    assert last(shop)["user_id"] == "ann"
    with shop.app.app_context():  # and a command has no g of a request
        order.id = "3"
        paid(order)
    assert len(visits.kept(shop.app)) == 2


def an_account_buys_after_months_without_a_browser(
    shop: PageShop, *, db: SQLAlchemy, User: Any, contract_signed: Callable[..., None], **_: Any
) -> None:
    now = [1_790_000_000.0]
    shop.adroll = AdRoll(clock=lambda: now[0])
    shop.start()
    contract = SimpleNamespace(id="c-1", amount="4800.00")
    with shop.app.app_context(), reports(shop.app) as reported:
        db.create_all()
        db.session.add(User(id=17, email="ann@example.com"))
        db.session.commit()
        contract_signed(db.session.get(User, 17), contract)
        assert len(reported) == 0  # nobody came through a browser yet
        logged_in(shop, "17")
        db.session.expire_all()
        user = db.session.get(User, 17)
        assert user is not None
        now[0] += 200 * 86_400
        contract_signed(user, contract)
        db.session.remove()
        db.engine.dispose()
    purchase = reported.one("purchase")
    assert (purchase.adct, purchase.user_id) == ("click123", "17")
    assert purchase.user_agent == AGENT["User-Agent"]

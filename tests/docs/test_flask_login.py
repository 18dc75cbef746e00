"""docs/how-to/flask-login.md, whose code runs here as it stands there, with Flask-Login itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, g, redirect, request
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user, logout_user
from flask_sqlalchemy import SQLAlchemy

from adroll_flask import AdRoll, current_visitor, identify, report_conversion, report_event
from adroll_flask.testing import reports
from tests.conftest import AppMaker
from tests.support.pages import Page, blocks
from tests.support.reported_events import kept
from tests.support.visits import VISIT as BASE

PAGE = "docs/how-to/flask-login.md"


class Account(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, id: str, *, is_staff: bool = False) -> None:
        self.id = id
        self.email = f"{id}@example.com"
        self.is_staff = is_staff


ACCOUNTS = {"ann": Account("ann"), "sam": Account("sam", is_staff=True)}


class Shop:
    """A shop that follows the page."""

    def __init__(self, app: Flask, names: dict[str, Any]) -> None:
        self.app = app
        self.names = names

    def guest(self) -> FlaskClient:
        client = self.app.test_client()
        client.get("/?adct=click123", **BASE)
        return client

    def logged_in(self, who: str) -> FlaskClient:
        client = self.guest()
        client.post("/login", data={"who": who}, **BASE)
        return client

    @property
    def last(self) -> dict[str, Any]:
        found: dict[str, Any] = kept(self.app)[-1]["identifiers"]
        return found


@pytest.fixture(params=["basic", "strong"])
def protection(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_shop(make_app: AppMaker, protection: str) -> Callable[..., Shop]:
    def make(*sections: str, page: Page | None = None) -> Shop:
        adroll = AdRoll()
        # As in production: a function that raises makes a dead letter, not an error.
        app = make_app(adroll, ADROLL_STRICT=False)
        manager = LoginManager(app)
        manager.session_protection = protection
        manager.user_loader(ACCOUNTS.get)
        names: dict[str, Any] = {
            "adroll": adroll,
            "app": app,
            "redirect": redirect,
            "report_conversion": report_conversion,
        }
        page = page or Page(PAGE)
        for section in ("Who it is", *sections):
            names = page.run(section, **names)

        @app.post("/login")
        def login() -> str:
            login_user(ACCOUNTS[request.form["who"]])
            return ""

        @app.post("/buy")
        def buy() -> str:
            return report_conversion(
                order_id=request.form["order"], value="59.90", currency="EUR"
            ).status

        @app.post("/buy-and-leave")
        def buy_and_leave() -> str:
            logout_user()
            return report_event("productSearch", keywords="mug").status

        @app.post("/newsletter")
        def newsletter() -> str:
            identify(email=request.form["email"])
            return ""

        @app.post("/checkout")
        def checkout() -> str:
            return current_visitor().token()

        return Shop(app, names)

    return make


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def buy(client: FlaskClient, order: str) -> str:
    return client.post("/buy", data={"order": order}, **BASE).text


def test_guests_and_customers_buy_and_staff_do_not(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("Staff left out")
    assert buy(shop.guest(), "1") == "queued"
    assert shop.last == {"adct": "click123", **shop.last}
    assert "email_sha256" not in shop.last
    assert buy(shop.logged_in("ann"), "2") == "queued"
    assert shop.last["email_sha256"] == sha256("ann@example.com")
    assert shop.last["user_id"] == "ann"
    assert buy(shop.logged_in("sam"), "3") == "suppressed"


def test_a_logout_ends_it_in_the_very_request(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("Staff left out")
    client = shop.logged_in("ann")
    assert client.post("/buy-and-leave", **BASE).text == "queued"
    assert "user_id" not in shop.last
    assert buy(client, "1") == "queued"
    assert "user_id" not in shop.last
    client.post("/login", data={"who": "sam"}, **BASE)
    assert buy(client, "2") == "suppressed"


def test_outside_of_requests_the_order_says_whose_it_is(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("Staff left out")
    token = shop.logged_in("ann").post("/checkout", **BASE).text
    order = SimpleNamespace(
        id="1", total="59.90", adroll=token, email="ann@example.com", user_id="ann"
    )
    with shop.app.app_context():
        shop.names["paid"](order)
    assert shop.last["user_id"] == "ann"
    assert shop.last["adct"] == "click123"


def test_a_webhook_s_request_names_nobody_by_itself(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("Staff left out")
    token = shop.guest().post("/checkout", **BASE).text
    order = SimpleNamespace(id="1", total="59.90", adroll=token, email=None, user_id=None)
    with shop.app.test_request_context("/webhook", method="POST"):
        login_user(ACCOUNTS["ann"])
        shop.names["paid"](order)
    assert "user_id" not in shop.last
    assert "email_sha256" not in shop.last


def test_staff_who_order_for_a_customer_report_the_customer(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("Staff who order for a customer")
    order = SimpleNamespace(id="1", total="59.90", email="ann@example.com", user_id="ann")

    @shop.app.post("/order-for")
    def order_for() -> str:
        g.ordering_for_customer = True
        shop.names["paid"](order)
        return ""

    order.adroll = shop.guest().post("/checkout", **BASE).text
    staff = shop.logged_in("sam")
    assert buy(staff, "2") == "suppressed"
    staff.post("/order-for", **BASE)
    assert shop.last["user_id"] == "ann"
    with shop.app.app_context():  # and a command has no g of a request
        order.id = "3"
        shop.names["paid"](order)
    assert len(kept(shop.app)) == 2


def test_who_is_not_there_any_more_is_said_without_a_logout(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop("Staff left out", "Logout")
    client = shop.guest()
    client.post("/newsletter", data={"email": "jo@example.com"}, **BASE)
    assert buy(client, "1") == "queued"
    assert shop.last["email_sha256"] == sha256("jo@example.com")
    client.post("/not-you", **BASE)
    assert buy(client, "2") == "queued"
    assert "email_sha256" not in shop.last
    assert shop.last["adct"] == "click123"


def test_without_getattr_a_guest_s_purchase_is_a_dead_letter(
    make_shop: Callable[..., Shop],
) -> None:
    """What the page warns of."""
    shop = make_shop()
    [block] = blocks(PAGE, "Staff left out")
    safe, unsafe = 'getattr(current_user, "is_staff", False)', "current_user.is_staff"
    assert safe in block.code
    exec(block.code.replace(safe, unsafe), shop.names)
    assert buy(shop.guest(), "1") == "invalid"


def test_an_account_buys_after_months_without_a_browser(tmp_path: Path) -> None:
    now = [1_790_000_000.0]
    app = Flask("shop", instance_path=str(tmp_path))
    adroll = AdRoll(clock=lambda: now[0])
    app.config.update(
        TESTING=True,
        SECRET_KEY="a key for tests",
        SQLALCHEMY_DATABASE_URI="sqlite://",
        ADROLL_DELIVERY="worker",
    )
    db = SQLAlchemy(app)
    names = Page(PAGE).run(
        "Accounts that buy after months", app=app, db=db, report_conversion=report_conversion
    )
    User = names["User"]
    LoginManager(app).user_loader(lambda id: db.session.get(User, int(id)))
    adroll.init_app(app)
    app.add_url_rule("/", "home", lambda: "")

    @app.post("/login")
    def login() -> str:
        login_user(db.session.get(User, 17))
        return ""

    agent = {"User-Agent": "Mozilla/5.0 (X11) Firefox/145.0"}
    contract = SimpleNamespace(id="c-1", amount="4800.00")
    with app.app_context(), reports(app) as reported:
        db.create_all()
        db.session.add(User(id=17, email="ann@example.com"))
        db.session.commit()
        names["contract_signed"](db.session.get(User, 17), contract)
        assert len(reported) == 0  # nobody came through a browser yet
        browser = app.test_client()
        browser.get("/?adct=click123", **BASE)
        browser.post("/login", **BASE, headers=agent)
        db.session.expire_all()
        user = db.session.get(User, 17)
        assert user is not None
        assert len(user.adroll) <= 1050
        now[0] += 200 * 86_400
        names["contract_signed"](user, contract)
        db.session.remove()
        db.engine.dispose()
    purchase = reported.one("purchase")
    assert purchase.adct == "click123"
    assert purchase.ip == "203.0.113.7"
    assert purchase.user_agent == agent["User-Agent"]
    assert purchase.user_id == "17"


def test_the_page_has_nothing_else(make_shop: Callable[..., Shop]) -> None:
    with Page(PAGE) as page:
        make_shop("Staff left out", "Staff who order for a customer", "Logout", page=page)
        # Run above, in an app with a database.
        page.run("Accounts that buy after months", app=Flask("shop"), db=SQLAlchemy())

"""The shop's other pages: what they report, and how they are made."""

import hashlib
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import html5lib
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from adroll_flask.testing import Reported
from demo_app import lately, paid, past
from tests.conftest import Patch

EMAIL_SHA256 = hashlib.sha256(b"ada@example.com").hexdigest()


PAGES = [
    *("/", "/products/harbour-mug", "/search", "/search?q=bowl", "/search?q=sofa", "/story"),
    *("/cart", "/newsletter", "/restaurants", "/me", "/no-such-page"),
]


def test_a_search_is_reported_with_its_words(client: FlaskClient, reported: Reported) -> None:
    assert "Harbour mug" in client.get("/search?q=+BLUE+mug ").text
    search = reported.one("productSearch")
    assert search.keywords == "BLUE mug"
    assert [product.product_id for product in search.products] == ["harbour-mug"]


def test_a_sign_up_is_reported_once_and_known(client: FlaskClient, reported: Reported) -> None:
    form = {"email": "ada@example.com", "company": "The Ebb", "covers": "20 to 60"}
    for path in ("/newsletter", "/newsletter", "/restaurants"):
        answer = client.post(path, data=form)
        assert (answer.status_code, answer.location) == (303, path)
    client.get("/search?q=mug")
    for name in ("formFill", "demoRequest", "productSearch"):
        assert reported.one(name).email_sha256 == EMAIL_SHA256


def test_a_form_with_a_fault_is_shown_again(client: FlaskClient, reported: Reported) -> None:
    elsewhere = client.post("/cart", headers={"Sec-Fetch-Site": "cross-site"})
    assert elsewhere.status_code == 403
    client.post("/cart", data={"product": "harbour-mug"})
    client.get("/checkout")
    for path, form in (
        ("/newsletter", {"email": "ada"}),
        ("/restaurants", {"email": "ada@example.com", "company": " "}),
        ("/restaurants", {}),
        *(("/checkout", {"email": email}) for email in ("", "ada@home", f"{'a' * 250}@b.cc")),
    ):
        answer = client.post(path, data=form)
        assert answer.status_code == 422
        assert 'aria-invalid="true"' in answer.text
    assert list(reported) == reported.named("addToCart"), "what is in the cart, no more"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_well_formed_and_needs_no_other_site(
    client: FlaskClient, reported: Reported, path: str
) -> None:
    client.post("/cart", data={"product": "harbour-mug"})
    reported.clear()
    page = client.get(path).text
    assert bool(reported) is ("?q=" in path), "a look is the pixel's to report, a search ours"
    html5lib.HTMLParser(strict=True).parse(page)
    urls = re.findall(r' (?:src|href|action)="([^"]+)"', page)
    assert urls
    assert [url for url in urls if not url.startswith(("/", "#"))] == []
    for url in urls:
        if "/static/" in url:
            with client.get(url) as answer:
                assert answer.status_code == 200


# -- from the catalogue to the thank-you page, and what AdRoll hears of it ------------------------


def buy(client: FlaskClient) -> TestResponse:
    client.post("/cart", data={"product": "harbour-mug", "quantity": "2"})
    client.post("/cart", data={"product": "saltmarsh-vase"})
    client.get("/checkout")
    return client.post("/checkout", data={"email": "Ada@Example.com"})


def order_number(client: FlaskClient) -> str:
    found = re.search(r'id="order-number">(TC-[0-9A-F]{8})<', client.get("/thanks").text)
    assert found is not None
    return found[1]


def test_the_shop_lists_its_paid_orders(client: FlaskClient, app: Flask) -> None:
    buy(client)
    now = datetime.now(UTC)
    with app.app_context():
        (order,) = paid(now - timedelta(hours=1), now + timedelta(minutes=1))
        assert list(paid(now - timedelta(days=2), now - timedelta(days=1))) == []
    assert (order["order_id"], order["value"]) == (order_number(client), Decimal("123.90"))
    assert app.extensions["adroll"].paid_orders.is_known


# -- the demo shop's made-up year: the same each time, and whole ----------------------------------


NOW = 1_795_619_000.0
ORDERS = "/adroll-dashboard/orders"


def test_a_year_has_its_stories(app: Flask, monkeypatch: Patch) -> None:
    monkeypatch.setattr(lately, "HOURS", 8)  # one by one; of a day and more it takes the longer
    lookups = app.extensions["adroll"].outbox.lookups

    def outcomes() -> dict[str, int]:
        found = lookups.history(NOW - past.OPEN * 86_400, ("outcome",))
        return {row.outcome: row.events for row in found}

    lately.add_to(app, NOW)
    by_outcome = outcomes()
    assert by_outcome["delivered"] > 100_000
    assert set(by_outcome) >= {"suppressed", "duplicate", "dead", "invalid"}
    # What was lost can be looked up, and so can what is held.
    assert {row.reason for row in lookups.list("dead")} == {"refused", "invalid:currency"}
    assert lookups.list("held")
    lately.add_to(app, NOW)
    assert outcomes() == by_outcome


def test_the_comparison_knows_the_orders_of_its_last_days(app: Flask, monkeypatch: Patch) -> None:
    """The main button said that the list holds no orders."""
    monkeypatch.setattr(lately, "HOURS", 8)
    now = datetime.now(UTC).timestamp()
    lately.add_to(app, now)
    staff = app.test_client()
    token = re.search(r'name="token" value="([^"]+)"', staff.get(ORDERS).text)
    assert token is not None
    form = {"token": token[1], "format": "page"}
    page = staff.post(f"{ORDERS}/missing", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    assert "holds no orders" not in page.text
    found = app.extensions["adroll"].paid_orders.compared(14)
    states = Counter(order.status for order in found)
    assert states["delivered"] > 1000
    # Those that AdRoll refused, and visitors who said no; nothing is lost or unknown.
    assert set(states) <= {"delivered", "dead", "suppressed"}
    assert f"{states['delivered']:,} of" in page.text

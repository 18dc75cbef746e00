"""From the catalogue to the thank-you page, and what AdRoll hears of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from flask import Flask
from flask.testing import FlaskClient

from adroll_flask.testing import Reported
from demo_app import paid

EMAIL = "Ada@Example.com"
EMAIL_SHA256 = hashlib.sha256(b"ada@example.com").hexdigest()


def fill_cart(client: FlaskClient) -> None:
    client.post("/cart", data={"product": "harbour-mug", "quantity": "2"})
    client.post("/cart", data={"product": "saltmarsh-vase"})


def order_number(client: FlaskClient) -> str:
    found = re.search(r'id="order-number">(TC-[0-9A-F]{8})<', client.get("/thanks").text)
    assert found is not None
    return found[1]


def test_a_purchase_is_reported_with_order_value_and_products(
    client: FlaskClient, reported: Reported
) -> None:
    client.get("/?adct=from-the-ad")
    fill_cart(client)
    client.get("/checkout")
    answer = client.post("/checkout", data={"email": EMAIL})
    assert (answer.status_code, answer.location) == (303, "/thanks")

    purchase = reported.one("purchase")
    assert purchase.order_id == order_number(client)
    assert (purchase.value, purchase.currency) == (Decimal("123.90"), "EUR")
    assert purchase.adct == "from-the-ad"
    assert purchase.first_party_cookie
    assert purchase.email_sha256 == EMAIL_SHA256
    assert not purchase.email
    assert [
        (p.product_id, p.product_group, p.category, p.price, p.quantity) for p in purchase.products
    ] == [
        ("harbour-mug", "tableware", "Cups & pots", Decimal("29.95"), 2),
        ("saltmarsh-vase", "tableware", "For the house", Decimal("64.00"), 1),
    ]


@pytest.mark.parametrize("watch", [None, "http://127.0.0.1:5001/"])
def test_the_thank_you_page_leads_to_where_the_order_arrives(
    make_shop: Callable[..., Flask], watch: str | None
) -> None:
    client = make_shop(DEMO_WATCH_URL=watch).test_client()
    fill_cart(client)
    client.get("/checkout")
    thanks = client.post("/checkout", data={"email": EMAIL}, follow_redirects=True).text
    assert (f'href="{watch}">Watch it arrive</a>' in thanks) is (watch is not None)
    assert 'href="/adroll-dashboard/orders"' in thanks


def test_reload_of_the_thank_you_page_reports_nothing(
    client: FlaskClient, reported: Reported
) -> None:
    fill_cart(client)
    client.get("/checkout")
    client.post("/checkout", data={"email": EMAIL})
    reported_before = list(reported)
    first, second = client.get("/thanks").text, client.get("/thanks").text
    assert first == second
    assert list(reported) == reported_before


def test_an_order_form_sent_twice_at_once_is_one_order_and_one_purchase(
    client: FlaskClient, shop: Flask, reported: Reported
) -> None:
    fill_cart(client)
    client.get("/checkout")
    # As a double click does: both requests carry the cookies from before the order.
    twins = [shop.test_client() for _ in range(2)]
    for twin in twins:
        for name in ("session", "adroll_visitor", "__adroll_fpc"):
            cookie = client.get_cookie(name)
            assert cookie is not None
            twin.set_cookie(name, cookie.value)
    for twin in twins:
        assert twin.post("/checkout", data={"email": EMAIL}).location == "/thanks"
    assert order_number(twins[0]) == order_number(twins[1])
    assert reported.one("purchase").order_id == order_number(twins[0])


def test_an_order_form_sent_again_later_leads_to_the_same_thank_you_page(
    client: FlaskClient, reported: Reported
) -> None:
    fill_cart(client)
    client.get("/checkout")
    client.post("/checkout", data={"email": EMAIL})
    number = order_number(client)
    assert client.post("/checkout", data={"email": EMAIL}).location == "/thanks"
    assert order_number(client) == number
    assert reported.one("purchase").order_id == number


def test_a_cart_changed_in_another_tab_is_shown_again_before_it_is_ordered(
    client: FlaskClient, reported: Reported
) -> None:
    fill_cart(client)
    client.get("/checkout")
    client.post("/cart/saltmarsh-vase", data={"quantity": "0"})
    assert client.post("/checkout", data={"email": EMAIL}).location == "/checkout"
    assert reported.named("purchase") == []
    assert "€59.90" in client.get("/checkout").text
    client.post("/checkout", data={"email": EMAIL})
    assert reported.one("purchase").value == Decimal("59.90")


def test_two_orders_of_one_customer_are_two_purchases(
    client: FlaskClient, reported: Reported
) -> None:
    numbers = []
    for _ in range(2):
        fill_cart(client)
        client.get("/checkout")
        client.post("/checkout", data={"email": EMAIL})
        numbers.append(order_number(client))
    assert [purchase.order_id for purchase in reported.named("purchase")] == numbers
    assert numbers[0] != numbers[1]


@pytest.mark.parametrize("email", ["", "ada", "ada@home", "a b@example.com", f"{'a' * 250}@b.cc"])
def test_a_wrong_address_is_shown_beside_the_field_and_orders_nothing(
    client: FlaskClient, reported: Reported, email: str
) -> None:
    fill_cart(client)
    client.get("/checkout")
    answer = client.post("/checkout", data={"email": email})
    assert answer.status_code == 422
    assert 'aria-describedby="email-error"' in answer.text
    assert reported.named("purchase") == []


def test_what_is_put_into_the_cart_is_reported(client: FlaskClient, reported: Reported) -> None:
    answer = client.post("/cart", data={"product": "harbour-mug", "quantity": "2"})
    assert (answer.status_code, answer.location) == (303, "/cart")
    added = reported.one("addToCart")
    assert (added.value, added.currency) == (Decimal("59.90"), "EUR")
    assert [(p.product_id, p.quantity) for p in added.products] == [("harbour-mug", 2)]


@pytest.mark.parametrize(("quantity", "kept"), [("-3", 1), ("many", 1), ("", 1), ("999", 20)])
def test_a_strange_quantity_becomes_a_plausible_one(
    client: FlaskClient, reported: Reported, quantity: str, kept: int
) -> None:
    client.post("/cart", data={"product": "harbour-mug", "quantity": quantity})
    assert reported.one("addToCart").products[0].quantity == kept


@pytest.mark.parametrize("data", [{}, {"product": "sofa"}])
def test_what_is_not_sold_is_not_put_into_the_cart(
    client: FlaskClient, reported: Reported, data: dict[str, str]
) -> None:
    assert client.post("/cart", data=data).status_code == 404
    assert client.post("/cart/sofa", data={"quantity": "1"}).status_code == 404
    assert list(reported) == []


def test_a_removed_line_is_gone(client: FlaskClient, reported: Reported) -> None:
    client.post("/cart", data={"product": "harbour-mug"})
    client.post("/cart/harbour-mug", data={"quantity": "0"})
    assert "Your cart is empty" in client.get("/cart").text
    assert client.get("/checkout").location == "/cart"


def test_orders_survive_a_restart_of_the_shop(
    make_shop: Callable[..., Flask], client: FlaskClient, reported: Reported
) -> None:
    fill_cart(client)
    client.get("/checkout")
    client.post("/checkout", data={"email": EMAIL})
    number, session = order_number(client), client.get_cookie("session")
    assert session is not None
    restarted = make_shop().test_client()
    restarted.set_cookie("session", session.value)
    assert order_number(restarted) == number


def test_who_ordered_nothing_is_thanked_for_nothing(client: FlaskClient) -> None:
    assert client.get("/thanks").location == "/"


def test_the_shop_lists_its_paid_orders_so_that_none_goes_missing_unseen(
    client: FlaskClient, shop: Flask
) -> None:
    fill_cart(client)
    client.get("/checkout")
    client.post("/checkout", data={"email": EMAIL})
    now = datetime.now(UTC)
    with shop.app_context():
        (order,) = paid(now - timedelta(hours=1), now + timedelta(minutes=1))
        assert list(paid(now - timedelta(days=2), now - timedelta(days=1))) == []
    assert (order["order_id"], order["value"]) == (order_number(client), Decimal("123.90"))
    assert shop.extensions["adroll"].paid_orders.is_known

"""The four payloads of AdRoll's samples, said in one call each."""

from __future__ import annotations

from typing import Any

from tests.support.event_kit import BARE, context, strictly

PLAIN = context(BARE, advertisable_eid=None, pixel_eid=None, email_forms=("plain",))
AGENT = "Mozilla/5.0 Engine/20240101 Browser/123.0"


def sent(name: str, **fields: Any) -> dict[str, Any]:
    wire = strictly(name, PLAIN, **fields).event.wire()
    del wire["timestamp"]
    return wire


def test_the_cart_is_said_in_one_call() -> None:
    assert sent(
        "addToCart",
        currency="USD",
        products=[{"product_id": "shoes-1234", "quantity": 1, "price": "56.78"}],
        first_party_cookie="8d5c4612bd1017686d7778a3bb0b39c8-a_1730238675",
        ip="123.45.67.89",
        page_location="https://www.website.com/product/shoes-1234",
        user_agent=AGENT,
    ) == {
        "event_name": "addToCart",
        "currency": "USD",
        "event_attributes": {
            "products": [{"product_id": "shoes-1234", "quantity": 1, "price": "56.78"}]
        },
        "identifiers": {"first_party_cookie": "8d5c4612bd1017686d7778a3bb0b39c8-a_1730238675"},
        "ip": "123.45.67.89",
        "page_location": "https://www.website.com/product/shoes-1234",
        "user_agent": AGENT,
    }


def test_the_conversion_is_said_in_one_call() -> None:
    assert sent(
        "purchase",
        order_id="order-1234",
        value="123.45",
        currency="USD",
        user_id="user-5678",
        email="customer@example.com",
        first_party_cookie="ebb883e7afb5d00573288f188cc75eaa-a_1730154992",
        ip="12.34.56.89",
        package_app_name="com.website.store",
        package_app_version="1.234.56r7",
        page_location="https://www.website.com/store/checkout",
        user_agent=AGENT,
    ) == {
        "conversion_value": "123.45",
        "currency": "USD",
        "event_name": "purchase",
        "event_attributes": {"order_id": "order-1234", "user_id": "user-5678"},
        "identifiers": {
            "email": "customer@example.com",
            "first_party_cookie": "ebb883e7afb5d00573288f188cc75eaa-a_1730154992",
            "user_id": "user-5678",
        },
        "ip": "12.34.56.89",
        "package_app_name": "com.website.store",
        "package_app_version": "1.234.56r7",
        "page_location": "https://www.website.com/store/checkout",
        "user_agent": AGENT,
    }


def test_the_product_search_is_said_in_one_call() -> None:
    found = [
        {"product_id": "sneaker-1234", "price": "43.21"},
        {"product_id": "loafer-5678", "price": "54.32"},
        {"product_id": "boot-9012", "price": "65.43"},
    ]
    assert sent(
        "productSearch",
        currency="USD",
        keywords="shoes",
        products=found,
        email="shopper@domain.com",
        first_party_cookie="eeed2f3b7cd3fe9114909898a3cb8928-a_1730238462",
        ip="123.45.6.78",
        page_location="https://www.website.com/search?q=shoes",
        user_agent=AGENT,
    ) == {
        "event_name": "productSearch",
        "currency": "USD",
        "event_attributes": {"keywords": "shoes", "products": found},
        "identifiers": {
            "email": "shopper@domain.com",
            "first_party_cookie": "eeed2f3b7cd3fe9114909898a3cb8928-a_1730238462",
        },
        "ip": "123.45.6.78",
        "page_location": "https://www.website.com/search?q=shoes",
        "user_agent": AGENT,
    }


def test_the_page_view_is_said_in_one_call() -> None:
    television = {
        "product_id": "television-1234",
        "price": "678.90",
        "product_group": "electronics",
        "category": "best-seller",
    }
    assert sent(
        "pageView",
        currency="USD",
        total="678.90",
        products=[television],
        email="user@domain.com",
        first_party_cookie="75733db5240f8675887af7b2de366926-a_1727130317",
        ip="123.45.67.89",
        page_location="https://www.website.com/electronics/television-1234",
        user_agent=AGENT,
    ) == {
        "event_name": "pageView",
        "currency": "USD",
        "event_attributes": {"total": "678.90", "products": [television]},
        "identifiers": {
            "email": "user@domain.com",
            "first_party_cookie": "75733db5240f8675887af7b2de366926-a_1727130317",
        },
        "ip": "123.45.67.89",
        "page_location": "https://www.website.com/electronics/television-1234",
        "user_agent": AGENT,
    }

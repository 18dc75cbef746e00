"""Payloads of AdRoll's samples, said in one call each."""

from typing import Any

import pytest

from tests.support.event_kit import BARE, context, strictly

PLAIN = context(BARE, advertisable_eid=None, pixel_eid=None, email_forms=("plain",))

CONVERSION: dict[str, Any] = {
    "conversion_value": "123.45",
    "currency": "USD",
    "event_name": "purchase",
    "event_attributes": {"order_id": "order-1234", "user_id": "user-5678"},
    "identifiers": {
        "email": "customer@example.com",
        "first_party_cookie": "ebb883e7afb5d00573288f188cc75eaa-a_1730154992",
        "user_id": "user-5678",
    },
    "package_app_name": "com.website.store",
    "package_app_version": "1.234.56r7",
    "page_location": "https://www.website.com/store/checkout",
}
VIEW: dict[str, Any] = {
    "event_name": "pageView",
    "currency": "USD",
    "event_attributes": {
        "total": "678.90",
        "products": [
            {
                "product_id": "television-1234",
                "price": "678.90",
                "product_group": "electronics",
                "category": "best-seller",
            }
        ],
    },
    "identifiers": {
        "email": "user@domain.com",
        "first_party_cookie": "75733db5240f8675887af7b2de366926-a_1727130317",
    },
    "page_location": "https://www.website.com/electronics/television-1234",
}
VISIT = {"ip": "123.45.67.89", "user_agent": "Mozilla/5.0 Engine/20240101 Browser/123.0"}


@pytest.mark.parametrize("sample", [CONVERSION, VIEW], ids=lambda it: it["event_name"])
def test_a_sample_is_said_in_one_call(sample: dict[str, Any]) -> None:
    fields = {**sample, **VISIT, **sample["identifiers"], **sample["event_attributes"]}
    name, value = fields.pop("event_name"), fields.pop("conversion_value", None)
    del fields["identifiers"], fields["event_attributes"]
    wire = strictly(name, PLAIN, value=value, **fields).event.wire()
    del wire["timestamp"]
    assert wire == {**sample, **VISIT}

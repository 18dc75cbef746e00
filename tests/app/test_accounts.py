"""Several accounts by host, and two shops on one host."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from adroll_flask import (
    AdRoll,
    AdRollMiddleware,
    ConfigurationError,
    cancel_conversion,
    current_visitor,
    release_conversion,
    report_conversion,
)
from adroll_flask.settings import Settings
from adroll_flask.testing import reports
from tests.conftest import ADVERTISABLE, PIXEL

FRENCH = {"advertisable_eid": "FRENCHADVERTISABLE0001", "pixel_eid": "FRENCHPIXEL00000000001"}
ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}
CLICKED: dict[str, Any] = {"adct": "click123", "ip": "203.0.113.9"}


@pytest.fixture
def shop(tmp_path: Any) -> Flask:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(
        TESTING=True,
        SECRET_KEY="secret",
        ADROLL_ADVERTISABLE_EID=ADVERTISABLE,
        ADROLL_PIXEL_EID=PIXEL,
        ADROLL_ACCOUNTS={"shop.fr": FRENCH, ".shop.fr": FRENCH},
    )
    AdRoll(app)

    @app.get("/")
    def page() -> str:
        return "<html><head></head></html>"

    @app.post("/buy")
    def buy() -> str:
        return report_conversion(**ORDER).status

    return app


@pytest.mark.parametrize(
    ("host", "eid"),
    [
        ("shop.example", ADVERTISABLE),
        ("shop.fr", FRENCH["advertisable_eid"]),
        ("SHOP.fr:8000", FRENCH["advertisable_eid"]),
        ("www.shop.fr", FRENCH["advertisable_eid"]),
        ("notshop.fr", ADVERTISABLE),
    ],
)
def test_an_event_goes_to_the_account_of_its_pages_host(shop: Flask, host: str, eid: str) -> None:
    with reports(shop) as reported:
        shop.test_client().post("/buy", base_url=f"https://{host}/")
    event = reported.one("purchase")
    assert event.advertisable_eid == eid
    assert event.pixel_eid == (PIXEL if eid == ADVERTISABLE else FRENCH["pixel_eid"])


def test_a_token_and_a_page_location_name_the_host_too(shop: Flask) -> None:
    with shop.test_request_context("/?adct=click123", base_url="https://shop.fr/"):
        token = current_visitor().token()
    with reports(shop) as reported, shop.app_context():
        report_conversion(**ORDER, visitor=token, ip="203.0.113.9")
        at = "https://www.shop.fr/thanks"
        report_conversion(**{**ORDER, "order_id": "2"}, **CLICKED, page_location=at)
        here = "https://shop.example/thanks"
        report_conversion(
            **{**ORDER, "order_id": "3"}, visitor=token, ip="203.0.113.9", page_location=here
        )
    french = FRENCH["advertisable_eid"]
    assert [event.advertisable_eid for event in reported] == [french, french, ADVERTISABLE]


def test_an_order_is_released_in_its_hosts_account(shop: Flask) -> None:
    runtime = shop.extensions["adroll"]
    with shop.test_request_context("/", base_url="https://shop.fr/"):
        held = report_conversion(**ORDER, **CLICKED, hold=True)
        assert release_conversion("1001").id == held.id
    with shop.test_request_context("/", base_url="https://shop.example/"):
        assert release_conversion("1001", host="shop.fr").id == held.id
    with shop.app_context():
        assert cancel_conversion("1001").id is None  # the other account's order of this id
        assert cancel_conversion("1001", host="shop.fr").id == held.id
    runtime.outbox.close()


def test_the_tag_carries_its_hosts_ids_and_is_the_same_for_every_visitor(shop: Flask) -> None:
    def tag(host: str) -> str:
        page = shop.test_client().get("/", base_url=f"https://{host}/").text
        [found] = re.findall(r"<script[^>]*data-adroll[^>]*>", page)
        return str(found)

    assert f'data-adv="{ADVERTISABLE}"' in tag("shop.example")
    assert f'data-adv="{FRENCH["advertisable_eid"]}"' in tag("shop.fr")
    assert f"/{FRENCH['advertisable_eid']}/roundtrip.js" in tag("shop.fr")
    assert tag("shop.fr") == tag("www.shop.fr")


def test_an_account_is_known_by_its_advertisable_and_by_its_host() -> None:
    settings = Settings.from_mapping(
        {
            "ADROLL_ADVERTISABLE_EID": ADVERTISABLE,
            "ADROLL_PIXEL_EID": PIXEL,
            "ADROLL_ACCOUNTS": {"Shop.fr": {**FRENCH, "access_token": "s3cret"}},
        }
    )
    assert set(settings.served_accounts) == {ADVERTISABLE, FRENCH["advertisable_eid"]}
    assert settings.account_of("shop.fr.").access_token == "s3cret"
    assert settings.account_of("") == settings.account_of("shop.example") == settings.account
    assert settings.missing == ("ADROLL_ACCESS_TOKEN",)
    assert "s3cret" not in repr(settings.served_accounts)
    assert Settings.from_mapping({"ADROLL_ACCOUNTS": {"shop.fr": FRENCH}}).missing == ()


@pytest.mark.parametrize(
    ("accounts", "says"),
    [
        ([], "takes accounts by host"),
        ({"https://shop.fr": FRENCH}, "a text of another form"),
        ({"shop.fr": {**FRENCH, "token": "s3cret"}}, "another thing for 'shop.fr'"),
        (
            {"shop.fr": {**FRENCH, "access_token": 12345}},
            "'shop.fr' another: access_token: takes",
        ),
        ({"shop.fr": {"advertisable_eid": ADVERTISABLE}}, "one without both ids for 'shop.fr'"),
        (
            {"shop.fr": FRENCH, "shop.be": {**FRENCH, "access_token": "s3cret"}},
            "one pixel and one token for an advertisable",
        ),
    ],
)
def test_accounts_of_another_form_are_named(accounts: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_mapping({"ADROLL_ACCOUNTS": accounts})
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_two_shops_on_one_host_keep_a_record_each(wrap: Callable[..., AdRollMiddleware]) -> None:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<html><head></head></html>"]

    from werkzeug.test import Client

    books, wine = wrap(app), wrap(app, cookie_name="wine_visitor", secret_key="another key")
    for shop, adct in ((books, "click1"), (wine, "click2")):
        client = Client(shop)
        client.get(f"/?adct={adct}")
        cookie = client.get_cookie("wine_visitor" if shop is wine else "adroll_visitor")
        assert cookie is not None
        seen = shop.runtime.tracked({"HTTP_COOKIE": f"{cookie.key}={cookie.value}"}).seen
        assert seen.record is not None
        assert seen.record.adct == adct

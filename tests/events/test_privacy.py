"""What tells a person leaves in no URL and no order id, from the report to what AdRoll gets."""

import json
import logging
import re
import time
import unicodedata
from collections.abc import Mapping
from typing import Any

import pytest
from flask import Flask

from adroll_flask import AdRoll, Event, report_conversion, testing
from adroll_flask.events.dedupe_key import HASHED, kept_key
from adroll_flask.events.page_location import without_persons
from tests.conftest import AppMaker, Caplog
from tests.support.visits import ORDER, invoke, kept, report, visit


def bought(
    make_app: AppMaker, url: str, settings: Mapping[str, Any] | None = None, **fields: Any
) -> tuple[Event, Flask]:
    app = make_app(**(settings or {}))

    @app.get("/<path:path>")
    def page(path: str) -> str:
        report_conversion(**{**ORDER, **fields})
        return "Thanks"

    with testing.reports(app) as reported:
        app.test_client().get(url, base_url="https://shop.test")
    return reported.one("purchase"), app


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("/thanks?order=17&email=ann.smith@example.com", "/thanks?order=17"),
        ("/thanks?order=17&who=ann.smith@example.com&step=3", "/thanks?order=17&step=3"),
        ("/thanks?who=ann.smith%40example.com", "/thanks"),
        ("/thanks?who=ann.smith%2540example.com", "/thanks"),
        ("/thanks?back=%2Faccount%3Fmail%3Dann%40example.com", "/thanks"),
        ("/thanks?ann@example.com", "/thanks"),
        ("/thanks?who=ann%EF%BC%A0example.com", "/thanks"),
        ("/thanks?phone=49301234567&Name=Ann&last_name=Smith&order=17", "/thanks?order=17"),
        ("/thanks?reset_token=abc&password=hunter2&order=17", "/thanks?order=17"),
        ("/thanks?e%6Dail=none&order=17", "/thanks?order=17"),
        ("/letters/ann@example.com/end", "/letters/end"),
        ("/letters/ann%40example.com?a=1", "/letters?a=1"),
        ("/@pottery/mug?q=a+mug&product_name=mug", "/@pottery/mug?q=a+mug&product_name=mug"),
        ("/thanks?adct=click@token.example&a=1", "/thanks?adct=click@token.example&a=1"),
    ],
)
def test_what_tells_a_person_leaves_the_url(make_app: AppMaker, asked: str, told: str) -> None:
    event, app = bought(make_app, asked)
    assert event.page_location == f"https://shop.test{told}"
    hidden = app.extensions["adroll"].counters.get("person_hidden", "page_location")
    assert hidden == (1 if asked != told else 0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("https://ann@shop.test:8443/thanks#/end?email=ann@example.com", ":8443/thanks"),
        ("https://shop.test/t#access_token=abc", "/t"),
        ("https://shop.test/t#reviews", "/t#reviews"),
    ],
)
def test_a_url_that_the_call_gives_is_cleared(make_app: AppMaker, given: str, told: str) -> None:
    event, _ = bought(make_app, "/x", page_location=given)
    assert event.page_location == f"https://shop.test{told}"


def test_the_site_says_which_parameters_mean_a_person(make_app: AppMaker) -> None:
    settings = {"ADROLL_PRIVATE_PARAMETERS": ["kunde*", "Plz"]}
    event, _ = bought(make_app, "/t?Kundennummer=7&plz=10115&name=mug", settings)
    assert event.page_location == "https://shop.test/t?name=mug"


def test_where_addresses_may_leave_in_clear_text_they_do(make_app: AppMaker) -> None:
    settings = {"ADROLL_EMAIL": ["plain"]}
    event, _ = bought(
        make_app, "/t?who=ann@example.com&token=7", settings, order_id="ann@x.example"
    )
    assert event.page_location == "https://shop.test/t?who=ann@example.com"
    assert event.order_id == "ann@x.example"


def test_an_order_id_with_an_address_is_a_hash(
    make_app: AppMaker, adroll: AdRoll, caplog: Caplog
) -> None:
    app = make_app(adroll)
    outbox = app.extensions["adroll"].outbox

    def told(**key: Any) -> str:
        return str(report(app, " trial:ann@example.com", **key).status)

    with caplog.at_level(logging.WARNING, "adroll_flask"):
        assert [told(), told()] == ["queued", "duplicate"]
        adroll.before_report(lambda event: event)  # the long way
        assert told() == "duplicate"
    assert caplog.text.count("order_id tells a person") == 1
    assert "ann" not in caplog.text
    [row] = outbox.lookups.list()
    [wire] = kept(app)
    assert wire["event_attributes"]["order_id"] == row.key
    assert app.extensions["adroll"].counters.get("person_hidden", "order_id") == 3
    assert told(deduplication_key="eve@example.com") == "queued"
    assert all(row.key.startswith("hmac-sha256:") for row in outbox.lookups.list())


def test_before_report_sees_what_leaves_and_its_changes_are_cleared(
    make_app: AppMaker, adroll: AdRoll, caplog: Caplog
) -> None:
    seen: list[Event] = []
    app = make_app(adroll)

    @adroll.before_report
    def look(event: Event) -> Event:
        seen.append(event)
        return event.replace(
            page_location="https://shop.test/?who=bob@example.com", order_id="b@x.de"
        )

    with testing.reports(app) as reported, visit(app, "/thanks?email=ann@example.com"):
        report_conversion(**{**ORDER, "order_id": "ann@example.com"})
    assert app.extensions["adroll"].counters.get("person_hidden", "page_location") == 2
    assert "something in page_location tells a person" in caplog.text
    events = [*seen, reported.one("purchase")]
    locations = [event.page_location for event in events]
    assert locations == ["https://shop.test/thanks", "https://shop.test/"]
    orders = [str(event.order_id) for event in events]
    assert all(order.startswith("hmac-sha256:") for order in orders)
    assert len({*orders}) == 2


def test_a_dead_letter_holds_no_address_and_a_fix_brings_none_in(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    with visit(app, "/thanks?email=ann@example.com"):
        told = report_conversion(order_id="ann@example.com", value="5", currency="EURO")
    assert told.status == "invalid"
    runtime = app.extensions["adroll"]
    [row] = runtime.outbox.lookups.list("dead")
    payload = runtime.outbox.lookups.show(row.id).payload
    assert b"ann" not in payload
    wire = json.loads(payload)
    wire |= {"currency": "EUR", "page_location": "https://shop.test/?who=ann@example.com"}
    wire["event_attributes"]["order_id"] = "ann@example.com"
    invoke(app, "outbox", "fix", row.id, "-", input=json.dumps(wire), code=0)
    assert b"ann" not in runtime.outbox.lookups.show(row.id).payload


def test_what_is_hashed_or_derived_is_each_sites_own(make_app: AppMaker) -> None:
    told = set()
    fields = {**ORDER, "order_id": "ann@example.com", "user_id": 7, "ip": "203.0.113.7"}
    for key in ("one", "one", "another"):
        app = make_app(SECRET_KEY=key)
        with testing.reports(app) as reported, app.app_context():
            assert report_conversion(**fields, page_location="https://shop.test/")
        event = reported.one("purchase")
        told.add((event.order_id, event.first_party_cookie))
    assert len(told) == 2
    assert len({order_id for order_id, _ in told}) == 2
    assert len({cookie for _, cookie in told}) == 2


# -- the form in which a deduplication key is kept -----------------------------------------

SECRET = b"a key of the site"


@pytest.mark.parametrize(
    "key", ["1001", "2024-10/1001", "Bestellung 7", "A@12", "@shop", "caf\u00e9-7", "50%40"]
)
def test_an_order_s_id_stays_readable(key: str) -> None:
    assert kept_key(key, SECRET) == key


@pytest.mark.parametrize(
    "key",
    [
        *("ann@example.com", "trial:ann@example.com", "trial ann@example.com 7", "ann@intranet"),
        *("trial%3Aann%40example.com", "ann%2540example.com", "ann\uff20example.com"),
        "J\u00f6rg@example.com",
    ],
)
def test_an_address_is_kept_as_a_hash_that_only_the_site_can_make(key: str) -> None:
    kept = kept_key(key, SECRET)
    assert kept.startswith(HASHED)
    assert "example" not in kept
    assert kept == kept_key(key, SECRET)
    assert kept != kept_key(key, b"another site's")
    assert kept != kept_key(key, None)
    assert kept_key(kept, SECRET) == kept


@pytest.mark.parametrize("key", ["x\x00", "10\u00a001", "1 ", "\ud800", "k" * 256, "k" * 257])
def test_a_key_that_no_database_keeps_is_kept_as_a_hash(key: str) -> None:
    kept = kept_key(key, SECRET)
    assert kept == kept_key(key, None) == kept_key(kept, SECRET)
    assert kept != kept_key(f"{key}1", SECRET)
    assert re.fullmatch("sha256:[0-9a-f]{64}", kept)


@pytest.mark.parametrize("key", ["caf\u00e9-7", "J\u00f6rg@example.com"])
def test_two_ways_to_write_a_character_are_one_key(key: str) -> None:
    assert kept_key(unicodedata.normalize("NFD", key), SECRET) == kept_key(key, SECRET)


def test_an_address_that_never_ends_takes_a_moment_only() -> None:
    began = time.process_time()
    without_persons("https://shop.test/?q=a" + "%40" * 20_000, (), False)
    assert time.process_time() - began < 2

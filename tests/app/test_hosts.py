"""``ADROLL_HOSTS``: from staging, and from a copied database, nothing real leaves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client
from werkzeug.wrappers import Response

from adroll_flask import (
    AdRollMiddleware,
    ConfigurationError,
    Visitor,
    current_visitor,
    report_conversion,
)
from adroll_flask.cli.commands import commands
from adroll_flask.sandbox import ADVERTISABLE_EID, PIXEL_EID, RunningSandbox, running
from adroll_flask.settings import Settings
from tests.conftest import PAGE, AppMaker
from tests.support.visits import at

REAL = "https://www.shop.example"
STAGING = "https://staging.shop.example"
ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}
ORDER: dict[str, Any] = {"order_id": "1001", "value": "5.00", "currency": "EUR"}


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(ADROLL_HOSTS=["www.shop.example"], ADROLL_STRICT=False)


def report(app: Flask, at: str, **fields: Any) -> str:
    with app.test_request_context("/?adct=click123", base_url=at, environ_base=ADDRESS):
        return report_conversion(**{**ORDER, **fields}).status


def dry_runs(app: Flask) -> list[bool]:
    return [row.dry_run for row in app.extensions["adroll"].outbox.lookups.list()]


def token_of(app: Flask, at: str) -> str:
    with app.test_request_context("/?adct=click123", base_url=at, environ_base=ADDRESS):
        visitor: Visitor = current_visitor()
        return visitor.token()


# -- which events are real ---------------------------------------------------------------------

LISTED = {"ADROLL_HOSTS": ["www.shop.example"]}
BELOW = {"ADROLL_HOSTS": ".shop.example"}
#: Where something is reported; whether that is a dry run, with these settings.
PLACES = [
    *((LISTED, at, False) for at in (REAL, "https://WWW.Shop.Example", f"{REAL}:443")),
    (LISTED, "http://www.shop.example:8080", False),
    *((LISTED, at, True) for at in (STAGING, "http://localhost:5000", "http://192.0.2.7")),
    *((LISTED, at, True) for at in ("https://shop.example", "https://www.shop.example.test")),
    *((LISTED, f"https://{name}www.shop.example", True) for name in ("evil", "a.")),
    *((BELOW, at, False) for at in (REAL, "https://shop.example")),
    (BELOW, "https://myshop.example", True),
    ({}, STAGING, False),
    (LISTED | {"ADROLL_DRY_RUN": True}, REAL, True),
]


@pytest.mark.parametrize(("config", "at", "dry"), PLACES)
def test_what_is_reported_at_a_host_that_is_not_listed_is_a_dry_run(
    make_app: AppMaker, config: dict[str, Any], at: str, dry: bool
) -> None:
    app = make_app(**config)
    assert report(app, at) == "queued"
    assert dry_runs(app) == [dry]


@pytest.mark.parametrize(
    ("at", "page"), [(REAL, f"{STAGING}/thanks"), (STAGING, "https://[broken")]
)
def test_a_page_that_the_call_names_counts(app: Flask, at: str, page: str) -> None:
    # The front end is on staging, its API has the real name. A malformed one counts for nothing.
    report(app, at, page_location=page)
    assert dry_runs(app) == [True]


def test_in_a_copied_database_a_token_of_the_real_site_is_no_way_out(app: Flask) -> None:
    token = token_of(app, REAL)
    report(app, STAGING, visitor=token)  # a webhook that staging gets
    report(app, REAL, visitor=token)  # the real one
    assert sorted(dry_runs(app)) == [False, True]


def test_a_task_goes_by_the_tokens_host(app: Flask) -> None:
    for order, place in enumerate((REAL, STAGING)):
        token = token_of(app, place)
        with app.app_context():
            report_conversion(**{**ORDER, "order_id": order}, visitor=token)
    assert sorted(dry_runs(app)) == [False, True]


def test_a_dry_run_takes_no_order_id_from_the_real_site(app: Flask) -> None:
    assert [report(app, at) for at in (STAGING, STAGING, REAL, REAL)] == [
        "queued",
        "duplicate",
        "queued",
        "duplicate",
    ]


def test_a_dead_letter_is_as_dry_as_its_event_would_be(app: Flask) -> None:
    assert report(app, STAGING, currency="nonsense") == "invalid"
    assert report(app, REAL, currency="nonsense") == "invalid"
    assert sorted(dry_runs(app)) == [False, True]


def test_an_event_without_page_and_request_counts_as_real(app: Flask) -> None:
    with app.app_context():
        assert report_conversion(**ORDER, ip="203.0.113.7", adct="click123").status == "invalid"
    assert dry_runs(app) == [False]


def test_imported_events_go_by_their_page(app: Flask, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    common = {"name": "purchase", "ip": "203.0.113.7", "adct": "click123", **ORDER}
    lines.write_text(
        "".join(
            json.dumps({**common, "order_id": str(n), "page_location": f"{at}/thanks"}) + "\n"
            for n, at in enumerate((REAL, STAGING))
        )
    )
    assert app.test_cli_runner().invoke(commands, ["import", str(lines)]).exit_code == 0
    assert sorted(dry_runs(app)) == [False, True]


def test_the_first_is_logged_with_its_host_and_all_are_counted(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="adroll_flask"):
        report(app, STAGING, order_id=1)
        report(app, STAGING, order_id=2)
        report(app, REAL, order_id=3)
    [line] = [record.getMessage() for record in caplog.records if "dry run" in record.getMessage()]
    assert "staging.shop.example" in line
    assert app.extensions["adroll"].counters.get("event_dry_run", "host") == 2


# -- what leaves -------------------------------------------------------------------------------


@pytest.fixture
def adroll() -> Iterator[RunningSandbox]:
    with running(strict=True) as sandbox:
        yield sandbox


def test_adroll_forgets_what_staging_sends(make_app: AppMaker, adroll: RunningSandbox) -> None:
    app = make_app(**LISTED, **at(adroll), ADROLL_DELIVERY="sync")
    for order, place in (("staging", STAGING), ("real", REAL)):
        report(app, place, order_id=order)
    [dry] = adroll.events("purchase", dry_run=True)
    [real] = adroll.events("purchase", dry_run=False)
    assert dry["event"]["event_attributes"]["order_id"] == "staging"
    assert real["event"]["event_attributes"]["order_id"] == "real"


def test_pages_elsewhere_load_no_pixel(app: Flask) -> None:
    client = app.test_client()
    real = client.get("/", base_url=REAL).text
    staging = client.get("/", base_url=STAGING).text
    assert ('data-pixel="load"' in real, "roundtrip.js" in real) == (True, True)
    assert ('data-pixel="none"' in staging, "roundtrip.js" in staging) == (True, False)
    # And the real site's are as they were.
    assert client.get("/", base_url=REAL).text == real


def test_under_the_middleware_it_is_the_same(tmp_path: Path) -> None:
    def shop(environ: Any, start_response: Any) -> Any:
        environ["adroll.report"]("purchase", **ORDER)
        return Response(PAGE, mimetype="text/html")(environ, start_response)

    wrapped = AdRollMiddleware(
        shop,
        folder=str(tmp_path),
        secret_key="a key",
        advertisable_eid=ADVERTISABLE_EID,
        pixel_eid=PIXEL_EID,
        delivery="worker",
        hosts=["www.shop.example"],
    )
    client = Client(wrapped)
    pages = [
        client.get("/?adct=c1", base_url=at, environ_overrides=ADDRESS).text
        for at in (REAL, STAGING)
    ]
    assert ["roundtrip.js" in page for page in pages] == [True, False]
    assert sorted(row.dry_run for row in wrapped.runtime.outbox.lookups.list()) == [False, True]
    wrapped.runtime.outbox.close()


# -- the setting -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [5, None, [5], "*", ["*.shop.example"], ["www.shop.example:443"], [REAL], ["a/b"], [""]],
)
def test_the_setting_takes_host_names(value: object) -> None:
    with pytest.raises(ConfigurationError, match="ADROLL_HOSTS: takes a list of host names"):
        Settings.from_mapping({"ADROLL_HOSTS": value})


def test_check_says_that_this_is_not_the_real_site(make_app: AppMaker) -> None:
    app = make_app(ADROLL_HOSTS=["www.shop.example"], SERVER_NAME="staging.shop.example:8443")
    said = app.test_cli_runner().invoke(commands, ["check"]).output
    assert "ADROLL_HOSTS: does not list SERVER_NAME (staging.shop.example)" in said

"""Several accounts by host, and two shops on one host."""

import logging
import re
import resource
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest

import adroll_flask
from adroll_flask import cancel_conversion, prometheus, report_conversion
from adroll_flask.reporting.kept_events import retry_dead
from adroll_flask.sandbox import RunningSandbox
from adroll_flask.testing import reports
from tests.conftest import ADVERTISABLE, PAGE, AppMaker, Caplog
from tests.support.visits import ORDER, at, invoke

FRENCH = {"advertisable_eid": "FRENCHADVERTISABLE0001", "pixel_eid": "FRENCHPIXEL00000000001"}


CLICKED: dict[str, Any] = {"adct": "click123", "ip": "203.0.113.9"}


def test_a_token_and_a_page_location_name_the_host_too(shop: Flask) -> None:
    of_token = {"visitor": token_of(shop, "https://shop.fr/"), "ip": "203.0.113.9"}
    french, ours = FRENCH["advertisable_eid"], ADVERTISABLE
    for fields, eid in (
        (of_token, french),
        (CLICKED | {"page_location": "https://www.shop.fr/thanks"}, french),
        (of_token | {"page_location": "https://shop.example/thanks"}, ours),
    ):
        with reports(shop) as reported, shop.app_context():
            report_conversion(**ORDER, **fields)
        assert reported.one("purchase").advertisable_eid == eid


def test_an_order_is_released_in_its_hosts_account(shop: Flask) -> None:
    with shop.test_request_context("/", base_url="https://shop.fr/"):
        held = report_conversion(**ORDER, **CLICKED, hold=True)
        assert adroll_flask.release_conversion("1001").id == held.id
    with shop.test_request_context("/", base_url="https://shop.example/"):
        assert adroll_flask.release_conversion("1001", host="shop.fr").id == held.id
    with shop.app_context():
        assert cancel_conversion("1001").id is None  # the other account's order of this id
        assert cancel_conversion("1001", host="shop.fr").id == held.id


def test_an_order_is_released_by_hand_in_the_account_that_holds_it(shop: Flask) -> None:
    for order, host in (("1", "shop.fr"), ("2", "shop.fr"), ("2", "xn--mller-kva.example")):
        with shop.test_request_context("/", base_url=f"https://{host}/"):
            report_conversion(**ORDER | {"order_id": order}, **CLICKED, hold=True)
    assert "Released" in invoke(shop, "outbox", "release", "1", code=0).output
    assert "Cancelled" in invoke(shop, "outbox", "cancel", "1", code=0).output
    assert "several accounts have" in invoke(shop, "outbox", "release", "2", code=1).output


def test_a_dry_run_is_released_by_hand_in_the_account_that_holds_it(make_app: AppMaker) -> None:
    app = make_app(ADROLL_HOSTS=["shop.example"], ADROLL_ACCOUNTS={".shop.fr": FRENCH})
    with app.test_request_context("/", base_url="https://staging.shop.fr/"):
        assert report_conversion(**ORDER, **CLICKED, hold=True).status == "held"
    assert "Released" in invoke(app, "outbox", "release", "1001", code=0).output


def test_an_account_is_known_by_its_host(make_app: AppMaker) -> None:
    nested = {".shop.fr": FRENCH | {"access_token": "s3cret"}, ".b2b.shop.fr": MULLER}
    app = make_app(ADROLL_ACCOUNTS=nested, ADROLL_ACCESS_TOKEN=None)
    settings = app.extensions["adroll"].settings
    assert settings.account_of("www.shop.fr.").access_token == "s3cret"
    assert settings.account_of("www.b2b.shop.fr").pixel_eid == MULLER["pixel_eid"]
    assert settings.account_of("") == settings.account_of("shop.example") == settings.account
    assert settings.missing == ("ADROLL_ACCESS_TOKEN",)
    assert "s3cret" not in repr(settings.served_accounts)
    none = dict.fromkeys(("ADROLL_ADVERTISABLE_EID", "ADROLL_PIXEL_EID", "ADROLL_ACCESS_TOKEN"))
    app = make_app(ADROLL_ACCOUNTS={"shop.fr": FRENCH}, **none)
    assert app.extensions["adroll"].settings.missing == ()


# -- names of hosts as browsers write them: IDN, a dot at the end, capitals, ports; and many ------


MULLER = {"advertisable_eid": "MULLERADVERTISABLE0001", "pixel_eid": "MULLERPIXEL00000000001"}


ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}


#: A host as it comes in, and whose it is.
HOSTS = [
    ("xn--mller-kva.example", MULLER),
    ("XN--MLLER-KVA.Example.", MULLER),
    ("xn--mller-kva.example:8443", MULLER),
    ("www.xn--mller-kva.example.:8443", MULLER),
    ("shop.fr.", FRENCH),
    ("SHOP.FR", FRENCH),
    ("shop.fr:443", FRENCH),
]


@pytest.fixture
def shop(make_app: AppMaker) -> Flask:
    app = make_app(
        ADROLL_ACCOUNTS={
            "xn--mller-kva.example": MULLER,
            ".xn--mller-kva.example": MULLER,
            "shop.fr": FRENCH,
            ".shop.fr": FRENCH,
        },
        ADROLL_HOSTS=[".xn--mller-kva.example", "shop.fr"],
        ADROLL_STRICT=False,
    )

    @app.get("/buy")
    def buy() -> str:
        report_conversion(**ORDER)
        return PAGE

    return app


@pytest.mark.parametrize(("host", "account"), HOSTS)
def test_a_host_is_known_in_any_spelling(shop: Flask, host: str, account: dict[str, str]) -> None:
    client, at = shop.test_client(), {"Host": host}
    with reports(shop) as reported:
        page = client.get("/buy?adct=c1", headers=at, base_url="https://x")
    assert reported.one("purchase").advertisable_eid == account["advertisable_eid"]
    assert shop.extensions["adroll"].counters.get("event_dry_run", "host") == 0
    assert f'data-adv="{account["advertisable_eid"]}"' in page.text
    assert f"/{account['advertisable_eid']}/roundtrip.js" in page.text
    # As browsers write an origin: in lower case, without the scheme's own port.
    at["Origin"] = f"https://{host.lower().removesuffix(':443')}"
    told = client.post("/_adroll/identity", json={}, headers=at, base_url="https://x")
    assert told.status_code == 204


@pytest.mark.parametrize(
    "page",
    [
        "https://müller.example/thanks",
        "https://WWW.Müller.example.:8443/",
        "https://xn--mller-kva.example/",
    ],
)
def test_a_page_and_a_host_of_an_international_name_are_their_accounts(
    shop: Flask, page: str
) -> None:
    with shop.app_context(), reports(shop) as reported:
        order: dict[str, Any] = ORDER | {"adct": "c1", "ip": "203.0.113.7", "page_location": page}
        held = report_conversion(**order, hold=True)
        assert adroll_flask.release_conversion("1001", host="Müller.example").id == held.id
        event = reported.one("purchase")
        assert cancel_conversion("1001", host="xn--mller-kva.example.").id == held.id
    assert event.advertisable_eid == MULLER["advertisable_eid"]
    assert shop.extensions["adroll"].counters.get("event_dry_run", "host") == 0
    assert "xn--mller-kva.example" in event.page_location


@pytest.mark.slow
def test_many_hosts_cost_no_memory_and_no_metric(make_app: AppMaker, caplog: Caplog) -> None:
    """Whoever asks names the host: what is kept of hosts is bounded."""
    app = make_app(
        ADROLL_COOKIE_DOMAIN="auto",
        ADROLL_HOSTS=["shop.example"],
        ADROLL_ACCOUNTS={".shop.fr": FRENCH},
    )

    @app.get("/buy/<int:number>")
    def buy(number: int) -> str:
        at = f"https://p{number}.shop.fr/"
        report_conversion(**ORDER | {"order_id": number}, page_location=at)
        return PAGE

    client = app.test_client(use_cookies=False)

    def ask(first: int, last: int) -> None:
        for number in range(first, last):
            path = f"/buy/{number}" if number % 20 == 0 else "/?adct=c1"
            headers = {"Host": f"h{number}.shop.fr"}
            assert client.get(path, headers=headers, environ_base=ADDRESS).status_code == 200

    with caplog.at_level(logging.INFO, "adroll_flask"):
        ask(0, 3000)  # whatever is bounded is full
        before = resident()
        ask(3000, 10_000)
    assert resident() - before < 4 << 20
    assert len([one for one in caplog.records if "dry run" in one.getMessage()]) == 1
    assert len(caplog.records) < 10
    registry = CollectorRegistry()
    registry.register(prometheus.AdRollCollector(app))
    metrics = generate_latest(registry).decode()
    assert not re.search(r"[hp]\d+\.shop\.fr", metrics), "shops are named as the site names them"
    assert len(metrics.splitlines()) < 500


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# -- ``ADROLL_HOSTS``: from staging, and from a copied database, nothing real leaves --------------


REAL = "https://www.shop.example"


STAGING = "https://staging.shop.example"


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
        visitor: adroll_flask.Visitor = adroll_flask.current_visitor()
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
def test_an_unlisted_host_is_a_dry_run(
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
    with app.app_context():  # a task
        report_conversion(**{**ORDER, "order_id": 2}, visitor=token_of(app, STAGING))
    assert sorted(dry_runs(app)) == [False, True, True]


def test_a_dry_run_is_logged_and_takes_no_real_order_id(app: Flask, caplog: Caplog) -> None:
    statuses = [report(app, at) for at in (STAGING, STAGING, REAL, REAL)]
    assert statuses == ["queued", "duplicate", "queued", "duplicate"]
    [line] = [record.getMessage() for record in caplog.records if "dry run" in record.getMessage()]
    assert "staging.shop.example" in line
    assert app.extensions["adroll"].counters.get("event_dry_run", "host") == 2


def test_a_dead_letter_is_as_dry_as_its_event_would_be(app: Flask) -> None:
    assert report(app, STAGING, currency="nonsense") == "invalid"
    assert report(app, REAL, currency="nonsense") == "invalid"
    with app.app_context():
        for place in (STAGING, REAL):
            report_conversion(**ORDER, visitor="nonsense", page_location=f"{place}/")
        # Without page and request it counts as real.
        assert report_conversion(**ORDER, **CLICKED).status == "invalid"
    assert sorted(dry_runs(app)) == [False, False, False, True, True]


def test_a_dry_run_that_is_fixed_is_none_more(app: Flask) -> None:
    runtime = app.extensions["adroll"]
    assert report(app, STAGING, currency="nonsense") == "invalid"
    [dead] = runtime.outbox.lookups.list("dead")
    assert retry_dead(runtime.reporter, [dead.id], currency="EUR").sent == 1
    assert dry_runs(app) == [True]
    assert runtime.counters.get("event_dry_run", "host") == 1


# -- what leaves -------------------------------------------------------------------------------


def test_adroll_forgets_what_staging_sends(make_app: AppMaker, sandbox: RunningSandbox) -> None:
    app = make_app(**LISTED, **at(sandbox), ADROLL_DELIVERY="sync")
    for order, place in (("staging", STAGING), ("real", REAL)):
        report(app, place, order_id=order)
    [dry] = sandbox.events("purchase", dry_run=True)
    [real] = sandbox.events("purchase", dry_run=False)
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


def test_check_says_that_this_is_not_the_real_site(make_app: AppMaker) -> None:
    app = make_app(ADROLL_HOSTS=["www.shop.example"], SERVER_NAME="staging.shop.example:8443")
    said = invoke(app, "check").output
    assert "ADROLL_HOSTS: does not list SERVER_NAME (staging.shop.example)" in said

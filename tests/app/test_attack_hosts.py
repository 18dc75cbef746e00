"""Names of hosts as browsers write them: IDN, a dot at the end, capitals, ports; and many."""

from __future__ import annotations

import logging
import resource
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest

from adroll_flask import (
    ConfigurationError,
    cancel_conversion,
    release_conversion,
    report_conversion,
)
from adroll_flask.prometheus import AdRollCollector
from adroll_flask.settings import Settings
from adroll_flask.testing import reports
from tests.conftest import ADVERTISABLE, PAGE, AppMaker

MULLER = {"advertisable_eid": "MULLERADVERTISABLE0001", "pixel_eid": "MULLERPIXEL00000000001"}
FRENCH = {"advertisable_eid": "FRENCHADVERTISABLE0001", "pixel_eid": "FRENCHPIXEL00000000001"}
ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}
ORDER: dict[str, Any] = {"order_id": "1001", "value": "5.00", "currency": "EUR"}
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
def test_a_host_is_known_however_the_browser_writes_it(
    shop: Flask, host: str, account: dict[str, str]
) -> None:
    with reports(shop) as reported:
        page = shop.test_client().get("/buy?adct=c1", headers={"Host": host}, base_url="https://x")
    event = reported.one("purchase")
    assert event.advertisable_eid == account["advertisable_eid"]
    assert shop.extensions["adroll"].counters.get("event_dry_run", "host") == 0
    assert f'data-adv="{account["advertisable_eid"]}"' in page.text


@pytest.mark.parametrize(
    "page",
    [
        "https://müller.example/thanks",
        "https://WWW.Müller.example.:8443/",
        "https://xn--mller-kva.example/",
    ],
)
def test_a_page_of_an_international_name_is_its_hosts(shop: Flask, page: str) -> None:
    with shop.app_context(), reports(shop) as reported:
        report_conversion(**ORDER, adct="c1", ip="203.0.113.7", page_location=page)
    event = reported.one("purchase")
    assert event.advertisable_eid == MULLER["advertisable_eid"]
    assert shop.extensions["adroll"].counters.get("event_dry_run", "host") == 0
    assert "xn--mller-kva.example" in event.page_location


def test_an_order_is_released_and_cancelled_by_an_international_name(shop: Flask) -> None:
    with shop.app_context():
        at: dict[str, Any] = {"adct": "c1", "ip": "203.0.113.7"}
        held = report_conversion(**ORDER, **at, hold=True, page_location="https://müller.example/")
        assert release_conversion("1001", host="Müller.example").id == held.id
        assert cancel_conversion("1001", host="xn--mller-kva.example.").id == held.id


@pytest.mark.parametrize("domain", ["auto", "xn--mller-kva.example", "shop.example"])
@pytest.mark.parametrize(
    "host",
    ["www.xn--mller-kva.example", "www.xn--mller-kva.example.", "WWW.xn--mller-kva.example:8443"],
)
def test_a_visitor_keeps_the_cookies_at_each_of_these_names(
    make_app: AppMaker, host: str, domain: str
) -> None:
    app = make_app(ADROLL_COOKIE_DOMAIN=domain)
    client = app.test_client(use_cookies=False)
    answer = client.get("/?adct=c1", headers={"Host": host}, base_url="https://x")
    cookies = answer.headers.getlist("Set-Cookie")
    assert {cookie.partition("=")[0] for cookie in cookies} == {"adroll_visitor", "__adroll_fpc"}
    name = host.partition(":")[0].lower()
    for cookie in cookies:
        for part in cookie.split("; ")[1:]:
            if part.startswith("Domain="):
                # RFC 6265, section 5.3, step 6: a browser drops the cookie otherwise.
                assert f".{name}".endswith(f".{part.removeprefix('Domain=').lstrip('.')}")


@pytest.mark.parametrize(
    "host", ["xn--mller-kva.example", "shop.fr.", "SHOP.fr:8443", "shop.fr:443"]
)
def test_the_kit_of_such_a_page_may_tell_who_the_visitor_is(shop: Flask, host: str) -> None:
    # As browsers write an origin: in lower case, without the scheme's own port.
    origin = f"https://{host.lower().removesuffix(':443')}"
    answer = shop.test_client().post(
        "/_adroll/identity",
        json={"adct": "click-1"},
        headers={"Host": host, "Origin": origin},
        base_url="https://x",
    )
    assert answer.status_code == 204


@pytest.mark.parametrize("key", ["ADROLL_HOSTS", "ADROLL_ORIGINS", "ADROLL_COOKIE_DOMAIN"])
def test_a_setting_takes_no_name_that_no_browser_sends(key: str) -> None:
    value = "https://müller.example" if key == "ADROLL_ORIGINS" else "müller.example"
    with pytest.raises(ConfigurationError, match=key):
        Settings.from_mapping({key: value})


def test_a_setting_says_how_an_international_name_is_written() -> None:
    with pytest.raises(ConfigurationError, match="xn--"):
        Settings.from_mapping({"ADROLL_HOSTS": ["müller.example"]})
    with pytest.raises(ConfigurationError, match="xn--"):
        Settings.from_mapping({"ADROLL_ACCOUNTS": {"müller.example": MULLER}})


@pytest.mark.slow
def test_ten_thousand_hosts_cost_no_memory_no_metric_and_one_line(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
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
    registry.register(AdRollCollector(app))
    metrics = generate_latest(registry).decode()
    assert "shop.fr" not in metrics
    assert len(metrics.splitlines()) < 500


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_an_advertisable_of_the_shop_itself_is_everybody_elses(shop: Flask) -> None:
    with reports(shop) as reported:
        shop.test_client().get("/buy?adct=c1", base_url="https://mueller.example")
    assert reported.one("purchase").advertisable_eid == ADVERTISABLE

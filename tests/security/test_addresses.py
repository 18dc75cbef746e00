"""The visitor's address is what the server says, and nobody else can say it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.support.sites import ADDRESS, HOST, MakeSite, Site

FORGED = "203.0.113.66"
HEADERS = [
    "X-Forwarded-For",
    "X-Real-IP",
    "Forwarded",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Client-IP",
    "Via",
]


def reported_from(site: Site, headers: dict[str, str] | None = None, **environ: Any) -> str | None:
    """The address in the event that a purchase with these headers makes."""
    before = len(site.events())
    site.get("/buy?order=" + str(before), headers=headers, environ_overrides=environ)
    (event,) = site.events()[before:] or [{}]
    return event.get("ip")


@pytest.mark.parametrize("header", HEADERS)
def test_no_header_of_a_visitor_changes_the_address(site: Site, header: str) -> None:
    site.get("/?adct=click1")
    value = f"for={FORGED}" if header == "Forwarded" else FORGED

    assert reported_from(site, {header: value}) == ADDRESS
    assert site.visitor()["ip"] == ADDRESS
    assert FORGED.encode() not in site.outbox_bytes()


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("8.8.4.4", "8.8.4.4"),
        (f"{FORGED}, 8.8.4.4", "8.8.4.4"),
        (f"{FORGED}, {FORGED}, 8.8.4.4", "8.8.4.4"),
        ("2001:4860:4860::8888", "2001:4860:4860::8888"),
        ("[2001:4860:4860::8888]:4711", "2001:4860:4860::8888"),
        ("8.8.4.4:4711", "8.8.4.4"),
        ("::ffff:8.8.4.4", "8.8.4.4"),
    ],
)
def test_behind_proxy_fix_the_address_is_what_the_trusted_proxy_saw(
    site: Site, chain: str, expected: str
) -> None:
    site.app = ProxyFix(site.app, x_for=1)
    site.get("/?adct=click1")

    assert reported_from(site, {"X-Forwarded-For": chain}, REMOTE_ADDR="10.0.0.1") == expected


def test_proxy_fix_inside_a_flask_app_is_honoured(make_flask_site: MakeSite) -> None:
    site = make_flask_site()
    site.app.wsgi_app = ProxyFix(site.app.wsgi_app, x_for=1)
    site.get("/?adct=click1")

    forged_first = {"X-Forwarded-For": f"{FORGED}, 8.8.4.4"}
    assert reported_from(site, forged_first, REMOTE_ADDR="10.0.0.1") == "8.8.4.4"


@pytest.mark.parametrize(
    "given", ["10.1.2.3", "127.0.0.1", "192.168.7.7", "::1", "fd00::7", "::ffff:10.0.0.1"]
)
def test_a_private_address_is_counted_and_warned_of_once_without_naming_it(
    site: Site, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.get("/?adct=click1")

    with caplog.at_level(logging.DEBUG, "adroll_flask"):
        first, second = (
            site.get(f"/buy?order={n}", environ_overrides={"REMOTE_ADDR": given}).get_json()
            for n in range(2)
        )

    # It most likely means a missing ProxyFix; the sale counts all the same.
    assert first["status"] == second["status"] == "queued"
    assert site.counts.get("address_private", 0) >= 2
    warnings = [r.getMessage() for r in caplog.records if "ProxyFix" in r.getMessage()]
    assert len(warnings) == 1
    assert given not in caplog.text


def test_the_host_of_a_forged_forwarded_host_is_not_the_pages(site: Site) -> None:
    site.get("/?adct=click1")

    site.get("/buy", headers={"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"})

    (event,) = site.events()
    assert event["page_location"].startswith(f"https://{HOST}/buy")

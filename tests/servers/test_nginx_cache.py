"""Pages in a real cache: nginx before the app, two visitors, one page, two identities."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, Response

from adroll_flask import current_visitor, report_conversion
from tests.conftest import PAGE, AppMaker
from tests.support import PATIENCE
from tests.support.nginx import HIDING, HOARDING, HONEST, CachedSite, behind_nginx
from tests.support.visits import kept

A = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"
B = "00000000000000000000000000000b0b-1700000000000"


def add_pages(app: Flask) -> None:
    def page(path: str, **headers: str) -> None:
        fixed = {name.replace("_", "-"): value for name, value in headers.items()}
        app.add_url_rule(path, path, lambda: Response(PAGE, headers=fixed))

    page("/public", Cache_Control="public, max-age=600")
    page("/listed/mugs")
    page("/listed/müsli and milk")
    page("/accel", X_Accel_Expires="60")
    page("/accel-private", X_Accel_Expires="60", Cache_Control="private")

    @app.post("/who")
    def posted() -> dict[str, Any]:
        visitor = current_visitor()
        return {"adct": visitor.adct, "cookie": visitor.first_party_cookie}

    @app.post("/buy/<order>")
    def buy(order: str) -> dict[str, Any]:
        return {"status": report_conversion(order_id=order, value="1", currency="EUR").status}


@dataclass
class Visitor:
    """A browser's part, by hand: what the kit does on a page."""

    site: CachedSite
    session: requests.Session
    adct: str
    cookie: str

    def get(self, path: str) -> requests.Response:
        headers = {"Sec-Fetch-Dest": "document"}
        return self.session.get(self.site.url(path), headers=headers, timeout=PATIENCE)

    def run_kit(self, page: requests.Response) -> None:
        """What the kit tells the server, to the address that the tag has."""
        [address] = re.findall(r'data-identity="([^"]+)"', page.text)
        answer = self.session.post(
            self.site.url(address),
            json={"adct": self.adct, "first_party_cookie": self.cookie},
            headers={"Sec-Fetch-Site": "same-origin"},
            timeout=PATIENCE,
        )
        assert (answer.status_code, answer.headers["Cache-Control"]) == (204, "no-store")

    def post(self, path: str) -> Any:
        return self.session.post(self.site.url(path), timeout=PATIENCE).json()


def cached(response: requests.Response) -> str:
    return response.headers["X-Cache-Status"]


#: Pages, and what nginx is told about them.
PAGES = [
    ("/public", HONEST),
    ("/accel", HONEST),
    ("/accel", "proxy_ignore_headers Set-Cookie;"),
    ("/accel-private", HONEST),
    ("/listed/mugs", HOARDING),
    ("/listed/mugs", HIDING),
    ("/listed/müsli and milk", HOARDING),
]


@pytest.mark.parametrize(("path", "location"), PAGES)
def test_two_visitors_of_a_public_page_are_two_identities(
    make_app: AppMaker, tmp_path: Path, stack: ExitStack, path: str, location: str
) -> None:
    """One page is stored, and they are two, up to their orders."""
    app = make_app(ADROLL_CACHED_PATHS=["/listed/mugs", "/listed/müsli a*"])
    add_pages(app)
    site = stack.enter_context(behind_nginx(app, tmp_path / "nginx", location))
    with requests.Session() as one, requests.Session() as other:
        ada, bob = Visitor(site, one, "click-a", A), Visitor(site, other, "click-b", B)
        first, second = (visitor.get(f"{path}?adct={visitor.adct}") for visitor in (ada, bob))
        assert (cached(first), cached(second)) == ("MISS", "HIT")
        assert first.content == second.content
        assert first.text.count("data-adroll") == 1
        for page in (first, second):
            assert "Set-Cookie" not in page.headers
            assert "Vary" not in page.headers
            assert "click-" not in page.text

        ada.run_kit(first)
        bob.run_kit(second)
        # Now that both have cookies the page is still the one that the cache has.
        for visitor in (ada, bob):
            assert visitor.post("/who") == {"adct": visitor.adct, "cookie": visitor.cookie}
            again = visitor.get(path)
            assert cached(again) == "HIT"
            assert again.content == first.content
            assert "Set-Cookie" not in again.headers
        assert site.hits.count(("GET", path, 200)) == 1

        assert ada.post("/buy/1") == bob.post("/buy/2") == {"status": "queued"}
    sent = kept(site.app, "waiting")
    identifiers = {event["event_attributes"]["order_id"]: event["identifiers"] for event in sent}
    assert identifiers == {
        "1": {"adct": "click-a", "first_party_cookie": A},
        "2": {"adct": "click-b", "first_party_cookie": B},
    }

    stored = site.stored()
    assert PAGE[:40].encode() in stored
    for trace in (b"Set-Cookie", b"set-cookie", b"adroll_visitor", b"click-", A.encode()):
        assert trace not in stored

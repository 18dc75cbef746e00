"""One visitor's cookies are nobody else's, whatever a page says: Apache, nginx and Varnish."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, Response, request

from adroll_flask import current_visitor
from tests.conftest import PAGE, AppMaker
from tests.support import PATIENCE
from tests.support.caches import CACHES
from tests.support.nginx import HOARDING, CachedSite, behind_nginx

PAST, LATER = "Fri, 01 Jan 1999 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
#: What pages say of caching, each with an ETag and the time of its last change, as files have.
PAGES: dict[str, dict[str, str]] = {
    "silent": {},
    "private": {"Cache-Control": "private"},
    "no-cache": {"Cache-Control": "no-cache"},
    "max-age-0": {"Cache-Control": "max-age=0"},
    "must-revalidate": {"Cache-Control": "must-revalidate"},
    "no-cache-must-revalidate": {
        "Cache-Control": "no-cache, must-revalidate",
        "Pragma": "no-cache",
    },
    "no-cache-of-a-header": {"Cache-Control": 'no-cache="Set-Cookie"'},
    "private-of-a-header": {"Cache-Control": 'private="Set-Cookie"'},
    "private-of-a-header-for-a-minute": {"Cache-Control": 'private="Set-Cookie", max-age=60'},
    "past": {"Expires": PAST},
    "later": {"Expires": LATER},
    "public": {"Cache-Control": "public, max-age=600"},
}


class Visitor:
    """A browser that runs no script."""

    def __init__(self, site: CachedSite, session: requests.Session, *, gpc: bool = False) -> None:
        self._site, self._session = site, session
        session.headers["Sec-Fetch-Dest"] = "document"
        if gpc:
            self.refuse()

    def refuse(self) -> None:
        self._session.headers["Sec-GPC"] = "1"

    def get(self, path: str) -> str:
        answer = self._session.get(self._site.url(path), timeout=PATIENCE)
        assert answer.status_code == 200
        assert answer.text.count("data-adroll") == 1
        return answer.text

    def tell(self, **message: str) -> None:
        """What a page's kit tells the server."""
        url, headers = self._site.url("/_adroll/identity"), {"Sec-Fetch-Site": "same-origin"}
        answer = self._session.post(url, json=message, headers=headers, timeout=PATIENCE)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (204, "no-store")

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.name: str(cookie.value) for cookie in self._session.cookies}

    def who(self) -> Any:
        """Whom the server takes this browser for."""
        return self._session.post(self._site.url("/who"), timeout=PATIENCE).json()["adct"]


def add_pages(app: Flask) -> None:
    def page(name: str) -> Response:
        response = Response(PAGE, headers=PAGES[name])
        response.add_etag()
        response.headers["Last-Modified"] = PAST
        return response.make_conditional(request)  # type: ignore[return-value]

    app.add_url_rule("/page/<name>", "page", page)
    app.add_url_rule("/landing", "landing", lambda: Response(PAGE))
    app.add_url_rule("/who", "posted", lambda: {"adct": current_visitor().adct}, methods=["POST"])


@pytest.fixture(params=CACHES)
def site(
    request: pytest.FixtureRequest, make_app: AppMaker, tmp_path: Path
) -> Iterator[CachedSite]:
    app = make_app()
    add_pages(app)
    with CACHES[request.param](app, tmp_path) as site:
        yield site


def test_no_visitor_is_given_another_ones_cookies(site: CachedSite, stack: ExitStack) -> None:
    """Each page by two who clicked an ad, by one with Global Privacy Control, by one who turns it
    on later, and by a stranger; all of them more than once."""

    def visitor(**how: bool) -> Visitor:
        return Visitor(site, stack.enter_context(requests.Session()), **how)

    for name in PAGES:
        ada, bob, later, stranger = visitor(), visitor(), visitor(), visitor()
        gpc = visitor(gpc=True)
        ada.get("/landing?adct=click-a")
        bob.get("/landing?adct=click-b")
        before = ada.cookies
        for _ in range(2):
            for one in (ada, later, gpc, bob, stranger):
                one.get(f"/page/{name}")
                one.get(f"/page/{name}")
            later.refuse()
        assert (ada.who(), bob.who(), stranger.who()) == ("click-a", "click-b", None), name
        assert ada.cookies == before, f"{name}: taken back with another one's, or replaced"
        assert gpc.cookies == {}, name
        values = [value for one in (ada, bob, later, stranger) for value in one.cookies.values()]
        assert len(values) == len(set(values)), f"{name}: two browsers have one identity"
    for trace in (b"Set-Cookie: adroll_visitor", b"Set-Cookie: __adroll_fpc"):
        assert trace not in site.stored()


def test_where_a_cache_keeps_everything_the_kit_tells_two_visitors_apart(
    make_app: AppMaker, tmp_path: Path, stack: ExitStack
) -> None:
    """The site says which paths it keeps whatever the headers say."""
    app = make_app(ADROLL_CACHED_PATHS=["/listed/müsli a*"])
    add_pages(app)
    path = "/listed/müsli and milk"
    app.add_url_rule(path, "listed", lambda: Response(PAGE))
    site = stack.enter_context(behind_nginx(app, tmp_path / "nginx", HOARDING))
    ada, bob = (Visitor(site, stack.enter_context(requests.Session())) for _ in range(2))
    pages = [one.get(f"{path}?adct={adct}") for one, adct in ((ada, "click-a"), (bob, "click-b"))]
    assert pages[0] == pages[1]
    assert "click-" not in pages[0]
    assert ada.cookies == bob.cookies == {}
    assert site.hits == [("GET", path, 200)], "the second came from the cache"

    ada.tell(adct="click-a")
    bob.tell(adct="click-b")
    assert (ada.who(), bob.who()) == ("click-a", "click-b")
    assert ada.cookies["__adroll_fpc"] != bob.cookies["__adroll_fpc"]
    assert ada.get(path) == pages[0], "now that they have cookies it is the same page"

"""When a page counts as shared-cacheable: one rule, for pages on their way out and for check."""

from __future__ import annotations

import pytest
from flask import Response
from werkzeug.datastructures import Headers

from adroll_flask.page.caching import is_shared_cacheable, read_headers
from tests.conftest import PAGE, AppMaker

NOW = 1_790_000_000.0
LATER = "Fri, 01 Jan 2100 00:00:00 GMT"

CACHEABLE: list[dict[str, str]] = [
    {"Cache-Control": "public"},
    {"Cache-Control": "PUBLIC, max-age=0"},
    {"Cache-Control": "max-age=60"},
    {"Cache-Control": 'max-age="60"'},
    {"Cache-Control": "s-maxage=60, max-age=0"},
    {"Cache-Control": "no-cache", "Expires": LATER},
    {"Expires": LATER},
    {"CDN-Cache-Control": "max-age=60"},
    {"Surrogate-Control": "max-age=60", "Cache-Control": "max-age=0"},
]
NOT_CACHEABLE: list[dict[str, str]] = [
    {},
    {"Cache-Control": "no-store, public"},
    {"Cache-Control": "private, max-age=60"},
    {"Cache-Control": 'private="Set-Cookie", max-age=60'},
    {"Cache-Control": "no-cache"},
    {"Cache-Control": "max-age=0"},
    {"Cache-Control": "max-age=0", "Expires": LATER},
    {"Cache-Control": "max-age=soon", "Expires": LATER},
    {"Cache-Control": "max-age=²"},
    {"Expires": "0"},
    {"Expires": "Fri, 01 Jan 1999 00:00:00 GMT"},
    {"CDN-Cache-Control": "max-age=60", "Cache-Control": "no-store"},
]


@pytest.mark.parametrize("headers", CACHEABLE)
def test_what_lets_a_shared_cache_keep_a_page(headers: dict[str, str]) -> None:
    assert is_shared_cacheable(read_headers(headers.items()), NOW)


@pytest.mark.parametrize("headers", NOT_CACHEABLE)
def test_what_does_not(headers: dict[str, str]) -> None:
    assert not is_shared_cacheable(read_headers(headers.items()), NOW)


def test_repeated_headers_count_together() -> None:
    headers = Headers([("Cache-Control", "max-age=60"), ("cache-control", "private")])
    assert not is_shared_cacheable(read_headers(headers), NOW)


def test_a_page_whose_max_age_of_0_overrides_its_expires_gets_cookies(make_app: AppMaker) -> None:
    """RFC 9111, section 5.3: no cache would keep it, so the server may set what the kit could."""
    headers = {"Cache-Control": "max-age=0", "Expires": LATER}
    app = make_app()
    app.add_url_rule("/page", "page", lambda: Response(PAGE, headers=headers))
    response = app.test_client().get("/page?adct=click123")
    names = {line.partition("=")[0] for line in response.headers.getlist("Set-Cookie")}
    assert names >= {"adroll_visitor", "__adroll_fpc"}
    assert response.headers["Cache-Control"] == "max-age=0"

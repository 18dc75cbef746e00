"""When a page counts as shared-cacheable: one rule, for pages on their way out and for check."""

import pytest
from werkzeug.datastructures import Headers

from adroll_flask.page.caching import TARGETED, is_shared_cacheable, read_headers

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
    {"Cache-Control": "max-age=0, stale-while-revalidate=60"},
    {"Cache-Control": "no-cache, stale-if-error=60"},
    {"X-Accel-Expires": "60"},
    {"X-Accel-Expires": "@4102444800", "Cache-Control": "private"},
    # A cache that has a header of its own does not read what is said to the others.
    {"CDN-Cache-Control": "max-age=60", "Cache-Control": "no-store"},
    {"Cloudflare-CDN-Cache-Control": "max-age=60", "CDN-Cache-Control": "no-store"},
    {"Edge-Control": "!no-store, cache-maxage=1d", "Cache-Control": "no-store"},
    {"CDN-Cache-Control": "no-store", "Cache-Control": "max-age=60"},
    *({name: "max-age=60"} for name in TARGETED),
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
    {"Cache-Control": "private, stale-while-revalidate=60"},
    {"CDN-Cache-Control": "no-store"},
    {"Surrogate-Control": "no-store", "Cache-Control": "no-store"},
    {"X-LiteSpeed-Cache-Control": "private, max-age=120"},
    {"X-Accel-Expires": "0"},
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

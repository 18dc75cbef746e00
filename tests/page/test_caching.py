"""When a response may carry a visitor's cookies: one rule, for pages and for check."""

from collections.abc import Callable, Iterator
from itertools import combinations, permutations
from random import Random
from urllib.request import parse_http_list

import pytest
from flask import Flask, Response, request
from werkzeug.datastructures import Headers
from werkzeug.test import Client, TestResponse

from adroll_flask import AdRollMiddleware, current_visitor, forget_visitor
from adroll_flask.page.shared_caches import TARGETED, is_shared_cacheable, read_headers
from tests.conftest import ADVERTISABLE, PAGE, PIXEL, AppMaker

NOW = 1_790_000_000.0
PAST, LATER = "Fri, 01 Jan 1999 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"

CACHEABLE: list[dict[str, str]] = [
    {"Cache-Control": "public"},
    {"Cache-Control": "PUBLIC, max-age=0"},
    {"Cache-Control": "max-age=60"},
    {"Cache-Control": 'max-age="60"'},
    {"Cache-Control": "s-maxage=60, max-age=0"},
    {"Cache-Control": "max-age=0, max-age=60"},
    {"Cache-Control": "no-cache", "Expires": LATER},
    {"Cache-Control": "max-age=0", "Expires": LATER},
    {"Expires": LATER},
    # Apache's mod_cache keeps these and hands them on without asking.
    {"Expires": PAST},
    {"Cache-Control": "must-revalidate"},
    {"Cache-Control": "no-transform"},
    {"Cache-Control": "max-age=soon", "Expires": LATER},
    {"Cache-Control": "max-age=²"},
    {"Cache-Control": "max-age=-1"},
    # One header's, and what only looks like a directive.
    {"Cache-Control": 'private="Set-Cookie", max-age=60'},
    {"Cache-Control": 'no-cache="Set-Cookie", max-age=60'},
    {"Cache-Control": 'extension="x, private, y"'},
    {"Cache-Control": 'extension="x, private'},
    {"Cache-Control": "private; max-age=60"},
    {"CDN-Cache-Control": "max-age=60"},
    {"CDN-Cache-Control": 'private="x"', "Cache-Control": "private"},
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
    {"Cache-Control": 'extension="x", private'},
    {"Cache-Control": 'private="Set-Cookie"'},
    {"Cache-Control": "no-cache"},
    {"Cache-Control": "no-cache, must-revalidate, proxy-revalidate, no-transform"},
    {"Cache-Control": "no-cache", "Expires": PAST, "Pragma": "no-cache"},
    {"Cache-Control": "max-age=0"},
    {"Cache-Control": "max-age=0, no-cache", "Expires": "0"},
    {"Cache-Control": "private, stale-while-revalidate=60"},
    {"CDN-Cache-Control": "no-store"},
    {"Surrogate-Control": "no-store", "Cache-Control": "no-store"},
    {"X-LiteSpeed-Cache-Control": "private, max-age=120"},
    {"X-Accel-Expires": "0"},
]


@pytest.mark.parametrize("headers", CACHEABLE)
def test_what_does_not_keep_shared_caches_from_a_page(headers: dict[str, str]) -> None:
    assert is_shared_cacheable(read_headers(headers.items()), NOW)


@pytest.mark.parametrize("headers", NOT_CACHEABLE)
def test_what_does(headers: dict[str, str]) -> None:
    assert not is_shared_cacheable(read_headers(headers.items()), NOW)


def test_repeated_headers_count_together() -> None:
    headers = Headers([("Cache-Control", "max-age=60"), ("cache-control", "private")])
    assert not is_shared_cacheable(read_headers(headers), NOW)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("", "Cookie"),
        ("Accept", "Accept, Cookie"),
        ("Accept, Cookie", "Accept, Cookie"),
        ("cookie,accept", "cookie,accept"),
        ("*", "*"),
    ],
)
def test_a_page_that_shows_the_visitor_varies_by_cookie_once(
    make_app: AppMaker, own: str, told: str
) -> None:
    app = make_app()

    @app.get("/seen")
    def seen() -> Response:
        current_visitor()
        return Response(PAGE, headers={"Vary": own} if own else {})

    assert app.test_client().get("/seen").headers["Vary"] == told


# -- one invariant over all of it ----------------------------------------------------------

DIRECTIVES = (
    *("public", "private", 'private="Set-Cookie"', "no-store", "no-cache", 'no-cache="Set-Cookie"'),
    *("max-age=0", "max-age=60", "s-maxage=0", "s-maxage=60", "must-revalidate"),
    *("proxy-revalidate", "no-transform", "must-understand", "immutable"),
    *("stale-while-revalidate=9", "stale-if-error=9", 'extension="a, private"', "private x"),
)
BESIDE: tuple[dict[str, str], ...] = (
    {},
    {"Expires": PAST},
    {"Expires": LATER},
    {"Expires": "0", "Pragma": "no-cache"},
    {"CDN-Cache-Control": "max-age=60"},
    {"CDN-Cache-Control": "no-store"},
    {"X-Accel-Expires": "0"},
)
OURS = ("adroll_visitor=", "__adroll_fpc=")
#: Who asks: a new visitor, one who comes from an ad, and two whose cookies are to be taken back.
VISITS = ("new", "clicked", "refused", "forgotten")


def cases() -> Iterator[tuple[dict[str, str], str]]:
    """Headers and who asks: each directive beside all of the others' headers and for everybody;
    two in each order, and some of three, for somebody."""
    for control in ("", *DIRECTIVES):
        for beside in BESIDE:
            for visit in VISITS:
                yield said(control, beside), visit
    threes = [", ".join(three) for three in combinations(DIRECTIVES, 3)]
    more = [
        *(", ".join(two) for two in permutations(DIRECTIVES, 2)),
        *Random(36).sample(threes, 200),
    ]
    for number, control in enumerate(more):
        yield said(control, BESIDE[number % 7]), VISITS[number % 4]


def said(control: str, beside: dict[str, str]) -> dict[str, str]:
    return beside | ({"Cache-Control": control} if control else {})


def flask_site(make_app: AppMaker, view: Callable[[], Response]) -> Client:
    app = make_app()
    app.add_url_rule("/page", "page", view, methods=["GET", "POST"])
    return app.test_client()


def wsgi_site(make_app: AppMaker, view: Callable[[], Response]) -> Client:
    app = Flask("shop")
    app.add_url_rule("/page", "page", view, methods=["GET", "POST"])
    account = {"advertisable_eid": ADVERTISABLE, "pixel_eid": PIXEL, "access_token": "a-token"}
    folder = make_app().instance_path
    kept = {"secret_key": "a key for tests", "delivery": "worker", "folder": folder}
    return Client(AdRollMiddleware(app.wsgi_app, **account, **kept))  # type: ignore[arg-type]


def ask(site: Client, visit: str, method: str, headers: dict[str, str]) -> TestResponse:
    """One visit of somebody whose browser has nothing, or has cookies to be taken back."""
    browser = Client(site.application)
    if visit in ("refused", "forgotten"):
        browser.get("/page?adct=click123")
        assert browser.get_cookie("adroll_visitor")
    query = {"clicked": "?adct=click456", "forgotten": "?forget"}.get(visit, "")
    told = {"Sec-GPC": "1"} if visit == "refused" else {}
    sent = {f"Send-{name}": value for name, value in headers.items()}
    return browser.open(f"/page{query}", method=method, headers=told | sent)


@pytest.mark.parametrize("site", [flask_site, wsgi_site])
def test_a_cookie_of_ours_leaves_only_on_a_response_that_says_private_or_no_store(
    make_app: AppMaker, site: Callable[..., Client]
) -> None:
    def view() -> Response:
        if "forget" in request.args:
            forget_visitor()
        response = Response(PAGE)
        for name, value in request.headers:
            if name.startswith("Send-"):
                response.headers[name.removeprefix("Send-")] = value
        return response

    client = site(make_app, view)
    carried = bare = 0
    for number, (headers, visit) in enumerate(cases()):
        method = "POST" if visit == "forgotten" and number % 2 else "GET"
        response = ask(client, visit, method, headers)
        lines = response.headers.getlist("Set-Cookie")
        ours = [line for line in lines if line.startswith(OURS)]
        control = parse_http_list(response.headers.get("Cache-Control", "").lower())
        says_so = "private" in control or "no-store" in control
        assert says_so or not ours, f"{headers} for a {visit} visitor: {ours}"
        # And where the rule lets one leave, it does.
        is_shared = is_shared_cacheable(read_headers(headers.items()), NOW)
        assert bool(ours) is not is_shared, f"{headers} for a {visit} visitor"
        carried += not is_shared
        bare += is_shared
    assert carried > 200
    assert bare > 200

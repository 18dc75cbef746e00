"""A click id is taken of a navigation alone: what browsers load beside it brings none."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, redirect, request

from adroll_flask import AdRoll, current_visitor, report_conversion
from tests.support import eventually, visits
from tests.support.serving import serving
from tests.support.sites import EIDS

pytestmark = pytest.mark.browser

OWN = "click-of-the-buyer"

#: What a page loads beside itself; ``AT`` is the address.
LOADS = {
    "img": '<img src="AT">',
    "srcset": '<img srcset="AT 1x">',
    "background": '<p style="background-image: url(AT)">.</p>',
    "icon": '<link rel="icon" href="AT">',
    "script": '<script src="AT"></script>',
    "module": '<script type="module" src="AT"></script>',
    "style": '<link rel="stylesheet" href="AT">',
    "preload": '<link rel="preload" as="image" href="AT">',
    "prefetch": '<link rel="prefetch" href="AT">',
    "video": '<video src="AT" autoplay muted></video>',
    "audio": '<audio src="AT" preload="auto"></audio>',
    "fetch": "<script>fetch('AT')</script>",
    "xhr": "<script>x = new XMLHttpRequest(); x.open('GET', 'AT'); x.send()</script>",
    "beacon": "<script>navigator.sendBeacon('AT')</script>",
    "worker": "<script>new Worker('AT')</script>",
}
#: Not every engine loads all of them in such a page, and none may load fewer than these.
ALWAYS = {"img", "srcset", "background", "script", "module", "style", "fetch", "xhr", "worker"}
SPECULATION = {
    "rules": '<script type="speculationrules">{"prefetch": [{"urls": ["AT"],'
    ' "eagerness": "immediate"}]}</script>',
}
PLUG_INS = {
    "object": '<object data="AT" type="image/png"></object>',
    "embed": '<embed src="AT" type="image/png">',
}
#: Ways to another page.
NAVIGATIONS = {
    "link": '<a href="AT">.</a><script>document.links[0].click()</script>',
    "form": '<form action="/landed"><input name="adct" value="CLICK"></form>'
    "<script>document.forms[0].submit()</script>",
    "script": "<script>setTimeout(() => location.assign('AT'))</script>",
    "refresh": '<meta http-equiv="refresh" content="0; url=AT">',
    "redirect": "<script>setTimeout(() => location.assign('/hop?adct=CLICK'))</script>",
    "frame": '<iframe src="AT"></iframe>',
}


class Shop:
    """A shop in which anybody can write a review, and what it was asked for."""

    def __init__(self, app: Flask, port: int) -> None:
        self.app = app
        self.port = port
        self.asked: set[str] = set()
        #: Of our endpoints: a method, an origin, and the answer's status.
        self.told: set[tuple[str, str | None, int]] = set()
        self.review = ""

    def url(self, path: str, host: str = "shop.test") -> str:
        return f"https://{host}:{self.port}{path}"

    def events(self) -> list[dict[str, Any]]:
        return visits.kept(self.app)


@pytest.fixture
def shop(tmp_path: Path, tls: ssl.SSLContext) -> Iterator[Shop]:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config |= {f"ADROLL_{name}": value for name, value in EIDS.items()}
    # Of the server alone: the kit reads the address of its own page.
    app.config |= {"SECRET_KEY": "a key of this shop", "ADROLL_INJECT": False}
    app.config |= {"ADROLL_DELIVERY": "worker", "ADROLL_STRICT": True}
    AdRoll(app)

    def page(body: str) -> str:
        return f"<!doctype html><html><head><title>Shop</title></head><body>{body}</body></html>"

    app.add_url_rule("/", "home", lambda: page("Hello"))
    app.add_url_rule("/landed", "landed", lambda: page("Hello"))
    app.add_url_rule("/review", "review", lambda: page(place.review))
    app.add_url_rule("/hop", "hop", lambda: redirect(f"/landed?{request.query_string.decode()}"))
    app.add_url_rule("/who", "who", lambda: page(f"<p id=who>{current_visitor().adct}</p>"))

    @app.get("/buy")
    def buy() -> str:
        receipt = report_conversion(order_id=request.args["order"], value="1.00", currency="EUR")
        return page(f"<p id=who>{receipt.status}</p>")

    @app.after_request
    def note(response: Response) -> Response:
        if request.path.startswith("/_adroll/"):
            place.told.add((request.method, request.origin, response.status_code))
        return response

    @app.route("/load/<kind>", methods=["GET", "POST"])
    def load(kind: str) -> Response:
        """Not there; and, as many frameworks say it, with a page."""
        place.asked.add(kind)
        return Response(page("Not found"), 404)

    with serving(app, tls) as port:
        place: Shop = Shop(app, port)
        yield place


def who(page: Any, shop: Shop) -> str:
    page.goto(shop.url("/who"))
    return str(page.inner_text("#who"))


def open_review(page: Any) -> None:
    """Without waiting for a page that may lead to another one at once."""
    page.evaluate("void setTimeout(() => (location.href = '/review'))")


def look_at(shop: Shop, page: Any, loads: dict[str, str], always: set[str]) -> None:
    page.goto(shop.url(f"/?adct={OWN}"))
    shop.review = "".join(
        text.replace("AT", f"/load/{kind}?adct=evil-{kind}") for kind, text in loads.items()
    )
    open_review(page)
    eventually(lambda: shop.asked >= always, wait=lambda: page.wait_for_timeout(20))

    assert who(page, shop) == OWN
    counters = shop.app.extensions["adroll"].counters
    assert counters.get("adct_ignored", "no_navigation") >= len(always)


def test_what_a_page_loads_beside_itself_brings_no_click(shop: Shop, page: Any) -> None:
    look_at(shop, page, LOADS, ALWAYS)


def test_what_chromium_alone_fetches_ahead_brings_no_click(shop: Shop, page: Any) -> None:
    look_at(shop, page, SPECULATION, {*SPECULATION})


def test_what_is_shown_as_a_plug_in_brings_no_click(shop: Shop, page: Any) -> None:
    look_at(shop, page, PLUG_INS, {*PLUG_INS})


@pytest.mark.parametrize("kind", NAVIGATIONS)
def test_a_navigation_brings_its_click(shop: Shop, page: Any, kind: str) -> None:
    page.goto(shop.url(f"/?adct={OWN}"))
    click = f"newer-{kind}"
    shop.review = NAVIGATIONS[kind].replace("AT", "/landed?adct=CLICK").replace("CLICK", click)
    open_review(page)
    # A frame's page stays where it is.
    frame = "frames[0].location" if kind == "frame" else "location"
    page.wait_for_function(f"{frame}.pathname == '/landed'")

    assert who(page, shop) == click


def test_twelve_buyers_of_whom_eight_saw_the_image_keep_their_own_clicks(
    shop: Shop, new_context: Callable[..., Any]
) -> None:
    at = "?adct=click-of-mallory"
    on_a_sibling = f'<img src="{shop.url(f"/load/sibling{at}", "pay.shop.test")}">'
    shop.review = f'<img src="/load/img{at}"><script>loaded = 1</script>' + on_a_sibling
    for number in range(12):
        page = new_context().new_page()
        page.goto(shop.url(f"/?adct=click-{number}"))
        if number < 8:
            page.goto(shop.url("/review"))
            page.goto(shop.url("/review", "pay.shop.test"))
        page.goto(shop.url(f"/buy?order={number}"))
        assert page.inner_text("#who") == "queued"

    assert shop.asked == {"img", "sibling"}
    orders = {
        event["event_attributes"]["order_id"]: event["identifiers"]["adct"]
        for event in shop.events()
    }
    assert orders == {f"{number}": f"click-{number}" for number in range(12)}


#: What a script can do to tell our endpoint something; ``AT`` is its address, ``WHAT`` the message.
TELLS = {
    "fetch": "fetch('AT', {method: 'POST', credentials: 'include', body: `WHAT`,"
    " headers: {'content-type': 'application/json'}})",
    "fetch without a preflight": "fetch('AT', {method: 'POST', mode: 'no-cors', body: `WHAT`,"
    " credentials: 'include'})",
    "beacon": "navigator.sendBeacon('AT', `WHAT`)",
    "form": "form = document.createElement('form'); form.method = 'POST'; form.action = 'AT';"
    "form.enctype = 'text/plain'; form.append(input = document.createElement('input'));"
    "input.name = `WHAT`; document.documentElement.append(form); form.submit()",
}


@pytest.mark.parametrize("way", TELLS)
def test_a_sandboxed_frame_tells_nothing_in_the_visitor_s_name(
    shop: Shop, page: Any, way: str
) -> None:
    """Its page is of the shop, and its origin is none: "null".

    WebKit's beacons name the shop's there, and are refused as requests of another site.
    """
    page.goto(shop.url(f"/?adct={OWN}"))
    page.goto(shop.url("/buy?order=waits"))
    record = page.context.cookies()
    message = '{"adct": "evil", "first_party_cookie": "evil", "consent": false}'
    script = TELLS[way].replace("AT", "/_adroll/identity").replace("WHAT", message)
    frame = f"<script>{script}</script>".replace("&", "&amp;").replace('"', "&quot;")
    shop.review = f'<iframe sandbox="allow-scripts allow-forms" srcdoc="{frame}"></iframe>'
    page.goto(shop.url("/review"))
    eventually(lambda: shop.told, wait=lambda: page.wait_for_timeout(20))

    asked = ("OPTIONS", 204) if way == "fetch" else ("POST", 403)
    assert {(method, status) for method, _, status in shop.told} == {asked}
    assert page.context.cookies() == record
    assert who(page, shop) == OWN
    [event] = shop.events()
    assert event["identifiers"]["adct"] == OWN

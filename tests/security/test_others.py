"""Nobody speaks for another: what a stranger's browser can do to somebody else's click, consent and
orders. SECURITY.md has the table."""

from importlib.metadata import version
from typing import Any

import pytest
from packaging.version import Version
from werkzeug.test import Client

from tests.support.sites import HOST, RECORD, MakeSite, Site

FIRST_PARTY_COOKIE = "__adroll_fpc"

CLICK, EVIL = "click-of-ann", "click-of-mallory"
NAVIGATION = {"Sec-Fetch-Dest": "document", "Accept": "text/html,*/*;q=0.8"}


class Person:
    """Somebody with a browser of their own."""

    def __init__(self, site: Site, click: str = "") -> None:
        self.site = site
        self.browser: Client = site.new_browser()
        self.get(f"/?adct={click}" if click else "/")

    def get(self, path: str, **headers: str) -> Any:
        given = NAVIGATION | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.browser.get(path, base_url=f"https://{HOST}", headers=given)

    def tell(self, **message: Any) -> Any:
        """Post the kit's message."""
        headers = {"Sec-Fetch-Site": "same-origin"}
        return self.browser.post(
            "/_adroll/identity", base_url=f"https://{HOST}", json=message, headers=headers
        )

    def buy(self, order: str, more: str = "") -> str:
        return str(self.get(f"/buy?order={order}{more}").get_json()["status"])

    def cookie(self, name: str) -> str:
        found = self.browser.get_cookie(name, HOST)
        return "" if found is None else found.value

    def set_cookie(self, name: str, value: str) -> None:
        self.browser.set_cookie(name, value, domain=HOST)


def orders(site: Site) -> list[str]:
    """The orders of which the outbox has the content, whatever their state."""
    return sorted(event["event_attributes"]["order_id"] for event in site.events())


def clicks(site: Site) -> dict[str, str]:
    """The click id with which each order was reported."""
    found = {}
    for event in site.events():
        found[event["event_attributes"]["order_id"]] = event["identifiers"].get("adct", "")
    return found


# -- a no ------------------------------------------------------------------------------------


@pytest.mark.parametrize("brings", ["the link", "the cookie", "both, told", "the token"])
def test_a_stranger_s_no_erases_nothing_of_somebody_else(site: Site, brings: str) -> None:
    ann = Person(site, CLICK)
    token, cookie = ann.get("/token").text, ann.cookie(FIRST_PARTY_COOKIE)
    assert (ann.buy("waits"), ann.buy("held", "&hold=1")) == ("queued", "held")
    for number in range(30):
        stranger = Person(site)
        stranger.browser.delete_cookie(RECORD, domain=HOST)
        if brings == "the link":
            stranger.get(f"/?adct={CLICK}")
        elif brings == "the cookie":
            stranger.set_cookie(FIRST_PARTY_COOKIE, cookie)
            stranger.get("/")
        elif brings == "both, told":
            stranger.tell(adct=CLICK, first_party_cookie=cookie)
        else:
            assert stranger.buy(f"by the link {number}", f"&token={token}") == "queued"
        stranger.get("/buy?order=mine", Sec_GPC="1")
        stranger.get("/", Sec_GPC="1")
        stranger.tell(consent=False)
        stranger.get("/forget")

    assert ann.buy("renewal", f"&token={token}") == "queued"
    assert {"waits", "held", "renewal"} <= {*orders(site)}
    if brings == "the token":  # the shop's own code took it from the request: its visitor's order
        assert clicks(site)["by the link 29"] == CLICK


@pytest.mark.parametrize("way", ["on the page", "by the browser's signal", "in the shop's account"])
def test_a_no_reaches_what_its_own_browser_reported_and_nothing_else(site: Site, way: str) -> None:
    ann, bob = Person(site, CLICK), Person(site, CLICK)  # who opened the link that she had shared
    bob.set_cookie(FIRST_PARTY_COOKIE, ann.cookie(FIRST_PARTY_COOKIE))
    for who, person in (("ann", ann), ("bob", bob)):
        person.buy(f"{who} waits")
        person.buy(f"{who} held", "&hold=1")
    tokens = {"ann": ann.get("/token").text, "bob": bob.get("/token").text}
    if way == "on the page":
        ann.tell(consent=False)
    elif way == "by the browser's signal":
        ann.get("/", Sec_GPC="1")
    else:
        ann.get("/forget")
    site.events()  # all is taken in before the clock moves, which the thread beside reads twice
    site.clock.now += 60
    for who, token in tokens.items():
        # A payment provider's call, which has no cookies.
        assert Person(site).buy(f"{who} renewed", f"&token={token}") == "queued"

    assert orders(site) == ["bob held", "bob renewed", "bob waits"]
    assert (ann.cookie(RECORD), ann.cookie(FIRST_PARTY_COOKIE)) == ("", "")


def test_what_a_first_request_reports_its_browser_can_take_back(site: Site) -> None:
    """Nothing is stored yet when it is reported: the same answer brings the record."""
    ann = Person(site)
    ann.browser = site.new_browser()
    assert ann.buy("at once", f"&adct={CLICK}") == "queued"
    assert clicks(site) == {"at once": CLICK}

    ann.tell(consent=False)

    assert orders(site) == []


def test_a_record_that_comes_back_after_a_no_brings_nothing_back(site: Site) -> None:
    ann = Person(site, CLICK)
    record, token = ann.cookie(RECORD), ann.get("/token").text
    ann.buy("before")
    ann.get("/forget")
    site.events()  # as above
    site.clock.now += 60
    ann.set_cookie(RECORD, record)

    assert ann.buy("by the token", f"&token={token}") == "queued"
    assert ann.buy("after") == "queued", "whoever has the browser's cookies is the browser"

    assert orders(site) == ["after"]


# -- a click ---------------------------------------------------------------------------------

IMAGE = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
#: ``Sec-Fetch-Dest``, ``Accept``, and whether a click id in the address counts.
LOADS: list[tuple[str | None, str | None, bool]] = [
    *((dest, IMAGE, True) for dest in ("document", "iframe", "frame")),
    *((dest, "text/html", False) for dest in ("image", "script", "style", "empty", "object", "")),
    *((dest, "*/*", False) for dest in ("embed", "video", "audio", "track", "font", "worker")),
    # Browsers of old, plain HTTP, and command lines.
    *((None, accept, True) for accept in (None, "", "*/*", "text/html", "text/html,*/*;q=0.8")),
    *((None, accept, False) for accept in (IMAGE, "text/css,*/*;q=0.1", "application/json")),
]


@pytest.mark.parametrize(("dest", "accept", "counts"), LOADS)
def test_a_click_is_taken_of_a_navigation_alone(
    site: Site, dest: str | None, accept: str | None, counts: bool
) -> None:
    ann = Person(site, CLICK)
    given = {"Sec-Fetch-Dest": dest, "Accept": accept}
    headers = {name: value for name, value in given.items() if value is not None}
    for path in ("/", "/no-such-picture.png"):
        ann.browser.get(f"{path}?adct={EVIL}", base_url=f"https://{HOST}", headers=headers)

    ann.buy("1")

    assert clicks(site) == {"1": EVIL if counts else CLICK}
    assert site.counts.get("adct_ignored:no_navigation", 0) == (0 if counts else 2)


def test_a_click_of_somebody_who_was_not_asked_is_told_after_their_own_yes(
    make_site: MakeSite,
) -> None:
    site = make_site(consent=lambda _request: None)
    ann = Person(site, EVIL)
    assert not ann.cookie(RECORD)
    ann.tell(adct=CLICK, consent=True)  # by the kit, of the page that she had come to

    ann.buy("1")

    assert clicks(site) == {"1": CLICK}


# -- a record, and consent with it ----------------------------------------------------------


#: Names of cookies that any sibling host may set, and that some parsers take for the record's.
PLANTED = ["adroll_visitor", f"\xa0{RECORD}", f"{RECORD}\x85", f"x{RECORD}", RECORD.lower()]


@pytest.mark.parametrize("name", [*PLANTED, f"={RECORD}"], ids=repr)
def test_no_sibling_host_plants_a_record(make_site: MakeSite, name: str) -> None:
    """It may set cookies for the domain, of any name but those that begin with ``__Host-``."""
    site = make_site(consent=lambda _request: None)
    mallory = Person(site)
    mallory.tell(adct=EVIL, consent=True)
    record = mallory.cookie(RECORD)
    assert '"consent":true' in site.get_with(f"{RECORD}={record}", "/who").text.replace(" ", "")

    seen = site.get_with(f"{name}={record}; {FIRST_PARTY_COOKIE}=tossed", "/who").get_json()

    assert (seen["adct"], seen["first_party_cookie"], seen["consent"]) == (None, None, None)


def test_for_several_hosts_it_is_of_their_domain_and_so_open_to_them(make_site: MakeSite) -> None:
    site = make_site(cookie_domain=HOST)
    answer = site.new_browser().get("/", base_url=f"https://www.{HOST}")
    [line] = [one for one in answer.headers.getlist("Set-Cookie") if "adroll_visitor" in one]
    assert line.startswith("adroll_visitor=")
    assert f"Domain={HOST}" in line


def test_a_tossed_cookie_of_the_pixel_s_brings_no_consent(make_site: MakeSite) -> None:
    site = make_site(consent=lambda _request: None)
    ann, bob = Person(site), Person(site)
    ann.tell(adct=CLICK, consent=True)
    for person in (ann, bob):
        person.set_cookie(FIRST_PARTY_COOKIE, "tossed")

    assert (ann.buy("ann's"), bob.buy("bob's")) == ("queued", "suppressed")

    # It beats the record, as the pixel's own would, and the click stays.
    [event] = site.events()
    assert event["identifiers"] == {"adct": CLICK, "first_party_cookie": "tossed"}
    assert not bob.cookie(RECORD)


# -- several shops ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name", "is_taken"),
    [
        ("another key", "adroll_visitor", False),
        ("a key of this shop", "wine_visitor", False),
        ("a key of this shop", "adroll_visitor", True),  # said in several-shops.md
    ],
)
def test_two_shops_on_one_host(make_site: MakeSite, key: str, name: str, is_taken: bool) -> None:
    books = make_site("books")
    wine = make_site("wine", secret_key=key, cookie_name=name)
    ann = Person(books, CLICK)

    seen = wine.get_with(f"{RECORD}={ann.cookie(RECORD)}", "/who").get_json()

    assert seen["adct"] == (CLICK if is_taken else None)
    its_token = Person(wine).buy("1", f"&token={ann.get('/token').text}")
    assert its_token == ("invalid" if key == "another key" else "queued")


KNOWS_TRUSTED_HOSTS = pytest.mark.skipif(
    Version(version("flask")) < Version("3.1"), reason="TRUSTED_HOSTS came with Flask 3.1"
)


@pytest.mark.parametrize("is_trusted", [False, pytest.param(True, marks=KNOWS_TRUSTED_HOSTS)])
def test_a_host_header_chooses_an_account_unless_the_site_says_its_hosts(
    make_flask_site: MakeSite, is_trusted: bool
) -> None:
    french = {"advertisable_eid": "FRENCHADVERTISABLE0001", "pixel_eid": "FRENCHPIXEL00000000001"}
    accounts = {"shop.fr": {**french, "access_token": "french-token"}}
    own: dict[str, Any] = {"TRUSTED_HOSTS": [HOST]} if is_trusted else {}
    site = make_flask_site(accounts=accounts, **own)

    answer = site.browser.get("/buy?order=forged", base_url="https://shop.fr")

    assert answer.status_code == (400 if is_trusted else 200)
    accounts_of = [event["advertisable_eid"] for event in site.events()]
    assert accounts_of == ([] if is_trusted else ["FRENCHADVERTISABLE0001"])

"""The kit without consent, in a browser, on static pages with a pixel of the tests' own."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, Route

from adroll_flask.visitor.identifiers import normalise_first_party_cookie
from tests.support import browsing, eventually, kit_site
from tests.support.kit_site import COOKIE, LANDING, LOADER, METHODS, OLD_METHODS, KitSite

#: What is told of a landing: without the pixel's answer, and with it.
CLICK = {"adct": "click123"}
KNOWN = {**CLICK, "first_party_cookie": COOKIE}


@pytest.fixture(autouse=True)
def _quiet(console: Any) -> Iterator[None]:
    """The kit writes nothing on the console; a test that blocks the pixel says so itself."""
    yield
    assert console.without("/roundtrip.js") == []


def no_answer(site: KitSite) -> str:
    return site.pixel_url(silent=1, cookieless=1)


def blocked(site: KitSite) -> str:
    """A script that does not come."""
    return site.pixel_url(status=404)


# -- what is told ------------------------------------------------------------------------------


def test_landing_tells_click_id_and_pixels_cookie_at_once(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(), "/?utm_source=x&adct=click123&y=1#part")
    assert site.wait_told(page, 1) == [KNOWN]


def test_click_ids_are_read_as_the_server_reads_them(site: KitSite, page: Page) -> None:
    kit_site.set_cookies(page.context, ".shop.test")
    refused = ("", "%E0%A4%A", "a%20b", "%C3%BC", "%0a", "x" * 241)
    forms = {
        "adct=a%2Bb%3D%3D": "a+b==",
        "adct=a+b": "a+b",
        "adct=&adct=second": "second",
        "xadct=other&adct=own": "own",
        "adct=" + "x" * 240: "x" * 240,
    }
    queries = [*("xadct=other&adct=" + adct for adct in refused), *forms]
    page.goto(site.serve_frames(*((site.tag(pixel="none"), "?" + query) for query in queries)))
    told = site.after_wait(page, 0, count=len(forms))
    # Frames of one tab tell what another has not had an answer to.
    assert {body["adct"] for body in told} == {*forms.values()}


def test_a_pixel_without_a_sound_answer_costs_nothing_else(site: KitSite, page: Page) -> None:
    values = ["undefined", "null", "{}", "7", "[]", "''", "'-'", "'-s2-'", "'a b'", "'a;b'"]
    values += ["'a,b'", "'\\x22'", "'\\x5c'", "'\\xe9'", f"'{COOKIE}\\n'", f"'{'x' * 81}'"]
    pixels = [f"{{ get_cookie(callback) {{ callback({value}) }} }}" for value in values]
    pixels += ["{}", "1", "'x'", "{ get_cookie() { throw 1 } }", "{ get get_cookie() { throw 1 } }"]
    tag = site.tag(pixel="present", wait=kit_site.WAIT)
    heads = [f"<script>adroll = {pixel}</script>{tag}" for pixel in pixels]
    page.goto(site.serve_frames(*((head, f"?adct={n}") for n, head in enumerate(heads))))
    told = site.after_wait(page, count=len(pixels))
    assert sorted(told, key=lambda body: int(body["adct"])) == [
        {"adct": str(number)} for number in range(len(pixels))
    ]


def test_what_the_pixel_has_is_sent(site: KitSite, page: Page) -> None:
    forms = [
        "46d41c62e88bb2e267c1e15314bb8837-s2-1667065540836",
        "x" * 80,
        "!$()*-./:<=>@[]^_`{|}~",
    ]
    assert all(map(normalise_first_party_cookie, forms))
    tags = [site.tag(src=site.pixel_url(value=quote(form))) for form in forms]
    page.goto(site.serve_frames(*((tag, "") for tag in tags)))
    told = site.wait_told(page, len(forms))
    assert {body["first_party_cookie"] for body in told} == set(forms)


def test_a_rewritten_address_does_not_lose_the_click_id(site: KitSite, page: Page) -> None:
    site.open(page, "<script>history.replaceState(0, '', '/app')</script>" + site.tag(), LANDING)
    assert site.wait_told(page, 1) == [KNOWN]


def test_a_browser_that_keeps_no_navigation_tells_the_click_id(site: KitSite, page: Page) -> None:
    none = "<script>performance.getEntriesByType = () => []</script>"  # Safari before 15
    site.open(page, none + site.tag(), LANDING)
    assert site.wait_told(page, 1) == [KNOWN]


# -- once per tab ------------------------------------------------------------------------------


def test_the_tabs_next_pages_do_not_tell_it_again_and_another_tab_does(
    site: KitSite, page: Page
) -> None:
    site.open(page, site.tag(), "/?adct=first")
    site.wait_told(page, 1)
    for path, count in (("/?adct=first", 1), ("/", 1), ("/?adct=second", 2), ("/", 2)):
        page.goto(site.url(path))
        site.wait_told(page, count)  # a page that is left before its answer is told again
    assert [body["adct"] for body in site.after_wait(page)] == ["first", "second"]
    other = page.context.new_page()
    other.goto(site.url())
    assert site.wait_told(other, 3)[2] == {"first_party_cookie": COOKIE}


@pytest.mark.parametrize(
    ("status", "line", "again"),
    [
        *((status, str(status), 1) for status in (408, 425, 429, 503)),
        *((400, "400", 0), (0, "ERR_INTERNET_DISCONNECTED", 1)),
    ],
)
def test_the_next_page_tells_what_was_not_taken_and_not_what_was_refused(
    site: KitSite, page: Page, console: Any, status: int, line: str, again: int
) -> None:
    lost: list[Any] = []

    def lose(route: Route) -> None:
        lost.append(route.request.post_data_json)
        route.abort("internetdisconnected")

    site.answer = status
    if not status:
        page.route("**" + kit_site.IDENTITY, lose)
    site.open(page, site.tag(), LANDING)
    # The browser's own line about a failed request is the only one.
    browsing.wait_in(page, lambda: console.lines)
    assert line in console.lines.pop()
    # After a 408 Chromium itself asks again (RFC 9110, section 15.5.9).
    times = len(site.told) + again
    site.answer = 204
    page.unroute_all()
    for _ in range(2):
        page.goto(site.url())
        assert site.after_wait(page, count=times) == [KNOWN] * times
    assert lost == ([] if status else [KNOWN])


def test_who_leaves_before_the_answer_has_it_told_again(site: KitSite, page: Page) -> None:
    site.delay = 3600
    site.serve(site.tag(), "/next")
    site.open(page, site.tag(wait=3_600_000, src=no_answer(site)), LANDING)
    page.goto(site.url("/next"))
    # Who is in a hurry may be overtaken.
    assert sorted(site.wait_told(page, 2), key=len) == [CLICK, KNOWN]


def test_two_shops_of_one_host_tell_each_their_own(site: KitSite, page: Page) -> None:
    for count, shop in enumerate(("/books", "/wine"), 1):
        site.open(page, site.tag(identity=shop + kit_site.IDENTITY), shop)
        assert site.after_wait(page, count=1) == [{"first_party_cookie": COOKIE}] * count


# -- without an answer -------------------------------------------------------------------------


def test_half_the_wait_is_the_cookies(site: KitSite, page: Page) -> None:
    kit_site.set_cookies(page.context, ".shop.test")
    site.open(page, site.tag(wait=2000, src=no_answer(site)), LANDING)
    assert site.after_wait(page, 2000, count=1) == [CLICK]
    entry = "performance.getEntriesByType('resource').find(e => /identity$/.test(e.name))"
    page.wait_for_function(entry)
    assert page.evaluate(f"{entry}.startTime") >= 1000
    assert [cookie["value"] for cookie in page.context.cookies()] == [kit_site.SERVER_COOKIE]


def test_an_answer_after_the_wait_is_still_told(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(wait=100, src=site.pixel_url(after=900)), LANDING)
    assert site.wait_told(page, 2) == [CLICK, KNOWN]


def test_a_blocked_pixel_is_not_waited_for(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(wait=3_600_000, src=blocked(site)), LANDING)
    assert site.wait_told(page, 1) == [CLICK]


#: What a tab does before the pixel has answered.
LEAVES = {
    "to another page": "location = '/next'",
    "into the background": "Object.defineProperty(document, 'hidden', {value: true});"
    "document.dispatchEvent(new Event('visibilitychange', {bubbles: true}))",
}


@pytest.mark.parametrize("way", LEAVES)
def test_who_leaves_early_does_not_lose_the_click_id(site: KitSite, page: Page, way: str) -> None:
    site.serve("", "/next")
    site.open(page, site.tag(wait=3_600_000, src=no_answer(site)), LANDING)
    page.wait_for_function("window.adroll && !Array.isArray(window.adroll)")
    page.evaluate(LEAVES[way])
    assert site.wait_told(page, 1) == [CLICK]


def test_who_leaves_a_hanging_pixel_keeps_the_click_id(site: KitSite, page: Page) -> None:
    site.serve(site.tag(wait=3_600_000, src=site.pixel_url(slow=3600)))
    site.serve("", "/next")
    # The load event waits for async scripts, which here never come.
    page.goto(site.url(LANDING), wait_until="commit")
    page.wait_for_function("window.adroll")
    page.goto(site.url("/next"))
    assert site.wait_told(page, 1) == [CLICK]


def test_a_page_that_never_loads_tells_the_click_id_all_the_same(site: KitSite, page: Page) -> None:
    """WebKit says nothing to who leaves before the load event."""
    site.serve(site.tag(wait=3000, src=site.pixel_url(slow=3600)))
    address = json.dumps(site.url(LANDING))
    page.evaluate(f"void setTimeout(() => (location.href = {address}))")
    # At the server: WebKit's driver answers when the page has loaded.
    eventually(lambda: bool(site.told))
    assert site.told == [CLICK]
    site.let_go.set()  # until then that driver takes no command, not even the test's end


def test_who_closes_the_tab_early_does_not_lose_the_click_id(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(wait=3_600_000, src=no_answer(site)), LANDING)
    other = page.context.new_page()
    page.close()
    assert site.wait_told(other, 1) == [CLICK]


# -- pages that the server never saw -----------------------------------------------------------


def test_a_cached_page_asks_once_and_without_news_is_silent(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(src=blocked(site)))
    # A page from a cache asks for a cookie; who takes none is not asked for with every page.
    assert site.wait_told(page, 1) == [{}]
    assert page.context.cookies() == []
    page.goto(site.url())
    assert site.after_wait(page, count=1) == [{}]
    kit_site.set_cookies(page.context, ".shop.test")
    other = page.context.new_page()
    other.goto(site.url())
    assert site.after_wait(other, count=1) == [{}]


# -- the pixel ---------------------------------------------------------------------------------


def test_the_pixel_is_loaded_as_adrolls_loader_does(site: KitSite, page: Page) -> None:
    site.open(page, site.tag())
    site.wait_told(page, 1)
    seen = "[seen.adv, seen.pix, seen.version, seen.runs, ...seen.tracked]"
    assert page.evaluate(seen) == ["ADV", "PIX", "2.0", 1, "pageView"]


def test_the_stub_takes_all_five_methods_until_the_script_comes(site: KitSite, page: Page) -> None:
    site.serve(site.tag(src=site.pixel_url(slow=3)))
    page.goto(site.url(), wait_until="commit")
    page.wait_for_function("window.adroll")
    assert page.evaluate("adroll.f") == json.loads(METHODS)
    assert page.evaluate("adroll.f.every(name => typeof adroll[name] == 'function')")
    assert page.evaluate("__adroll_loaded") is True
    page.evaluate("adroll.track('addToCart', {})")
    page.wait_for_function("window.seen")
    assert page.evaluate("seen.tracked") == ["pageView", "addToCart"]


def test_what_the_page_has_of_the_pixel_already_is_kept(site: KitSite, page: Page) -> None:
    own = "<script>noted = []; adroll = []; adroll.track = (name) => noted.push(name)</script>"
    site.open(page, own + site.tag())
    assert site.wait_told(page, 1) == [{"first_party_cookie": COOKIE}]
    assert page.evaluate("noted") == ["pageView"]


def test_the_pixel_is_given_the_tags_nonce(site: KitSite, page: Page) -> None:
    policy = "script-src 'nonce-abc123'; connect-src 'self'"
    site.open(page, site.tag(nonce="abc123"), Content_Security_Policy=policy)
    assert site.wait_told(page, 1) == [{"first_party_cookie": COOKIE}]


def test_markup_that_poses_as_the_script_loads_nothing(site: KitSite, page: Page) -> None:
    # What an injection that cannot run scripts could try: the kit would load it with its nonce.
    evil = f'data-identity="/_adroll/identity" data-src="{site.pixel_url()}" data-wait="1"'
    posing = (
        f'<img name="currentScript" {evil}><script data-adroll {evil} type="text/plain"></script>'
    )
    policy = "script-src 'nonce-abc123' 'strict-dynamic'"
    site.open(page, posing + site.tag(nonce="abc123"), Content_Security_Policy=policy)
    page.wait_for_timeout(250)
    assert site.pixels == []


def test_a_page_that_has_the_pixel_is_given_no_second_one(site: KitSite, page: Page) -> None:
    site.open(page, LOADER % (METHODS, site.pixel_url()) + site.tag())
    assert site.wait_told(page, 1) == [{"first_party_cookie": COOKIE}]
    assert len(site.pixels) == 1
    assert page.evaluate("seen.tracked") == ["pageView"]
    assert page.evaluate("seen.adv") == "SITEADV"


def late(script: str) -> str:
    """The loader, put into the page by *script* a while after the kit."""
    fragment = f"document.createRange().createContextualFragment({script})"
    return f"<script>setTimeout(() => document.head.append({fragment}), 300)</script>"


#: The site's pixel, and what it makes of the array that was there before it came.
SITE_PIXELS = {
    "by today's loader": LOADER % (METHODS, "PIXEL"),
    "by an old loader": LOADER % (OLD_METHODS, "PIXEL"),
    "after the kit": late(json.dumps(LOADER % (OLD_METHODS, "PIXEL")).replace("</", "<\\/")),
    "another object, which forgets what was queued": "<script>adroll = [];"
    f"setTimeout(() => {{ adroll = {{ get_cookie(tell) {{ tell('{COOKIE}') }} }} }}, 250)</script>",
    "the same array, which forgets what was queued": "<script>adroll = [];"
    "adroll.get_cookie = () => {};"
    f"setTimeout(() => {{ adroll.get_cookie = (tell) => tell('{COOKIE}') }}, 250)</script>",
    "the same array, whose queue is taken over": "<script>adroll = []; adroll.track = () => {};"
    "(function take() { adroll.length || setTimeout(take, 50); for (const [name, values] of adroll)"
    f" ({{ get_cookie(tell) {{ tell('{COOKIE}') }} }})[name](...values) }})()</script>",
}


@pytest.mark.parametrize("kind", SITE_PIXELS)
def test_the_sites_pixel_is_asked_whatever_it_is(site: KitSite, page: Page, kind: str) -> None:
    pixel = SITE_PIXELS[kind].replace("PIXEL", site.pixel_url(slow=0.2))
    site.open(page, pixel + site.tag(pixel="present"), LANDING)
    assert site.wait_told(page, 1) == [KNOWN]
    assert len(site.pixels) == ("PIXEL" in SITE_PIXELS[kind])


def test_without_a_pixel_nothing_is_awaited_or_loaded(site: KitSite, page: Page) -> None:
    pixel = "<script>asked = 0; adroll = { get_cookie() { asked = 1 } }</script>"
    site.open(page, pixel + site.tag(pixel="none", wait=3_600_000), LANDING)
    assert site.wait_told(page, 1) == [CLICK]
    assert site.pixels == []
    assert page.evaluate("asked") == 0


# -- hostile surroundings ----------------------------------------------------------------------


def test_loaded_twice_the_second_does_nothing(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(origins=True) * 2, LANDING)
    assert site.after_wait(page, count=1) == [KNOWN]
    assert page.evaluate("[seen.runs, ...seen.tracked]") == [1, "pageView"]
    site.answer = {"token": "signed"}
    assert page.evaluate("adrollKit.token()") == "signed"
    assert site.told[1:] == [{**KNOWN, "token": True}]


def test_in_a_bundle_the_settings_come_from_the_tag(site: KitSite, page: Page) -> None:
    # A module has no currentScript.
    kit = (kit_site.STATIC / "adroll-kit.min.js").read_text()
    settings = site.tag().replace(' async src="/adroll-kit.min.js"', ' type="text/plain"')
    site.open(page, f'{settings}<script type="module">{kit}</script>')
    assert site.wait_told(page, 1) == [{"first_party_cookie": COOKIE}]


def test_no_storage_is_survived(site: KitSite, page: Page) -> None:
    # As where the browser is told to block all cookies.
    refusing = "{ get() { throw new DOMException('', 'SecurityError') } }"
    none = f"<script>Object.defineProperty(window, 'sessionStorage', {refusing})</script>"
    site.open(page, none + site.tag(), LANDING)
    assert site.wait_told(page, 1) == [KNOWN]


def test_a_fetch_that_the_page_broke_is_survived(site: KitSite, page: Page) -> None:
    broken = ["() => { throw 1 }", "() => 1", "async () => ({})", "async () => { throw 1 }"]
    frames = [(f"<script>fetch = {fetch}</script>{site.tag()}", "?adct=1") for fetch in broken]
    page.goto(site.serve_frames(*frames))
    assert site.after_wait(page) == []


def test_without_settings_and_in_a_frame_without_an_origin_nothing_is_done(
    site: KitSite, page: Page
) -> None:
    # In such a frame, the browser would refuse the request and say so on the console.
    pixel = f"<script>adroll = {{ get_cookie(callback) {{ callback('{COOKIE}') }} }}</script>"
    site.serve(pixel + site.tag(pixel="present"), "/framed")
    frame = '<iframe sandbox="allow-scripts" src="/framed?adct=1"></iframe>'
    site.open(page, '<script async src="/adroll-kit.min.js"></script>', LANDING, body=frame)
    page.wait_for_timeout(300)
    assert (site.told, site.pixels) == ([], [])


def test_trusted_types_are_survived(site: KitSite, page: Page, console: Any) -> None:
    policy = "require-trusted-types-for 'script'"
    site.open(page, site.tag(wait=200), LANDING, Content_Security_Policy=policy)
    assert site.wait_told(page, 1) == [CLICK]
    # The browser says why no pixel was loaded; nothing is uncaught.
    assert all("TrustedScriptURL" in line and "uncaught" not in line for line in console.lines)
    console.lines.clear()


# -- Global Privacy Control --------------------------------------------------------------------


def test_global_privacy_control_is_a_no(site: KitSite, page: Page, context: BrowserContext) -> None:
    site.open(page, f"<script>{kit_site.GPC}</script>" + site.tag(), LANDING)
    assert site.after_wait(page) == []
    assert site.pixels == []
    assert context.cookies() == []
    assert page.evaluate("sessionStorage.length") == 0


def test_a_site_may_decide_not_to_honour_global_privacy_control(site: KitSite, page: Page) -> None:
    site.open(page, f"<script>{kit_site.GPC}</script>" + site.tag(gpc="0"), LANDING)
    assert len(site.wait_told(page, 1)) == 1

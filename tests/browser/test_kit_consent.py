"""The kit with consent, in a browser: nothing before a yes, nothing after a no."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.support import browsing, kit_site
from tests.support.kit_site import COOKIE, LANDING, LOADER, METHODS, SERVER_COOKIE, WAIT, KitSite

GRANT = {"adct": "click123", "consent": True, "first_party_cookie": COOKIE}

#: What a site puts before the kit to be able to call it early.
EARLY = (
    "<script>window.adrollKit = window.adrollKit ||"
    " {q: [], consent(yes) { this.q.push(yes) }}</script>"
)

CMP = f"<script>{kit_site.CMP}</script>"
#: How many of the kit's requests the page has the answers of.
ANSWERED = (
    "performance.getEntriesByType('resource').filter(e => e.name.endsWith('identity')).length"
)
GTAG = "<script>dataLayer = []; function gtag() { dataLayer.push(arguments) }</script>"


def tc(
    event: str = "useractioncomplete", vendors: Any = (130,), purposes: Any = (1, 7), **more: Any
) -> str:
    """A call to the page's CMP: what it is to tell."""
    data = {
        "gdprApplies": True,
        "eventStatus": event,
        "vendor": {"consents": {str(one): True for one in vendors}},
        "purpose": {"consents": {str(one): True for one in purposes}},
        **more,
    }
    return f"decide({json.dumps(data)})"


def gtag(kind: str, ad_storage: str | None, **more: Any) -> str:
    values = {"analytics_storage": "granted", **more}
    if ad_storage:
        values["ad_storage"] = ad_storage
    return f"gtag('consent', '{kind}', {json.dumps(values)})"


@pytest.fixture(autouse=True)
def _quiet(console: Any) -> Iterator[None]:
    """The kit writes nothing on the console."""
    yield
    assert console.lines == []


def agree(site: KitSite, page: Page, head: str = "") -> None:
    """The visitor of the landing page says yes, and the server is told."""
    site.open(page, head + site.tag(consent="tcf"), LANDING)
    page.evaluate("adrollKit.consent(true)")
    assert site.wait_told(page, 1) == [GRANT]


def assert_no_trace(site: KitSite, page: Page) -> None:
    """Nothing was sent but refusals and questions, nothing is stored, no pixel came."""
    assert [body for body in site.told if body not in ({}, {"consent": False})] == []
    assert site.pixels == []
    assert page.context.cookies() == []
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [0, 0]


# -- the site says -----------------------------------------------------------------------------


def test_without_a_word_nothing_starts_and_nothing_is_stored(site: KitSite, page: Page) -> None:
    site.open(page, CMP + GTAG + site.tag(consent="tcf"), LANDING)
    assert site.after_wait(page) == []
    assert_no_trace(site, page)


def test_consent_given_late_starts_everything_without_a_reload(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(consent="tcf"), LANDING)
    # What is neither yes nor no changes nothing.
    page.evaluate("[null, undefined, 1, 'yes', {}].forEach((word) => adrollKit.consent(word))")
    page.wait_for_timeout(100)
    # Meanwhile, the single-page app has gone on: the click id is in the page's memory only.
    page.evaluate("history.pushState(0, '', '/cart')")
    assert_no_trace(site, page)
    page.evaluate("adrollKit.consent(true)")
    assert site.wait_told(page, 1) == [GRANT]
    assert page.evaluate("seen.tracked") == ["pageView"]


def test_the_grant_is_told_once_per_tab(site: KitSite, page: Page) -> None:
    early = "<script>adrollKit.consent(true)</script>"
    site.open(page, EARLY + early + site.tag(consent="tcf"), LANDING)
    assert site.wait_told(page, 1) == [GRANT]
    page.goto(site.url())
    page.evaluate("adrollKit.consent(true)")
    assert site.after_wait(page, count=1) == [GRANT]


def test_of_early_calls_the_last_counts(site: KitSite, page: Page) -> None:
    calls = "<script>adrollKit.consent(true); adrollKit.consent(false)</script>"
    site.open(page, EARLY + calls + site.tag(consent="tcf"), LANDING)
    assert site.after_wait(page) == []
    assert_no_trace(site, page)


#: What the pixel leaves in a browser beside ``__adroll_fpc``.
LEFTOVERS = ("__ar_v4", "__adroll_consent", "__adroll_consent_params")


def leave(page: Page) -> None:
    page.evaluate(
        "names => { for (const name of names) document.cookie ="
        " `${name}=1;path=/;domain=${location.hostname};max-age=9999`;"
        " localStorage.__adroll_consent_data = '{}' }",
        list(LEFTOVERS),
    )


def test_a_site_pixel_and_what_it_keeps_of_consent_stay_with_its_no(
    site: KitSite, page: Page
) -> None:
    """AdRoll's banner may be the site's consent platform, and this its memory."""
    pixel = LOADER % (METHODS, site.pixel_url())
    site.open(page, pixel + site.tag(consent="tcf", pixel="present"), LANDING)
    page.wait_for_function("window.seen")
    assert site.told == []
    page.evaluate("adrollKit.consent(true)")
    assert site.wait_told(page, 1) == [GRANT]
    leave(page)
    page.evaluate("adrollKit.consent(false); adroll.track('addToCart')")
    assert site.wait_told(page, 2)[1] == {"consent": False}
    assert sorted(cookie["name"] for cookie in page.context.cookies()) == sorted(LEFTOVERS[1:])
    assert page.evaluate("localStorage.length") == 1
    assert page.evaluate("seen.tracked") == ["pageView", "addToCart"]


def test_a_refusal_takes_an_earlier_sessions_cookie_away(site: KitSite, page: Page) -> None:
    kit_site.set_cookies(page.context, ".www.shop.test", "www.shop.test", ".shop.test")
    site.open(page, site.tag(consent="tcf"), LANDING, "www.shop.test")
    page.evaluate("adrollKit.consent(false)")
    assert site.wait_told(page, 1) == [{"consent": False}]
    assert_no_trace(site, page)


def test_withdrawn_everything_stops_and_goes(site: KitSite, page: Page) -> None:
    agree(site, page)
    page.wait_for_function("sessionStorage.length == 1")
    leave(page)
    page.evaluate("document.cookie = 'theme=dark;path=/'; localStorage.cart = '2'")
    page.evaluate("adrollKit.consent(false)")
    assert site.wait_told(page, 2) == [GRANT, {"consent": False}]
    # The pixel has run and cannot be unloaded, but the page's calls do not reach it any more.
    page.evaluate("adroll.track('addToCart'); adroll.get_cookie(() => {}); adroll.identify()")
    assert page.evaluate("seen.tracked") == ["pageView"]
    page.goto(site.url())
    assert site.after_wait(page, count=2) == [GRANT, {"consent": False}]
    assert len(site.pixels) == 1
    # All that the pixel left has gone along, and nothing else.
    assert [cookie["name"] for cookie in page.context.cookies()] == ["theme"]
    kept = "[localStorage, sessionStorage].map(Object.keys)"
    assert page.evaluate(kept) == [["cart"], []]


def test_withdrawn_before_the_pixel_has_come_it_never_runs(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(consent="tcf", src=site.pixel_url(slow=1.5)), LANDING)
    # In the page, where a busy machine adds nothing to the wait.
    page.evaluate(
        "adrollKit.consent(true);"
        "new Promise(done => setTimeout(() => done(adrollKit.consent(false)), 50))"
    )
    assert site.after_wait(page, 1700, count=1) == [{"consent": False}]
    assert page.evaluate("window.seen") is None
    assert page.context.cookies() == []


def test_given_again_it_starts_again(site: KitSite, page: Page) -> None:
    agree(site, page)
    page.evaluate("for (const yes of [false, true]) adrollKit.consent(yes)")
    assert site.wait_told(page, 3) == [GRANT, {"consent": False}, GRANT]
    # The pixel is the one that ran before, and hears the page again.
    page.evaluate("adroll.track('addToCart')")
    assert page.evaluate("[seen.runs, ...seen.tracked]") == [1, "pageView", "addToCart"]


def test_given_again_the_tab_keeps_nothing_from_before_the_no(site: KitSite, page: Page) -> None:
    agree(site, page)
    page.goto(site.url())
    page.evaluate("for (const yes of [true, false]) adrollKit.consent(yes)")
    page.wait_for_function("sessionStorage.length == 0")
    page.evaluate("adrollKit.consent(true)")
    again = {"consent": True, "first_party_cookie": COOKIE}
    assert site.wait_told(page, 3) == [GRANT, {"consent": False}, again]
    # The click id was of a page that this yes is not about.
    assert page.evaluate(f"JSON.parse({kit_site.KEPT})") == again


def test_a_no_waits_for_the_answer_to_the_yes(site: KitSite, page: Page) -> None:
    """One that overtook it would not be what the server keeps, which is what it heard last; and the
    answer sets cookies, which would be back after the no's."""
    site.delay = 3600
    site.open(page, site.tag(consent="tcf", pixel="none", wait=WAIT), LANDING)
    page.evaluate("for (const yes of [true, false]) adrollKit.consent(yes)")
    assert len(site.wait_told(page, 1)) == 1
    page.wait_for_timeout(2 * WAIT)
    assert len(site.told) == 1, "the first is not answered yet"
    site.let_go.set()
    assert site.wait_told(page, 2) == [{"adct": "click123", "consent": True}, {"consent": False}]
    page.wait_for_timeout(WAIT)
    assert page.evaluate("sessionStorage.length") == 0


def test_who_leaves_the_page_is_not_held_up(site: KitSite, page: Page) -> None:
    site.delay = 3600
    site.serve("", "/next")
    site.open(page, site.tag(consent="tcf", pixel="none", wait=3_600_000), LANDING)
    page.evaluate("for (const yes of [true, false]) adrollKit.consent(yes)")
    assert len(site.wait_told(page, 1)) == 1
    page.goto(site.url("/next"))
    assert site.wait_told(page, 2)[1] == {"consent": False}


#: ``None``: the visitor leaves before the answer.
@pytest.mark.parametrize("answer", [None, 408, 425, 429, 503])
def test_a_no_that_did_not_arrive_is_told_by_the_next_page_before_all_else(
    site: KitSite, page: Page, console: Any, answer: int | None
) -> None:
    site.answer = {"consent": True}
    site.set_cookie = SERVER_COOKIE
    site.open(page, site.tag(consent="ask", pixel="none"))
    assert site.wait_told(page, 1) == [{}]
    site.set_cookie = None
    if answer is None:
        site.delay = 3600
    else:
        site.answer = answer
    page.evaluate("adrollKit.consent(false)")
    site.wait_told(page, 2)
    if answer is not None:
        browsing.wait_in(page, lambda: page.evaluate(ANSWERED) >= 2)
        kit_site.set_cookies(page.context, ".shop.test")
    # After a 408 Chromium itself asks again (RFC 9110, section 15.5.9).
    times = len(site.told) - 1
    # The server's record, which no script sees, is still there, and its word would be a yes.
    site.answer = {"consent": True}
    site.delay = 0
    for _ in range(2):
        page.goto(site.url())
        site.let_go.set()  # nobody hears the answer any more
        told = site.after_wait(page, count=times + 2)
    # Once it has arrived, the server is asked as before.
    assert told == [{}, *[{"consent": False}] * (times + 1), {}]
    assert all(f"{answer}" in line for line in console.lines)
    console.lines.clear()


def test_given_again_before_the_pixel_came_it_is_loaded_again(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(consent="tcf", src=site.pixel_url(slow=0.3)), LANDING)
    page.evaluate("for (const yes of [true, false, true]) adrollKit.consent(yes)")
    assert site.wait_told(page, 2) == [{"consent": False}, GRANT]
    assert page.evaluate("[seen.runs, ...seen.tracked]") == [1, "pageView"]


def test_who_leaves_right_after_the_yes_has_it_told(site: KitSite, page: Page) -> None:
    site.serve("", "/next")
    silent = site.pixel_url(silent=1, cookieless=1)
    site.open(page, site.tag(consent="tcf", wait=3_600_000, src=silent), LANDING)
    page.evaluate("adrollKit.consent(true); location = '/next'")
    assert site.wait_told(page, 1) == [{"adct": "click123", "consent": True}]


def test_a_fetch_that_throws_does_not_reach_the_sites_call(site: KitSite, page: Page) -> None:
    site.open(page, "<script>fetch = () => { throw 1 }</script>" + site.tag(consent="ask"), LANDING)
    page.evaluate("for (const yes of [true, false, true, false]) adrollKit.consent(yes)")
    assert site.after_wait(page) == []


# -- the TCF -----------------------------------------------------------------------------------


def test_a_tcf_dialogue_that_is_open_again_withdraws_nothing(site: KitSite, page: Page) -> None:
    site.open(page, CMP + site.tag(consent="tcf"), LANDING)
    page.evaluate(tc("tcloaded"))
    site.wait_told(page, 1)
    page.evaluate(tc("cmpuishown", vendors=()))
    page.wait_for_timeout(100)
    assert site.told == [GRANT]
    page.evaluate(tc(vendors=()))
    assert site.wait_told(page, 2)[1] == {"consent": False}


def test_a_cmp_that_comes_late_is_found_and_vendor_and_purposes_may_be_others(
    site: KitSite, page: Page
) -> None:
    site.open(page, site.tag(consent="tcf", tcf="131:1,3"), LANDING)
    page.wait_for_timeout(100)
    page.evaluate(kit_site.CMP + tc(vendors=(131,), purposes=(1, 3)))
    assert site.wait_told(page, 1) == [GRANT]


def test_a_cmp_that_throws_is_survived(site: KitSite, page: Page) -> None:
    agree(site, page, "<script>__tcfapi = () => { throw 1 }</script>")


def test_a_cmp_that_cannot_answer_is_no_answer(site: KitSite, page: Page) -> None:
    """It has no data then (IAB, "CMP API", addEventListener)."""
    late = "(command, version, callback) => setTimeout(callback, 0, null, false)"
    agree(site, page, f"<script>__tcfapi = {late}</script>")


# -- Consent Mode ------------------------------------------------------------------------------


#: What a platform says, by the TCF and by Google's Consent Mode, that is a yes.
GRANTED = [
    tc(),
    tc("tcloaded", vendors=(1, 130), purposes=(1, 2, 7)),
    tc(publisher={"restrictions": {"7": {"130": 1, "131": 0}}}),
    'decide({"gdprApplies": false, "eventStatus": "tcloaded"})',
    gtag("default", "granted"),
    gtag("default", "denied") + ";" + gtag("update", "granted"),
    # Google's tag has sorted the regions out.
    "google_tag_data = {ics: {entries: {ad_storage: {default: true}}}};"
    + gtag("default", "denied", region=["DE"]),
    # An update by a tag manager's template does not pass through the data layer.
    "google_tag_data = {ics: {entries: {ad_storage: {default: false, update: true}}}}",
]
#: And what is none.
UNDECIDED = [
    tc(vendors=(131,)),
    tc(purposes=(1,)),
    tc(purposes=(7,)),
    tc("cmpuishown"),
    tc(publisher={"restrictions": {"7": {"130": 0}}}),
    # The publisher asks for no consent, but has it done by legitimate interest.
    tc(publisher={"restrictions": {"7": {"130": 2}}}),
    'decide({"gdprApplies": true, "eventStatus": "tcloaded"})',
    'decide({"eventStatus": "tcloaded"})',
    gtag("default", "denied"),
    gtag("default", "denied", region=["DE"]) + ";" + gtag("default", "granted"),
    gtag("default", "granted", region=["US"]),
    gtag("default", None) + ";" + gtag("update", None),
    gtag("default", "granted") + ";" + gtag("update", "denied"),
    "google_tag_data = {ics: {entries: {ad_storage: {default: false}}}};"
    + gtag("default", "granted"),
    "dataLayer.push(null, 1, ['consent'], {event: 'consent'}, ['consent', 'update', null])",
    "dataLayer = {}; google_tag_data = {ics: 1}",
]


def saying(site: KitSite, words: str) -> str:
    return f"{CMP}{GTAG}<script>{words}</script>" + site.tag(consent="tcf")


def test_a_platforms_yes_starts_everything(site: KitSite, page: Page) -> None:
    for words in GRANTED:
        site.open(page.context.new_page(), saying(site, words), LANDING)
    assert site.wait_told(page, len(GRANTED)) == [GRANT] * len(GRANTED)


def test_without_a_platforms_yes_nothing_starts(site: KitSite, page: Page) -> None:
    page.goto(site.serve_frames(*((saying(site, words), LANDING[1:]) for words in UNDECIDED)))
    page.wait_for_timeout(150)
    assert_no_trace(site, page)


def clobbering(leaf: str) -> str:
    """Frames in frames that answer to ``google_tag_data.ics.entries.ad_storage``."""
    html = leaf
    for name in ("ad_storage", "entries", "ics", "google_tag_data"):
        html = f'<iframe name="{name}" srcdoc="{escape(html)}"></iframe>'
    return html


@pytest.mark.parametrize(
    "leaf",
    [f'<a id="{name}" href="x:y">granted</a>' for name in ("update", "default")]
    + ['<iframe name="update"></iframe>'],
)
def test_markup_gives_no_consent(site: KitSite, page: Page, leaf: str) -> None:
    site.open(page, site.tag(consent="tcf"), LANDING, body=clobbering(leaf))
    # It does answer to that name: the test would see nothing otherwise.
    storage = "google_tag_data.ics.entries.ad_storage"
    assert page.evaluate(f"!!({storage}.update || {storage}.default)")
    page.wait_for_timeout(700)
    assert_no_trace(site, page)


def test_markup_that_poses_as_googles_tag_hides_no_withdrawal(site: KitSite, page: Page) -> None:
    posing = clobbering('<a id="update">x</a>')
    site.open(page, GTAG + site.tag(consent="tcf"), LANDING, body=posing)
    page.evaluate(gtag("update", "granted"))
    assert site.wait_told(page, 1) == [GRANT]
    page.evaluate(gtag("update", "denied"))
    assert site.wait_told(page, 2)[1] == {"consent": False}


def test_any_no_is_a_no(site: KitSite, page: Page) -> None:
    site.open(page, CMP + GTAG + site.tag(consent="tcf"), LANDING)
    page.evaluate(tc(vendors=()) + ";" + gtag("update", "granted") + "; adrollKit.consent(true)")
    page.wait_for_timeout(700)
    assert_no_trace(site, page)


# -- the server says ---------------------------------------------------------------------------


def test_the_server_is_asked_where_it_decides(site: KitSite, page: Page) -> None:
    site.answer = {"consent": True}
    site.open(page, site.tag(consent="ask"), LANDING)
    told = site.wait_told(page, 2)
    assert told == [{}, {"adct": "click123", "first_party_cookie": COOKIE}]
    page.goto(site.url())
    assert len(site.after_wait(page, count=2)) == 2
    assert page.evaluate("seen.tracked") == ["pageView"]


def test_a_tab_with_the_servers_no_asks_no_more_until_a_yes(site: KitSite, page: Page) -> None:
    site.answer = {"consent": False}
    site.serve(site.tag(consent="ask"))
    for _ in range(3):
        page.goto(site.url(LANDING))
        page.wait_for_function(kit_site.KEPT + " == '0'")
        assert site.after_wait(page, 0, count=1) == [{}]
    # All that is kept is the no itself.
    assert page.evaluate("({...sessionStorage})") == {kit_site.IDENTITY: "0"}
    assert (site.pixels, page.context.cookies()) == ([], [])
    site.answer = {"consent": True}
    page.evaluate("adrollKit.consent(true)")
    assert site.wait_told(page, 2) == [{}, GRANT]
    page.goto(site.url())
    assert len(site.after_wait(page, count=2)) == 2


def test_a_no_that_the_server_has_taken_back_is_asked_for_again(site: KitSite, page: Page) -> None:
    """The visitor said yes in a form of the site: its answer has the server's cookie."""
    site.answer = {"consent": False}
    site.open(page, site.tag(consent="ask"), LANDING)
    site.wait_told(page, 1)
    kit_site.set_cookies(page.context, ".shop.test")
    site.answer = {"consent": True}
    page.goto(site.url())
    assert site.wait_told(page, 3)[1:] == [{}, {"first_party_cookie": SERVER_COOKIE}]
    assert page.evaluate("seen.tracked") == ["pageView"]


@pytest.mark.parametrize("answer", [{"consent": False}, {"consent": None}, {}, 204])
def test_no_yes_starts_nothing(site: KitSite, page: Page, answer: int | dict[str, Any]) -> None:
    site.answer = answer
    site.open(page, site.tag(consent="ask"), LANDING)
    assert site.after_wait(page, 0, count=1) == [{}]
    if answer == {"consent": False}:
        page.evaluate("sessionStorage.clear()")
    assert_no_trace(site, page)
    # The visitor is asked by the page, and the landing's click id is still there.
    page.evaluate("adrollKit.consent(true)")
    site.answer = {"consent": True}
    assert site.wait_told(page, 2) == [{}, GRANT]


def test_a_yes_that_the_server_has_taken_back_is_asked_for_again(site: KitSite, page: Page) -> None:
    site.answer = {"consent": True}
    site.open(page, site.tag(consent="ask"), LANDING)
    site.wait_told(page, 2)
    page.context.clear_cookies()
    site.pixels.clear()
    site.answer = {"consent": False}
    page.goto(site.url())
    assert site.wait_told(page, 3)[2:] == [{}]
    page.wait_for_function(kit_site.KEPT + " == '0'")
    assert page.evaluate("sessionStorage.length") == 1
    assert (site.pixels, page.context.cookies()) == ([], [])


#: A tab that can keep nothing.
FULL = "new Proxy({length: 0}, { set() { throw new DOMException('', 'QuotaExceededError') } })"
NO_ROOM = f"<script>Object.defineProperty(window, 'sessionStorage', {{value: {FULL}}})</script>"


@pytest.mark.parametrize("before", ["", NO_ROOM], ids=["", "no room in the tab"])
def test_the_servers_no_to_what_it_was_told_stops_everything(
    site: KitSite, page: Page, before: str
) -> None:
    site.answer = {"consent": False}
    agree(site, page, before)
    page.wait_for_function("document.cookie == '' && !sessionStorage.length")
    page.evaluate("adroll.track('addToCart')")
    assert page.evaluate("seen.tracked") == ["pageView"]
    site.told.clear()
    site.pixels.clear()
    assert_no_trace(site, page)


def test_a_tab_keeps_what_it_told_where_the_cookie_is_another_hosts(
    site: KitSite, page: Page
) -> None:
    site.answer = {"consent": True, "token": "signed"}
    site.open(page, site.tag(consent="ask", origins=True, pixel="none", wait=WAIT), LANDING)
    click = {"adct": "click123"}
    assert site.wait_told(page, 2) == [{}, click]
    page.goto(site.url())
    assert site.wait_told(page, 4)[2:] == [{}, click]
    assert page.evaluate("adrollKit.token()") == "signed"
    assert site.told[4:] == [{**click, "token": True}]


def test_a_yes_on_the_page_beats_a_question_under_way(site: KitSite, page: Page) -> None:
    site.answer = {"consent": False}
    site.delay = 0.4
    site.open(page, site.tag(consent="ask"), LANDING)
    site.answer = {"consent": True}
    page.evaluate("adrollKit.consent(true)")
    assert site.wait_told(page, 2) == [{}, GRANT]
    page.wait_for_timeout(500)
    assert len(page.context.cookies()) == 1


# -- Global Privacy Control --------------------------------------------------------------------


def test_global_privacy_control_is_a_no_whatever_else_says_yes(site: KitSite, page: Page) -> None:
    site.answer = {"consent": True}
    gpc = f"<script>{kit_site.GPC}</script>"
    site.open(page, gpc + CMP + GTAG + site.tag(consent="ask"), LANDING)
    page.evaluate(tc() + ";" + gtag("update", "granted") + "; adrollKit.consent(true)")
    page.wait_for_timeout(600)
    assert site.told == []
    assert_no_trace(site, page)

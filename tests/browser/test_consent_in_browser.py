"""A visitor's no is a no: after it there is nothing, anywhere; and a late yes loses nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Response, session
from playwright.sync_api import BrowserContext, Page

from adroll_flask.sandbox import RunningSandbox
from tests.support import visits
from tests.support.journey import Site, buy, check_known, jar, open_shop
from tests.support.kit_site import CMP, LOADER, METHODS
from tests.support.sites import RECORD
from tests.support.tcf import NO, YES

#: The platform keeps its TC string in the cookie: `cmp.say("CQ...", true)` is a visitor's click on
#: its dialogue.
PLATFORM = (
    CMP
    + """
decide(localStorage.cmp
  ? {...JSON.parse(localStorage.cmp), eventStatus: "tcloaded"}
  : {tcString: "", gdprApplies: true, eventStatus: "cmpuishown", vendor: {}, purpose: {}});
window.cmp = {
  say(tcString, yes) {
    const data = {tcString, gdprApplies: true, eventStatus: "useractioncomplete",
                  vendor: {consents: {130: yes}}, purpose: {consents: {1: yes, 7: yes}}};
    localStorage.cmp = JSON.stringify(data);
    document.cookie = `euconsent-v2=${tcString};path=/;max-age=31536000`;
    decide(data);
  },
};
"""
)
#: One of the US: `optOut(true)` is the visitor's no to sale, and it remembers both answers.
OPT_OUTS = """
const heard = [];
const ping = () => ({
  signalStatus: localStorage.cmp ? "ready" : "not ready",
  supportedAPIs: ["2:tcfeuv2", "7:usnat"],
  applicableSections: [7],
  parsedSections: {usnat: [{SaleOptOut: +localStorage.cmp, SharingOptOut: 0}]},
});
window.__gpp = (command, callback) => {
  heard.push(callback);
  callback({eventName: "listenerRegistered", pingData: ping()}, true);
};
window.optOut = (no) => {
  localStorage.cmp = no ? 1 : 2;
  for (const callback of heard)
    callback({eventName: "signalStatus", data: "ready", pingData: ping()}, true);
};
"""
OpenSite = Callable[..., AbstractContextManager[Site]]
#: A setting, and how a page of its site says yes and no.
Way = tuple[Any, str]


@pytest.fixture
def open_site(adroll: RunningSandbox, tmp_path: Path) -> OpenSite:
    """A shop that delivers when it is told to, so that what waits can be seen."""
    return partial(open_shop, adroll, tmp_path, ADROLL_DELIVERY="worker")


def by_choice(request: Any) -> bool | None:
    """The callable of a site with a banner of its own."""
    choice: bool | None = {"yes": True, "no": False}.get(request.cookies.get("choice"))
    return choice


class Traffic:
    """Requests that a context's pages make to AdRoll, and what they tell the shop."""

    def __init__(self, context: BrowserContext) -> None:
        self.to_adroll: list[str] = []
        self.told: list[Any] = []
        context.on("request", self._note)

    def _note(self, request: Any) -> None:
        if "/j/" in request.url or "/pixel/" in request.url:
            self.to_adroll.append(request.url)
        if request.url.endswith("/_adroll/identity"):
            self.told.append(request.post_data_json)


def session_of(site: Site, context: BrowserContext) -> set[str]:
    """What the shop's session cookie has values of."""
    assert site.app is not None
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in context.cookies(site.url()))
    with site.app.test_request_context(headers={"Cookie": cookies}):
        return {*session}


def waiting(site: Site) -> list[dict[str, Any]]:
    """The events that wait in the outbox."""
    return visits.kept(site.app, "waiting") if site.runtime.outbox.exists() else []


def assert_nothing_kept(site: Site, page: Page, traffic: Traffic, *, ever: bool = True) -> None:
    """The jar, the storages, the session, the outbox and AdRoll are empty of this visitor.

    :param ever: also that nothing was there before.
    """
    page.wait_for_timeout(700)  # the kit looks twice a second for somebody who says yes
    context = page.context
    names = {cookie["name"] for cookie in context.cookies()}
    assert not names & {RECORD, "adroll_visitor", "__adroll_fpc"}
    state = context.storage_state()
    stored = [item["name"] for origin in state["origins"] for item in origin["localStorage"]]
    assert set(stored) <= {"cmp"}
    # At most the tab's memory of the no itself.
    assert page.evaluate("({...sessionStorage})") in ({}, {"/_adroll/identity": "0"})
    assert not session_of(site, context) & {"adroll", "adroll_identity"}
    assert waiting(site) == []
    if ever:
        outbox = site.runtime.outbox
        assert not outbox.exists() or sum(outbox.lookups.counts().values()) == 0
        assert traffic.to_adroll == []
        assert site.adroll.events() == []
        assert site.adroll.tracked() == []
        assert not any(told.get("adct") or told.get("first_party_cookie") for told in traffic.told)
        assert page.evaluate("window.__adroll_loaded") is None


#: How a visitor says yes and no: the site's setting, and what its page does then.
WAYS = {
    "platform": ("tcf", f"yes => cmp.say(yes ? {YES!r} : {NO!r}, yes)"),
    "opt-outs": ("gpp", "yes => optOut(!yes)"),
    "banner": (
        by_choice,
        "yes => { document.cookie = `choice=${yes ? 'yes' : 'no'};path=/`;"
        " adrollKit.consent(yes) }",
    ),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, context: BrowserContext) -> Way:
    context.add_init_script({"platform": PLATFORM, "opt-outs": OPT_OUTS}.get(request.param, ""))
    return WAYS[request.param]


@pytest.mark.parametrize("asked", [False, True], ids=["not asked", "refused"])
def test_who_was_not_asked_or_refused_leaves_no_trace(
    open_site: OpenSite, way: Way, page: Page, asked: bool
) -> None:
    traffic = Traffic(page.context)
    consent, say = way
    with open_site(ADROLL_CONSENT=consent) as site:
        page.goto(site.url("/?adct=the-click"))
        if asked:
            page.evaluate(say, False)

        buy(page)

        assert_nothing_kept(site, page, traffic)


def test_a_late_yes_starts_everything_and_a_withdrawal_forgets_it_all(
    open_site: OpenSite, way: Way, page: Page
) -> None:
    traffic = Traffic(page.context)
    consent, say = way
    with open_site(ADROLL_CONSENT=consent) as site:
        page.goto(site.url("/?adct=the-click"))
        assert_nothing_kept(site, page, traffic)

        page.evaluate(say, True)
        page.wait_for_function("document.cookie.includes('__adroll_fpc')")
        page.wait_for_function("sessionStorage['/_adroll/identity']?.includes('the-click')")

        assert [url for url in traffic.to_adroll if "roundtrip.js" in url]
        buy(page)
        check_known(site.purchase(), "the-click", jar(page.context, page.url))

        buy(page)
        assert {event["event_name"] for event in waiting(site)} == {"addToCart", "purchase"}
        told = len(traffic.told)

        page.evaluate(say, False)
        page.wait_for_function("!document.cookie.includes('__adroll_fpc')")

        assert_nothing_kept(site, page, traffic, ever=False)
        assert {"consent": False} in traffic.told[told:]
        traffic.to_adroll.clear()
        page.goto(site.url())
        buy(page)
        assert_nothing_kept(site, page, traffic, ever=False)
        assert [url for url in traffic.to_adroll if "/j/" in url] == []


BANNER = "[role=dialog]"


@pytest.mark.parametrize("allowed", [True, False])
def test_the_kit_hears_the_banner_of_the_tag(
    open_site: OpenSite, page: Page, allowed: bool
) -> None:
    """The way that docs/explanation/privacy.md gives."""
    traffic = Traffic(page.context)
    with open_site(ADROLL_CONSENT="tcf", ADROLL_PIXEL="present") as site:
        site.adroll.fault(path="/consent/*", consent="ask")
        account = site.adroll.account
        source = f"{site.adroll_origin}/j/{account.advertisable_eid}/roundtrip.js"
        tag = LOADER % (METHODS, source)
        assert site.app is not None

        @site.app.after_request
        def put_it_in(response: Response) -> Response:
            if response.mimetype == "text/html":
                html = response.get_data(as_text=True)
                response.set_data(html.replace("</head>", f"{tag}</head>"))
            return response

        page.goto(site.url("/?adct=the-click"))
        page.locator(BANNER).wait_for()
        assert page.evaluate("typeof __tcfapi") == "function"
        assert page.context.cookies() == site.adroll.tracked() == []
        page.get_by_role("button", name="Allow" if allowed else "Decline").click()
        if allowed:
            page.wait_for_function("sessionStorage['/_adroll/identity']?.includes('the-click')")
            assert page.evaluate("localStorage.__adroll_consent_data")
            buy(page)
            check_known(site.purchase(), "the-click", jar(page.context, page.url))
            assert page.locator(BANNER).count() == 0, "it is remembered"
        else:
            # The no is remembered, and the banner does not come back.
            page.goto(site.url())
            page.wait_for_function("typeof __tcfapi === 'function'")
            page.wait_for_timeout(700)
            assert page.locator(BANNER).count() == 0
            names = {cookie["name"] for cookie in page.context.cookies()}
            assert names == {"__adroll_consent", "__adroll_consent_params"}
            assert waiting(site) == []
            assert site.adroll.tracked() == []
            assert not any(told.get("adct") for told in traffic.told)

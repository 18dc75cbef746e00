"""The kit with ``data-consent="gpp"``: the IAB's own platform says what a visitor opted out of."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.support import kit_site, lacking
from tests.support.kit_site import COOKIE, LANDING, WAIT, KitSite

YES, NO = {"adct": "click123", "consent": True, "first_party_cookie": COOKIE}, {"consent": False}

#: What sites have in their pages' head until the platform's script has come: IAB's
#: "GPP CMP API", version 1.1, section "API stub", as far as events go.
STUB = """<script>
window.__gpp = function (command, callback, parameter) {
  const stub = window.__gpp;
  stub.events ||= [];
  if (!arguments.length) return [];
  if (command == "events") return stub.events;
  if (command != "addEventListener") throw new Error("unexpected " + command);
  const id = stub.events.push({ id: stub.events.length + 1, callback, parameter });
  const pingData = { gppVersion: "1.1", cmpStatus: "stub", signalStatus: "not ready",
    supportedAPIs: [], sectionList: [], applicableSections: [], parsedSections: {} };
  callback({ eventName: "listenerRegistered", listenerId: id, data: true, pingData }, true);
};
</script>"""
#: The platform itself, which takes over from the stub.
PLATFORM = """
import("/gpp/index.js").then(({ CmpApi }) => {
  window.cmp = new CmpApi(31, 1);
  cmp.setSupportedAPIs(["2:tcfeuv2", "5:tcfcav1", "6:uspv1", "7:usnat", "8:usca", "9:usva"]);
})"""


@pytest.fixture(autouse=True)
def _quiet(console: Any) -> Iterator[None]:
    """The kit writes nothing on the console."""
    yield
    assert console.lines == []


def answer(applicable: list[int], **fields: Any) -> str:
    """The visitor answered: what the platform then does. Of ``usca_SaleOptOut=1`` the section is
    ``usca``."""
    words = [
        f"cmp.setFieldValue({json.dumps(section)}, {json.dumps(field)}, {json.dumps(value)})"
        for (section, field), value in (
            (tuple(name.split("_")), value) for name, value in fields.items()
        )
    ]
    words.append(f"cmp.setApplicableSections({applicable})")
    return "; ".join([*words, "cmp.setSignalStatus('ready')"])


def open_asking(site: KitSite, page: Page, head: str = "", **tag: Any) -> None:
    """A page with the stub and, once it has loaded, the platform, whose dialogue is open."""
    if not kit_site.GPP.is_dir():
        lacking("no @iabgpp/cmpapi: cd docs && npm ci --ignore-scripts")
    site.open(page, STUB + head + site.tag(consent="gpp", **tag), LANDING)
    page.wait_for_function("window.adrollKit && adrollKit.on")
    page.evaluate(f"void {PLATFORM.strip()}")
    page.wait_for_function("window.cmp")
    page.evaluate("cmp.setSignalStatus('not ready')")


#: What is a yes.
STAYED = [
    answer([7], usnat_SaleOptOut=2, usnat_SharingOptOut=2, usnat_TargetedAdvertisingOptOut=2),
    answer([7], usnat_SaleOptOut=0, usnat_SaleOptOutNotice=1, usnat_MspaOptOutOptionMode=1),
    answer([8], usca_SaleOptOut=2, usca_Gpc=False),
    # Where a section does not apply, what it says is of another place.
    answer([8], usnat_SaleOptOut=1, usca_SaleOptOut=2),
    answer([6], uspv1_Notice="Y", uspv1_OptOutSale="N"),
    answer([-1], usnat_Gpc=True),
    answer([]),
]
#: And what is a no.
OPTED_OUT = [
    answer([7], usnat_SaleOptOut=1),
    answer([7], usnat_SharingOptOut=1),
    answer([7], usnat_TargetedAdvertisingOptOut=1),
    answer([7], usnat_Gpc=True),
    answer([7, 8], usnat_SaleOptOut=2, usca_SharingOptOut=1),
    answer([9], usva_TargetedAdvertisingOptOut=1),
    answer([8], usca_SaleOptOut=2, usca_Gpc=True),
    # The section of before there were these.
    answer([6], uspv1_Notice="Y", uspv1_OptOutSale="Y"),
]


@pytest.mark.parametrize("words", STAYED)
def test_who_did_not_opt_out_is_told_once_the_platform_is_ready(
    site: KitSite, page: Page, words: str
) -> None:
    open_asking(site, page, wait=WAIT)
    assert site.after_wait(page) == []
    assert (site.pixels, page.context.cookies()) == ([], [])
    page.evaluate(words)
    assert site.wait_told(page, 1)[0]["consent"] is True


@pytest.mark.parametrize("words", OPTED_OUT)
def test_who_opted_out_leaves_no_trace(site: KitSite, page: Page, words: str) -> None:
    open_asking(site, page, wait=WAIT)
    page.evaluate(words)
    assert site.after_wait(page) == []
    assert (site.pixels, page.context.cookies()) == ([], [])
    assert page.evaluate("sessionStorage.length") == 0


def test_a_later_no_takes_back_and_a_later_yes_starts_again(site: KitSite, page: Page) -> None:
    open_asking(site, page)
    page.evaluate(answer([7], usnat_SaleOptOut=2))
    assert site.wait_told(page, 1) == [YES]
    # The dialogue is open again: the visitor has not decided yet.
    page.evaluate("cmp.setSignalStatus('not ready'); cmp.fireSectionChange('usnat')")
    page.evaluate("cmp.setFieldValue('usnat', 'SaleOptOut', 1)")
    page.wait_for_timeout(100)
    assert site.told == [YES]
    page.evaluate("cmp.setSignalStatus('ready')")
    assert site.wait_told(page, 2) == [YES, NO]
    page.evaluate(answer([7], usnat_SaleOptOut=2))
    assert site.wait_told(page, 3) == [YES, NO, YES]


def test_where_no_platform_shows_up_within_the_wait_it_is_a_yes(site: KitSite, page: Page) -> None:
    site.open(page, site.tag(consent="gpp", pixel="none", wait=WAIT), LANDING)
    assert site.wait_told(page, 1) == [{"adct": "click123", "consent": True}]


def test_a_no_before_the_wait_is_over_is_a_no(site: KitSite, page: Page) -> None:
    """By the site, or by a platform of the TCF; a yes of theirs waits for the platform."""
    head = f"<script>{kit_site.CMP}</script>"
    site.open(page, head + site.tag(consent="gpp", wait=WAIT), LANDING)
    page.evaluate("adrollKit.consent(false)")
    assert site.after_wait(page) == []


def test_a_sites_yes_waits_for_the_platform(site: KitSite, page: Page) -> None:
    open_asking(site, page, wait=WAIT)
    page.evaluate("adrollKit.consent(true)")
    assert site.after_wait(page) == []
    page.evaluate(answer([7], usnat_SaleOptOut=1))
    assert site.after_wait(page) == []


#: A call to the page's TCF: a yes.
TC_YES = (
    "decide({gdprApplies: true, eventStatus: 'useractioncomplete',"
    " vendor: {consents: {130: true}}, purpose: {consents: {1: true, 7: true}}})"
)


@pytest.mark.parametrize("tcf_first", [True, False])
def test_where_the_european_section_applies_the_tcf_says(
    site: KitSite, page: Page, tcf_first: bool
) -> None:
    open_asking(site, page, f"<script>{kit_site.CMP}</script>", wait=WAIT, pixel="none")
    words = [answer([2]), TC_YES]
    first, second = reversed(words) if tcf_first else words
    page.evaluate(first)
    assert site.after_wait(page) == []
    page.evaluate(second)
    assert site.wait_told(page, 1) == [{"adct": "click123", "consent": True}]


def test_a_platform_of_the_tcf_alone_is_heard_in_its_place(site: KitSite, page: Page) -> None:
    head = f"<script>{kit_site.CMP}</script>"
    site.open(page, head + site.tag(consent="gpp", pixel="none", wait=WAIT), LANDING)
    assert site.after_wait(page) == []
    page.evaluate(TC_YES)
    assert site.wait_told(page, 1) == [{"adct": "click123", "consent": True}]


@pytest.mark.parametrize(
    "platform", ["() => { throw 1 }", "(_, heard) => [null, {}, {pingData: {}}].forEach(heard)"]
)
def test_a_platform_that_says_nothing_sound_is_no_yes(
    site: KitSite, page: Page, platform: str
) -> None:
    head = f"<script>window.__gpp = {platform}</script>"
    site.open(page, head + site.tag(consent="gpp", wait=WAIT), LANDING)
    assert site.after_wait(page) == []


def test_without_gpp_nobody_asks_the_platform(site: KitSite, page: Page) -> None:
    head = "<script>window.__gpp = () => { window.asked = true }</script>"
    site.open(page, head + site.tag(consent="tcf", wait=WAIT), LANDING)
    assert site.after_wait(page) == []
    assert page.evaluate("window.asked") is None

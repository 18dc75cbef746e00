"""docs/how-to/consent.md: its lines for the page, with each platform's own event, in Chromium."""

import pytest
from playwright.sync_api import Page

from tests.support.kit_site import KitSite
from tests.support.pages import blocks

pytestmark = pytest.mark.browser

PAGE = "docs/how-to/consent.md"
YES, NO = {"adct": "click123", "consent": True}, {"consent": False}


def usercentrics(kind: str, yes: str) -> str:
    detail = f"{{event: 'consent_status', type: '{kind}', AdRoll: {yes}}}"
    return f"dispatchEvent(new CustomEvent('ucEvent', {{detail: {detail}}}))"


#: By platform: what its script does when the visitor says yes, and no.
ANSWERS = {
    "OneTrust": (
        "dispatchEvent(new CustomEvent('OneTrustGroupsUpdated', {detail: ['C0001', 'C0004']}))",
        "dispatchEvent(new CustomEvent('OneTrustGroupsUpdated', {detail: ['C0001']}))",
    ),
    "Cookiebot": (
        "window.Cookiebot = {consent: {marketing: true}};"
        "dispatchEvent(new Event('CookiebotOnAccept'))",
        "window.Cookiebot = {consent: {marketing: false}};"
        "dispatchEvent(new Event('CookiebotOnDecline'))",
    ),
    "Usercentrics": (usercentrics("EXPLICIT", "true"), usercentrics("explicit", "false")),
}


@pytest.mark.parametrize("platform", ANSWERS)
@pytest.mark.parametrize("early", [False, True], ids=["after the kit", "before the kit"])
def test_the_page_tells_each_answer(site: KitSite, page: Page, platform: str, early: bool) -> None:
    [html] = [block.code for block in blocks(PAGE, "In the page") if block.language == "html"]
    yes, no = ANSWERS[platform]
    asked = f"<script>{yes}</script>" if early else ""
    site.open(page, html + asked + site.tag(consent="callable", pixel="none"), "/?adct=click123")
    if not early:
        page.wait_for_function("window.adrollKit.on")
        page.evaluate(usercentrics("implicit", "true"))  # what it assumes is no answer
        page.wait_for_timeout(100)
        assert site.told == []
        page.evaluate(yes)
    assert site.wait_told(page, 1) == [YES]

    page.evaluate(no)

    assert site.wait_told(page, 2) == [YES, NO]

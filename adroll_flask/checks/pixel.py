"""Judges what a page says of AdRoll's pixel and of consent beside our snippet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adroll_flask.events.names import EVENT_NAMES

from .finding import Finding

if TYPE_CHECKING:
    from adroll_flask.settings import Settings

_TIMEOUT = (5.0, 15.0)
#: What AdRoll's own loader sets before it loads the pixel.
_LOADER = re.compile(r"\badroll_adv_id\b")
#: An id that is assigned, as a loader does.
_ADVERTISABLE = re.compile(r"\badroll_adv_id[\"']?\]?\s*=\s*[\"']([A-Z0-9]{8,40})[\"']")
#: Calls of the pixel (AdRoll's pixel JavaScript API guide), and its variables of old.
_TRACKED = re.compile(r"\badroll\.track\(\s*[\"'](" + "|".join(sorted(EVENT_NAMES)) + r")[\"']")
_CONVERSION = re.compile(r"\badroll_(conversion_value|conversion_value_in_dollars)\b\s*=")
_CONTAINER = re.compile(r"GTM-[A-Z0-9]{4,12}\b")
_CONTAINER_URL = re.compile(r"https?://[A-Za-z0-9.:-]+/gtm\.js")
#: ``__tcfapi`` (IAB, "CMP API v2"), and from where consent platforms that bring it are loaded.
_PLATFORM = re.compile(
    r"__tcfapi|cookielaw\.org|onetrust|cookiebot|usercentrics|consentmanager|didomi|privacy-mgmt"
    r"|sourcepoint|quantcast|inmobi|iubenda|trustarc|axeptio|fundingchoices|cookieyes|termly"
    r"|cookiefirst|traffective|sirdata|commanders-act|ketch",
    re.IGNORECASE,
)
_PRESENT = (
    "put AdRoll's own tag into the page and set ADROLL_PIXEL = 'present' "
    '(docs/explanation/privacy.md, "AdRoll\'s own banner")'
)


def pixel_findings(subject: str, html: str, settings: Settings) -> Iterator[Finding]:
    """Events from two sides, a second pixel, and a consent that nobody asks for.

    :param html: the page.
    """
    yield from _both_sides(subject, html)
    yield from _two_pixels(subject, html, settings)
    if settings.pixel != "load":
        return
    container = _CONTAINER.search(html)
    if _LOADER.search(html):
        yield Finding(
            "warning",
            subject,
            "loads AdRoll's pixel itself, and the kit is to load it too",
            "set ADROLL_PIXEL = 'present', or take AdRoll's tag out of the page",
            slug="pixel-twice",
        )
    if container:
        yield from _tag_manager(subject, html, container[0])
    if settings.consent == "tcf" and not _PLATFORM.search(html):
        yield Finding(
            "info" if container else "warning",
            subject,
            "shows no consent platform that brings __tcfapi: where AdRoll's banner is the only "
            "one, nobody ever asks, since the kit loads the pixel only after a yes",
            f"if so, {_PRESENT}",
            slug="tcf-and-banner",
        )


def _both_sides(subject: str, html: str) -> Iterator[Finding]:
    names = sorted({name for found in _TRACKED.finditer(html) if (name := found[1]) != "pageView"})
    if _CONVERSION.search(html) and "purchase" not in names:
        names.append("purchase")
    if names:
        yield Finding(
            "warning",
            subject,
            f"reports {', '.join(names)} by the pixel: what the server reports too counts twice",
            "report an event from one side: take it out of the page (no blocker keeps the server's "
            "report back), or do not report it with adroll_flask",
            slug="reported-twice",
        )


def _two_pixels(subject: str, html: str, settings: Settings) -> Iterator[Finding]:
    ids = _ADVERTISABLE.findall(html)
    if len(ids) > 1:
        yield Finding(
            "warning",
            subject,
            f"loads AdRoll's pixel {len(ids)} times: page views count as often",
            "keep one of AdRoll's tags: in the page, or in its tag manager",
            slug="pixel-twice",
        )
    if settings.advertisable_eid and set(ids) - {settings.advertisable_eid}:
        yield Finding(
            "warning",
            subject,
            "carries the pixel of another advertisable than ADROLL_ADVERTISABLE_EID: its cookie "
            "is not one that AdRoll looks for there",
            "use the ids of one account in both places",
            slug="other-advertisable",
        )


def _tag_manager(subject: str, html: str, container: str) -> Iterator[Finding]:
    """AdRoll's template for Google Tag Manager does not look whether a pixel is there already."""
    import requests

    found = _CONTAINER_URL.search(html)
    url = found[0] if found else "https://www.googletagmanager.com/gtm.js"
    try:
        answer = requests.get(url, params={"id": container}, timeout=_TIMEOUT)
        loads = "adroll" in answer.text.lower() if answer.status_code == 200 else None
    except requests.RequestException:
        loads = None
    if loads is False:
        return
    says = "has a tag of AdRoll's" if loads else "may have a tag of AdRoll's (it could not be read)"
    yield Finding(
        "warning" if loads else "info",
        subject,
        f"its Google Tag Manager container {container} {says}: that loads a second pixel beside "
        "the kit's, and page views count twice",
        "set ADROLL_PIXEL = 'present', or take AdRoll's tag out of the container",
        slug="pixel-twice",
    )

"""Which identifiers events carry, the next step, and how fresh deliveries are."""

from __future__ import annotations

import re

import pytest

from adroll_flask._version import DOCS_URL
from adroll_flask.events.coverage import BITS
from tests.support import ROOT

from .conftest import DAY, Shop

COOKIE = BITS["first_party_cookie"]
EMAIL = BITS["email_sha256"] | BITS["email_md5"]


def test_shares_are_of_what_was_delivered(shop: Shop) -> None:
    shop.happened("delivered", 3, identifiers=COOKIE | EMAIL, delay=1.0)
    shop.happened("delivered", 1, identifiers=COOKIE, delay=1.0)
    shop.happened("duplicate", 9, identifiers=EMAIL)
    found = shop.json("match-quality")
    shares = {one["name"]: one["share"] for one in found["identifiers"]}
    assert found["delivered"] == 4
    assert shares["first_party_cookie"] == 1.0
    assert shares["email"] == 0.75
    assert found["mean"] == pytest.approx(1.75)
    assert found["grade"]["sentence"] == (
        "orders carry 1.8 of the 2 identifiers that they could; the e-mail address is missing in"
        " 25 %."
    )


@pytest.mark.parametrize(
    ("masks", "title"),
    [
        ({COOKIE: 10}, "Give the buyer's e-mail address with each order"),
        ({EMAIL: 8, EMAIL | COOKIE: 2}, "Let AdRoll's pixel set its cookie on every page"),
        ({EMAIL | COOKIE: 10}, "Say who is logged in"),
        ({EMAIL | COOKIE | BITS["user_id"]: 9, EMAIL | COOKIE: 1}, "Nothing"),
    ],
)
def test_the_next_step_is_the_one_that_adds_most(
    shop: Shop, masks: dict[int, int], title: str
) -> None:
    for mask, events in masks.items():
        shop.happened("delivered", events, identifiers=mask, delay=1.0)
    assert shop.json("match-quality")["next"]["title"].startswith(title)
    assert title in shop.html("match-quality").replace("&#39;", "'")
    link = shop.json("match-quality")["next"]["link"]
    if title != "Nothing":
        path, _, part = link.removeprefix(DOCS_URL).partition("#")
        page = (ROOT / "docs" / path).with_suffix(".md").read_text().lower()
        heads = re.findall(r"^##+ (.+)$", page, re.MULTILINE)
        assert part in {re.sub(r"\W+", "-", head).strip("-") for head in heads}


def test_what_is_done_already_is_no_advice(shop: Shop) -> None:
    """The span may be long; the advice is by the last week."""
    shop.happened("delivered", 100, identifiers=COOKIE, ago=20 * DAY, delay=1.0)
    shop.happened("delivered", 10, identifiers=EMAIL | COOKIE | BITS["user_id"], delay=1.0)
    assert shop.json("match-quality", period="month")["next"]["title"].startswith("Nothing")


def test_the_next_step_is_a_message_for_the_developer(shop: Shop) -> None:
    shop.happened("delivered", 6, identifiers=1, delay=3.0)
    message = shop.html("match-quality").partition('<pre id="message-text-next"')[2]
    message = message.partition("</pre>")[0]
    for part in ("Give the buyer", "email=order.email", "visitor.html#what-adroll", "http://local"):
        assert part in message


def test_freshness_is_told_by_the_histogram(shop: Shop) -> None:
    shop.happened("delivered", 6, delay=3.0)
    shop.happened("delivered", 4, delay=100.0)
    found = shop.json("match-quality")["freshness"]
    assert (found["median"], found["most"]) == (5, 300)
    assert "half within 5 seconds, 95 % within 5 minutes" in shop.html("match-quality")


def test_a_step_without_events_has_no_share(shop: Shop) -> None:
    shop.happened("delivered", 200, identifiers=COOKIE, ago=2 * DAY, delay=1.0)
    steps = shop.json("match-quality", period="days")["steps"]
    told = [step["shares"]["first_party_cookie"] for step in steps]
    assert told[-3] == 1.0
    assert told[-1] is None


def test_few_events_are_shown_by_weeks_since_days_are_noise(shop: Shop) -> None:
    for days in range(14):
        shop.happened("delivered", 3, identifiers=COOKIE, ago=days * DAY, delay=1.0)
    found = shop.json("match-quality", period="month")
    assert found["step"] == "week"
    assert sum(step["events"] for step in found["steps"]) == found["delivered"] == 42


def test_the_next_step_says_what_it_would_bring(shop: Shop) -> None:
    shop.happened("delivered", 10, identifiers=COOKIE | BITS["user_id"], delay=1.0)
    assert "from 2 to 3 identifiers" in shop.html("match-quality")


def test_nothing_delivered_is_a_page_too(shop: Shop) -> None:
    assert "Nothing was delivered in the last week." in shop.html("match-quality")
    assert shop.json("match-quality")["next"] is None

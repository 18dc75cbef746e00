"""Who may act: an operator, on our own page, in the same browser, lately."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_wtf import CSRFProtect

from adroll_flask import AdRoll
from adroll_flask.dashboard import mounting
from adroll_flask.dashboard.guard import COOKIE, Guard
from adroll_flask.dashboard.page import Done, Visit
from adroll_flask.dashboard.pages import PAGES
from tests.conftest import AppMaker

from .conftest import WHERE, Shop

ACTION = f"{WHERE}overview/count"


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first page has an action, and this is what it did."""
    done: list[str] = []

    def count(visit: Visit) -> Done:
        done.append(visit.request.form.get("what", ""))
        return Done(f"Counted <{done[-1]}>.", arguments={"period": "day"})

    first, *others = PAGES
    pages = (replace(first, actions={"count": count}), *others)
    monkeypatch.setattr(mounting, "PAGES", pages)
    return done


@pytest.fixture
def shop(acted: list[str], make_app: AppMaker) -> Shop:
    """Made after its page has the action."""
    return Shop(make_app)


def token_of(shop: Shop, client: FlaskClient | None = None) -> str:
    """What the forms of a page that was just looked at hold."""
    client = client or shop.client
    client.get(WHERE)
    cookie = client.get_cookie(COOKIE, path=WHERE)
    assert cookie is not None
    return Guard(shop.runtime, lambda: True, None).token(cookie.value)


def post(shop: Shop, token: str, site: str = "same-origin", **headers: str) -> Any:
    return shop.client.post(
        ACTION,
        data={"token": token, "what": "it"},
        headers={"Sec-Fetch-Site": site, **headers} if site else headers,
    )


def test_an_operator_acts_and_is_told(shop: Shop, acted: list[str]) -> None:
    answer = post(shop, token_of(shop))
    assert (answer.status_code, acted) == (303, ["it"])
    assert answer.location.startswith(f"{WHERE}?period=day&said=")
    assert "Counted &lt;it&gt;." in shop.client.get(answer.location).text


def test_who_only_looks_does_not_act(shop: Shop, acted: list[str]) -> None:
    token = token_of(shop)
    shop.may_act = False
    assert post(shop, token).status_code == 403
    assert acted == []


def test_who_may_not_look_does_not_act_either(shop: Shop, acted: list[str]) -> None:
    token = token_of(shop)
    shop.may_look = False
    assert post(shop, token).status_code == 403
    assert acted == []


def test_without_operator_nobody_acts(acted: list[str], make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    adroll.dashboard(app, access=lambda: True)
    client = app.test_client()
    client.get(WHERE)
    assert client.get_cookie(COOKIE, path=WHERE) is None
    assert client.post(ACTION, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_a_form_from_elsewhere_is_refused(shop: Shop, acted: list[str], site: str) -> None:
    """Even with the right token; ``none`` is what the address bar sends, which posts nothing."""
    assert post(shop, token_of(shop), site).status_code == 403
    assert acted == []


def test_an_older_browser_says_its_origin(shop: Shop, acted: list[str]) -> None:
    token = token_of(shop)
    assert post(shop, token, "").status_code == 403
    assert post(shop, token, "", Origin="http://evil.example").status_code == 403
    assert post(shop, token, "", Origin="http://localhost").status_code == 303
    assert acted == ["it"]


@pytest.mark.parametrize("change", [lambda _: "", lambda t: t[:-1], lambda t: f"{t}x", str.upper])
def test_a_token_that_is_not_ours_is_refused(
    shop: Shop, acted: list[str], change: Callable[[str], str]
) -> None:
    assert post(shop, change(token_of(shop))).status_code == 403
    assert acted == []


def test_another_browsers_token_is_refused(shop: Shop, acted: list[str]) -> None:
    theirs = token_of(shop, shop.app.test_client())
    token_of(shop)
    assert post(shop, theirs).status_code == 403


def test_a_token_ends(shop: Shop, acted: list[str]) -> None:
    token = token_of(shop)
    shop.now += 13 * 3600
    assert post(shop, token).status_code == 403


def test_nobody_else_makes_a_page_say_something(shop: Shop, acted: list[str]) -> None:
    token = token_of(shop)
    for forged in ("Counted%20it", token):
        assert 'class="notice' not in shop.client.get(f"{WHERE}?said={forged}").text
    said = post(shop, token).location
    shop.now += 600
    assert "Counted" not in shop.client.get(said).text, "it is news for some minutes"


def test_a_get_does_nothing(shop: Shop, acted: list[str]) -> None:
    answer = shop.client.get(ACTION)
    assert (answer.status_code, answer.location) == (303, WHERE)
    assert acted == []


def test_the_cookie_is_for_the_dashboard_alone(shop: Shop) -> None:
    [header] = shop.client.get(WHERE, base_url="https://shop.example").headers.getlist("Set-Cookie")
    for part in ("Secure", "HttpOnly", "SameSite=Strict", f"Path={WHERE}"):
        assert part in header


def test_a_site_with_csrf_protection_lets_it_through(shop: Shop, acted: list[str]) -> None:
    CSRFProtect(shop.app)
    shop.app.config.update(WTF_CSRF_ENABLED=True, WTF_CSRF_CHECK_DEFAULT=True)
    assert post(shop, token_of(shop)).status_code == 303

"""The tag, the kit and the pixel under strict Content-Security-Policies, and beside a foreign
base, in Chromium."""

from pathlib import Path
from typing import Any

import pytest
from flask import Response, current_app, render_template_string
from flask_talisman import Talisman
from playwright.sync_api import Page

from adroll_flask import current_visitor
from adroll_flask.sandbox import RunningSandbox
from tests.support import eventually, pages, visits
from tests.support.journey import jar
from tests.support.page_shop import PageShop
from tests.support.serving import serving
from tests.support.sites import described


def csp_nonce() -> str:
    """As a site that uses Talisman writes it."""
    make: Any = current_app.jinja_env.globals["csp_nonce"]
    nonce: str = make()
    return nonce


#: A policy, in which PIXEL stands for where the pixel is, and the settings that go with it.
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    # The strict policy of web.dev and Google's CSP guide: a nonce, and what it loads.
    "a nonce": (
        "script-src 'strict-dynamic'; object-src 'none'; base-uri 'none'",
        {"ADROLL_CSP_NONCE": csp_nonce},
    ),
    "hosts": (
        "default-src 'none'; script-src 'self' PIXEL; connect-src 'self' PIXEL; img-src 'self'",
        {},
    ),
    # What `flask adroll check` prints: the rest is the pixel's.
    "self alone": (
        "default-src 'none'; script-src 'self'; connect-src 'self'",
        {"ADROLL_PIXEL": "none"},
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_under_a_strict_policy_all_of_it_works(
    name: str, adroll: RunningSandbox, tmp_path: Path, page: Page, console: Any
) -> None:
    origin = adroll.url_at("adroll.example")
    policy, config = POLICIES[name]
    config = {"ADROLL_PIXEL_URL": origin + "/j/{advertisable_eid}/roundtrip.js"} | config
    shop = PageShop(tmp_path, adroll, {"ADROLL_DELIVERY": "worker"} | config)
    Talisman(
        shop.app,
        force_https=False,
        session_cookie_secure=False,
        content_security_policy=policy.replace("PIXEL", origin),
        content_security_policy_nonce_in=["script-src"] * (name == "a nonce"),
    )
    shop.start()
    shop.app.add_url_rule("/who", view_func=lambda: described(current_visitor()), methods=["POST"])
    with serving(shop.app) as port:
        with page.expect_response("**/_adroll/identity") as told:
            answer = page.goto(f"http://shop.test:{port}/?adct=click123")
        assert told.value.status == 204
        assert answer is not None
        assert answer.headers["content-security-policy"].count("'nonce-") == (name == "a nonce")
        who = page.evaluate("() => fetch('/who', {method: 'POST'}).then((one) => one.json())")
        cookie = jar(page.context, page.url)
        assert (who["adct"], who["first_party_cookie"]) == ("click123", cookie)
        has_pixel = name != "self alone"
        assert who["first_party_cookie_source"] == ("pixel" if has_pixel else "server")
        # The pixel is told to track before it is asked for its cookie, which takes its time.
        pixels = {cookie} if has_pixel else set()
        eventually(lambda: {seen["cookie"] for seen in adroll.tracked()} == pixels)
        assert console.without("/favicon.ico") == []
    printed = visits.invoke(shop.app, "check").output
    assert ("our part: script-src 'self'; connect-src 'self'" in printed) is (name != "a nonce")


def test_under_trusted_types_the_pixel_loads_by_the_pages_policy_and_the_click_without_it(
    adroll: RunningSandbox, tmp_path: Path, page: Page
) -> None:
    origin = adroll.url_at("adroll.example")
    pixel = {"ADROLL_PIXEL_URL": origin + "/j/{advertisable_eid}/roundtrip.js"}
    shop = PageShop(tmp_path, adroll, {"ADROLL_DELIVERY": "worker"} | pixel)
    shop.start()
    [block] = pages.blocks("docs/how-to/trusted-types.md")
    scripts = {"with": block.code.replace("https://s.adroll.com", origin), "without": ""}

    @shop.app.get("/<which>")
    def typed(which: str) -> Response:
        html = f"<!doctype html><html><head>{scripts[which]}</head><body></body></html>"
        policy = {"Content-Security-Policy": "require-trusted-types-for 'script'"}
        return Response(html, headers=policy)

    shop.app.add_url_rule("/who", view_func=lambda: described(current_visitor()), methods=["POST"])
    who = "() => fetch('/who', {method: 'POST'}).then((one) => one.json())"
    with serving(shop.app) as port:
        for which, source in (("without", "server"), ("with", "pixel")):
            page.context.clear_cookies()
            with page.expect_response("**/_adroll/identity"):
                page.goto(f"http://shop.test:{port}/{which}?adct=click-{which}")
            visitor = page.evaluate(who)
            assert visitor["adct"] == f"click-{which}"
            assert visitor["first_party_cookie_source"] == source


def test_beside_a_base_of_another_host_the_tag_names_the_pages_own(
    adroll: RunningSandbox, tmp_path: Path, page: Page, console: Any
) -> None:
    without_pixel = {"ADROLL_DELIVERY": "worker", "ADROLL_PIXEL": "none", "ADROLL_INJECT": False}
    shop = PageShop(tmp_path, adroll, without_pixel)
    shop.start()
    found = pages.blocks("docs/reference/settings.md")
    [tag] = [block.code for block in found if block.language == "jinja"]
    head = f'<title>Shop</title><base href="http://files.example/">{tag}'
    html = f"<!doctype html><html><head>{head}</head></html>"
    shop.app.add_url_rule("/based", "based", lambda: render_template_string(html))
    with serving(shop.app) as port, page.expect_response("**/_adroll/identity") as told:
        page.goto(f"http://shop.test:{port}/based?adct=click123")
        assert told.value.status == 204
    assert console.without("/favicon.ico") == []

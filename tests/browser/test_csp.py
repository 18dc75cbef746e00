"""The tag, the kit and the pixel under strict Content-Security-Policies, in Chromium."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, current_app
from flask_talisman import Talisman
from playwright.sync_api import BrowserContext, Page

from adroll_flask.cli.commands import commands
from adroll_flask.sandbox import RunningSandbox, running
from tests.support.nginx import HIDING, HOARDING, behind_nginx
from tests.support.outbox_engines import wait_until
from tests.support.serving import serving
from tests.support.strict_site import HOST, jar, land, make_shop, who

#: The strict policy of web.dev and Google's CSP guide: a nonce, and what it loads.
STRICT = {"script-src": "'strict-dynamic'", "object-src": "'none'", "base-uri": "'none'"}


def with_policy(policy: dict[str, str], nonce_in: tuple[str, ...] = ()) -> Callable[[Flask], Any]:
    return lambda app: Talisman(
        app,
        force_https=False,
        session_cookie_secure=False,
        content_security_policy=policy,
        content_security_policy_nonce_in=nonce_in,
    )


def csp_nonce() -> str:
    """As a site that uses Talisman writes it."""
    make: Any = current_app.jinja_env.globals["csp_nonce"]
    nonce: str = make()
    return nonce


def check_at_work(adroll: RunningSandbox, context: BrowserContext, page: Page) -> None:
    """The kit ran, the pixel that it loaded too, and the server knows the visitor from it."""
    cookie = jar(context, page.url)["__adroll_fpc"]
    assert who(page) == {"adct": "click123", "cookie": cookie, "source": "pixel"}
    # The pixel is told to track before it is asked for its cookie, and its request takes its time.
    assert wait_until(lambda: {seen["cookie"] for seen in adroll.tracked()} == {cookie})
    assert page.evaluate("typeof window.adroll.get_cookie") == "function"


def test_the_nonce_is_enough(
    adroll: RunningSandbox, tmp_path: Path, context: BrowserContext, page: Page, console: Any
) -> None:
    before = with_policy(STRICT, ("script-src",))
    shop = make_shop(adroll, tmp_path, before=before, ADROLL_CSP_NONCE=csp_nonce)
    policies: list[str] = []
    page.on(
        "response",
        lambda response: policies.append(response.headers.get("content-security-policy", "")),
    )
    with serving(shop) as port:
        land(page, f"http://{HOST}:{port}/?adct=click123")
        # The browser hides the attribute from the page, the property is there for scripts.
        nonce = page.evaluate("document.querySelector('script[data-adroll]').nonce")
        assert len(nonce) > 20
        assert f"'nonce-{nonce}'" in policies[0]
        assert "'strict-dynamic'" in policies[0]
        check_at_work(adroll, context, page)
        assert console.lines == []


def test_without_the_nonce_the_kit_is_kept_out(
    adroll: RunningSandbox, tmp_path: Path, page: Page, console: Any
) -> None:
    """That the policies of these tests are in force, and that the page takes no harm."""
    shop = make_shop(adroll, tmp_path, before=with_policy(STRICT, ("script-src",)))
    with serving(shop) as port:
        page.goto(f"http://{HOST}:{port}/?adct=click123")
        page.wait_for_timeout(300)
        assert page.evaluate("window.adrollKit === undefined")
        assert page.inner_text("body") == "Hello"
        # The server does its part without the kit.
        assert who(page)["adct"] == "click123"
    assert any("Content Security Policy" in line for line in console.lines)
    assert adroll.tracked() == []


def test_hosts_are_self_and_the_pixels_origin(
    adroll: RunningSandbox, tmp_path: Path, context: BrowserContext, page: Page, console: Any
) -> None:
    origin = adroll.url_at("adroll.example")
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' {origin}",
        "connect-src": f"'self' {origin}",
        "img-src": "'self'",
    }
    shop = make_shop(adroll, tmp_path, before=with_policy(policy))
    with serving(shop) as port:
        land(page, f"http://{HOST}:{port}/?adct=click123")
        check_at_work(adroll, context, page)
        assert console.lines == []


def test_our_part_needs_self_alone(
    adroll: RunningSandbox, tmp_path: Path, context: BrowserContext, page: Page, console: Any
) -> None:
    """What ``flask adroll check`` prints: the rest is the pixel's."""
    policy = {"default-src": "'none'", "script-src": "'self'", "connect-src": "'self'"}
    shop = make_shop(adroll, tmp_path, before=with_policy(policy), ADROLL_PIXEL="none")
    printed = shop.test_cli_runner().invoke(commands, ["check"]).output
    assert "script-src 'self'; connect-src 'self'" in printed
    with serving(shop) as port:
        land(page, f"http://{HOST}:{port}/?adct=click123")
        cookie = jar(context, page.url)["__adroll_fpc"]
        assert who(page) == {"adct": "click123", "cookie": cookie, "source": "server"}
        assert console.lines == []


# -- one page in a real nginx's cache, two real browsers, two identities --------------------------


@pytest.mark.parametrize("location", [HOARDING, HIDING], ids=["hoarding", "hiding"])
def test_two_browsers_of_one_cached_page_are_two(
    location: str,
    tmp_path: Path,
    new_context: Callable[..., BrowserContext],
    watch_console: Callable[[BrowserContext], Any],
) -> None:
    with running(strict=True) as adroll:
        shop = make_shop(adroll, tmp_path, ADROLL_CACHED_PATHS=["/"])
        with behind_nginx(shop, tmp_path / "nginx", location) as site:
            url = site.url("/", HOST)
            known = []
            for click in ("click-a", "click-b"):
                context = new_context()
                console = watch_console(context)
                page = context.new_page()
                land(page, f"{url}?adct={click}")
                cookies = jar(context, url)
                known.append(who(page))
                assert known[-1]["adct"] == click
                assert known[-1]["cookie"] == cookies["__adroll_fpc"]
                assert known[-1]["source"] == "pixel"
                assert "adroll_visitor" in cookies
                assert console.lines == []
            assert known[0]["cookie"] != known[1]["cookie"]
            assert site.hits.count(("GET", "/", 200)) == 1
            assert b"Set-Cookie" not in site.stored()

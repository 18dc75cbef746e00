"""The tag, the kit and the pixel under strict Content-Security-Policies, in Chromium."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, current_app
from flask_talisman import Talisman
from playwright.sync_api import Page

from adroll_flask import current_visitor
from adroll_flask.sandbox import RunningSandbox
from tests.support import eventually, visits
from tests.support.journey import jar
from tests.support.page_shop import PageShop
from tests.support.serving import serving

HOST = "shop.test"


def make_shop(
    adroll: RunningSandbox, folder: Path, *, before: Any = lambda app: None, **config: Any
) -> Flask:
    """A shop of one page; ``POST /who`` says whom the server takes the visitor for.

    :param before: sets up what comes before AdRoll, such as Talisman.
    """
    pixel = adroll.url_at("adroll.example") + "/j/{advertisable_eid}/roundtrip.js"
    config |= {"ADROLL_DELIVERY": "worker", "ADROLL_PIXEL_URL": pixel}
    shop = PageShop(folder / "instance", adroll, config)
    app = shop.app
    before(app)
    shop.start()
    app.add_url_rule("/favicon.ico", "icon", lambda: Response(mimetype="image/x-icon"))

    @app.post("/who")
    def who() -> dict[str, Any]:
        visitor = current_visitor()
        return {
            "adct": visitor.adct,
            "cookie": visitor.first_party_cookie,
            "source": visitor.first_party_cookie_source,
        }

    return app


def who(page: Page) -> dict[str, Any]:
    """Whom the server takes the page's visitor for."""
    found: dict[str, Any] = page.evaluate(
        "() => fetch('/who', {method: 'POST'}).then((answer) => answer.json())"
    )
    return found


def land(page: Page, url: str) -> None:
    """Open *url* and wait until the kit has told the server what it learned."""
    with page.expect_response("**/_adroll/identity") as told:
        page.goto(url)
    assert told.value.status == 204


#: The strict policy of web.dev and Google's CSP guide: a nonce, and what it loads.
STRICT = {"script-src": "'strict-dynamic'", "object-src": "'none'", "base-uri": "'none'"}


def with_policy(policy: dict[str, str], nonce_in: tuple[str, ...] = ()) -> Callable[[Flask], Any]:
    policies = {"content_security_policy": policy, "content_security_policy_nonce_in": nonce_in}
    return lambda app: Talisman(app, force_https=False, session_cookie_secure=False, **policies)


@pytest.fixture
def under(adroll: RunningSandbox, tmp_path: Path) -> Callable[..., AbstractContextManager[str]]:
    """Serves the shop under a policy; the address that the ad leads to."""

    @contextmanager
    def serve(policy: dict[str, str], *nonce_in: str, **config: Any) -> Iterator[str]:
        before = with_policy(policy, nonce_in)
        with serving(make_shop(adroll, tmp_path, before=before, **config)) as port:
            yield f"http://{HOST}:{port}/?adct=click123"

    return serve


def csp_nonce() -> str:
    """As a site that uses Talisman writes it."""
    make: Any = current_app.jinja_env.globals["csp_nonce"]
    nonce: str = make()
    return nonce


def check_at_work(adroll: RunningSandbox, page: Page) -> None:
    """The kit ran, the pixel that it loaded too, and the server knows the visitor from it."""
    cookie = jar(page.context, page.url)
    assert who(page) == {"adct": "click123", "cookie": cookie, "source": "pixel"}
    # The pixel is told to track before it is asked for its cookie, and its request takes its time.
    eventually(lambda: {seen["cookie"] for seen in adroll.tracked()} == {cookie})
    assert page.evaluate("typeof window.adroll.get_cookie") == "function"


def test_the_nonce_is_enough(adroll: RunningSandbox, under: Any, page: Page, console: Any) -> None:
    policies: list[str] = []
    page.on("response", lambda one: policies.append(one.headers.get("content-security-policy", "")))
    with under(STRICT, "script-src", ADROLL_CSP_NONCE=csp_nonce) as address:
        land(page, address)
        # The browser hides the attribute from the page, the property is there for scripts.
        nonce = page.evaluate("document.querySelector('script[data-adroll]').nonce")
        assert len(nonce) > 20
        assert f"'nonce-{nonce}'" in policies[0]
        assert "'strict-dynamic'" in policies[0]
        check_at_work(adroll, page)
        assert console.lines == []


def test_hosts_a_policy_needs(adroll: RunningSandbox, under: Any, page: Page, console: Any) -> None:
    origin = adroll.url_at("adroll.example")
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' {origin}",
        "connect-src": f"'self' {origin}",
        "img-src": "'self'",
    }
    with under(policy) as address:
        land(page, address)
        check_at_work(adroll, page)
        assert console.lines == []


def test_our_part_needs_self_alone(
    adroll: RunningSandbox, tmp_path: Path, page: Page, console: Any
) -> None:
    """What ``flask adroll check`` prints: the rest is the pixel's."""
    policy = {"default-src": "'none'", "script-src": "'self'", "connect-src": "'self'"}
    shop = make_shop(adroll, tmp_path, before=with_policy(policy), ADROLL_PIXEL="none")
    assert "script-src 'self'; connect-src 'self'" in visits.invoke(shop, "check").output
    with serving(shop) as port:
        land(page, f"http://{HOST}:{port}/?adct=click123")
        cookie = jar(page.context, page.url)
        assert who(page) == {"adct": "click123", "cookie": cookie, "source": "server"}
        assert console.lines == []

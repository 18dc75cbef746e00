"""A shop's page in Chromium with AdRoll's sandbox beside it, for tests of policies and caches."""

from pathlib import Path
from typing import Any

from flask import Flask, Response
from playwright.sync_api import BrowserContext, Page

from adroll_flask import AdRoll, current_visitor
from adroll_flask.sandbox import RunningSandbox

PAGE = "<!doctype html><html><head><title>Shop</title></head><body>Hello</body></html>"
HOST = "shop.test"


def make_shop(
    adroll: RunningSandbox, folder: Path, *, before: Any = lambda app: None, **config: Any
) -> Flask:
    """A shop of one page; ``POST /who`` says whom the server takes the visitor for.

    :param before: sets up what comes before AdRoll, such as Talisman.
    """
    app = Flask("strict_shop", instance_path=str(folder / "instance"))
    app.config.update(
        SECRET_KEY="a key for tests",
        ADROLL_ADVERTISABLE_EID=adroll.account.advertisable_eid,
        ADROLL_PIXEL_EID=adroll.account.pixel_eid,
        ADROLL_ACCESS_TOKEN=adroll.account.access_token,
        ADROLL_API_URL=adroll.api_url,
        ADROLL_PIXEL_URL=adroll.url_at("adroll.example") + "/j/{advertisable_eid}/roundtrip.js",
        ADROLL_DELIVERY="worker",
        ADROLL_STRICT=True,
        **config,
    )
    before(app)
    AdRoll(app)
    app.add_url_rule("/", "index", lambda: PAGE)
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


def jar(context: BrowserContext, url: str) -> dict[str, str]:
    """The browser's cookies for *url*, by name."""
    return {cookie["name"]: cookie["value"] for cookie in context.cookies(url)}


def land(page: Page, url: str) -> None:
    """Open *url* and wait until the kit has told the server what it learned."""
    with page.expect_response("**/_adroll/identity") as told:
        page.goto(url)
    assert told.value.status == 204

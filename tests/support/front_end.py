"""A shop whose pages and whose Flask API are two servers: another port, another host."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from flask_cors import CORS
from playwright.sync_api import Page

from adroll_flask import report_conversion
from adroll_flask.cli.commands import commands
from adroll_flask.sandbox import RunningSandbox

from .journey import Site, Tls, adroll_origin
from .page_shop import PageShop
from .pages import blocks
from .serving import serving

#: What its pages tell the API: the blocks of the documentation, by whether the API is foreign.
DOC = "docs/how-to/front-ends.md"
#: The whole front end: plain JavaScript, views without a page load, one button that buys.
SHOP = """<!doctype html>
<html><head><title>Mugs</title>{tag}</head><body>
<button id="mug">Buy a mug</button>
<script>
  document.getElementById("mug").onclick = async () => {{
    // A single-page app: the click id is gone from the address long before the purchase.
    history.pushState(null, "", "/cart");
    const order = {{ order: "1001" }};
    {report}
  }};
</script>
</body></html>"""


@dataclass
class TwoServers(Site):
    """The running shop: its pages are at the port, its app is the API."""

    api_port: int = 0


def buy(page: Page) -> str:
    """Press the button; what became of the report."""
    with page.expect_response("**/orders") as answered:
        page.click("#mug")
    return str(answered.value.json()["report"])


@contextmanager
def open_front_end(
    adroll: RunningSandbox, folder: Path, *, host: str, tls: Tls = None, **config: Any
) -> Iterator[TwoServers]:
    """Pages at *host* on one port, the API at ``api.shop.test`` on another.

    A front end of another site sends a token along, and no cookies.
    """
    page = Response(mimetype="text/html")
    scheme = "http" if tls is None else "https"
    with adroll_origin(adroll, tls) as origin, serving(page, tls) as front_port:
        at = f"{scheme}://{host}:{front_port}"
        api = make_api(folder, adroll, origin, at, config)
        with serving(api, tls) as api_port:
            base = f"{scheme}://api.shop.test:{api_port}"
            tag = api.test_cli_runner().invoke(commands, ["tag", "--base", base]).output
            own, other = (block.code for block in blocks(DOC) if block.language == "js")
            report = (own if host.endswith("shop.test") else other).replace(
                "https://api.shop.example", base
            )
            page.set_data(SHOP.format(tag=tag, report=report))
            yield TwoServers(adroll, origin, scheme, front_port, api, api_port)
        api.extensions["adroll"].flush(2)


def make_api(
    folder: Path, adroll: RunningSandbox, pixel_origin: str, front: str, config: dict[str, Any]
) -> Flask:
    """The Flask API, with flask-cors as such APIs have it."""
    pixel = pixel_origin + "/j/{advertisable_eid}/roundtrip.js"
    here = {"ADROLL_PIXEL_URL": pixel, "ADROLL_LINGER": 0.05, "ADROLL_ORIGINS": [front]}
    shop = PageShop(folder / "instance", adroll, here | config)
    shop.start()
    api = shop.app
    CORS(api, origins=[front], supports_credentials=True)

    @api.post("/orders")
    def order() -> dict[str, str]:
        data = request.get_json()
        fields: dict[str, Any] = {}
        if data.get("adroll"):
            fields = {"visitor": data["adroll"], "user_agent": request.user_agent.string}
        receipt = report_conversion(
            order_id=data["order"],
            value="29.95",
            currency="EUR",
            page_location=data.get("page"),
            **fields,
        )
        return {"report": receipt.status}

    return api

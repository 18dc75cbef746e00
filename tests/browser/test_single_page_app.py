"""docs/how-to/single-page-apps.md in a browser: its script calls its views."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flask import request
from playwright.sync_api import Page as BrowserPage

from adroll_flask import report_conversion, report_event
from tests.support.page_shop import page_shop
from tests.support.pages import Page, blocks
from tests.support.serving import serving

DOC = "docs/how-to/single-page-apps.md"


def place_order(lines: list[Any]) -> SimpleNamespace:
    return SimpleNamespace(id="1001", total=Decimal("9.90") * len(lines))


def test_the_pages_script_reports_with_the_address_that_the_router_made(
    page: BrowserPage, tmp_path: Path
) -> None:
    [script] = [block.code for block in blocks(DOC) if block.language == "js"]
    with page_shop(tmp_path, ADROLL_PIXEL="none") as shop:
        Page(DOC).run(
            app=shop.app,
            place_order=place_order,
            report_conversion=report_conversion,
            report_event=report_event,
            request=request,
        )
        shop.start()
        with serving(shop.app) as port:
            address = f"http://shop.test:{port}"
            page.goto(f"{address}/?adct=click123")
            page.evaluate("history.pushState(0, '', '/checkout')")
            page.evaluate(f"async (cart) => {{ {script} }}", {"lines": [{}, {}]})
        assert shop.sold() == [("1001", Decimal("19.80"), "click123")]
        [sale] = shop.sandbox.purchases()
        assert sale["event"]["page_location"] == f"{address}/checkout"

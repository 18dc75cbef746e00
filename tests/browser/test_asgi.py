"""The shop of the FastAPI page under uvicorn, in a real browser."""

import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from adroll_flask.sandbox import RunningSandbox
from tests.support import ROOT, eventually, free_port, listening_at
from tests.support.journey import jar
from tests.support.pages import blocks


def test_a_click_and_a_purchase_in_fastapi(
    page: Page, console: Any, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    for name in ("fastapi", "uvicorn"):
        pytest.importorskip(name)
    [block] = [one for one in blocks("docs/how-to/fastapi.md") if "# shop.py" in one.code]
    code = block.code.replace("sandbox=True", f"sandbox={sandbox.url!r}")
    (tmp_path / "shop.py").write_text(code)
    port = free_port()
    serve = [sys.executable, "-m", "uvicorn", "shop:app", f"--port={port}"]
    env = {"ADROLL_SECRET_KEY": "k" * 32, "PYTHONPATH": str(ROOT)}
    with listening_at(port, tmp_path / "log", *serve, cwd=tmp_path, env=env):
        page.goto(f"{sandbox.url}/click?to=http://shop.test:{port}/")
        eventually(lambda: sandbox.tracked(), wait=lambda: page.wait_for_timeout(50))
        page.get_by_role("button", name="Buy").click()
        expect(page.locator("body")).to_contain_text("Thank you for order 1001!")
        visitor = jar(page.context, page.url)
        eventually(lambda: sandbox.purchases(order_id="1001"))
    [purchase] = sandbox.purchases()
    assert purchase["journey"]["matched_by"] == "click id"
    assert purchase["journey"]["cookie"]["seen_by_pixel"] is True
    assert {seen["cookie"] for seen in sandbox.tracked()} == {visitor}
    assert console.without("/favicon.ico") == []

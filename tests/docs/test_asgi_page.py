"""docs/how-to/asgi.md, as it stands, under gunicorn: click, cookie, report, arrival."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from adroll_flask.sandbox import running
from tests.support import PATIENCE, ROOT, free_port, wait_for_port
from tests.support.pages import Page, Shell


@pytest.mark.parametrize("framework", ["fastapi", "quart"])
def test_an_order_of_an_asgi_app_arrives_with_its_click(framework: str, tmp_path: Path) -> None:
    for name in ("a2wsgi", "gunicorn", framework):
        pytest.importorskip(name)
    env = {**os.environ, "ADROLL_SECRET_KEY": "a long random text", "PYTHONPATH": str(ROOT)}
    port, log = free_port(), tmp_path / "log"
    shop = f"http://127.0.0.1:{port}/"
    serve = ["-m", "gunicorn", "--threads=8", f"--bind=127.0.0.1:{port}"]
    with running() as sandbox, requests.Session() as browser:
        here = {"/var/lib/shop": str(tmp_path / "lib"), "sandbox=True": f"sandbox={sandbox.url!r}"}
        with Shell(tmp_path, env, here) as shell, Page("docs/how-to/asgi.md", shell) as page:
            page.run()
        command = [sys.executable, *serve, f"{framework}_shop:application"]
        with (
            log.open("wb") as said,
            subprocess.Popen(command, cwd=tmp_path, env=env, stderr=said) as server,
        ):
            try:
                wait_for_port(port, server, log)
                assert "data-adroll" in browser.get(f"{sandbox.url}/click?to={shop}").text
                assert browser.post(f"{shop}orders").json() == {"status": "queued"}
                end = time.monotonic() + PATIENCE
                while not (arrived := sandbox.purchases(order_id="1001")):
                    assert time.monotonic() < end, log.read_text()
                    time.sleep(0.05)
            finally:
                server.terminate()
    assert arrived[0]["journey"]["matched_by"] == "click id"

"""One page in a real nginx's cache, two real browsers, two identities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext

from adroll_flask.sandbox import running
from tests.support.nginx import HIDING, HOARDING, behind_nginx
from tests.support.strict_site import HOST, jar, land, make_shop, who


@pytest.mark.parametrize("location", [HOARDING, HIDING], ids=["hoarding", "hiding"])
def test_two_browsers_of_one_cached_page_are_two_identities(
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

"""A folder whose group may write: what root's commands make there is of use to the app as well."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT, others_may_enter
from tests.support.shops import Shop
from tests.support.wsgi_servers import PATIENCE

NOBODY = 65534
#: As root first, since Python itself may be where only root may read; then as the app's user.
WEB_PROCESS = """
import os, sys
from tests.support.server_shop import make_shop
from tests.support.shop_orders import do

shop = os.environ["SHOP_FOLDER"]
os.environ["SHOP_FOLDER"] = sys.argv[1]
do(make_shop(), "order", "warm", "1")
os.environ["SHOP_FOLDER"] = shop
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
print(do(make_shop(), "order", "web", "1"), flush=True)
os._exit(0)
"""

pytestmark = [
    pytest.mark.patient,
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root, who gives files away"
    ),
    pytest.mark.skipif(
        not others_may_enter(), reason="the app's user may not enter the folder of this clone"
    ),
]


@pytest.fixture
def shop() -> Iterator[Shop]:
    """Its folder is root's, and its group, which may write, is the app's."""
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    folder = home / "instance"
    folder.mkdir()
    os.chown(folder, 0, NOBODY)
    folder.chmod(0o2775)
    yield Shop(folder, {"advertisable_eid": "ADVERTISABLE0000000001"})
    shutil.rmtree(home, ignore_errors=True)


def report_as_the_app(shop: Shop, elsewhere: Path) -> str:
    web = subprocess.run(
        [sys.executable, "-c", WEB_PROCESS, elsewhere, str(NOBODY)],
        cwd=ROOT,
        env=shop.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert web.returncode == 0, web.stderr
    return web.stdout.strip()


def test_the_app_reports_where_nobody_was_before(shop: Shop, tmp_path: Path) -> None:
    assert report_as_the_app(shop, tmp_path) == "queued"


def test_an_import_of_roots_leaves_the_app_able_to_report_or_says_so_before(
    shop: Shop, tmp_path: Path
) -> None:
    checked = shop.adroll("check", check=False)
    line = {"order_id": "imported", "value": "1", "currency": "EUR", "adct": "c"}
    line |= {"ip": "203.0.113.9", "page_location": "https://shop.example/"}
    file = tmp_path / "orders.jsonl"
    file.write_text(json.dumps(line))
    imported = shop.adroll("import", str(file))
    assert "1 " in imported

    if report_as_the_app(shop, tmp_path) != "queued":
        for said in (checked, imported):
            assert "group" in said
            assert str(shop.folder) in said

"""What root makes in the app user's folder is the app user's."""

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from adroll_flask.outbox.local_files import make_file, make_folder, open_file
from tests.conftest import Patch
from tests.support import PATIENCE, ROOT, others_may_enter, ran
from tests.support.shops import Shop

NOBODY = 65534
#: As root first, since Python itself may be where only root may read; then as the app's user.
WEB_PROCESS = """
import os, sys
from tests.support.server_shop import make_shop
from tests.support.shop_orders import do

def serve(order):
    shop = make_shop()
    told = [do(shop, "order", order, "1")]
    if told == ["queued"]:
        queue = shop.extensions["adroll"].outbox.queue
        while not (claim := queue.claim("SANDBOXADVERTISABLE01X", begin=True)):
            pass  # its own thread takes in at this moment
        told += sorted(event.key for event in claim.events)
    print(*told, flush=True)

folder, os.environ["SHOP_FOLDER"] = os.environ["SHOP_FOLDER"], sys.argv[1]
serve("warm")
os.environ["SHOP_FOLDER"] = folder
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
serve("web")
os._exit(0)
"""

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root, who gives files away"
)
may_enter = pytest.mark.skipif(
    not others_may_enter(), reason="the app's user may not enter the folder of this clone"
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of another user's, where that user may come; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # a thread may still write there


def report_as_the_app(shop: Shop, elsewhere: Path) -> str:
    """What the app's own process is told, and what it may send then."""
    command = (sys.executable, "-c", WEB_PROCESS, elsewhere, str(NOBODY))
    return ran(*command, cwd=ROOT, env=shop.environ, timeout=PATIENCE).splitlines()[-1]


def import_an_order(shop: Shop, folder: Path) -> str:
    line = {"order_id": "imported", "value": "1", "currency": "EUR", "adct": "c"}
    line |= {"ip": "203.0.113.9", "page_location": "https://shop.example/"}
    (folder / "orders.jsonl").write_text(json.dumps(line))
    return shop.adroll("import", str(folder / "orders.jsonl"))


@may_enter
@pytest.mark.patient
@pytest.mark.parametrize("command", ["import", "create-table", "report"])
def test_the_app_goes_on_after_a_command_by_root(home: Path, tmp_path: Path, command: str) -> None:
    make_folder(home / "instance")
    shop = Shop(home / "instance")
    expected = "queued web"
    if command == "import":
        import_an_order(shop, tmp_path)
        expected = "queued imported web"
    elif command == "create-table":
        shop.adroll("outbox", "create-table")
    else:  # of a script, whose journal nobody has read yet
        shop.report("order:script")
        expected = "queued script web"
    owners = [path.stat().st_uid for path in home.rglob("*") if path.exists()]
    assert len(owners) > 1
    assert {*owners} == {NOBODY}

    assert report_as_the_app(shop, tmp_path) == expected


@may_enter
@pytest.mark.patient
@pytest.mark.parametrize("command", ["", "import"])
def test_in_a_group_s_folder_it_works_or_says_so(home: Path, tmp_path: Path, command: str) -> None:
    """Its folder is root's, and its group, which may write, is the app's."""
    home.chmod(0o755)
    folder = home / "instance"
    folder.mkdir()
    os.chown(folder, 0, NOBODY)
    folder.chmod(0o2775)
    shop = Shop(folder)
    told = []
    if command:
        told = [shop.adroll("check", check=False), import_an_order(shop, tmp_path)]

    if not report_as_the_app(shop, tmp_path).startswith("queued"):
        assert told
        for said in told:
            assert "group" in said
            assert str(folder) in said


def test_what_cannot_be_given_away_is_made_all_the_same(tmp_path: Path, monkeypatch: Patch) -> None:
    """A folder's group has no number in a container of another user's."""
    for name in ("fchown", "lchown"):
        monkeypatch.setattr(os, name, Mock(side_effect=OSError(errno.EINVAL, "Invalid argument")))
    make_folder(tmp_path / "a")
    os.close(make_file(tmp_path / "a" / "b", os.O_RDWR))


def test_root_s_own_folder_stays_root_s(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    os.close(make_file(tmp_path / "a" / "b" / "c", os.O_RDWR))
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {0}


def test_root_gives_nothing_away_that_was_there_before(home: Path) -> None:
    """The folder's owner could have put a link to any file of root's there."""
    secret = home.with_name(home.name + "-secret")
    secret.touch(mode=0o600)
    try:
        os.link(secret, home / "lock")
        os.close(open_file(home / "lock", os.O_RDWR))
        assert secret.stat().st_uid == 0
        with pytest.raises(FileExistsError):
            make_file(home / "lock", os.O_RDWR)
        assert secret.stat().st_uid == 0
    finally:
        secret.unlink()

"""An outbox that came back from a copy sends nothing by itself: no row, no entry, no release."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from adroll_flask.outbox.journal import turn
from adroll_flask.sandbox import running
from tests.support.shops import Shop, orders

pytestmark = pytest.mark.patient


def test_a_copied_journal_s_order_rests(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with running(strict=True) as sandbox:
        shop = Shop(tmp_path / "shop").at(sandbox)
        shop.report("order:1")
        shutil.copytree(shop.folder, copy)
        shop.adroll("worker", "--once")
        assert orders(sandbox) == ["1"]
        shutil.rmtree(shop.folder)
        copy.rename(shop.folder)

        said = shop.adroll("outbox", "restored")
        shop.adroll("worker", "--once")

        assert orders(sandbox) == ["1"]
    dead = Counter(row["reason"] for row in shop.as_json("outbox", "list", "--dead"))
    assert dead == {"restored": 1}
    assert said.startswith("1 event ")


def test_a_copy_whose_journal_is_read_is_not_said_to_rest(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    shop.report("order:1")

    with turn(shop.folder / "adroll-journal"):  # as a worker that was left running
        said = shop.adroll("outbox", "restored", check=False)

    assert "another process reads the journal; stop it first" in said
    assert shop.adroll("outbox", "restored").startswith("1 event ")

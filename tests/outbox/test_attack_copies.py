"""An outbox that came back from a copy sends nothing by itself: no row, no entry, no release."""

from collections import Counter
from pathlib import Path

import pytest

from adroll_flask.sandbox import RunningSandbox
from tests.support.dumps import copy_folder, dump, restore
from tests.support.outbox_engines import Bench, wait_until
from tests.support.shops import Shop, orders

pytestmark = pytest.mark.patient


def rests(shop: Shop) -> Counter[str]:
    """Why the events that are dead are."""
    return Counter(row["reason"] for row in shop.as_json("outbox", "list", "--dead"))


def test_a_copied_journal_s_order_rests(shop: Shop, sandbox: RunningSandbox) -> None:
    shop.report("order:1")
    copy_folder(shop.folder, shop.folder.with_name("copy"))
    shop.adroll("worker", "--once")
    assert orders(sandbox) == ["1"]
    copy_folder(shop.folder.with_name("copy"), shop.folder)

    said = shop.adroll("outbox", "restored")
    shop.adroll("worker", "--once")

    assert orders(sandbox) == ["1"]
    assert rests(shop) == {"restored": 1}
    assert said.startswith("1 event ")


@pytest.mark.slow
def test_what_was_reported_after_a_backup_of_the_database_is_not_sent_twice(
    fresh: Bench, shop: Shop, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    """The journal's files outlive the database's restore, and its read positions go back."""
    url = fresh.url
    if url is not None:
        shop.settings["outbox_url"] = url

    def back_up() -> None:
        if url is None:
            shop.adroll("outbox")  # SQLite's log goes into its file
            copy_folder(shop.folder, tmp_path / "copy")
        else:
            dump(url, tmp_path / "dump.sql")

    def bring_back() -> None:
        if url is not None:
            restore(url, tmp_path / "dump.sql")
            return
        for file in shop.folder.glob("*.sqlite*"):
            file.unlink()
        for file in (tmp_path / "copy").glob("*.sqlite*"):
            file.rename(shop.folder / file.name)

    with shop.reporting() as reporter:
        reporter.report("order:1 hold:2")
        shop.adroll("worker", "--once")
        assert wait_until(lambda: orders(sandbox) == ["1"])
        back_up()
        reporter.report("release:2 order:3")
        with shop.running("worker"):
            assert wait_until(lambda: orders(sandbox) == ["1", "2", "3"])
            assert wait_until(lambda: shop.as_json("outbox")["counts"]["delivered"] == 3)
        with reporter.stopped():
            bring_back()

            shop.adroll("outbox", "restored")
            shop.adroll("worker", "--once")

            assert orders(sandbox) == ["1", "2", "3"]
            assert set(rests(shop)) == {"restored"}
        assert reporter.report("order:4") == ["queued"]
        with shop.running("worker"):
            assert wait_until(lambda: "4" in orders(sandbox))
    assert orders(sandbox) == ["1", "2", "3", "4"]

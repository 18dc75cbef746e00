"""Reports that a full disk did not take are told as soon as it takes something again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.disks import small_disk
from tests.support.outbox_engines import wait_until
from tests.support.shops import Shop


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Meanwhile there is no room on it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):  # noqa: PT012
        while True:
            file.write(bytes(4096))
    yield
    ballast.unlink()


def told_lost(shop: Shop) -> int:
    rows = shop.as_json("history", "--since", "24h")
    return sum(row["events"] for row in rows if row["outcome"] == "failed")


@pytest.mark.slow
@pytest.mark.parametrize("delivery", ["thread", "worker"])
@pytest.mark.parametrize("end", ["lives on", "exits"])
def test_lost_reports_are_told_without_another_report(
    delivery: str, end: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        shop = Shop(
            tmp_path / "shop",
            {"delivery": delivery, "journal_folder": str(disk / "journal"), "access_token": None},
        )
        with shop.reporting() as reporter:
            assert reporter.report("order:1") == ["queued"]
            with full(disk):
                # A few fit into what is left of the file's last page.
                lost = reporter.report("order:2-101").count("failed")
                assert lost > 50
            if end == "exits":
                reporter.exit()

            assert wait_until(lambda: told_lost(shop) == lost)

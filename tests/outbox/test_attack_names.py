"""Event names that somebody makes up (a view that passes on what a browser says) stay few."""

from __future__ import annotations

import gc
import json
import logging
import tracemalloc
from pathlib import Path

import pytest
from flask import Flask

from adroll_flask import report_conversion, report_event
from adroll_flask.cli.commands import commands
from tests.conftest import AppMaker
from tests.support.disks import small_disk


def report_made_up_names(app: Flask, numbers: range, **headers: str) -> set[str]:
    """The statuses of the receipts."""
    found: set[str] = set()
    for number in numbers:
        with app.test_request_context(
            "/?adct=click-1", environ_base={"REMOTE_ADDR": "203.0.113.9"}, headers=headers
        ):
            receipt = report_event(f"made-up-{number}")  # type: ignore[arg-type]
            found.add(receipt.status)
    return found


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_names_made_up_while_the_disk_is_full_stay_bounded_in_memory_and_on_the_disk(
    make_app: AppMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        app = make_app(ADROLL_STRICT=False, ADROLL_JOURNAL_FOLDER=str(disk / "journal"))
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):  # noqa: PT012
            while True:
                file.write(bytes(4096))
        caplog.set_level(logging.CRITICAL + 1)  # what is said is kept by the tests alone
        assert report_made_up_names(app, range(100)) == {"failed"}
        tracemalloc.start()
        try:
            report_made_up_names(app, range(100, 2000))
            gc.collect()
            grown, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        ballast.unlink()
        with app.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": "203.0.113.9"}):
            # The next customer's order does not pay for them.
            assert report_conversion(order_id="1", value=1, currency="EUR").status == "queued"
        assert size_of(disk) < 64_000
        assert grown < 150_000


@pytest.mark.parametrize("headers", [{}, {"Sec-GPC": "1"}], ids=["invalid", "suppressed"])
def test_names_made_up_stay_bounded_in_the_history(
    headers: dict[str, str], make_app: AppMaker
) -> None:
    app = make_app(ADROLL_STRICT=False)
    report_made_up_names(app, range(300), **headers)

    done = app.test_cli_runner().invoke(commands, ["history", "--by", "event", "--json"])

    rows = json.loads(done.output)
    assert sum(row["events"] for row in rows) == 300
    assert {row["event"] for row in rows} == {"unknown"}

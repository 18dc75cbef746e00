"""A few megabytes are enough: our own files do not fill a disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from adroll_flask.sandbox import running
from tests.support.disks import small_disk
from tests.support.outbox_engines import wait_until
from tests.support.shops import Shop, orders
from tests.support.wsgi_servers import PATIENCE, gunicorn, serving


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(1000, "8m"), (3000, "12m")])
def test_two_workers_on_a_small_disk_lose_no_order(count: int, size: str, tmp_path: Path) -> None:
    with running() as sandbox, small_disk(tmp_path / "disk", size) as disk:
        bought = [f"order-{number}" for number in range(count)]
        with serving(gunicorn("--worker-class=sync"), disk, sandbox.api_url) as server:
            assert Counter(server.buy_all(bought)) == {"queued": count}
            assert wait_until(lambda: len(orders(sandbox)) >= count, PATIENCE), server.log
            server.stop()
        assert Counter(orders(sandbox)) == dict.fromkeys(bought, 1)
        told = Shop(disk).at(sandbox).as_json("outbox")
        assert told["counts"]["delivered"] == count

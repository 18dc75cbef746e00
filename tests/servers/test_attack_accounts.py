"""Events of another account stop nobody: each account has a queue of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adroll_flask.sandbox import Account, running
from adroll_flask.sandbox import RunningSandbox as Sandbox
from tests.support.outbox_engines import wait_until
from tests.support.shops import Shop, orders, refused

OTHER = Account("REALADVERTISABLE00001X", "REALPIXEL0000000000001", "real-token")


@pytest.fixture
def adroll() -> Iterator[Sandbox]:
    """AdRoll, where the shop has its real account."""
    with running(strict=True, account=OTHER) as one:
        yield one


@pytest.mark.slow
def test_two_apps_each_deliver_their_own(tmp_path: Path, sandbox: Sandbox, adroll: Sandbox) -> None:
    """The shop has an event that is left of the sandbox, and its own account since."""
    trial = Shop(tmp_path / "shop").at(sandbox)
    sandbox.fault(status=503)
    assert trial.report("order:1") == ["queued"]
    assert trial.adroll("worker", "--once")
    assert trial.as_json("outbox")["counts"]["waiting"] == 1
    shop = trial.at(adroll, linger=0.05)
    shop.report("order:21-23")
    eid = sandbox.account.advertisable_eid
    said = shop.adroll("worker", "--once")
    assert f"3 settled, 0 waiting, 1 of account {eid}, for which there is no token" in said
    sandbox.clear_faults()

    with shop.running("worker"), trial.running("worker"):  # it waits out what AdRoll's 503 said
        trial.report("order:11-13")
        shop.report("order:24")
        assert wait_until(
            lambda: len(orders(sandbox)) + len(orders(adroll)) == 8 or 403 in refused(sandbox)
        )

    assert (orders(sandbox), orders(adroll)) == (["1", "11", "12", "13"], ["21", "22", "23", "24"])
    assert (set(refused(sandbox)), refused(adroll)) == ({503}, [])

"""Events of another account stop nobody: each account has a queue of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adroll_flask.sandbox import Account, running
from adroll_flask.sandbox import RunningSandbox as Sandbox
from tests.support import PATIENCE
from tests.support.outbox_engines import wait_until
from tests.support.shops import Shop, orders, refused

OTHER = Account("REALADVERTISABLE00001X", "REALPIXEL0000000000001", "real-token")


@pytest.fixture
def adroll() -> Iterator[Sandbox]:
    """AdRoll, where the shop has its real account."""
    with running(strict=True, account=OTHER) as one:
        yield one


@pytest.fixture
def shop(tmp_path: Path, sandbox: Sandbox, adroll: Sandbox) -> Shop:
    """A shop with an event that is left of the sandbox, and its own account since."""
    trial = Shop(tmp_path / "shop").at(sandbox)
    sandbox.fault(status=503)
    assert trial.report("order:1") == ["queued"]
    assert trial.adroll("worker", "--once")
    assert trial.as_json("outbox")["counts"]["waiting"] == 1
    return trial.at(adroll, linger=0.05)


@pytest.mark.slow
def test_what_is_left_is_shown_and_dropped(shop: Shop, sandbox: Sandbox, adroll: Sandbox) -> None:
    eid = sandbox.account.advertisable_eid
    shop.report("order:2")
    assert shop.adroll("worker", "--once")

    assert orders(adroll) == ["2"]
    assert refused(adroll) == []
    assert eid in shop.adroll("outbox", "list")
    # Another app may have taken the event for its own and be about to send it: for a minute.
    assert wait_until(lambda: eid in shop.adroll("check", check=False), 2 * PATIENCE)
    assert "1 event dropped" in shop.adroll("outbox", "drop", "--advertisable", eid)
    assert [row["state"] for row in shop.as_json("outbox", "list")] == ["delivered"]


@pytest.mark.slow
def test_what_was_left_arrives_in_the_end(shop: Shop, sandbox: Sandbox, adroll: Sandbox) -> None:
    shop.report("order:2")
    said = shop.adroll("worker", "--once")
    eid = sandbox.account.advertisable_eid
    assert f"1 settled, 0 waiting, 1 of account {eid}, for which there is no token" in said
    sandbox.clear_faults()

    with shop.at(sandbox).running("worker"):  # it waits out what AdRoll's 503 said
        assert wait_until(lambda: orders(sandbox) == ["1"] or 403 in refused(sandbox))

    assert (orders(sandbox), orders(adroll)) == (["1"], ["2"])
    assert (set(refused(sandbox)), refused(adroll)) == ({503}, [])


@pytest.mark.slow
def test_two_apps_each_deliver_their_own(tmp_path: Path, sandbox: Sandbox, adroll: Sandbox) -> None:
    one = Shop(tmp_path / "shop").at(sandbox, linger=0.05)
    two = Shop(tmp_path / "shop").at(adroll, linger=0.05)
    with ExitStack() as workers:
        for shop in (one, two):
            workers.enter_context(shop.running("worker"))
        one.report("order:11-13")
        two.report("order:21-23")

        assert wait_until(
            lambda: (
                len(orders(sandbox) + orders(adroll)) == 6
                or bool(refused(sandbox) + refused(adroll))
            )
        )

    assert (refused(sandbox), refused(adroll)) == ([], [])
    assert (orders(sandbox), orders(adroll)) == (["11", "12", "13"], ["21", "22", "23"])

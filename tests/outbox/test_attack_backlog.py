"""What is no event of its own does not keep events back: suppressed reports, duplicates."""

from __future__ import annotations

import pytest

from adroll_flask.sandbox import RunningSandbox
from tests.support.outbox_engines import wait_until
from tests.support.shops import Shop, orders

pytestmark = pytest.mark.patient


@pytest.fixture
def reporting(shop: Shop) -> Shop:
    """The shop before it had a token: what it reports waits where it is."""
    return shop.but(delivery="thread", access_token=None)


def test_worker_once_sends_all_of_a_backlog_that_is_half_suppressed(
    reporting: Shop, shop: Shop, sandbox: RunningSandbox
) -> None:
    told = reporting.report("order:1-250 suppressed:1001-1250")
    assert (told.count("queued"), told.count("suppressed")) == (250, 250)

    said = shop.adroll("worker", "--once")

    assert len(orders(sandbox)) == 250, said
    assert "250 settled, 0 waiting" in said


@pytest.mark.slow
def test_worker_once_sends_all_of_a_backlog_that_is_half_duplicates(
    reporting: Shop, shop: Shop, sandbox: RunningSandbox
) -> None:
    """Two processes each report the orders of the other, as two hosts do after a double click."""
    with reporting.reporting() as one, reporting.reporting() as other:
        for first in range(1, 600, 50):
            assert one.report(f"order:{first}-{first + 49}").count("queued") == 50
            assert other.report(f"order:{first}-{first + 49}").count("queued") == 50
        for reporter, span in ((one, "601-650"), (other, "651-700")):
            assert reporter.report(f"order:{span}").count("queued") == 50

    said = shop.adroll("worker", "--once")

    assert orders(sandbox) == [str(number) for number in range(1, 701)], said
    assert "0 waiting" in said


@pytest.mark.slow
def test_a_backlog_that_is_half_suppressed_waits_for_no_company(
    reporting: Shop, shop: Shop, sandbox: RunningSandbox
) -> None:
    """Full batches follow each other; were each of them to linger, this would take 20 minutes."""
    reporting.report("order:1-2000 suppressed:2001-4000")

    with shop.but(linger=60).running("worker"):
        assert wait_until(lambda: len(orders(sandbox)) > 1900)

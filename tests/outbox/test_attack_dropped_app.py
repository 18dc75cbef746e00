"""An app that is dropped, as in a site's own test suite, leaves nothing behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path

import pytest
from flask import Flask

from adroll_flask import AdRoll, report_conversion
from adroll_flask.sandbox import RunningSandbox, running
from tests.support.outbox_engines import wait_until

FORWARDER = pytest.mark.slow


def use_an_app(instance: Path, sandbox: RunningSandbox, delivery: str) -> None:
    app = Flask("shop", instance_path=str(instance))
    account = sandbox.account
    app.config.update(
        SECRET_KEY="a key for tests",
        ADROLL_API_URL=sandbox.api_url,
        ADROLL_ADVERTISABLE_EID=account.advertisable_eid,
        ADROLL_PIXEL_EID=account.pixel_eid,
        ADROLL_ACCESS_TOKEN=account.access_token,
        ADROLL_DELIVERY=delivery,
        ADROLL_LINGER=0,
    )
    adroll = AdRoll(app)
    with app.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": "203.0.113.9"}):
        assert report_conversion(order_id=instance.name, value=1, currency="EUR")
        if delivery == "thread":
            assert adroll.flush(timeout=60) == 0
            sandbox.wait(1, order_id=instance.name, timeout=60)


def ours() -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("adroll-") and "sandbox" not in thread.name
    ]


def descriptors() -> list[str]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(path))
        except FileNotFoundError:  # the listing's own
            continue
    return sorted(found)


@pytest.mark.skipif(sys.platform != "linux", reason="takes /proc")
@pytest.mark.parametrize("delivery", ["thread", pytest.param("worker", marks=FORWARDER)])
def test_a_dropped_app_leaves_no_thread_and_no_descriptor(delivery: str, tmp_path: Path) -> None:
    before = {*ours()}
    with running() as sandbox:
        for number in range(3):
            use_an_app(tmp_path / f"shop-{number}", sandbox, delivery)

        def nothing_is_left() -> bool:
            gc.collect()
            return {*ours()} <= before and not any(str(tmp_path) in one for one in descriptors())

        assert wait_until(nothing_is_left), (ours(), descriptors())

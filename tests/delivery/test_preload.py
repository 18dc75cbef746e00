"""A first report loads nothing: the process has loaded it beside its first page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adroll_flask.delivery.preload import PRELOAD, Preload
from tests.support import PATIENCE
from tests.support.outbox_engines import wait_until

ROOT = Path(__file__).resolve().parents[2]

SHOP = """
import sys, threading, time
from flask import Flask
from adroll_flask import AdRoll, report_conversion
from adroll_flask.delivery.preload import PRELOAD

class Watch:
    late = []
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread():
            self.late.append(name)

app = Flask("shop", instance_path=sys.argv[1])
app.config.update(
    SECRET_KEY="a key of a shop under test", ADROLL_ADVERTISABLE_EID="A" * 22,
    ADROLL_PIXEL_EID="B" * 22, ADROLL_DELIVERY=sys.argv[2], ADROLL_API_URL="http://127.0.0.1:9",
)
AdRoll(app)

@app.get("/")
def page():
    return "mugs"

@app.post("/buy")
def buy():
    return report_conversion(order_id="1", value="5.00", currency="EUR", adct="c-1").status

client = app.test_client()
client.get("/?adct=c-1")
while not PRELOAD.done:
    time.sleep(0.01)
for one in threading.enumerate():
    if one.name == "adroll-preload":
        one.join()
sys.meta_path.insert(0, Watch())
print(client.post("/buy", headers={"User-Agent": "Mozilla/5.0"}).text)
print([name for name in Watch.late if name.partition(".")[0] != "encodings"])
"""


@pytest.mark.parametrize("delivery", ["thread", "worker"])
def test_after_a_page_the_first_order_imports_nothing(tmp_path: Path, delivery: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOP, str(tmp_path), delivery],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout.splitlines() == ["queued", "[]"], done.stderr


def test_where_threads_may_not_start_the_first_report_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adroll_flask.delivery.uwsgi.may_start_threads", lambda: False)
    preload = Preload()

    preload.begin()

    assert not preload.done


def test_a_child_has_loaded_what_its_parent_had_and_looks_for_itself() -> None:
    with PRELOAD.loading():
        pass
    assert PRELOAD.done
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 2 if PRELOAD.done else 0
            PRELOAD.begin()
            wait_until(lambda: PRELOAD.done)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0

"""docs/how-to/celery.md as a shop would follow it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from adroll_flask.sandbox import running
from tests.support import PATIENCE, ROOT, answers, lacking
from tests.support.pages import Page, Shell, blocks

PAGE = "docs/how-to/celery.md"
ORDER = """
from adroll_flask import report_conversion
from shop import app

with app.app_context():
    report_conversion(
        order_id="1001", value="29.95", currency="EUR", adct="click123", visitor=None,
        ip="203.0.113.7", page_location="https://shop.test/",
    )
"""


@pytest.fixture
def redis() -> str:
    """An address without a database's number."""
    if not answers(6379):
        lacking("Redis does not answer on 127.0.0.1:6379")
    return "redis://127.0.0.1:6379"


def test_the_page_s_workers_start_and_deliver(tmp_path: Path, redis: str) -> None:
    replace = {
        "amqp://guest:guest@localhost//": f"{redis}/12",
        "redis://localhost": f"{redis}/11",
    }
    (tmp_path / "order.py").write_text(ORDER)
    with running() as sandbox:
        env = {
            "FLASK_SECRET_KEY": "a long random text",
            "FLASK_ADROLL_SANDBOX": "true",
            "FLASK_ADROLL_API_URL": sandbox.api_url,
        }
        with Shell(tmp_path, env, replace) as shell, Page(PAGE, shell) as page:
            page.run()
            said, status = shell.type("python order.py")
            assert status == 0, said
            # What beat does every 30 seconds.
            said, status = shell.type(
                "celery -A shop:celery call adroll_flask.drain --queue=adroll 2>&1"
            )
            assert status == 0, said
            end = time.monotonic() + PATIENCE
            while not sandbox.purchases(order_id="1001"):
                assert time.monotonic() < end
                time.sleep(0.1)


FACTORY = """
import sys
from pathlib import Path
from adroll_flask import report_conversion
from adroll_flask.celery import TASK
from adroll_flask.testing import reports
from celery.app.utils import find_app
from factory_shop import create_app, payment_arrived
from celery import Celery

named = find_app("make_celery:celery_app")
assert isinstance(named, Celery), type(named)
assert TASK in named.tasks
assert payment_arrived.name in named.tasks
app = create_app(
    {
        "SECRET_KEY": "k" * 32,
        "TESTING": True,
        "ADROLL_JOURNAL_FOLDER": str(Path.cwd() / "journal"),
        "CELERY": {"task_always_eager": True, "task_eager_propagates": True},
    }
)
app.extensions["celery"].set_current()
with reports(app) as reported:
    with app.app_context():
        sale = {"order_id": "1", "value": "1", "currency": "EUR", "adct": "click123"}
        where = {"ip": "203.0.113.7", "page_location": "https://shop.test/"}
        report_conversion(**sale, **where, visitor=None, hold=True)
    assert [event.order_id for event in reported.held] == ["1"]
    payment_arrived.delay("1")
print(reported.one("purchase").order_id)
"""


def test_a_shared_task_of_an_app_factory_releases_an_order(tmp_path: Path) -> None:
    shop, celery, _worker = blocks(PAGE, "With an app factory and shared_task")
    (tmp_path / "factory_shop.py").write_text(shop.code)
    (tmp_path / "make_celery.py").write_text(celery.code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FACTORY],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"

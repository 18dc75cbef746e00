"""The pages about an outbox's place: backup, move, import, reconcile, many hosts, run as typed."""

import csv
import json
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from adroll_flask import AdRoll, report_conversion, testing
from adroll_flask.sandbox import RunningSandbox
from tests.conftest import AppMaker
from tests.support import eventually, visits
from tests.support.outbox_engines import database
from tests.support.pages import Page, Shell, blocks

TELEPHONE = "docs/how-to/orders-without-a-browser.md"
#: Nobody listens there.
AWAY = "http://127.0.0.1:9/api"


def shell_in(folder: Path, api_url: str = AWAY) -> Shell:
    (folder / "instance").mkdir()
    env = {
        "FLASK_APP": "tests.support.server_shop:make_shop()",
        "SHOP_FOLDER": str(folder / "instance"),
        "FLASK_ADROLL_API_URL": api_url,
        "FLASK_ADROLL_DELIVERY": "worker",
    }
    return Shell(folder, env)


def buy(shell: Shell, orders: str) -> list[str]:
    told: list[str] = json.loads(
        done(shell, f"echo {orders} | python -m tests.support.shop_orders")
    )
    return told


def done(shell: Shell, command: str) -> str:
    printed, status = shell.type(command)
    assert status == 0, printed
    return printed


@pytest.mark.slow
def test_copies_of_each_engine_are_made_and_restored(tmp_path: Path, stack: ExitStack) -> None:
    urls = [stack.enter_context(database(one, whole=True)) for one in ("postgresql", "mariadb")]
    mariadb = sa.make_url(urls[1])
    options = f"--host={mariadb.host} --port={mariadb.port} --user={mariadb.username}"
    if mariadb.password:
        options += f" --password={mariadb.password}"
    shell = shell_in(tmp_path)
    shell.replace = {
        "/var/backups": str(tmp_path),
        "postgresql://shop@db/shop": urls[0].replace("+psycopg", ""),
        "--host=db --user=shop shop": f"{options} {mariadb.database}",
    }
    with shell, Page("docs/how-to/backup.md", shell) as page:
        sections = ("SQLite", "PostgreSQL", "MariaDB and MySQL")
        for section, url in zip(sections, ("", *urls), strict=True):
            if url:
                done(shell, f"export FLASK_ADROLL_OUTBOX_URL={url!r}")
            assert buy(shell, "order:1001-1002") == ["queued"] * 2
            done(shell, "flask adroll outbox")  # takes in
            page.run(section)
            assert "dead        2" in done(shell, "flask adroll outbox"), section
        page.run("What then")


@pytest.mark.slow
def test_a_shop_moves_with_keys(tmp_path: Path, sandbox: RunningSandbox, stack: ExitStack) -> None:
    new = stack.enter_context(database("postgresql", whole=True))
    shell = shell_in(tmp_path, sandbox.api_url)
    shell.replace = {"postgresql+psycopg://shop:secret@db/shop": f"'{new}'"}
    with shell, Page("docs/how-to/move-an-outbox.md", shell) as page:
        buy(shell, "order:1-4")
        done(shell, "flask adroll worker --once")
        buy(shell, "order:5-6 hold:7")
        done(shell, "flask adroll outbox")
        page.run()
        buy(shell, "order:1-6")
        done(shell, "flask adroll outbox release 7")
        done(shell, "flask adroll worker --once")
    assert sorted(sale["order_id"] for sale in sandbox.purchases()) == [*"1234567"]


@pytest.mark.slow
def test_two_workers_deliver(tmp_path: Path, sandbox: RunningSandbox, stack: ExitStack) -> None:
    new = stack.enter_context(database("postgresql", whole=True))
    shell = shell_in(tmp_path, sandbox.api_url)
    del shell.env["FLASK_ADROLL_DELIVERY"]
    shell.replace = {
        "postgresql+psycopg://shop:secret@db/shop": f"'{new}'",
        "https://srv.adroll.com/api": sandbox.api_url,
    }
    with shell, Page("docs/how-to/scaling.md", shell) as page:
        page.run()
        buy(shell, "order:1001-1020")
        # The shop's own process would forward; this one has ended.
        done(shell, "flask adroll outbox")
        eventually(lambda: len(sandbox.purchases()) == 20)
    assert sorted(sale["order_id"] for sale in sandbox.purchases()) == [
        str(number) for number in range(1001, 1021)
    ]


def test_an_import_says_what_is_wrong(tmp_path: Path, sandbox: RunningSandbox) -> None:
    [orders] = [b.code for b in blocks("docs/how-to/import.md") if b.language == "text"]
    (tmp_path / "orders.csv").write_text(orders)
    with (
        shell_in(tmp_path, sandbox.api_url) as shell,
        Page("docs/how-to/import.md", shell) as page,
    ):
        page.run()
        command = next(one for one in shell.typed if "import" in one)
        printed, status = shell.type(command.replace("--check", ""))
        assert (status, "2 queued, 1 invalid" in printed) == (1, True)
        done(shell, "flask adroll worker --once")
    assert sorted(sale["order_id"] for sale in sandbox.purchases()) == ["1001", "1002"]


def test_each_paid_order_is_told(
    tmp_path: Path, sandbox: RunningSandbox, make_app: AppMaker
) -> None:
    now = time.time()
    reached, unwanted, missed = range(1000, 1412), range(2000, 2011), range(3000, 3007)
    by_card = [f"{order},{now},card" for order in (*reached, *unwanted, 3000)]
    by_invoice = [f"{order},{now},invoice" for order in missed[1:]]
    lines = ["Order no.,Paid at,payment_method", *by_card, *by_invoice]
    (tmp_path / "orders.csv").write_text("\n".join(lines))
    with (
        shell_in(tmp_path, sandbox.api_url) as shell,
        Page("docs/how-to/reconcile.md", shell) as page,
    ):
        buy(shell, "order:1000-1411")
        buy(shell, "suppressed:2000-2010")
        done(shell, "flask adroll worker --once")
        page.run("Did every paid order reach AdRoll?")
        rest = [*csv.DictReader((tmp_path / "rest.csv").read_text().splitlines())]
        assert len(rest) == 18
        known = {"value": "59.90", "currency": "EUR", "email": "ann@example.com"}
        missing = [row | known for row in rest if row["status"] == "missing"]
        with (tmp_path / "missing.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, [*missing[0]])
            table.writeheader()
            table.writerows(missing)
        page.run("Reporting what is missing")
        from_python(page, make_app)


def from_python(page: Page, make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    visits.began_long_ago(app)  # of an order without a time it knows nothing else
    with app.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
        report_conversion(order_id="1", value=1, currency="EUR")
    visits.began_long_ago(app)
    with app.app_context():
        orders: list[Any] = [type("Order", (), {"id": id, "total": 1}) for id in ("1", "2")]
        section = "Without an export: the shop's own list"
        page.run(section, adroll=adroll, orders_paid_between=lambda _since, _until: [])
        assert adroll._functions.paid_orders is not None
        names = page.run("From Python", adroll=adroll, paid_orders=orders)
    assert names["missing"] == ["2"]
    assert names["found"].counts["waiting"] == 1


def test_orders_are_reported_by_an_address_alone(
    make_app: AppMaker, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    [till] = [block.code for block in blocks(TELEPHONE) if block.language == "text"]
    (tmp_path / "till.csv").write_text(till)
    with shell_in(tmp_path, sandbox.api_url) as shell, Page(TELEPHONE, shell) as page:
        report_order = page.run()["report_order"]
    nobody = {"customer_id": None, "customer_ip": None}
    order = {"total": Decimal("59.90"), "email": "ann@example.com", "placed_at": datetime.now(UTC)}
    app = make_app()
    with testing.reports(app) as reported, app.test_request_context("/back-office?adct=clerk"):
        for number in ("P-1", "P-2"):
            assert report_order(SimpleNamespace(id=number, **nobody, **order))
    first, second = reported
    assert first.adct is None
    assert first.first_party_cookie == second.first_party_cookie
    assert str(first.first_party_cookie).endswith("-1577836800000")
    assert "email_sha256" in first.coverage.carried

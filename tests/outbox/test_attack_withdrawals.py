"""A visitor who says no again and again costs the shop no more than one who says it once."""

import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import AppMaker


@pytest.mark.parametrize("database", ["up", "down"])
def test_many_withdrawals_make_few_files_and_cost_the_same(
    database: str, make_app: AppMaker, file_calls: Counter[int]
) -> None:
    away = {"ADROLL_OUTBOX_URL": "postgresql+psycopg://nobody@127.0.0.1:9/shop"}
    app = make_app(**(away if database == "down" else {}))
    cookies = app.test_client().get("/?adct=click-1").headers.getlist("Set-Cookie")
    cookie = "; ".join(one.partition(";")[0] for one in cookies)
    assert "adroll_visitor=" in cookie
    # Whoever floods takes no cookie back.
    client = app.test_client(use_cookies=False)
    headers = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
    me, costs, files = threading.get_ident(), [], []
    for _ in range(8):
        before = file_calls[me]
        for _ in range(100):
            answer = client.post("/_adroll/identity", json={"consent": False}, headers=headers)
            assert answer.status_code < 300
        costs.append(file_calls[me] - before)
        files.append(len([*Path(app.instance_path).rglob("*")]))

    assert max(costs[1:]) < 50, "files opened and folders listed by a hundred requests"
    assert max(files) < 100, "files and folders of the shop's instance folder"

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from typed_shop import create_app

from adroll_flask.testing import reports


def test_an_order_is_sent_when_it_is_paid(tmp_path: Path) -> None:
    app = create_app({"TESTING": True, "SECRET_KEY": "k" * 32, "ADROLL_JOURNAL_FOLDER": tmp_path})
    client = app.test_client()
    client.get("/?adct=click123")
    with reports(app) as reported:
        client.post("/orders/1001", data={"email": "jo@example.com"})
        assert [event.order_id for event in reported.held] == ["1001"]
        assert len(reported) == 0
        client.post("/paid/1001")
    purchase = reported.one("purchase")
    assert purchase.value == Decimal("59.90")
    assert purchase.adct == "click123"

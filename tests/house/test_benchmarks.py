"""What the benchmarks measure is what they say."""

from pathlib import Path
from typing import Any

from flask import Flask

from adroll_flask import AdRoll, report_conversion
from benchmarks.reporters import ADVERTISABLE_EID, SECRET_KEY, Visitors


def test_the_visitors_of_the_benchmarks_have_seen_the_shop_before(tmp_path: Path) -> None:
    """Nobody's click is lost, and no cookie is set anew."""
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(
        SECRET_KEY=SECRET_KEY, ADROLL_ADVERTISABLE_EID=ADVERTISABLE_EID, ADROLL_DELIVERY="worker"
    )
    adroll = AdRoll(app)
    clicks: list[Any] = []

    @adroll.before_report
    def keep(event: Any) -> Any:
        clicks.append(event.adct)
        return event

    @app.post("/checkout")
    def checkout() -> str:
        assert report_conversion(order_id="1001", value="5.00", currency="EUR")
        return "<html><body>thanks"

    answer = app.test_client(use_cookies=False).post(
        "https://shop.example/checkout", headers={"Cookie": Visitors().cookies(7)}
    )
    assert clicks == ["click-7"]
    assert "Set-Cookie" not in answer.headers

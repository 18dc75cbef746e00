"""What a user's program may say, and what mypy --strict stops in it; type-checked, never run.

Calls that tests and examples make with their types are not repeated here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from fastapi import FastAPI
from flask import Flask
from werkzeug import Request

from adroll_flask import (
    AdRoll,
    AdRollASGIMiddleware,
    AdRollMiddleware,
    Event,
    Receipt,
    app_location,
    release_conversion,
    report_conversion,
    report_event,
)

app = Flask(__name__)
adroll = AdRoll(app)


@adroll.before_report
def before(event: Event) -> Event | None:
    return None if event.order_id == "test" else event.replace(value=Decimal("1.00"))


@adroll.identity
def who() -> dict[str, str | int] | None:
    return {"email": "jo@example.com", "user_id": 5}


receipt: Receipt = report_conversion(
    order_id=UUID(int=1),
    value="59.90",
    currency="EUR",
    device_id=UUID(int=2),
    user_id=UUID(int=3),
    products=[{"product_id": "mug", "price": Decimal("29.95"), "quantity": 2}],
    timestamp=datetime.now(UTC),
    hold=timedelta(days=2),
)
print(receipt.id, receipt.status, receipt.reason, receipt.coverage)
report_event("productSearch", keywords=["red", "mug"], timestamp=Decimal("1667065540.836"))
report_event(
    "addToCart",
    products=[object()],
    product_map={"product_id": "sku", "price": lambda line: line.cents / 100, "category": None},
)
report_event("addToCart", products={"product_id": UUID(int=1), "quantity": "2"})
report_conversion(order_id=5, value=5, page_location=app_location("app.example", device_os="iOS"))
report_event("not_an_event")  # type: ignore[arg-type]
report_event("addToCart", ordr_id="1")  # type: ignore[call-arg]
report_conversion(order_id=5, value=5, hold="2 days")  # type: ignore[arg-type]
release_conversion(5, value="5.00", currency="EUR", products=[{"product_id": 5}], at="release")
release_conversion("5", at="payment")  # type: ignore[arg-type]
wrapped = AdRollMiddleware(
    app.wsgi_app,
    advertisable_eid="ADVERTISABLE0000000001",
    identity=lambda environ: {"user_id": environ["REMOTE_USER"]},
    delivery="worker",
    accounts={"shop.fr": {"advertisable_eid": "FRENCHADVERTISABLE0001"}},
    email=["sha256"],
)
AdRollMiddleware(app.wsgi_app, delivery="celery")  # type: ignore[arg-type]
AdRollMiddleware(app.wsgi_app, advertiseable_eid="X")  # type: ignore[call-arg]


async def may_track(request: Request) -> bool | None:
    return request.cookies.get("consent") == "yes"


api = FastAPI()
served = AdRollASGIMiddleware(
    api,
    identity=lambda scope: {"user_id": scope["user"].id},
    paid_orders=lambda since, until: [{"order_id": "1", "at": since}],
    consent=may_track,
)
api.add_middleware(AdRollASGIMiddleware, delivery="worker", sandbox=True)
AdRollASGIMiddleware(app.wsgi_app)  # type: ignore[arg-type]
AdRollMiddleware(api)  # type: ignore[arg-type]
with wrapped.context(), served.context():
    release_conversion("5", host="shop.fr")

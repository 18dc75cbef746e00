"""A user's program; type-checked under mypy --strict, never run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from flask import Flask

from adroll_flask import (
    AdRoll,
    AdRollMiddleware,
    Event,
    EventError,
    Receipt,
    Visitor,
    app_location,
    cancel_conversion,
    current_visitor,
    forget_visitor,
    identify,
    release_conversion,
    report_conversion,
    report_event,
    reset_identity,
)
from adroll_flask.testing import reports

adroll = AdRoll()
app = Flask(__name__)
adroll.init_app(app)


@adroll.before_report
def before(event: Event) -> Event | None:
    return None if event.order_id == "test" else event.replace(value=Decimal("1.00"))


@adroll.before_report
def round_up(event: Event) -> Event | None:
    return event


@adroll.identity
def who() -> dict[str, str | int] | None:
    return {"email": "jo@example.com", "user_id": 5}


receipt: Receipt = report_conversion(
    order_id="1001",
    value="59.90",
    currency="EUR",
    email="jo@example.com",
    products=[{"product_id": "mug", "price": Decimal("29.95"), "quantity": 2}],
    timestamp=datetime.now(UTC),
)
if receipt:
    print(receipt.id, receipt.status, receipt.reason, receipt.coverage)
report_event("addToCart", products=[{"product_id": 5}])
report_event("productSearch", keywords=["red", "mug"], timestamp=Decimal("1667065540.836"))
report_event(
    "addToCart",
    products=[object()],
    product_map={"product_id": "sku", "price": lambda line: line.cents / 100, "category": None},
)
report_event("addToCart", products={"product_id": UUID(int=1), "quantity": "2"})
report_conversion(order_id=UUID(int=1), value=5, device_id=UUID(int=2), user_id=UUID(int=3))
report_conversion(order_id=5, value=5, page_location=app_location("app.example", device_os="iOS"))
report_event("not_an_event")  # type: ignore[arg-type]
report_event("addToCart", ordr_id="1")  # type: ignore[call-arg]
identify(email="jo@example.com", user_id=5)
reset_identity()
visitor: Visitor = current_visitor()
token: str = visitor.token()
report_conversion(visitor=token, order_id=5, value=5)
report_conversion(visitor=visitor, order_id=5, value=5)
waiting: int = adroll.flush(timeout=2.0)
forget_visitor()
report_conversion(visitor=None, order_id=5, value=5, user_id=5)
report_conversion(order_id=5, value=5, hold=True)
report_conversion(order_id=5, value=5, hold=timedelta(days=2))
report_conversion(order_id=5, value=5, hold="2 days")  # type: ignore[arg-type]
released: Receipt = release_conversion(
    5, value="5.00", currency="EUR", products=[{"product_id": 5}]
)
release_conversion("5", at="release")
release_conversion("5", at="payment")  # type: ignore[arg-type]
cancelled: Receipt = cancel_conversion("5")
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
with wrapped.context():
    release_conversion("5", host="shop.fr")
with reports(app) as reported:
    event: Event = reported.one("purchase")
try:
    pass
except EventError as error:
    field: str = error.field

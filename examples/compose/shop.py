"""A shop with one mug, for ``compose.yaml``; all its settings come from the environment."""

from __future__ import annotations

from uuid import uuid4

from flask import Flask

from adroll_flask import AdRoll, report_conversion

PAGE = """<!doctype html><html lang="en"><head><title>Mugs</title></head><body>
<h1>A mug, 29.95 €</h1>
<form method="post" action="/orders/{order}"><button>Buy</button></form>
</body></html>"""

app = Flask(__name__)
app.config.from_prefixed_env()  # FLASK_SECRET_KEY, FLASK_ADROLL_…
AdRoll(app)


@app.get("/")
def mug() -> str:
    # The number is on the page, so that a form that is sent twice is one order.
    return PAGE.format(order=uuid4().hex[:8])


@app.post("/orders/<order_id>")
def buy(order_id: str) -> str:
    report_conversion(order_id=order_id, value="29.95", currency="EUR", email="jo@example.com")
    return f"Thank you for order {order_id}!\n"

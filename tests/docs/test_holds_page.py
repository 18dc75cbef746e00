"""docs/how-to/holds.md, run in its order, and the pages of Stripe and PayPal."""

import hashlib
import hmac
import itertools
import json
import time
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import stripe
from flask import Flask, abort, redirect, request, url_for
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

import adroll_flask
from tests.support import PUBLIC_NAMES
from tests.support.page_shop import AGENT, SITE, PageShop, page_shop
from tests.support.pages import Page, Shell
from tests.support.serving import serving

NAMES: dict[str, Any] = {name: getattr(adroll_flask, name) for name in PUBLIC_NAMES}
NAMES |= {"abort": abort, "redirect": redirect, "request": request, "url_for": url_for}
ORDER = SimpleNamespace(
    id="o-1", total="59.90", email="jo@example.com", line_items=[{"price": "p_1", "quantity": 1}]
)
SALE = ("o-1", Decimal("59.90"), "click123")


def opened(stack: ExitStack, folder: Path, **config: Any) -> PageShop:
    return stack.enter_context(page_shop(folder, **config))


def tell(shop: PageShop, path: str, body: bytes, **headers: str) -> int:
    """A payment provider calls: no cookie, another address."""
    provider = shop.app.test_client(use_cookies=False)
    headers = {"Content-Type": "application/json", "User-Agent": "Provider/1.0", **headers}
    return provider.post(
        path, data=body, headers=headers, environ_base={"REMOTE_ADDR": "198.51.100.1"}
    ).status_code


def test_all_of_the_page_in_its_order(tmp_path: Path, stack: ExitStack) -> None:
    with Shell(tmp_path) as shell, Page("docs/how-to/holds.md", shell) as page:
        page.run("A shop with a webhook")
        reports_in_the_webhook(page, opened(stack, tmp_path / "token"))
        books_invoices(page, tmp_path / "invoice", stack)
        collects_cash(page, opened(stack, tmp_path / "cash"))
        sells_trials(page, opened(stack, tmp_path / "trial"))
        refunds(page, opened(stack, tmp_path / "refunds"))


# -- Stripe --------------------------------------------------------------------------------

WHSEC = "whsec_of_the_test"


def stripe_tells(shop: PageShop, kind: str, secret: str = WHSEC, **fields: Any) -> int:
    """An event of Stripe's, in the form of its API reference."""
    told = {"object": kind.rpartition(".")[0], **fields}
    body = json.dumps({"object": "event", "type": kind, "data": {"object": told}}).encode()
    at = int(time.time())
    signature = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    header = {"Stripe-Signature": f"t={at},v1={signature}"}
    return tell(shop, "/stripe/webhook", body, **header)


def paid(shop: PageShop, kind: str, status: str, order: str, **given: Any) -> int:
    about = {"client_reference_id": order, "payment_status": status}
    return stripe_tells(shop, f"checkout.session.{kind}", **about, **given)


def invoiced(shop: PageShop, reason: str) -> int:
    parent = {"subscription_details": {"metadata": {"order_id": "o-1"}}}
    return stripe_tells(shop, "invoice.paid", billing_reason=reason, parent=parent)


def test_stripe(tmp_path: Path, stack: ExitStack) -> None:
    shop = opened(stack, tmp_path)
    asked: dict[str, Any] = {}

    def create(**given: Any) -> SimpleNamespace:
        asked.update(given)
        return SimpleNamespace(url="https://checkout.stripe.com/c/1")

    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(stripe, "api_key", None)
    patch.setattr(stripe.checkout.Session, "create", create)
    shop.app.config.update(STRIPE_API_KEY="sk_test_1", STRIPE_WEBHOOK_SECRET=WHSEC)
    shop.app.add_url_rule("/thanks", "thanks", lambda: "Thanks!")
    orders = (SimpleNamespace(**{**vars(ORDER), "id": f"o-{n}"}) for n in itertools.count(1))
    with Page("docs/how-to/stripe.md") as page:
        page.run(app=shop.app, new_order=lambda _form: next(orders), **NAMES)
    shop.start()

    answer = shop.browser().post("/stripe/checkout", **SITE)
    assert answer.location == "https://checkout.stripe.com/c/1"
    assert asked["client_reference_id"] == "o-1"
    assert asked["subscription_data"] == {"metadata": {"order_id": "o-1"}}
    assert shop.held() == ["o-1"]
    # Its first invoice and the session come in any order, and renewals follow.
    assert invoiced(shop, "subscription_create") == paid(shop, "completed", "paid", "o-1") == 204
    assert invoiced(shop, "subscription_cycle") == 204
    assert shop.sold() == [SALE]
    # Bank debits, paid and not.
    for order in ("o-2", "o-3"):
        shop.browser().post("/stripe/checkout", **SITE)
        assert paid(shop, "completed", "unpaid", order) == 204
        assert paid(shop, "completed", "paid", order, secret="whsec_forged") == 400
    assert shop.held() == ["o-2", "o-3"]
    assert paid(shop, "async_payment_succeeded", "paid", "o-2") == 204
    assert paid(shop, "async_payment_failed", "unpaid", "o-3") == 204
    assert [order for order, *_ in shop.sold()] == ["o-1", "o-2"]
    assert shop.held() == []


# -- PayPal --------------------------------------------------------------------------------


def paypal_api(sent: dict[str, bytes]) -> Flask:
    """PayPal's check of a webhook: its signature is over the bytes that were sent."""
    api = Flask("paypal")

    @api.post("/v1/oauth2/token")
    def token() -> dict[str, str]:
        known = request.authorization
        assert known is not None
        assert (known.username, known.password) == ("client", "secret")
        return {"access_token": "A21", "token_type": "Bearer"}

    @api.post("/v1/notifications/verify-webhook-signature")
    def verify() -> dict[str, str]:
        assert request.headers["Authorization"] == "Bearer A21"
        asked = request.get_json()
        body = b'"webhook_event": ' + sent.get(asked["transmission_sig"], b"never sent") + b"}"
        is_ours = asked["webhook_id"] == "WH-1" and request.get_data().endswith(body)
        return {"verification_status": "SUCCESS" if is_ours else "FAILURE"}

    return api


def test_paypal(tmp_path: Path, stack: ExitStack) -> None:
    shop = opened(stack, tmp_path)
    sent: dict[str, bytes] = {}
    shop.app.config.update(
        PAYPAL_API=f"http://127.0.0.1:{stack.enter_context(serving(paypal_api(sent)))}",
        PAYPAL_CLIENT_ID="client",
        PAYPAL_CLIENT_SECRET="secret",
        PAYPAL_WEBHOOK_ID="WH-1",
    )
    with Page("docs/how-to/paypal.md") as page:
        page.run(app=shop.app, **NAMES)
    shop.start()

    def say(kind: str, order: str, *, forged: bool = False) -> int:
        # As no library of ours would write it again.
        body = (
            f'{{ "event_type" : "PAYMENT.CAPTURE.{kind}", "resource": {{"custom_id":"{order}"}} }}'
        )
        signature = f"{kind} {order}"
        sent[signature] = b"another" if forged else body.encode()
        header = {"Paypal-Transmission-Sig": signature}
        return tell(shop, "/paypal/webhook", body.encode(), **header)

    hold(shop, "o-1", "o-2")
    assert say("COMPLETED", "o-1", forged=True) == 400
    assert say("PENDING", "o-1") == 204
    assert shop.held() == ["o-1", "o-2"]
    assert say("COMPLETED", "o-1") == say("DENIED", "o-2") == 204
    assert shop.sold() == [SALE]
    assert shop.held() == []


def hold(shop: PageShop, *orders: str) -> None:
    """A visitor orders, and is to pay later."""
    if "checkout" not in shop.app.view_functions:

        @shop.app.post("/checkout/<order>")
        def checkout(order: str) -> str:
            return adroll_flask.report_conversion(
                order_id=order, value="59.90", currency="EUR", hold=True
            ).status

    for order in orders:
        assert shop.browser().post(f"/checkout/{order}", **SITE).text == "held"


# -- a token ---------------------------------------------------------------------------------


def reports_in_the_webhook(page: Page, shop: PageShop) -> None:
    made: dict[str, Any] = {}

    def create(**payment: Any) -> SimpleNamespace:
        made.update(payment)
        return SimpleNamespace(url="https://pay.example/1")

    def verified(body: bytes, signature: str | None) -> SimpleNamespace:
        if signature != "of the provider":
            abort(400)
        return SimpleNamespace(id=body.decode(), metadata=made["metadata"])

    payments = SimpleNamespace(create=create, verified=verified)
    section = "Report in the webhook, without a hold"
    page.run(section, app=shop.app, payments=payments, **NAMES)
    shop.start()
    answer = shop.browser().post("/pay", **SITE, headers=AGENT)
    assert answer.location == "https://pay.example/1"
    assert tell(shop, "/payments/webhook", b"pi_1") == 400
    assert tell(shop, "/payments/webhook", b"pi_1", Signature="of the provider") == 204
    assert shop.sold() == [("pi_1", Decimal("59.90"), "click123")]
    [sale] = shop.sandbox.purchases()
    assert sale["event"]["ip"] == "203.0.113.7"
    assert sale["event"]["user_agent"] == AGENT["User-Agent"]
    assert sale["event"]["page_location"] == "https://shop.test/pay"


# -- invoices, parcels, trials, refunds ----------------------------------------------------------


def books_invoices(page: Page, folder: Path, stack: ExitStack) -> None:
    url = f"sqlite:///{folder}/shop.sqlite"
    shop = opened(stack, folder, ADROLL_OUTBOX_URL=url)
    engine = create_engine(url)
    stack.callback(engine.dispose)
    db = SimpleNamespace(session=stack.enter_context(Session(engine)))
    names = page.run("Invoice", app=shop.app, db=db, **NAMES)
    shop.start()
    assert shop.app.extensions["adroll"].settings.hold_max == 45 * 86_400
    folder.mkdir(exist_ok=True)
    shop.app.extensions["adroll"].outbox.database.create_tables()
    hold(shop, "o-1")
    order = SimpleNamespace(id="o-1", paid=False)
    with shop.app.app_context():
        names["book_payment"](order)
    assert order.paid
    assert shop.sold() == [SALE]


def collects_cash(page: Page, shop: PageShop) -> None:
    page.run("Cash on delivery", app=shop.app, **NAMES)
    shop.start()
    hold(shop, "o-1", "o-2")
    carrier = shop.app.test_client(use_cookies=False)
    carrier.post("/parcels/o-1", data={"state": "delivered", "collected": "39.95"})
    carrier.post("/parcels/o-2", data={"state": "refused"})
    assert shop.sold() == [("o-1", Decimal("39.95"), "click123")]
    assert shop.held() == []


def sells_trials(page: Page, shop: PageShop) -> None:
    accounts = iter([SimpleNamespace(id=id, email=f"{id}@example.com") for id in (7, 8)])
    names = page.run(
        "A trial that becomes paid", app=shop.app, new_account=lambda _form: next(accounts), **NAMES
    )
    shop.start()
    for _account in range(2):
        shop.browser().post("/trial", **SITE)
    assert shop.held() == ["sub-7", "sub-8"]
    seven, eight = SimpleNamespace(id=7), SimpleNamespace(id=8)
    with shop.app.app_context():
        names["on_invoice_paid"](seven, Decimal(0))
        assert shop.sold() == []
        names["on_invoice_paid"](seven, Decimal("19.00"))
        names["on_trial_ended"](eight)
    assert shop.sold() == [("sub-7", Decimal("19.00"), "click123")]
    assert len(shop.sandbox.accepted("signupTrial")) == 2
    assert shop.held() == []


def refunds(page: Page, shop: PageShop) -> None:
    names = page.run("Refunds", app=shop.app, **NAMES)
    shop.start()
    hold(shop, "o-1", "o-2")
    with shop.app.app_context():
        adroll_flask.release_conversion("o-1")
        assert shop.sold() == [SALE]
        for order in ("o-1", "o-2"):  # one too late, one in time
            names["refunded"](SimpleNamespace(id=order))
        adroll_flask.release_conversion("o-2")
    assert shop.sold() == [SALE]
    assert shop.held() == []

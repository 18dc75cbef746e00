"""The shop's pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from flask import (
    Blueprint,
    abort,
    current_app,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue

from adroll_flask import current_visitor, forget_visitor, identify, report_conversion, report_event

from . import cart, catalogue
from .store import current_store

pages = Blueprint("shop", __name__)

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
NO_EMAIL = "That does not look like an e-mail address."


@pages.app_context_processor
def _for_every_page() -> dict[str, object]:
    # A function and not its result: pages for a shared cache do not look into the session.
    return {"cart_size": cart.size, "currency": catalogue.CURRENCY}


@pages.app_template_filter("time")
def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %B %Y, %H:%M UTC")


def posted_email() -> str | None:
    """The form's e-mail address, or ``None`` where it is none."""
    email = request.form.get("email", "").strip()
    return email if len(email) <= 254 and _EMAIL.fullmatch(email) else None


def watch_url() -> str | None:
    """Where one sees what AdRoll learns; ``None`` where that is AdRoll itself."""
    url: str | None = current_app.config.get("DEMO_WATCH_URL")
    return url


# --- Looking around ----------------------------------------------------------------------------


@pages.get("/")
def home() -> str:
    return render_template("home.html", products=catalogue.PRODUCTS)


@pages.get("/products/<product_id>")
def product(product_id: str) -> str:
    found = catalogue.find(product_id) or abort(404)
    others = [other for other in catalogue.PRODUCTS if other is not found]
    others.sort(key=lambda other: other.category != found.category)
    return render_template("product.html", product=found, others=others[:4])


@pages.get("/search")
def search() -> str:
    words = request.args.get("q", "").strip()[:100]
    found = catalogue.search(words) if words else []
    if words:
        report_event(
            "productSearch",
            keywords=words,
            currency=catalogue.CURRENCY,
            products=[cart.Line(product, 1).for_adroll() for product in found],
        )
    return render_template("search.html", words=words, products=found)


@pages.get("/story")
def story() -> ResponseReturnValue:
    response = make_response(render_template("story.html"))
    # The same for everybody: any cache between here and the visitor may keep it.
    response.cache_control.public = True
    response.cache_control.max_age = 600
    return response


# --- Buying ------------------------------------------------------------------------------------


@pages.get("/cart")
def show_cart() -> str:
    lines = cart.lines()
    return render_template("cart.html", lines=lines, total=cart.total(lines), most=cart.MOST)


@pages.post("/cart")
def add_to_cart() -> ResponseReturnValue:
    product = catalogue.find(request.form.get("product", "")) or abort(404)
    quantity = min(max(request.form.get("quantity", 1, type=int), 1), cart.MOST)
    cart.add(product, quantity)
    line = cart.Line(product, quantity)
    report_event(
        "addToCart", value=line.total, currency=catalogue.CURRENCY, products=[line.for_adroll()]
    )
    flash(f"{product.name} is in your cart.")
    return redirect(url_for(".show_cart"), 303)


@pages.post("/cart/<product_id>")
def change_cart(product_id: str) -> ResponseReturnValue:
    product = catalogue.find(product_id) or abort(404)
    cart.put(product, request.form.get("quantity", 0, type=int))
    return redirect(url_for(".show_cart"), 303)


@pages.get("/checkout")
def checkout() -> ResponseReturnValue:
    return render_checkout() if cart.lines() else redirect(url_for(".show_cart"), 303)


def render_checkout(error: str | None = None) -> str:
    lines = cart.lines()
    cart.fix_order_id()  # from here on: this form, sent twice, is one order
    return render_template("checkout.html", lines=lines, total=cart.total(lines), error=error)


@pages.post("/checkout")
def place_order() -> ResponseReturnValue:
    lines, order_id = cart.lines(), session.get("order_id")
    if not (lines and order_id):  # sent twice, or the cart was changed in another tab
        return redirect(url_for(".checkout" if lines else ".thanks"), 303)
    email = posted_email()
    if email is None:
        return render_checkout(error=NO_EMAIL), 422

    order = current_store().place(order_id, email, lines)
    report_conversion(
        order_id=order.id,
        value=order.total,
        currency=order.currency,
        email=order.email,
        products=order.products,
    )
    cart.close(order.id)
    return redirect(url_for(".thanks"), 303)


@pages.get("/thanks")
def thanks() -> ResponseReturnValue:
    order = current_store().order(session.get("last_order", ""))
    if order is None:
        return redirect(url_for(".home"), 303)
    return render_template("thanks.html", order=order, watch=watch_url())


# --- Staying in touch --------------------------------------------------------------------------


@pages.get("/newsletter")
def newsletter() -> str:
    return render_template("newsletter.html", error=None)


@pages.post("/newsletter")
def subscribe() -> ResponseReturnValue:
    email = posted_email()
    if email is None:
        return render_template("newsletter.html", error=NO_EMAIL), 422
    identify(email=email)
    if current_store().subscribe(email):
        report_event("formFill", email=email)
    flash("Thank you. The next letter from the workshop is yours.")
    return redirect(url_for(".newsletter"), 303)


@pages.get("/restaurants")
def restaurants() -> str:
    return render_template("restaurants.html", errors={})


@pages.post("/restaurants")
def request_demo() -> ResponseReturnValue:
    email, company = posted_email(), request.form.get("company", "").strip()[:200]
    if email is None or not company:
        errors = {} if email else {"email": NO_EMAIL}
        errors |= {} if company else {"company": "Please tell us whom we may visit."}
        return render_template("restaurants.html", errors=errors), 422
    current_store().ask_for_demo(email, company, request.form.get("covers", "")[:20])
    identify(email=email)
    report_event("demoRequest", email=email)
    flash("Thank you. We will write within a day to find a date.")
    return redirect(url_for(".restaurants"), 303)


@pages.app_errorhandler(404)
def missing(_problem: Exception) -> ResponseReturnValue:
    return render_template("missing.html"), 404


# --- The visitor's own record ------------------------------------------------------------------


@pages.get("/me")
def me() -> str:
    return render_template("me.html", visitor=current_visitor(), watch=watch_url())


@pages.post("/me/forget")
def forget() -> ResponseReturnValue:
    forget_visitor()
    flash("Forgotten.")
    return redirect(url_for(".me"), 303)

"""A real Django shop: django-oscar from PyPI, whose customers buy in a browser.

It comes, pinned, into ``.cache/guests/oscar``; the shop tells by the code of docs/how-to/django.md.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from adroll_flask.sandbox import RunningSandbox, running
from tests.guests.test_guests import CACHE, HERE, ROOT, pip
from tests.support import free_port, listening_at, pages, ran
from tests.support.visits import named_at

pytestmark = [pytest.mark.slow, pytest.mark.browser]


PATIENCE = 120.0


#: The shelf's one product.
PRODUCT = "/catalogue/harbour-mug_1/"


GUEST, CUSTOMER = "ada@example.com", "jo@example.com"


@pytest.fixture(scope="session")
def oscar() -> Path:
    """The folder with django-oscar and what it needs."""
    pins = (HERE / "oscar.txt").read_text()
    folder, mark = CACHE / "oscar", CACHE / "oscar.txt"
    if not (mark.is_file() and mark.read_text() == pins):
        CACHE.mkdir(parents=True, exist_ok=True)
        tools = ("--target", str(folder), "--requirement", str(HERE / "oscar.txt"))
        pip("install", "--upgrade", *tools)
        mark.write_text(pins)
    return folder


@pytest.fixture(scope="module")
def adroll() -> Iterator[RunningSandbox]:
    with running(strict=True) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def shop(
    oscar: Path, adroll: RunningSandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The shop's address, under ``manage.py runserver``."""
    tmp_path = tmp_path_factory.mktemp("oscar")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(oscar), str(ROOT)]),
        "SHOP_ADROLL": json.dumps(named_at(adroll)),
    }
    common: dict[str, Any] = {"cwd": tmp_path, "env": environment}
    ran(sys.executable, "-m", "django", "startproject", "shop", ".", **common)
    with (tmp_path / "shop/settings.py").open("a") as settings:
        settings.write(SETTINGS)
    [apps] = pages.blocks("docs/how-to/django.md", "django-oscar")
    (tmp_path / "telling").mkdir()
    for name, text in {**FILES, "telling/apps.py": apps.code}.items():
        (tmp_path / name).write_text(text.lstrip())
    for command in (["manage.py", "migrate", "-v0"], ["stock.py"]):
        ran(sys.executable, *command, **common)
    port = free_port()
    runserver = (sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
    with listening_at(port, tmp_path / "runserver.log", *runserver, **common):
        yield f"http://shop.test:{port}"


def put_two_mugs_into_the_basket(page: Page, shop: str) -> None:
    for total in ("29.95", "59.90"):
        page.goto(f"{shop}{PRODUCT}")
        page.click("text=Add to cart")
        page.wait_for_selector(f"text=Cart total: €{total}")


def check_out(page: Page, shop: str) -> str:
    """From the basket to the thank-you page; the order's number."""
    page.goto(f"{shop}/checkout/")
    if page.locator("#id_username").count():  # nobody is logged in
        page.fill("#id_username", GUEST)
        page.check("input[name=options][value=anonymous]")
        page.click("form button[type=submit]:has-text('Continue')")
        page.wait_for_selector("#id_first_name")
    for field, value in {
        "first_name": "Ada",
        "last_name": "Lovelace",
        "line1": "Hafen 1",
        "line4": "Kiel",
        "postcode": "24103",
    }.items():
        page.fill(f"#id_{field}", value)
    page.click("#new_shipping_address button[type=submit]")
    page.wait_for_url("**/checkout/payment-details/")
    page.click("text=Continue")
    page.click("#place-order")
    page.wait_for_url("**/checkout/thank-you/")
    said = re.search(r"\b1\d{5,}\b", page.inner_text("body"))
    assert said, page.inner_text("body")
    return said[0]


def purchase(adroll: RunningSandbox, number: str) -> dict[str, Any]:
    """The one that AdRoll took of this order."""
    [found] = adroll.wait(1, "purchase", order_id=number, timeout=PATIENCE)
    event: dict[str, Any] = found["event"]
    return event


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_orders_of_a_guest_and_a_customer_reach_adroll_once(
    shop: str, adroll: RunningSandbox, page: Page
) -> None:
    page.goto(f"{shop}{PRODUCT}?adct=click123")
    assert page.locator("script[data-adroll]").count() == 1
    put_two_mugs_into_the_basket(page, shop)
    number = check_out(page, shop)
    event = purchase(adroll, number)
    assert event["conversion_value"] == "59.90"
    assert event["currency"] == "EUR"
    assert event["event_attributes"]["products"] == [
        {"product_id": "mug-1", "price": "29.95", "quantity": 2}
    ]
    cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies(shop)}
    identifiers = event["identifiers"]
    assert identifiers["adct"] == "click123"
    assert identifiers["first_party_cookie"] == cookies["__adroll_fpc"]
    assert identifiers["email_sha256"] == sha256(GUEST)
    assert event["user_agent"] == page.evaluate("navigator.userAgent")
    page.reload()
    page.go_back()
    page.goto(f"{shop}/accounts/login/?adct=click456")
    page.fill("#id_registration-email", CUSTOMER)
    for field in ("password1", "password2"):
        page.fill(f"#id_registration-{field}", "harbour-and-mug-1")
    page.click("button[name=registration_submit]")
    page.wait_for_selector("text=Thanks for registering")
    put_two_mugs_into_the_basket(page, shop)
    identifiers = purchase(adroll, check_out(page, shop))["identifiers"]
    assert identifiers["adct"] == "click456"
    assert identifiers["email_sha256"] == sha256(CUSTOMER)
    # The guest's order, which came before it in the one queue, did not arrive again.
    assert len(adroll.events("purchase", order_id=number)) == 1


# -- a django-oscar shop as Oscar's own documentation sets one up, with AdRoll in two places ------


#: Behind the settings that ``startproject`` writes.
SETTINGS = """
from oscar.defaults import *

DEBUG = True
ALLOWED_HOSTS = ["shop.test", "127.0.0.1"]
SITE_ID = 1
MEDIA_ROOT = BASE_DIR / "media"
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
DATABASES["default"] |= {
    "ATOMIC_REQUESTS": True, "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"}
}
INSTALLED_APPS += ["django.contrib.sites", "django.contrib.flatpages", "oscar.config.Shop"]
parts = "Analytics Checkout Address Shipping Catalogue Communication Partner Basket Payment Offer"
parts += " Order Customer Search Voucher Wishlists Dashboard"
INSTALLED_APPS += [f"oscar.apps.{name.lower()}.apps.{name}Config" for name in parts.split()]
INSTALLED_APPS += ["oscar.apps.catalogue.reviews.apps.CatalogueReviewsConfig"]
pages = "Reports Users Orders Catalogue Offers Partners Pages Ranges Reviews Vouchers"
INSTALLED_APPS += [
    f"oscar.apps.dashboard.{name.lower()}.apps.{name}DashboardConfig"
    for name in (pages + " Communications Shipping").split()
]
INSTALLED_APPS += ["widget_tweaks", "haystack", "treebeard", "sorl.thumbnail", "django_tables2"]
INSTALLED_APPS += ["telling"]
MIDDLEWARE += [
    "oscar.apps.basket.middleware.BasketMiddleware",
    "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware",
]
TEMPLATES[0]["OPTIONS"]["context_processors"] += [
    "oscar.apps.search.context_processors.search_form",
    "oscar.apps.checkout.context_processors.checkout",
    "oscar.apps.communication.notifications.context_processors.notifications",
    "oscar.core.context_processors.metadata",
]
AUTHENTICATION_BACKENDS = (
    "oscar.apps.customer.auth_backends.EmailBackend",
    "django.contrib.auth.backends.ModelBackend",
)
HAYSTACK_CONNECTIONS = {"default": {"ENGINE": "haystack.backends.simple_backend.SimpleEngine"}}
OSCAR_ALLOW_ANON_CHECKOUT = True
OSCAR_DEFAULT_CURRENCY = "EUR"
OSCAR_INITIAL_ORDER_STATUS = OSCAR_INITIAL_LINE_STATUS = "Pending"
OSCAR_ORDER_STATUS_PIPELINE = {"Pending": ()}
"""
FILES = {
    "shop/urls.py": """
from django.apps import apps
from django.urls import include, path

urlpatterns = [
    path("i18n/", include("django.conf.urls.i18n")),
    path("", include(apps.get_app_config("oscar").urls[0])),
]
""",
    "shop/wsgi.py": """
import json, os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from adroll_flask import AdRollMiddleware

application = AdRollMiddleware(
    get_wsgi_application(),
    secret_key=settings.SECRET_KEY,
    pixel="none",
    linger=0,
    **json.loads(os.environ["SHOP_ADROLL"]),
)
""",
    "telling/__init__.py": "",
    # What the shop has on its shelf: one mug, for 29.95 EUR.
    "stock.py": """
import os
from decimal import Decimal
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
import django
django.setup()
from oscar.core.loading import get_model

kind = get_model("catalogue", "ProductClass").objects.create(name="Tableware", track_stock=True)
mug = get_model("catalogue", "Product").objects.create(
    title="Harbour mug", upc="harbour-mug", product_class=kind
)
mug.categories.add(get_model("catalogue", "Category").add_root(name="Cups"))
get_model("partner", "StockRecord").objects.create(
    product=mug,
    partner=get_model("partner", "Partner").objects.create(name="Pottery"),
    partner_sku="mug-1",
    price=Decimal("29.95"),
    price_currency="EUR",
    num_in_stock=100,
)
get_model("address", "Country").objects.create(
    iso_3166_1_a2="DE", printable_name="Germany", name="Germany", is_shipping_country=True
)
""",
}

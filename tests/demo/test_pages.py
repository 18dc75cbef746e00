"""The shop's other pages: what they report, and how they are made."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import html5lib
import pytest
from flask import Flask
from flask.testing import FlaskClient

import adroll_flask
import adroll_flask.sandbox
import demo_app
from adroll_flask.testing import Reported

EMAIL_SHA256 = hashlib.sha256(b"ada@example.com").hexdigest()
PAGES = [
    "/",
    "/products/harbour-mug",
    "/search",
    "/search?q=bowl",
    "/search?q=sofa",
    "/story",
    "/cart",
    "/newsletter",
    "/restaurants",
    "/me",
    "/no-such-page",
]


def test_a_search_is_reported_with_its_words_and_what_it_found(
    client: FlaskClient, reported: Reported
) -> None:
    page = client.get("/search?q=+BLUE+mug ").text
    assert "Harbour mug" in page
    search = reported.one("productSearch")
    assert search.keywords == "BLUE mug"
    assert [product.product_id for product in search.products] == ["harbour-mug"]


def test_a_search_without_a_find_is_reported_too(client: FlaskClient, reported: Reported) -> None:
    assert "Nothing for “sofa”" in client.get("/search?q=sofa").text
    assert reported.one("productSearch").keywords == "sofa"


@pytest.mark.parametrize("page", [page for page in PAGES if "?q=" not in page])
def test_looking_at_pages_is_the_pixels_to_report(
    client: FlaskClient, reported: Reported, page: str
) -> None:
    client.get(page)
    assert list(reported) == []


def test_a_sign_up_is_reported_once_and_known_from_then_on(
    client: FlaskClient, reported: Reported
) -> None:
    for _ in range(2):
        answer = client.post("/newsletter", data={"email": "ada@example.com"})
        assert (answer.status_code, answer.location) == (303, "/newsletter")
    assert reported.one("formFill").email_sha256 == EMAIL_SHA256
    client.get("/search?q=mug")
    assert reported.one("productSearch").email_sha256 == EMAIL_SHA256


def test_a_demo_request_is_reported(client: FlaskClient, reported: Reported) -> None:
    form = {"email": "ada@example.com", "company": "The Ebb", "covers": "20 to 60"}
    answer = client.post("/restaurants", data=form)
    assert (answer.status_code, answer.location) == (303, "/restaurants")
    assert reported.one("demoRequest").email_sha256 == EMAIL_SHA256


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/newsletter", {"email": "ada"}),
        ("/restaurants", {"email": "ada", "company": "The Ebb"}),
        ("/restaurants", {"email": "ada@example.com", "company": " "}),
        ("/restaurants", {}),
    ],
)
def test_a_form_with_a_fault_is_shown_again_and_reports_nothing(
    client: FlaskClient, reported: Reported, path: str, form: dict[str, str]
) -> None:
    answer = client.post(path, data=form)
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in answer.text
    assert list(reported) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Origin": "http://localhost"}, 303),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 303),
    ],
)
def test_forms_are_taken_from_the_shops_own_pages_only(
    client: FlaskClient, reported: Reported, headers: dict[str, str], status: int
) -> None:
    answer = client.post("/cart", data={"product": "harbour-mug"}, headers=headers)
    assert answer.status_code == status
    assert len(reported) == (status == 303)


def test_the_story_may_be_kept_by_any_cache(client: FlaskClient) -> None:
    client.post("/cart", data={"product": "harbour-mug"})
    answer = client.get("/story?adct=from-the-ad")
    assert answer.headers["Cache-Control"] == "public, max-age=600"
    assert "Set-Cookie" not in answer.headers
    assert "Vary" not in answer.headers
    assert b"in your cart" not in answer.data


def test_the_visitor_sees_the_record_and_has_it_forgotten(client: FlaskClient) -> None:
    client.get("/?adct=from-the-ad")
    cookie = client.get_cookie("__adroll_fpc")
    assert cookie is not None
    page = client.get("/me").text
    assert "from-the-ad" in page
    assert cookie.value in page
    assert "Made by this shop." in page

    assert client.post("/me/forget").location == "/me"
    page = client.get("/me").text
    assert "from-the-ad" not in page
    assert cookie.value not in page


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_well_formed_and_accessible_and_needs_no_other_site(
    client: FlaskClient, path: str
) -> None:
    client.post("/cart", data={"product": "harbour-mug"})
    page = client.get(path).text
    parser = html5lib.HTMLParser(namespaceHTMLElements=False, strict=True)
    document = parser.parse(page)

    assert document.get("lang") == "en"
    assert (document.findtext("head/title") or "").strip("· ")
    assert len(list(document.iter("h1"))) == 1
    assert all(image.get("alt") is not None for image in document.iter("img"))
    labelled = {label.get("for") for label in document.iter("label")}
    for field in (*document.iter("input"), *document.iter("select")):
        assert field.get("type") == "hidden" or field.get("id") in labelled
    ids = [element.get("id") for element in document.iter() if element.get("id")]
    assert len(ids) == len(set(ids))

    urls = re.findall(r' (?:src|href|action)="([^"]+)"', page)
    assert urls
    assert [url for url in urls if not url.startswith(("/", "#"))] == []
    for url in urls:
        if "/static/" in url:
            with client.get(url) as answer:
                assert answer.status_code == 200


def test_pictures_and_styles_need_no_other_site() -> None:
    static = Path(demo_app.__file__).parent / "static"
    files = [*static.rglob("*.svg"), *static.rglob("*.css")]
    assert len(files) > 8
    for file in files:
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text, file.name


def test_the_environment_configures_the_shop(
    make_shop: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_ADROLL_PIXEL", "none")
    assert "data-src" not in make_shop().test_client().get("/").text


def test_the_shop_uses_public_names_only() -> None:
    public = {
        module.__name__: set(module.__all__) for module in (adroll_flask, adroll_flask.sandbox)
    }
    used = set()
    for file in Path(demo_app.__file__).parent.glob("*.py"):
        if file.name in ("past.py", "lately.py"):
            continue  # no part of the shop: they play a year that never was
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adroll_flask"):
                assert node.module in public
                names = {alias.name for alias in node.names}
                assert names <= public[node.module]
                used |= names
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("adroll_flask") for alias in node.names)
    assert {"AdRoll", "report_conversion", "report_event", "identify", "current_visitor"} <= used

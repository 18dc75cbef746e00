"""``flask adroll verify``: a buyer at a running shop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask, request

from adroll_flask import release_conversion, report_conversion
from adroll_flask.sandbox import running
from tests.cli.conftest import invoke
from tests.conftest import PAGE, AppMaker
from tests.support.serving import serving
from tests.support.visits import at

Verify = Callable[..., Result]

RECIPE = """
def buy(shop):
    shop.post("/buy", data={"email": "jo@example.com"}).raise_for_status()
    return "1001"

def anonymous(shop):
    shop.post("/buy").raise_for_status()
    return "1001"

def held(shop):
    shop.post("/buy?hold=1").raise_for_status()
    return "1001"

def paid(shop):
    held(shop)
    shop.post("/webhook").raise_for_status()
    return "1001"

def wrong(shop):
    shop.post("/nowhere").raise_for_status()

def other(shop):
    return "another"
"""


@pytest.fixture
def verify(make_app: AppMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Verify]:
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    with running() as sandbox, ExitStack() as stack:
        app = make_app(
            SECRET_KEY="k" * 32,
            ADROLL_DELIVERY="thread",
            ADROLL_LINGER=0,
            **at(sandbox),
        )
        serve(app)
        port = stack.enter_context(serving(app))

        app.add_url_rule("/away", "away", lambda: (sandbox.fault(status=401), PAGE)[1])

        def verify(recipe: str | None = None, path: str = "/", wait: str = "10") -> Result:
            chosen = ["--recipe", f"recipe:{recipe}"] if recipe else []
            url = f"http://127.0.0.1:{port}{path}"
            return invoke(app, "verify", url, *chosen, "--wait", wait, "--json")

        yield verify


def serve(app: Flask) -> None:
    @app.get("/bare")
    def bare() -> Any:
        return PAGE, {"Cache-Control": "public, max-age=60"}

    @app.post("/buy")
    def buy() -> str:
        order: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}
        hold = True if request.args.get("hold") else None
        return report_conversion(**order, email=request.form.get("email"), hold=hold).status

    @app.post("/webhook")
    def webhook() -> str:
        return release_conversion("1001").status


def steps(result: Result) -> dict[str, tuple[bool, str]]:
    return {one["name"]: (one["good"], one["said"]) for one in json.loads(result.output)["steps"]}


def test_a_buyer_is_followed_to_adroll_and_what_is_missing_is_named(verify: Verify) -> None:
    result = verify("buy")
    found = steps(result)
    assert [*found] == ["visit", "click", "order", "report", "identifiers"]
    assert found["report"] == (True, "delivered")
    assert json.loads(result.output)["missing"] == ["user_id"]
    assert result.exit_code == 1
    missing = json.loads(verify("anonymous").output)["missing"]
    assert missing == ["user_id"], "the order is known: it was reported by the first buyer"


def test_an_order_without_an_address_lacks_its_hashes(verify: Verify) -> None:
    missing = json.loads(verify("anonymous").output)["missing"]
    assert missing == ["email_sha256", "email_md5", "user_id"]


def test_a_held_order_needs_its_webhook(verify: Verify) -> None:
    held = verify("held", wait="1")
    assert held.exit_code == 1
    good, said = steps(held)["report"]
    assert not good
    assert "the recipe has to call the webhook" in said
    assert steps(verify("paid"))["report"] == (True, "delivered")


def test_an_order_that_adroll_does_not_take_has_not_arrived(verify: Verify) -> None:
    said = steps(verify("buy", path="/away", wait="1"))["report"]
    assert said == (False, "waiting after 1 seconds; `flask adroll check` says why")


def test_the_first_step_that_fails_is_the_last(verify: Verify) -> None:
    wrong = verify("wrong")
    assert not steps(wrong)["order"][0]
    assert wrong.exit_code == 1
    other = verify("other", wait="0.3")
    assert "is the order id the one that it reports?" in steps(other)["report"][1]
    cached = verify("buy", path="/bare")
    assert [*steps(cached)] == ["visit", "click"]
    assert "a redirect, a cache, or no consent" in steps(cached)["click"][1]
    assert not steps(verify("buy", path="/no-page"))["visit"][0]


def test_without_a_recipe_it_visits_and_clicks(verify: Verify) -> None:
    result = verify()
    assert [*steps(result)] == ["visit", "click"]
    assert result.exit_code == 0
    assert verify("nothing").exit_code == 2

"""The dashboard in an app: who may look, what its responses say, and what they leave alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, abort, redirect
from flask.testing import FlaskClient

from adroll_flask import AdRoll, ConfigurationError
from tests.conftest import AppMaker

WHERE = "/adroll-dashboard/"


@pytest.fixture
def mounted(make_app: AppMaker) -> Callable[..., FlaskClient]:
    """Makes an app with a dashboard; returns its client."""

    def make(access: Any = lambda: True, **options: Any) -> FlaskClient:
        adroll = AdRoll()
        app = make_app(adroll, **options.pop("config", {}))
        adroll.dashboard(app, access=access, **options)
        return app.test_client()

    return make


def test_without_access_it_refuses_to_mount(make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    for nobody in (None, True, "staff"):
        with pytest.raises(ConfigurationError, match="access= has to be a function"):
            adroll.dashboard(app, access=nobody)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="access"):
        adroll.dashboard(app)  # type: ignore[call-arg]
    assert app.test_client().get(WHERE).status_code == 404


def test_it_says_what_is_wrong_with_an_app_that_has_no_adroll() -> None:
    with pytest.raises(ConfigurationError, match="this app has no AdRoll; call"):
        AdRoll().dashboard(Flask("shop"), access=lambda: True)


def test_two_dashboards_on_one_app_are_a_mistake(make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    adroll.dashboard(app, access=lambda: True)
    with pytest.raises(ConfigurationError, match="already"):
        adroll.dashboard(app, access=lambda: True, url_prefix="/another")


def test_access_is_asked_at_each_request(mounted: Callable[..., FlaskClient]) -> None:
    answers: list[Any] = [True, False, None, redirect("/login")]
    client = mounted(lambda: answers.pop(0))
    assert client.get(WHERE).status_code == 200
    assert client.get(WHERE).status_code == 403
    assert client.get(f"{WHERE}overview.json").status_code == 403
    to_login = client.get(WHERE)
    assert (to_login.status_code, to_login.location) == (302, "/login")


async def _later() -> bool:
    return True


@pytest.mark.parametrize(
    ("access", "kind"),
    [
        (lambda: _later, "function"),
        (_later, "coroutine"),
        (lambda: "no", "str"),
        (object, "object"),
    ],
)
def test_what_only_looks_like_a_yes_is_none(
    mounted: Callable[..., FlaskClient], access: Callable[[], object], kind: str
) -> None:
    """``access=lambda: user.is_staff``, where ``is_staff`` is a method that was to be called."""
    page = mounted(access).get(WHERE)
    assert page.status_code == 403
    assert f"it gave a {kind}" in page.text


def test_access_may_abort(mounted: Callable[..., FlaskClient]) -> None:
    assert mounted(lambda: abort(401)).get(WHERE).status_code == 401


def test_everything_below_it_is_closed_to_others(mounted: Callable[..., FlaskClient]) -> None:
    client = mounted(lambda: False)
    rules = [
        rule.rule for rule in client.application.url_map.iter_rules() if rule.rule.startswith(WHERE)
    ]
    assert len(rules) > 15
    for rule in rules:
        expected = 200 if "<name>" in rule else 403
        path = rule.replace("<name>", "dashboard.css")
        answers = [client.get(path), client.post(path)]
        assert expected in {answer.status_code for answer in answers}, rule
        if expected == 403:
            assert {answer.status_code for answer in answers} <= {403, 405}, rule
            assert all("<nav" not in answer.text for answer in answers)


def test_a_page_allows_its_own_files_alone(mounted: Callable[..., FlaskClient]) -> None:
    answer = mounted().get(WHERE)
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert answer.headers["Cache-Control"] == "no-store"
    text = answer.text
    assert "style=" not in text
    assert "<style" not in text
    assert "<script>" not in text
    assert "http://" not in text.replace("http://localhost", "")


def test_the_shops_visitors_are_not_looked_for_on_it(mounted: Callable[..., FlaskClient]) -> None:
    """No tag, no cookie: who looks at the dashboard is no visitor."""
    answer = mounted().get(f"{WHERE}?adct=click123")
    assert "data-adroll" not in answer.text
    assert "Set-Cookie" not in answer.headers


def test_looking_makes_no_outbox(mounted: Callable[..., FlaskClient], tmp_path: Any) -> None:
    client = mounted()
    assert client.get(WHERE).status_code == 200
    assert list(tmp_path.rglob("*.sqlite*")) == []


def test_files_are_kept_by_the_browser(mounted: Callable[..., FlaskClient]) -> None:
    client = mounted()
    text = client.get(WHERE).text
    for name, kind in (("dashboard.css", "text/css"), ("dashboard.js", "text/javascript")):
        address = text.partition(f"{WHERE}assets/{name}?v=")[2].partition('"')[0]
        answer = client.get(f"{WHERE}assets/{name}?v={address}")
        assert answer.mimetype == kind
        assert "immutable" in answer.headers["Cache-Control"]
    assert client.get(f"{WHERE}assets/layout.html").status_code == 404


@pytest.mark.parametrize("address", ["overview.json", "?format=json"])
def test_each_page_is_json_too(mounted: Callable[..., FlaskClient], address: str) -> None:
    answer = mounted().get(WHERE + address)
    assert answer.mimetype == "application/json"
    assert json.loads(answer.data)["period"] == "days"


@pytest.mark.parametrize("address", ["overview.csv", "?format=csv"])
def test_each_page_is_csv_too(mounted: Callable[..., FlaskClient], address: str) -> None:
    answer = mounted().get(WHERE + address)
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="adroll-overview.csv"'
    assert answer.text.splitlines()[0].startswith("event,became,reason")


def test_it_is_where_the_site_wants_it(mounted: Callable[..., FlaskClient]) -> None:
    client = mounted(url_prefix="/staff/adroll/")
    text = client.get("/staff/adroll/").text
    assert 'href="/staff/adroll/assets/dashboard.css' in text
    assert client.get(WHERE).status_code == 404

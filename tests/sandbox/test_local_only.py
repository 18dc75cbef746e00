"""The sandbox is for the own machine: where it refuses to run, and whom it refuses to answer."""

import re
import sys
from pathlib import Path

import pytest

import adroll_flask.sandbox
from adroll_flask.sandbox import Unsafe, app, create_app, faults, local_only, make_server
from adroll_flask.sandbox.__main__ import main
from tests.house.test_imports import imported
from tests.sandbox import test_requests
from tests.support.sandbox_helpers import LEAST, Api
from tests.support.sources import modules


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "shop.example", ""])
def test_binding_beyond_loopback_is_refused_and_the_setting_named(host: str) -> None:
    app = create_app()
    with pytest.raises(Unsafe, match="ADROLL_SANDBOX_ALLOW_REMOTE=1"):
        make_server(app, host, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("FLASK_ENV", "production"), ("APP_ENV", "Production"), ("ENVIRONMENT", "prod")),
        *(("DYNO", "web.1"), ("K_SERVICE", "shop")),
    ],
)
def test_production_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Unsafe, match=f"{name}.*ADROLL_SANDBOX_ALLOW_PRODUCTION=1"):
        create_app()
    create_app(allow_production=True)
    monkeypatch.setenv(local_only.ALLOW_PRODUCTION, "1")
    create_app()


def test_development_is_not_taken_for_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_ENV", "development")
    monkeypatch.setenv("APP_ENV", "")
    create_app()


def test_the_command_says_why_it_will_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "0.0.0.0"]) == 1
    assert "--allow-remote" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/", "/api", "/events", "/faults", "/click", "/ad", "/live"])
def test_other_machines_are_not_answered(api: Api, path: str) -> None:
    answer = api.open(path, environ_overrides={"REMOTE_ADDR": "192.168.1.5"})
    assert answer.status_code == 403
    assert "ADROLL_SANDBOX_ALLOW_REMOTE" in answer.get_data(as_text=True)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_a_proxy_in_front_does_not_open_it(api: Api, header: str) -> None:
    assert api.open("/events", headers={header: "127.0.0.1"}).status_code == 403


@pytest.mark.parametrize("host", ["evil.com", "evil.com:5001", "localhost.evil.com", "test"])
def test_a_foreign_name_that_points_here_is_not_answered(api: Api, host: str) -> None:
    assert api.open("/events", headers={"Host": host}).status_code == 403
    assert api.post([LEAST], headers={"Host": host}).status_code == 403


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1:5001", "[::1]", "[::1]:5001", "adroll.example:5001", "SHOP.test"],
)
def test_local_names_are_answered(api: Api, host: str) -> None:
    assert api.open("/events", headers={"Host": host}).status_code == 200


def test_configured_names_and_remote_machines_are_answered_where_that_is_allowed() -> None:
    named = create_app(hosts=frozenset({"Adroll.Internal"})).test_client()
    assert named.get("/events", headers={"Host": "adroll.internal:5001"}).status_code == 200
    remote = create_app(allow_remote=True).test_client()
    environ = {"REMOTE_ADDR": "192.168.1.5", "HTTP_HOST": "adroll.lan"}
    assert remote.get("/events", environ_overrides=environ).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/events"), ("DELETE", "/events"), ("POST", "/faults"), ("GET", "/live")],
)
def test_other_sites_cannot_read_or_change(api: Api, site: str, method: str, path: str) -> None:
    answer = api.open(path, method=method, headers={"Sec-Fetch-Site": site}, json={})
    assert answer.status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_faults_cannot_be_set_by_a_form_of_an_old_browser(api: Api, kind: str) -> None:
    answer = api.open("/faults", method="POST", data=b'{"status": 500}', content_type=kind)
    assert answer.status_code == 415


# -- the sandbox stands alone, and its README says what is true -----------------------------------


FOLDER = Path(adroll_flask.sandbox.__file__).parent


README = (FOLDER / "README.md").read_text()


#: Flask brings jinja2.
ALLOWED = {"flask", "jinja2", "adroll_flask", "_typeshed", *sys.stdlib_module_names}


def test_it_imports_flask_and_the_standard_library_and_itself() -> None:
    for name, path in modules(sandbox=True).items():
        for target in imported(name, path) if name.startswith("sandbox.") else ():
            top, *below = target.split(".")
            assert top in ALLOWED, name
            assert top != "adroll_flask" or below[:1] == ["sandbox"], f"{name}: {target}"


def test_each_rule_for_a_request_and_each_key_of_a_fault_is_in_the_readme() -> None:
    before, _, rules = README.partition("## The rules")
    assert {*test_requests.RULES} <= {*re.findall(r"^- (.+)$", rules, re.MULTILINE)}
    table = before.partition("## Faults")[2].partition("## Who")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(faults._KINDS)


def test_each_route_is_in_the_readme() -> None:
    table = README.partition("## In a test")[0]
    rules = {rule.rule for rule in app.create_app().url_map.iter_rules()}
    routes = {rule.split("/")[1] for rule in rules} - {"assets", "pixel", "live"}
    assert {route for route in routes if f"| `/{route}" not in table} == set()

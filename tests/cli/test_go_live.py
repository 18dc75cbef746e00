"""Around a deploy: ``check --since``, ``explain`` and ``go-live``."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask, request
from flask.cli import FlaskGroup

from adroll_flask import errors, release_conversion, report_conversion
from adroll_flask._version import DOCS_URL
from adroll_flask.cli.history import OUTCOMES
from adroll_flask.findings.finding import TABLE
from adroll_flask.outbox.model import STATES
from adroll_flask.sandbox import RunningSandbox
from adroll_flask.settings import Settings
from tests.cli.conftest import Run
from tests.conftest import PAGE, AppMaker, Patch
from tests.support import PATIENCE
from tests.support.serving import serving
from tests.support.visits import at, invoke, report

ERRORS = (Path(__file__).parents[2] / "docs/errors.md").read_text("utf-8")


@pytest.fixture
def app(make_app: AppMaker, sandbox: RunningSandbox) -> Flask:
    return make_app(**at(sandbox))


def runner(app: Flask) -> Run:
    return partial(invoke, app)


def codes(result: Result) -> dict[str, dict[str, Any]]:
    return {one["code"]: one for one in json.loads(result.output)["findings"]}


# -- check --since ---------------------------------------------------------------------------


def test_a_pipeline_learns_that_what_was_reported_since_the_deploy_died(app: Flask) -> None:
    run = runner(app)
    said = run("check", "--since", "1h", code=0).output
    assert "HINT    reports: nothing was reported since " in said, "as if the deploy were well"
    assert "nobody can say whether reports arrive" in said
    assert not Path(app.instance_path).exists()
    report(app, "before", value="much")
    run("outbox")  # takes in
    [row] = app.extensions["adroll"].outbox.lookups.list("dead")
    deploy = row.queued_at + 0.001
    since = run("check", "--since", str(int(deploy) + 1), code=0).output
    assert "HINT    reports: nothing was reported since " in since, "what died before is not its"
    assert codes(run("check", "--since", "1h", "--json"))["reports-died"]["events"] == 1
    report(app, "good")
    report(app, "bad", value="much")
    run("outbox")
    found = codes(run("check", "--since", "1h", "--json", code=1))["reports-died"]
    assert found["sentence"].startswith("2 of 3 reports since ")
    assert found["sentence"].endswith(" died: The shop reported a wrong value (2)")
    found = codes(run("check", "--since", f"{deploy * 1000:.0f}", "--json", code=1))
    assert found["reports-died"]["events"] == 1, "milliseconds are taken as such"
    assert "was reported since 1 Jan 2099" in run("check", "--since", "2099-01-01", code=0).output
    for wrong in ("yesterday", "10m"):  # months, or minutes?
        run("check", "--since", wrong, code=2)


def test_findings_are_told_where_reports_cannot_be_read(make_app: AppMaker) -> None:
    run = runner(make_app(ADROLL_OUTBOX_URL="postgresql+unheard_of://shop.example/orders"))
    told = codes(run("check", "--json", code=1))
    assert codes(run("check", "--since", "1h", "--json", code=1)) == told
    assert len(told) > 1


# -- explain ---------------------------------------------------------------------------------


def test_each_message_is_explained_without_the_internet(app: Flask) -> None:
    run = runner(app)
    anchors = re.findall(r'^<a id="([a-z-]+)"></a>$', ERRORS, re.MULTILINE)
    listed = json.loads(run("explain", "--json").output)
    assert {one["code"] for one in listed} == {*anchors}
    assert len(run("explain").output.splitlines()) == len(anchors) + 1
    for given in ("account-missing", f"{DOCS_URL}errors.html#account-missing"):
        told = run("explain", given).output
        assert told.startswith("The account is not set\nCause. One or more of `ADROLL_ADVERT")
        assert "\nFix. To try things out" in told
        assert "](" not in told
    assert "(docs/how-to/content-security-policy.md)" in run("explain", "csp").output


def test_the_command_that_a_message_ends_in_works_where_there_is_no_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = errors.help_for("event-lost")
    assert command == "flask adroll explain event-lost"
    result = CliRunner().invoke(FlaskGroup(), command.split()[1:])
    assert (result.exit_code, result.output.splitlines()[0]) == (0, "An event was not kept")


def test_each_setting_and_each_finding_is_explained(app: Flask) -> None:
    run = runner(app)
    for field in fields(Settings):
        name = f"ADROLL_{field.name.upper()}"
        title, text, *_ = run("explain", name, code=0).output.splitlines()
        assert title == name
        assert text
    told = run("explain", "ADROLL_LINGER", code=0).output
    assert "Default: `" in told
    assert "did you mean 'ADROLL_HOSTS'" in run("explain", "ADROLL_HOST", code=2).output
    listed = {one["code"] for one in json.loads(run("explain", "--json").output)}
    assert {name.partition("/")[0] for name in TABLE} - {"ok"} <= listed


DIED_OF = {
    "refused": "AdRoll refused what the event says\nFix. AdRoll's words name the field",
    "too_large": "AdRoll refused it for its size\nFix. Report fewer ",
    "too_old": "It waited too long for AdRoll to take it\nFix. If AdRoll answers again",
    "invalid:value": "The shop reported a wrong value\nFix. Correct the call in the shop.",
    "hold_expired": "Held as unpaid, and nobody released or cancelled it in time\nFix. If such",
    "consent_withdrawn": "The visitor took the consent back while the event waited\n",
}


#: What pages, commands, metrics and the log print, beside findings, settings and reasons.
PRINTED = (
    *("http_401", "http_503", "http_422_to_everything", "http_500", "dns", "connect_timeout"),
    *("unreachable", "tls", "proxy", "read_timeout", "reset", "truncated", "lapsed"),
    *("token_failed", "token_invalid", "not_configured", "full", "disk_full", "too_large"),
    *("locked", "read_only", "corrupt", "no_folder", "foreign", "unavailable", "data", "error"),
    *("disabled", "missing", "unknown", "not_listed"),
)


def test_each_code_that_is_printed_is_explained(app: Flask) -> None:
    run = runner(app)
    for code in (*PRINTED, *OUTCOMES, *STATES):
        assert run("explain", code, code=0).output, code
    told = " ".join(run("explain", "http_401").output.split())
    assert "compare ADROLL_API_URL, ADROLL_ADVERTISABLE_EID and ADROLL_ACCESS_TOKEN" in told
    for code, of_all in {"http_422": False, "http_422_to_everything": True}.items():
        assert ("answered so to every event" in run("explain", code).output) == of_all


def test_what_events_died_of_is_explained_and_nothing_else(app: Flask) -> None:
    run = runner(app)
    for reason, said in DIED_OF.items():
        assert run("explain", reason, code=0).output.startswith(said)
        assert json.loads(run("explain", reason, "--json").output)["code"] == reason
    for reason in ("unheard_of", "answer", "none", "", "*", "unpaid", "settable", "invalid:"):
        assert f"mean '{reason}'" not in run("explain", reason, code=2).output
    for wrong, near in {"refusd": "refused", "acount-missing": "account-missing"}.items():
        assert f"did you mean '{near}'" in run("explain", wrong, code=2).output


# -- go-live ---------------------------------------------------------------------------------


def test_go_live_says_what_is_left_of_the_sandbox(app: Flask, sandbox: RunningSandbox) -> None:
    found = codes(runner(app)("go-live", "--json", code=1))
    assert found["api-url-elsewhere"]["severity"] == "error"
    assert found["page-not-looked-at"]["severity"] == "warning"
    assert found["hosts-not-set"]["severity"] == "hint"
    assert found["consent-not-set"]["severity"] == "hint"
    assert "send-test-failed" not in found
    left = sum(one["severity"] in ("error", "warning") for one in found.values())
    assert runner(app)("go-live").output.splitlines()[-1] == f"{left} things to do"
    # The same is a hint while the site is made.
    assert codes(runner(app)("check", "--json"))["api-url-elsewhere"]["severity"] == "hint"


def test_go_live_says_that_adroll_takes_no_event(make_app: AppMaker) -> None:
    app = make_app(ADROLL_ACCESS_TOKEN=None, ADROLL_HOSTS=["shop.test"])
    found = codes(runner(app)("go-live", "--json"))
    assert "ADROLL_ACCESS_TOKEN not set" in found["send-test-failed"]["sentence"]
    assert "hosts-not-set" not in found


def test_go_live_has_adrolls_words(app: Flask, sandbox: RunningSandbox) -> None:
    sandbox.fault(status=400)
    tried = json.loads(runner(app)("send-test", "--json").output)
    finding = codes(runner(app)("go-live", "--json"))["send-test-failed"]
    assert finding["answer"] == "; ".join(tried["answer"]["errors"]) != ""
    assert f"AdRoll's words: {finding['answer']}" in runner(app)("go-live").output


# -- ``flask adroll verify``: a buyer at a running shop -------------------------------------------


Verify = Callable[..., Result]


RECIPE = """
def buy(shop):
    shop.post("/buy", data={"email": "jo@example.com"}).raise_for_status()
    return "1001"

def free(shop):
    shop.post("/buy?value=free").raise_for_status()
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
def verify(
    make_app: AppMaker, sandbox: RunningSandbox, tmp_path: Path, monkeypatch: Patch
) -> Iterator[Verify]:
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    app = make_app(SECRET_KEY="k" * 32, ADROLL_DELIVERY="thread", ADROLL_LINGER=0, **at(sandbox))
    serve(app)
    with serving(app) as port:

        def verify(
            recipe: str | None = None, path: str = "/", wait: float = PATIENCE, **exits: int
        ) -> Result:
            chosen = ["--recipe", f"recipe:{recipe}"] if recipe else []
            url = f"http://127.0.0.1:{port}{path}"
            return invoke(app, "verify", url, *chosen, "--wait", str(wait), "--json", **exits)

        yield verify


def serve(app: Flask) -> None:
    outbox = app.extensions["adroll"].outbox

    @app.get("/bare")
    def bare() -> Any:
        return PAGE, {"Cache-Control": "public, max-age=60"}

    @app.get("/negotiated")
    def negotiated() -> Any:
        """Its page for browsers, JSON for programs; and a list of programs that it knows."""
        is_page = request.accept_mimetypes.best == "text/html"
        return PAGE if is_page and request.user_agent.string == "adroll_flask verify" else {}

    @app.get("/away")
    def away() -> str:
        outbox.destination(app.config["ADROLL_ADVERTISABLE_EID"]).pause(3600)
        return PAGE

    @app.post("/buy")
    def buy() -> str:
        value = request.args.get("value", "59.90")
        order: dict[str, Any] = {"order_id": "1001", "value": value, "currency": "EUR"}
        hold = True if request.args.get("hold") else None
        receipt = report_conversion(**order, email=request.form.get("email"), hold=hold)
        outbox.ingest.take_in(patience=PATIENCE)
        return receipt.status

    @app.post("/webhook")
    def webhook() -> str:
        return release_conversion("1001").status


def steps(result: Result) -> dict[str, tuple[bool, str]]:
    return {one["name"]: (one["good"], one["said"]) for one in json.loads(result.output)["steps"]}


def test_a_buyer_is_followed_to_adroll_and_what_is_missing_is_named(verify: Verify) -> None:
    result = verify("anonymous", code=1)
    assert [*steps(result)][:5] == ["visit", "click", "order", "report", "identifiers"]
    assert steps(result)["report"] == (True, "delivered")
    missing = ["email_sha256", "email_md5", "user_id"]
    assert json.loads(result.output)["missing"] == missing
    known = json.loads(verify("buy").output)["missing"]
    assert known == missing, "it was reported by the first buyer, without an address"


def test_a_held_order_needs_its_webhook(verify: Verify) -> None:
    good, said = steps(verify("held", wait=0, code=1))["report"]
    assert not good
    assert "the recipe has to call the webhook" in said
    assert steps(verify("paid"))["report"] == (True, "delivered")


def test_an_order_that_is_not_sent_has_not_arrived(verify: Verify) -> None:
    said = steps(verify("buy", path="/away", wait=0))["report"]
    assert said == (False, "waiting after 0 seconds; `flask adroll check` says why")
    said = steps(verify("free"))["report"]
    assert said[1].startswith("dead: The shop reported a wrong value: takes")


def test_the_first_step_that_fails_is_the_last(verify: Verify) -> None:
    wrong = verify("wrong")
    assert not steps(wrong)["order"][0]
    assert wrong.exit_code == 1
    other = verify("other", wait=0)
    assert "is the order id the one that it reports?" in steps(other)["report"][1]
    cached = verify("buy", path="/bare")
    assert [*steps(cached)] == ["visit", "click"]
    assert "a redirect, a cache, or no consent" in steps(cached)["click"][1]
    assert not steps(verify("buy", path="/no-page"))["visit"][0]


def test_without_a_recipe_it_visits_and_clicks(verify: Verify) -> None:
    for path in ("/", "/negotiated"):
        assert [*steps(verify(path=path, code=0))] == ["visit", "click"]
    assert verify("nothing").exit_code == 2


@pytest.mark.parametrize("url", ["http://www..shop.example/", "http://[::1/"])
def test_an_address_that_is_none_is_a_visit_that_fails(make_app: AppMaker, url: str) -> None:
    result = invoke(make_app(), "verify", url, "--json", code=1)
    assert json.loads(result.output)["missing"] == ["visit"]


# -- ``flask adroll tag``: the tag for pages that another server delivers -------------------------


WWW = "https://www.shop.example"


@pytest.mark.parametrize("base", ["api.shop.example", "ftp://a", "https://", "https://a/?b", "//a"])
def test_an_address_that_no_page_could_load_is_refused(make_app: AppMaker, base: str) -> None:
    told = invoke(make_app(ADROLL_ORIGINS=[WWW]), "tag", "--base", base, code=2).output
    assert "takes a URL such as https://api.shop.example" in told


def test_without_an_origin_the_command_says_what_is_missing(make_app: AppMaker) -> None:
    told = invoke(make_app(), "tag", "--base", "https://api.shop.example", code=2).output
    assert "set ADROLL_ORIGINS" in told


def test_the_pasted_tag_and_the_kits_address_agree(make_app: AppMaker) -> None:
    app = make_app(ADROLL_ORIGINS=[WWW], ADROLL_URL_PREFIX="/ads/own")
    text = invoke(app, "tag", "--base", "https://api.shop.example/v1/", code=0).output
    path = text.split('<script async src="https://api.shop.example/v1')[1].split('"')[0]
    assert app.test_client().get(path).status_code == 200

"""Around a deploy: ``check --since``, ``explain`` and ``go-live``."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from adroll_flask.cli.commands import commands
from adroll_flask.errors import help_url
from adroll_flask.sandbox import RunningSandbox
from tests.cli.conftest import Run, invoke
from tests.conftest import AppMaker
from tests.support import PATIENCE
from tests.support.visits import at, report

PAGE = (Path(__file__).parents[2] / "docs/errors.md").read_text("utf-8")


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


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
    report(app, "before", value="much")
    run("outbox")  # takes in
    [row] = app.extensions["adroll"].outbox.lookups.list("dead")
    deploy = row.queued_at + 0.001
    since = ("check", "--since", str(int(deploy) + 1), "--json")
    assert "reports-died" not in codes(run(*since))
    assert codes(run("check", "--last", "5", "--json"))["reports-died"]["events"] == 1
    report(app, "good")
    report(app, "bad", value="much")
    run("outbox")
    died = run("check", "--since", "1h", "--json")
    assert died.exit_code == 1
    found = codes(died)["reports-died"]
    assert found["sentence"].startswith("2 of 3 reports since 20")
    assert found["sentence"].endswith(" died: 2 invalid:value")
    for ahead in ("2099-01-01", f"{deploy * 1000:.0f}"):  # milliseconds
        refused = run("check", "--since", ahead)
        assert refused.exit_code == 2
        assert "lies in the future" in refused.output
    for wrong in ("yesterday", "10m"):  # which are months elsewhere
        assert run("check", "--since", wrong).exit_code == 2
    assert run("check", "--last", "0").exit_code == 2


def test_a_deploy_of_which_nobody_has_heard_yet_is_no_failure_and_is_told(
    make_app: AppMaker, sandbox: RunningSandbox
) -> None:
    """It was told that none of 0 reports died, as if the deploy were well."""
    app = make_app(**at(sandbox))
    result = runner(app)("check", "--last", "20")
    said = "HINT    reports: nothing was reported, so that nothing shows whether reports arrive"
    assert said in result.output
    assert result.exit_code == 0
    assert not Path(app.instance_path).exists()
    report(app, "before")
    app.extensions["adroll"].flush(timeout=PATIENCE)
    result = runner(app)("check", "--since", f"{time.time() + 5:.0f}")
    assert "HINT    reports: nothing was reported since 20" in result.output
    assert result.exit_code == 0


# -- explain ---------------------------------------------------------------------------------


def test_each_message_is_explained_without_the_internet(app: Flask) -> None:
    run = runner(app)
    anchors = re.findall(r"^\(([a-z-]+)\)=$", PAGE, re.MULTILINE)
    listed = json.loads(run("explain", "--json").output)
    assert {one["code"] for one in listed} == {*anchors}
    assert len(run("explain").output.splitlines()) == len(anchors) + 1
    for given in ("account-missing", help_url("account-missing")):
        told = run("explain", given).output
        assert told.startswith("The account is not set\nCause. One or more of `ADROLL_ADVERT")
        assert "\nFix. To try things out" in told
        assert "](" not in told
        assert "Here." not in told
    assert "(docs/how-to/content-security-policy.md)" in run("explain", "csp").output


def test_an_explanation_says_what_is_so_here(make_app: AppMaker) -> None:
    run = runner(make_app(SECRET_KEY=None))
    assert "Here. SECRET_KEY: is not set" in " ".join(
        run("explain", "secret-key-missing").output.split()
    )
    first = next(one for one in json.loads(run("explain", "--json").output) if one["here"])
    assert first["here"] == "yes"
    [here] = json.loads(run("explain", "secret-key-missing", "--json").output)["here"]
    assert here["severity"] == "error"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("http_401", "AdRoll answered 401: AdRoll refuses everything\nCause. The access token, "),
        ("http_422_to_everything", "AdRoll answered 422: AdRoll refuses everything\nCause. "),
        ("http_422", "AdRoll answered 422: Events became dead letters\nCause. AdRoll refused "),
        ("http_503", "AdRoll answered 503: A request to AdRoll failed\nCause. "),
        ("http_500", "AdRoll answered 500: A request to AdRoll failed\nCause. "),
        ("refused", "AdRoll refused what the event says\nFix. AdRoll's words name what "),
        ("too_large", "AdRoll refused it for its size\nFix. Report fewer "),
        ("too_old", "AdRoll did not take it for too long\nFix. It waited for longer than "),
        ("invalid:value", "The shop reported a wrong value\nFix. Correct the call in the shop."),
        ("hold_expired", "Held, and neither released nor cancelled in time\nFix. Release an "),
        ("consent_withdrawn", "The visitor took the consent back while the event waited\n"),
    ],
)
def test_what_events_died_of_is_explained(app: Flask, reason: str, said: str) -> None:
    told = runner(app)("explain", reason)
    assert told.exit_code == 0
    assert told.output.startswith(said)
    assert json.loads(runner(app)("explain", reason, "--json").output)["code"] == reason


def test_what_events_never_die_of_is_no_code(app: Flask) -> None:
    ours = ("answer", "none", "", "*", "unpaid", "settable", "invalid:")
    for reason in ("http_200", "http_99", "unheard_of", *ours):
        assert runner(app)("explain", reason).exit_code == 2
    assert "did you mean refused" in runner(app)("explain", "refusd").output


def test_a_code_that_is_none_names_near_ones(app: Flask) -> None:
    result = runner(app)("explain", "acount-missing")
    assert result.exit_code == 2
    assert "did you mean account-missing" in result.output


# -- go-live ---------------------------------------------------------------------------------


def test_go_live_says_what_is_left_of_the_sandbox(app: Flask, sandbox: RunningSandbox) -> None:
    result = runner(app)("go-live", "--json")
    assert result.exit_code == 1
    found = codes(result)
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


def test_go_live_of_an_app_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    Path("shop.py").write_text(
        "from flask import Flask\nfrom adroll_flask import AdRoll\n"
        "app = Flask('broken')\napp.config['ADROLL_PIXEL'] = 'never'\nAdRoll(app)\n"
    )
    from flask.cli import ScriptInfo

    result = CliRunner().invoke(
        commands, ["go-live", "--json"], obj=ScriptInfo(app_import_path="shop:app")
    )
    assert result.exit_code == 1
    assert "ADROLL_PIXEL" in {one["subject"] for one in json.loads(result.output)["findings"]}

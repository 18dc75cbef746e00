"""``ADROLL_DEBUG``: what a shop's terminal says of its events."""

from __future__ import annotations

import re

import pytest

from adroll_flask import AdRoll, report_event
from adroll_flask.sandbox import running
from tests.conftest import AppMaker
from tests.support.visits import at, report, visit


def test_each_report_and_what_became_of_it_is_a_line_without_the_visitors_values(
    make_app: AppMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    adroll = AdRoll()
    with running() as sandbox:
        app = make_app(
            adroll,
            ADROLL_DEBUG=True,
            **at(sandbox),
        )
        queued = report(app, email="canary@example.com")
        report(app)
        held = report(app, "1002", hold=True)
        report(app, "1003", value="much")
        with visit(app, gpc=True):
            report_event("pageView")
        app.extensions["adroll"].deliverer.drain()
    said = capsys.readouterr().err
    lines = [line.removeprefix("AdRoll: ") for line in said.splitlines()]
    assert lines[0].startswith(f"purchase 1001; 59.90 EUR; queued {queued.id}; ")
    assert lines[0].endswith("adct, email_sha256, email_md5; missing: first_party_cookie, user_id")
    assert lines[1].startswith(f"purchase 1001; 59.90 EUR; duplicate {queued.id}; reported before")
    assert lines[2].startswith(f"purchase 1002; 59.90 EUR; held {held.id}; ")
    assert lines[3].startswith("purchase 1003; invalid ")
    assert "value: takes " in lines[3]
    assert lines[4] == "pageView; suppressed; consent_gpc"
    assert lines[5:] == [f"purchase; delivered {queued.id}"]
    assert not {"canary", "click123"} & set(re.split(r"\W", said))


def test_without_it_nothing_is_printed(
    make_app: AppMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_app()
    with visit(app):
        report_event("pageView")
    assert capsys.readouterr().err == ""

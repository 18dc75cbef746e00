"""``flask adroll …``, with a real sandbox where AdRoll is asked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask, redirect, request

from adroll_flask import report_conversion, report_event
from adroll_flask.outbox import Outcome
from adroll_flask.sandbox import ACCESS_TOKEN, ADVERTISABLE_EID, PIXEL_EID, running
from tests.conftest import AppMaker

Run = Callable[..., Result]
ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Any]:
    with running(port=0) as found:
        yield found


@pytest.fixture
def app(make_app: AppMaker, sandbox: Any) -> Flask:
    sandbox.reset()
    return make_app(
        ADROLL_ADVERTISABLE_EID=ADVERTISABLE_EID,
        ADROLL_PIXEL_EID=PIXEL_EID,
        ADROLL_ACCESS_TOKEN=ACCESS_TOKEN,
        ADROLL_API_URL=sandbox.api_url,
        ADROLL_STRICT=False,
    )


@pytest.fixture
def run(app: Flask) -> Run:
    def run(*arguments: str, **kwargs: Any) -> Result:
        return app.test_cli_runner().invoke(args=["adroll", *arguments], **kwargs)

    return run


def report(app: Flask, **fields: Any) -> Any:
    with app.test_request_context(
        "/?adct=click123", base_url="https://shop.test", environ_base={"REMOTE_ADDR": "203.0.113.7"}
    ):
        return report_conversion(**(ORDER | fields))


def test_every_command_has_help(run: Run) -> None:
    overview = run("--help")
    names = ["check", "forget", "import", "outbox", "sandbox", "schema", "send-test", "worker"]
    for name in names:
        assert f"  {name} " in overview.output
        assert run(name, "--help").exit_code == 0
    for name in ("list", "show", "retry", "mend", "drop", "export", "create-table"):
        assert f"  {name} " in run("outbox", "--help").output
    assert run("sandbox", "--help").output.startswith("usage: flask adroll sandbox [-h]")


# -- check ---------------------------------------------------------------------------------


def findings(result: Result) -> dict[str, dict[str, str]]:
    return {finding["subject"]: finding for finding in json.loads(result.output)["findings"]}


def test_check_of_a_good_site_passes(run: Run) -> None:
    result = run("check")
    assert result.exit_code == 0, result.output
    assert "0 errors" in result.output


def test_check_says_all_that_is_wrong_at_once(make_app: AppMaker) -> None:
    app = make_app(
        SECRET_KEY=None,
        ADROLL_ADVERTISABLE_EID=None,
        ADROLL_ACCESS_TOKEN=lambda: 1 / 0,
        ADROLL_DRY_RUN=True,
        SERVER_NAME="shop.test",
        ADROLL_COOKIE_DOMAIN="other.test",
    )
    result = app.test_cli_runner().invoke(args=["adroll", "check", "--json"])
    assert result.exit_code == 1
    found = findings(result)
    assert found["ADROLL_ADVERTISABLE_EID"]["level"] == "error"
    assert "ZeroDivisionError" in found["ADROLL_ACCESS_TOKEN"]["text"]
    assert found["SECRET_KEY"]["level"] == "error"
    assert found["ADROLL_DRY_RUN"]["level"] == "warning"
    assert found["ADROLL_COOKIE_DOMAIN"]["level"] == "error"
    for finding in found.values():
        if finding["level"] == "error":
            assert finding["mend"], finding


def test_check_finds_a_login_guard_before_our_endpoints(app: Flask, run: Run) -> None:
    @app.before_request
    def guard() -> Any:
        return redirect("/login") if request.path != "/login" else None

    found = findings(run("check", "--json"))
    assert found["/_adroll/kit"]["level"] == "error"
    assert found["/_adroll/identity"]["level"] == "error"


def test_check_finds_the_proxys_address_in_events(app: Flask, run: Run) -> None:
    report(app, ip="10.0.0.5")
    found = findings(run("check", "--json"))
    assert "ProxyFix" in found["addresses"]["mend"]


def test_check_delivers_and_keeps_nothing(
    app: Flask, make_app: AppMaker, tmp_path: Path, sandbox: Any
) -> None:
    place = {
        name: app.config[f"ADROLL_{name}"]
        for name in ("ADVERTISABLE_EID", "PIXEL_EID", "ACCESS_TOKEN", "API_URL")
    }
    place["OUTBOX_URL"] = f"sqlite:///{tmp_path}/both.sqlite"
    config = {f"ADROLL_{name}": value for name, value in place.items()}
    report(make_app(**config))
    stopped = make_app(**config, ADROLL_DELIVERY="thread")

    @stopped.before_request
    def hook() -> None:
        report_event("pageView", ip="203.0.113.7", adct="c1")

    runtime = stopped.extensions["adroll"]
    found = findings(stopped.test_cli_runner().invoke(args=["adroll", "check", "--json"]))
    assert found["outbox"]["text"] == "sqlite, 1 waiting"
    assert runtime._thread is None
    assert runtime.outbox.counts()["waiting"] == 1
    assert sandbox.events() == []


def test_check_and_outbox_make_no_file_and_say_where_it_will_be(
    make_app: AppMaker, tmp_path: Path
) -> None:
    app = make_app()
    runner = app.test_cli_runner()
    result = runner.invoke(args=["adroll", "check", "--json"])
    place = Path(app.instance_path) / "adroll-outbox.sqlite"
    assert result.exit_code == 0
    found = findings(result)["outbox"]
    assert found["level"] == "info"
    assert found["text"] == f"{place} is not there yet; it is made with the first report"
    overview = runner.invoke(args=["adroll", "outbox"]).output
    assert overview.startswith("engine      sqlite, not there yet; it is made with the first ")
    assert "waiting     0" in overview
    counts = json.loads(runner.invoke(args=["adroll", "outbox", "--json"]).output)["counts"]
    assert counts["waiting"] == 0
    for arguments, expected in {
        ("list",): "no events\n",
        ("export",): "",
        ("retry", "--all-dead"): "0 events will be sent again\n",
    }.items():
        looked = runner.invoke(args=["adroll", "outbox", *arguments])
        assert (looked.output, looked.exit_code) == (expected, 0)
    for command in ("show", "drop", "retry"):
        looked = runner.invoke(args=["adroll", "outbox", command, "0123"])
        assert looked.output == "Error: there is no such event: nothing was reported yet\n"
    assert not Path(app.instance_path).exists()


def test_check_finds_a_folder_that_is_not_there(make_app: AppMaker, tmp_path: Path) -> None:
    typo = tmp_path / "vra" / "shop"
    app = make_app(ADROLL_OUTBOX_URL=f"sqlite:///{typo}/adroll.sqlite")
    found = findings(app.test_cli_runner().invoke(args=["adroll", "check", "--json"]))
    assert found["ADROLL_OUTBOX_URL"]["level"] == "warning"
    assert (
        f"{typo}/adroll.sqlite is not there, nor is its folder"
        in (found["ADROLL_OUTBOX_URL"]["text"])
    )
    assert "correct the path" in found["ADROLL_OUTBOX_URL"]["mend"]
    assert not typo.parent.exists()
    typo.parent.write_text("a file where a folder should be")
    result = app.test_cli_runner().invoke(args=["adroll", "check", "--json"])
    assert result.exit_code == 1
    assert f"{typo.parent} is not a folder" in findings(result)["ADROLL_OUTBOX_URL"]["text"]


def test_check_makes_no_tables_and_says_what_does(make_app: AppMaker, tmp_path: Path) -> None:
    shop = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(shop)) as connection:
        connection.execute("CREATE TABLE orders (id)")
    app = make_app(ADROLL_OUTBOX_URL=f"sqlite:///{shop}")
    runner = app.test_cli_runner()
    found = findings(runner.invoke(args=["adroll", "check", "--json"]))["outbox"]
    assert found["text"] == "sqlite, its tables are not there yet; they are made at the first use"
    assert "create-table" in found["mend"]
    with closing(sqlite3.connect(shop)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]
    runner.invoke(args=["adroll", "outbox", "create-table"])
    found = findings(runner.invoke(args=["adroll", "check", "--json"]))["outbox"]
    assert found["text"] == "sqlite, 0 waiting"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[uwsgi]\nmaster = true\n", "enable-threads"),
        ("[uwsgi]\nenable-threads = true\nmaster = true\n", None),
        ("[uwsgi]\nthreads = 4\nlazy-apps = true\nmaster = true\n", None),
    ],
)
def test_check_looks_over_uwsgi(
    make_app: AppMaker, tmp_path: Path, text: str, expected: str | None
) -> None:
    app = make_app(ADROLL_DELIVERY="thread")
    ini = tmp_path / "shop.ini"
    ini.write_text(text)
    result = app.test_cli_runner().invoke(
        args=["adroll", "check", "--json", "--uwsgi-ini", str(ini)]
    )
    found = json.loads(result.output)["findings"]
    mends = [finding["mend"] for finding in found if finding["subject"] == "uWSGI"]
    if expected is None:
        assert mends == []
    else:
        assert any(expected in mend for mend in mends)


# -- send-test and schema ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pageView", "purchase", "demoRequest"])
def test_send_test_shows_request_answer_and_meaning(run: Run, sandbox: Any, name: str) -> None:
    result = run("send-test", "--event", name)
    assert result.exit_code == 0, result.output
    assert "dry_run=true" in result.output
    assert "answer: 200" in result.output
    assert "AdRoll takes this event" in result.output
    assert ACCESS_TOKEN not in result.output
    [event] = sandbox.events()
    assert event["dry_run"] is True


def test_send_test_with_a_wrong_token_says_what_to_compare(
    make_app: AppMaker, sandbox: Any
) -> None:
    app = make_app(
        ADROLL_ADVERTISABLE_EID=ADVERTISABLE_EID,
        ADROLL_PIXEL_EID=PIXEL_EID,
        ADROLL_ACCESS_TOKEN="wrong-token",
        ADROLL_API_URL=sandbox.api_url,
    )
    result = app.test_cli_runner().invoke(args=["adroll", "send-test", "--json"])
    answer = json.loads(result.output)
    assert result.exit_code == 1
    assert answer["answer"]["kind"] == "held"
    assert "ADROLL_ACCESS_TOKEN" in answer["meaning"]
    assert "wrong-token" not in result.output
    [error] = answer["answer"]["errors"]
    assert error.startswith("Authorization: The access token is not valid. It must be ")
    assert error.endswith(". (unauthorized)")


def test_schema_is_a_json_schema_that_takes_what_we_send(app: Flask, run: Run) -> None:
    import jsonschema

    schema = json.loads(run("schema").output)
    report(app)
    outbox = app.extensions["adroll"].outbox
    [row] = outbox.list("waiting")
    jsonschema.validate(json.loads(outbox.show(row.id).payload), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"event_name": "purchase"}, schema)


# -- outbox --------------------------------------------------------------------------------


def test_outbox_shows_counts_and_worker_once_delivers(app: Flask, run: Run, sandbox: Any) -> None:
    report(app)
    assert "waiting     1" in run("outbox").output
    result = run("worker", "--once")
    assert result.exit_code == 0, result.output
    assert result.output.strip() == "1 settled, 0 waiting"
    assert len(sandbox.purchases()) == 1
    counts = json.loads(run("outbox", "--json").output)["counts"]
    assert (counts["waiting"], counts["delivered"]) == (0, 1)


def test_worker_once_says_why_events_wait(
    app: Flask, run: Run, make_app: AppMaker, sandbox: Any
) -> None:
    far = make_app()  # nobody listens on its port
    report(far)
    once = ["adroll", "worker", "--once"]
    result = far.test_cli_runner().invoke(args=once)
    assert result.exit_code == 0
    assert result.output.startswith(
        "0 settled, 1 waiting (AdRoll is down or out of reach, 1 failure in a row: "
    )
    assert "; paused for " in result.output
    report(app)
    outbox = app.extensions["adroll"].outbox
    outbox.pause(90, "too many requests")
    assert run("worker", "--once").output.startswith("0 settled, 1 waiting (paused for ")
    assert ": too many requests)" in run("worker", "--once").output
    wrong = make_app(ADROLL_API_URL=sandbox.api_url)  # not the sandbox's account
    report(wrong)
    result = wrong.test_cli_runner().invoke(args=once)
    assert result.output.startswith("0 settled, 1 waiting (held: ")
    none = make_app(ADROLL_ACCESS_TOKEN=None)
    report(none)
    result = none.test_cli_runner().invoke(args=once)
    assert result.output == "0 settled, 1 waiting (ADROLL_ACCESS_TOKEN not set)\n"


def test_a_dead_letter_is_listed_shown_mended_and_sent(app: Flask, run: Run, sandbox: Any) -> None:
    receipt = report(app, value="much")
    assert receipt.status == "invalid"
    listed = run("outbox", "list", "--dead").output
    assert receipt.id in listed
    assert "invalid:value" in listed
    shown = json.loads(run("outbox", "show", receipt.id).output)
    assert "click123" not in json.dumps(shown)
    assert "  0 attempts  " in listed
    full = json.loads(run("outbox", "show", receipt.id, "--full").output)["event"]
    assert full["identifiers"]["adct"] == "click123"
    refused = run("outbox", "retry", receipt.id)
    assert refused.exit_code == 1
    assert "mend it first" in refused.output
    full["conversion_value"] = "59.90"
    mended = run("outbox", "mend", receipt.id, "-", input=json.dumps(full))
    assert mended.exit_code == 0, mended.output
    assert mended.output == "1 event will be sent\n"
    run("worker", "--once")
    [purchase] = sandbox.purchases()
    assert "59.90" in json.dumps(purchase)


def test_retry_all_dead_leaves_what_has_to_be_mended(app: Flask, run: Run) -> None:
    report(app, value="much")
    result = run("outbox", "retry", "--all-dead")
    assert "0 events will be sent again" in result.output


def bury(app: Flask, *orders: str, reason: str = "refused", error: str = "no") -> list[str]:
    """Report orders and let them be refused, as a worker would; their ids."""
    ids = [report(app, order_id=order).id for order in orders]
    outbox = app.extensions["adroll"].outbox
    claim = outbox.claim()
    ours = outbox.begin_sending(claim)
    outbox.settle(claim, [Outcome(id=id, kind="dead", reason=reason, error=error) for id in ours])
    return ids


def beginning(id: str, *others: str) -> str:
    """The shortest beginning of *id*, of at least four digits, that none of *others* shares."""
    length = next(n for n in range(4, 33) if not any(o.startswith(id[:n]) for o in others))
    return id[:length]


def test_the_beginning_of_an_id_is_enough_where_it_names_one_event(app: Flask, run: Run) -> None:
    one, two, three = bury(app, "1", "2", "3")
    short = beginning(one, two, three)
    assert json.loads(run("outbox", "show", short).output)["id"] == one
    assert json.loads(run("outbox", "show", f"{short.upper()}…").output)["id"] == one
    assert json.loads(run("outbox", "show", f"{short}...").output)["id"] == one
    event = run("outbox", "show", short, "--full").output
    wire = json.dumps(json.loads(event)["event"])
    result = run("outbox", "mend", short, "-", input=wire)
    assert result.output == "1 event will be sent\n"
    # Of a command on dead letters, live ones are not in the way.
    result = run("outbox", "retry", beginning(two, three))
    assert result.output == "1 event will be sent again\n"
    result = run("outbox", "drop", beginning(three, one, two))
    assert result.output == "1 event dropped\n"
    states = {row["id"]: row["state"] for row in json.loads(run("outbox", "list", "--json").output)}
    assert states == {one: "waiting", two: "waiting"}


@pytest.mark.parametrize("command", ["show", "mend", "retry", "drop"])
def test_a_beginning_that_names_no_event_or_several_changes_nothing(
    app: Flask, run: Run, command: str
) -> None:
    one, two = bury(app, "1", "2")
    more = ["-"] if command == "mend" else []
    several = run("outbox", command, one[:6], *more)
    assert several.exit_code == 1
    assert f"{one[:6]} begins the ids of 2 " in several.output
    assert one in several.output
    assert two in several.output
    none = run("outbox", command, "ffff", *more)
    assert none.exit_code == 1
    assert "id begins with ffff" in none.output
    for wrong in ("", "019", "xyz0", "%___", "f" * 33):
        result = run("outbox", command, wrong, *more)
        assert result.exit_code == 1
        assert "at least its first four digits" in result.output
    assert [row.state for row in app.extensions["adroll"].outbox.list()] == ["dead", "dead"]


def test_good_ids_are_retried_and_dropped_beside_wrong_ones(app: Flask, run: Run) -> None:
    one, two = bury(app, "1", "2")
    result = run("outbox", "retry", one, "ffff")
    assert "1 event will be sent again" in result.output
    assert "ffff: " in result.output
    result = run("outbox", "drop", "ffff", two)
    assert "1 event dropped" in result.output
    assert result.exit_code == 1


def test_an_outbox_too_large_to_look_through_asks_for_the_whole_id(
    app: Flask, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, *_ = bury(app, "1", "2", "3")
    monkeypatch.setattr("adroll_flask.cli_outbox._MOST", 3)
    result = run("outbox", "show", one[:31])
    assert result.exit_code == 1
    assert "whole id" in result.output
    assert run("outbox", "show", one).exit_code == 0


def test_mend_says_why_an_event_cannot_be_mended(app: Flask, run: Run) -> None:
    waiting = report(app, order_id="0").id
    wire = json.loads(run("outbox", "show", waiting, "--full").output)["event"]
    unknown = run("outbox", "mend", "f" * 32, "-", input=json.dumps(wire))
    assert unknown.exit_code == 1
    assert unknown.output == "Error: there is no such event\n"
    alive = run("outbox", "mend", waiting, "-", input=json.dumps(wire))
    assert alive.exit_code == 1
    assert alive.output == "Error: this event is waiting, it is no dead letter\n"
    dead = report(app, order_id="1", value="much").id
    twice = run("outbox", "mend", dead, "-", input=json.dumps(wire))
    assert twice.exit_code == 1
    assert "another event has reported this order" in twice.output
    assert f"outbox drop {dead}" in twice.output


def test_mend_says_where_json_is_broken_and_which_part_of_show_it_takes(
    app: Flask, run: Run
) -> None:
    dead = report(app, value="much").id
    shown = run("outbox", "show", "--full", dead).output
    broken = shown.replace('"attempts": 0,', '"attempts": 0')
    line = next(n for n, text in enumerate(broken.splitlines(), 1) if '"unsure"' in text)
    result = run("outbox", "mend", dead, "-", input=broken)
    assert result.exit_code == 1
    assert result.output == f"Error: no JSON, line {line}, column 3: Expecting ',' delimiter\n"
    assert "line 1, column 1" in run("outbox", "mend", dead, "-", input="").output
    result = run("outbox", "mend", dead, "-", input=b'{"event_name": "\xff"}')
    assert result.output == "Error: no JSON: byte 17 is not UTF-8\n"
    for whole in (shown, run("outbox", "export", "--full").output):
        result = run("outbox", "mend", dead, "-", input=whole)
        assert result.exit_code == 1
        assert result.output.startswith('Error: takes the event alone, the member "event" of this')


def test_one_is_not_many(app: Flask, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    bury(app, "1", error="http_400")
    listed = run("outbox", "list").output
    assert "  0 attempts  " in listed or "  1 attempt  " in listed
    assert listed.endswith("  refused: http_400\n")
    assert findings(run("check", "--json"))["outbox"]["text"] == "1 dead letter"
    app.extensions["adroll"].outbox.failed("dns")
    overview = run("outbox").output
    assert "1 failure in a row" in overview
    assert "dead        1" in overview
    report(app, order_id="2", ip="10.0.0.5")
    found = findings(run("check", "--json"))["addresses"]["text"]
    assert "in 1 of 1 waiting event:" in found


def test_a_list_shows_the_key_and_when_a_waiting_event_is_due(app: Flask, run: Run) -> None:
    one = report(app, order_id="1001").id
    assert run("outbox", "list").output.endswith("  0 attempts  key 1001\n")
    assert "next due" not in run("outbox").output
    outbox = app.extensions["adroll"].outbox
    claim = outbox.claim()
    outbox.begin_sending(claim)
    later = Outcome(id=one, kind="retry", reason="throttled", delay=14 * 60 + 20)
    outbox.settle(claim, [later])
    listed = run("outbox", "list").output
    assert "  1 attempt  key 1001  due in 14 minutes" in listed
    assert "next due    in 14 minutes\n" in run("outbox").output
    report(app, order_id="2" * 60)
    report(app, order_id="jo@example.com")
    listed = run("outbox", "list").output
    assert f"  key {'2' * 35}…\n" in listed
    assert "jo@example.com" not in listed
    assert "next due" not in run("outbox").output


def test_what_was_forgotten_is_listed_as_forgotten(app: Flask, run: Run) -> None:
    report(app, user_id=42)
    assert run("forget", "--user-id", "42").output == "1 event erased\n"
    assert run("outbox", "list").output.endswith("  forgotten\n")


def test_an_export_hides_the_visitor_and_a_full_one_can_be_imported(
    app: Flask, run: Run, make_app: AppMaker, tmp_path: Path
) -> None:
    report(app, email="jo@example.com")
    redacted = run("outbox", "export").output
    assert json.loads(redacted)["event_name"] == "purchase"
    for value in ("click123", "203.0.113.7"):
        assert value not in redacted
    full = run("outbox", "export", "--full").output
    assert "click123" in full
    other = make_app(ADROLL_ADVERTISABLE_EID=ADVERTISABLE_EID, ADROLL_PIXEL_EID=PIXEL_EID)
    runner = other.test_cli_runner()
    assert "1 queued" in runner.invoke(args=["adroll", "import", "-"], input=full).output
    assert "1 duplicate" in runner.invoke(args=["adroll", "import", "-"], input=full).output


def test_import_takes_the_arguments_of_report_event_and_names_faulty_lines(
    app: Flask, run: Run
) -> None:
    good = {
        "name": "purchase",
        **ORDER,
        "adct": "c1",
        "ip": "203.0.113.7",
        "page_location": "https://shop.test/",
    }
    lines = [json.dumps(good), "", "nonsense", json.dumps(good | {"order_id": "2", "value": "-1"})]
    result = run("import", "-", input="\n".join(lines))
    assert result.exit_code == 1
    assert "line 3: " in result.output
    assert "line 4: value" in result.output
    assert "1 queued, 2 invalid" in result.output


def test_drop_frees_the_key(app: Flask, run: Run) -> None:
    receipt = report(app)
    assert report(app).status == "duplicate"
    assert "1 event dropped" in run("outbox", "drop", receipt.id).output
    assert report(app).status == "queued"


def test_drop_says_why_an_event_stays(app: Flask, run: Run) -> None:
    one, two, three = (report(app, order_id=order).id for order in "123")
    outbox = app.extensions["adroll"].outbox
    claim = outbox.claim(2)
    outbox.begin_sending(claim, [two])
    result = run("outbox", "drop", one, two, three, "f" * 32)
    assert result.exit_code == 1
    assert f"{one}: is claimed, a worker is about to send it" in result.output
    assert f"{two}: is sending, its request may be under way" in result.output
    assert f"{'f' * 32}: there is no such event" in result.output
    assert result.output.endswith("1 event dropped\n")
    assert [row.id for row in outbox.list()] == [one, two]


@pytest.mark.parametrize(
    "by",
    [("--email", "Jo@example.com"), ("--user-id", "42"), ("--cookie", "a" * 32 + "-1700000000000")],
)
def test_forget_erases_by_any_identifier_and_leaves_an_audit_line(
    app: Flask, run: Run, by: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    who = {
        "email": "jo@example.com",
        "user_id": 42,
        "first_party_cookie": "a" * 32 + "-1700000000000",
    }
    report(app, **who)
    with app.test_request_context("/?adct=other", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
        report_event("addToCart")
    assert run("forget", *by).output.strip() == "1 event erased"
    assert "1 event erased on request" in caplog.text
    assert by[1].lower() not in caplog.text.lower()
    assert run("outbox", "export").output.count("\n") >= 1
    full = run("outbox", "export", "--full").output
    assert "click123" not in full
    assert "other" in full


def test_forget_without_a_visitor_is_an_error(run: Run) -> None:
    assert run("forget").exit_code == 2


def test_create_table_may_run_twice(run: Run) -> None:
    for _ in range(2):
        assert run("outbox", "create-table").exit_code == 0

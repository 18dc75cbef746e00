"""``flask adroll …``, with a real sandbox where AdRoll is asked."""

import json
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask, redirect, request
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from adroll_flask import AdRoll, Event, cancel_conversion, release_conversion, report_event
from adroll_flask.cli import worker as cli_worker
from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.findings.finding import meaning
from adroll_flask.sandbox import ACCESS_TOKEN, ADVERTISABLE_EID
from tests.cli.conftest import Run
from tests.conftest import AppMaker, Caplog, Patch
from tests.support import eventually
from tests.support.visits import ORDER, at, invoke, report, settle


@pytest.fixture
def app(make_app: AppMaker, adroll: AdRoll, sandbox: Any) -> Flask:
    return make_app(adroll, **at(sandbox))


# -- check ---------------------------------------------------------------------------------


def findings(result: Result) -> dict[str, dict[str, str]]:
    return {finding["subject"]: finding for finding in json.loads(result.output)["findings"]}


def test_check_says_all_that_is_wrong_at_once(make_app: AppMaker) -> None:
    app = make_app(
        SECRET_KEY=None,
        ADROLL_PIXEL_EID=None,
        ADROLL_ACCESS_TOKEN=lambda: 1 / 0,
        ADROLL_DRY_RUN=True,
        SERVER_NAME="shop.test",
        ADROLL_COOKIE_DOMAIN="other.test",
    )
    found = findings(invoke(app, "check", "--json", code=1))
    assert found["ADROLL_PIXEL_EID"]["severity"] == "error"
    assert "8 to 40 upper-case letters and digits" in found["ADROLL_PIXEL_EID"]["todo"]
    assert "ZeroDivisionError" in found["ADROLL_ACCESS_TOKEN"]["sentence"]
    assert found["SECRET_KEY"]["severity"] == "error"
    assert found["ADROLL_DRY_RUN"]["severity"] == "warning"
    assert found["ADROLL_COOKIE_DOMAIN"]["severity"] == "error"
    for finding in found.values():
        if finding["severity"] == "error":
            assert finding["todo"], finding


def test_check_warns_of_errors_in_a_checkout(make_app: AppMaker) -> None:
    app = make_app(TESTING=False, ADROLL_STRICT=True)
    assert findings(invoke(app, "check", "--json"))["ADROLL_STRICT"]["severity"] == "warning"


def test_check_tries_the_first_account_where_each_host_has_its_own(make_app: AppMaker) -> None:
    unset = dict.fromkeys(["ADROLL_ADVERTISABLE_EID", "ADROLL_PIXEL_EID", "ADROLL_ACCESS_TOKEN"])
    account = {"advertisable_eid": "A" * 22, "pixel_eid": "P" * 22, "access_token": lambda: 1 / 0}
    app = make_app(**unset, ADROLL_ACCOUNTS={"shop.fr": account})
    found = findings(invoke(app, "check", "--json", code=1))
    assert "ZeroDivisionError" in found['ADROLL_ACCOUNTS["shop.fr"]["access_token"]']["sentence"]


@pytest.mark.parametrize(("pixel", "said"), [("load", True), ("present", False), ("none", False)])
def test_check_tells_of_consent_nobody_asks(make_app: AppMaker, pixel: str, said: bool) -> None:
    app = make_app(ADROLL_CONSENT="tcf", ADROLL_PIXEL=pixel)
    found = findings(invoke(app, "check", "--json"))
    assert ("ADROLL_CONSENT" in found) is said
    if said:
        assert "nobody ever asks" in found["ADROLL_CONSENT"]["sentence"]
        assert "ADROLL_PIXEL = 'present'" in found["ADROLL_CONSENT"]["todo"]


def test_check_names_adrolls_hosts_for_a_policy(make_app: AppMaker) -> None:
    here = "http://127.0.0.1:5001"
    for config, policy in (
        ({}, "script-src https://s.adroll.com https://d.adroll.com; connect-src https://d.adroll"),
        ({"ADROLL_PIXEL_URL": f"{here}/j.js"}, f"script-src {here}; connect-src {here}"),
    ):
        found = findings(invoke(make_app(**config), "check", "--json"))
        assert policy in found["CSP"]["sentence"]


def test_check_finds_a_login_guard_before_our_endpoints(app: Flask, run: Run) -> None:
    @app.before_request
    def guard() -> Any:
        return redirect("/login") if request.path != "/login" else None

    found = findings(run("check", "--json"))
    assert found["/_adroll/kit"]["severity"] == "error"
    assert found["/_adroll/identity"]["severity"] == "error"


def test_check_tells_of_settings_that_came_after_adroll(make_app: AppMaker) -> None:
    app = make_app(ADROLL_HOLD_MAX=86_400)
    assert "ADROLL_CACHED_PATHS" not in findings(invoke(app, "check", "--json"))
    app.config.update(
        ADROLL_CONSENT=lambda _: None, ADROLL_CACHED_PATHS=["/mugs/*"], ADROLL_HOLD_MAX=86_400
    )
    found = findings(invoke(app, "check", "--json", code=1))
    for key in ("ADROLL_CONSENT", "ADROLL_CACHED_PATHS"):
        assert found[key]["code"] == "setting-late"
        assert "AdRoll(app)" in found[key]["todo"]
    assert "ADROLL_HOLD_MAX" not in found

    app.config["ADROLL_PIXEL"] = "no such value"
    assert "ADROLL_PIXEL" in findings(invoke(app, "check", "--json", code=1))


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"TRUSTED_HOSTS": [".shop.example"]},
        {"SERVER_NAME": "shop.example:8443"},
        {"APPLICATION_ROOT": "/wine"},
    ],
)
def test_check_asks_our_endpoints_as_the_sites_own_browsers_do(
    make_app: AppMaker, own: dict[str, Any]
) -> None:
    app = make_app(**own)

    @app.before_request
    def only_https() -> Any:
        return None if request.is_secure else redirect(request.url.replace("http:", "https:", 1))

    found = findings(invoke(app, "check", "--json"))
    assert found["endpoints"]["sentence"] == "/_adroll/ answers"


def test_check_asks_an_app_that_takes_its_root_off_itself(make_app: AppMaker) -> None:
    app = make_app(APPLICATION_ROOT="/wine")
    app.wsgi_app = DispatcherMiddleware(NotFound(), {"/wine": app.wsgi_app})  # type: ignore[method-assign]
    found = findings(invoke(app, "check", "--json"))
    assert found["endpoints"]["sentence"] == "/_adroll/ answers"


def test_check_keeps_nothing(make_app: AppMaker, tmp_path: Path, sandbox: Any) -> None:
    config = at(sandbox) | {"ADROLL_OUTBOX_URL": f"sqlite:///{tmp_path}/both.sqlite"}
    shop = make_app(**config)
    report(shop)
    assert shop.extensions["adroll"].outbox.queue.waiting() == 1  # out of that app's own journal
    stopped = make_app(**config, ADROLL_DELIVERY="thread")

    @stopped.before_request
    def hook() -> None:
        report_event("pageView", ip="203.0.113.7", adct="c1")

    runtime = stopped.extensions["adroll"]
    found = findings(invoke(stopped, "check", "--json"))
    assert found["outbox"]["sentence"] == "sqlite, 1 waiting"
    assert "deliverer" not in vars(runtime)
    assert runtime.outbox.lookups.counts()["waiting"] == 1
    assert sandbox.events() == []


#: What commands say where there is no outbox yet: those that look, and those that want an event.
LOOKS = {
    "history": "nothing happened\n",
    "outbox list": "no events\n",
    "outbox export": "",
    "outbox retry --all-dead": "0 events will be sent again\n",
    "outbox drop --advertisable E": "0 events dropped\n",
}
REFUSALS = {
    "outbox show 0123": "Error: there is no such event\n",
    "outbox drop 0123": "0123: there is no such event\n0 events dropped\n",
    "outbox retry 0123": "0123: is no dead letter any more\n0 events will be sent again\n",
    "outbox find 1001": "1001: It is unknown here. No event has this id, and no visitor refused to"
    " have it reported\nIs it older than 90 days? Then it is not known here",
}


def test_check_and_outbox_say_where_a_file_will_be(make_app: AppMaker) -> None:
    app = make_app()
    place = Path(app.instance_path) / "adroll-outbox.sqlite"
    found = findings(invoke(app, "check", "--json", code=0))["outbox"]
    assert found["severity"] == "hint"
    assert found["sentence"] == f"{place} is not there yet; it is made with the first report"
    overview = invoke(app, "outbox").output
    assert overview.startswith("engine      sqlite, not there yet; the first report makes it")
    assert "waiting     0" in overview
    of_programs = json.loads(invoke(app, "outbox", "--json").output)
    assert (of_programs["counts"]["waiting"], of_programs["schema_version"]) == (0, 0)
    for command, said in LOOKS.items():
        assert invoke(app, *command.split(), code=0).output == said
    for command, said in REFUSALS.items():
        assert invoke(app, *command.split(), code=1).output.startswith(said)
    assert (
        f"there is no copy of an outbox: {place}"
        in invoke(app, "outbox", "restored", code=1).output
    )
    assert not Path(app.instance_path).exists()


def test_check_finds_a_folder_that_is_not_there(make_app: AppMaker, tmp_path: Path) -> None:
    typo = tmp_path / "vra" / "shop"
    app = make_app(ADROLL_OUTBOX_URL=f"sqlite:///{typo}/adroll.sqlite")
    found = findings(invoke(app, "check", "--json"))["ADROLL_OUTBOX_URL"]
    assert found["severity"] == "warning"
    assert f"{typo}/adroll.sqlite is not there, nor is its folder" in found["sentence"]
    assert "correct the path" in found["todo"]
    assert not typo.parent.exists()
    typo.parent.write_text("a file where a folder should be")
    found = findings(invoke(app, "check", "--json", code=1))["ADROLL_OUTBOX_URL"]
    assert f"{typo.parent} is not a folder" in found["sentence"]


# -- send-test and schema ------------------------------------------------------------------


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_send_test_shows_request_answer_and_meaning(run: Run, sandbox: Any, name: str) -> None:
    result = run("send-test", "--event", name, code=0)
    assert "dry_run=true" in result.output
    assert "answer: 200" in result.output
    assert "AdRoll takes this event" in result.output
    assert ACCESS_TOKEN not in result.output
    [event] = sandbox.events()
    assert (event["dry_run"], event["event"]["event_name"]) == (True, name)


def test_send_test_with_a_bad_token_says_what_to_compare(make_app: AppMaker, sandbox: Any) -> None:
    app = make_app(**at(sandbox) | {"ADROLL_ACCESS_TOKEN": "wrong-token"})
    result = invoke(app, "send-test", "--json", code=1)
    answer = json.loads(result.output)
    assert answer["answer"]["kind"] == "denied"
    assert "ADROLL_ACCESS_TOKEN" in answer["meaning"]
    assert "wrong-token" not in result.output
    [error] = answer["answer"]["errors"]
    assert error.startswith("Authorization: The access token is not valid. It must be ")
    assert error.endswith(". (unauthorized)")


# -- outbox --------------------------------------------------------------------------------


def test_worker_once_keeps_house_where_cron_is_all_that_delivers(app: Flask, run: Run) -> None:
    assert report(app, hold=0.01).status == "held"

    def is_over() -> bool:
        run("worker", "--once", code=0)
        return "Cancelled: nobody released it in time" in run("outbox", "find", "1001").output

    eventually(is_over)
    assert "Reported with a hold" in run("outbox", "find", "1001").output


def test_worker_says_why_they_wait(app: Flask, run: Run, make_app: AppMaker, sandbox: Any) -> None:
    def once(shop: Flask) -> str:
        report(shop)
        return invoke(shop, "worker", "--once", code=0).output

    said = once(make_app())  # nobody listens on its port
    assert said.startswith(
        "0 settled, 1 waiting (AdRoll is away or out of reach: the last request failed ("
    )
    assert ", asked again in " in said
    destination = app.extensions["adroll"].outbox.destination(app.config["ADROLL_ADVERTISABLE_EID"])
    destination.failed("too many requests")
    destination.pause(90)
    destination.succeeded()
    said = once(app)
    assert said.startswith("0 settled, 1 waiting (AdRoll asked to wait for ")
    assert " (too many requests))" in said
    said = once(make_app(ADROLL_API_URL=sandbox.api_url))  # not the sandbox's account
    assert said.startswith("0 settled, 1 waiting (AdRoll has refused ")
    said = once(make_app(ADROLL_ACCESS_TOKEN=None))
    assert said == "0 settled, 1 waiting (ADROLL_ACCESS_TOKEN not set)\n"
    refused = invoke(make_app(ADROLL_ENABLED=False), "worker", "--once", code=1).output
    assert "ADROLL_ENABLED is False: nothing is delivered" in refused


@pytest.mark.parametrize("reason", ["restored", "unsure"])
def test_what_may_have_arrived_is_sent_if_named(app: Flask, run: Run, reason: str) -> None:
    refused, doubtful, other = *bury(app, "1"), *bury(app, "2", "3", reason=reason)
    arrived = report(app, order_id="4").id
    settle(app, o4={"kind": "delivered"})
    all_dead = run("outbox", "retry", "--all-dead", code=0)
    assert "2 dead letters restored, moved or unsure: not sent unless an id or" in all_dead.output
    assert all_dead.output.endswith("\n1 event will be sent again\n")
    assert meaning("dead", reason).title in run("outbox", "list", "--dead").output
    by_id = run("outbox", "retry", arrived, doubtful, code=1)
    assert f"{arrived}: is no dead letter any more" in by_id.output
    assert "what it has is counted twice if it is sent again" in by_id.output
    by_reason = run("outbox", "retry", "--reason", reason)
    assert "what it has is counted twice if it is sent again" in by_reason.output
    assert by_reason.output.endswith("\n1 event will be sent again\n")
    rows = app.extensions["adroll"].outbox.lookups.list("waiting")
    assert {row.id for row in rows} == {refused, doubtful, other}


def test_a_reason_is_named_whole_or_by_its_first_word(app: Flask, run: Run) -> None:
    bury(app, "1", "3", reason="refused")
    report(app, order_id="2", value="much")
    for reason in ("invalid", "invalid:value"):
        assert "fix it first" in run("outbox", "retry", "--reason", reason).output
    unknown = run("outbox", "retry", "--reason", "no such", code=2)
    assert "there are invalid:value, refused\n" in unknown.output
    for wrong in ([], ["--all-dead", "--reason", "refused"], ["0123", "--all-dead"]):
        run("outbox", "retry", *wrong, code=2)


def bury(app: Flask, *orders: str, reason: str = "refused") -> list[str]:
    """Report orders and let them be refused; their ids."""
    ids = [report(app, order_id=order).id for order in orders]
    settle(app, **{f"o{order}": {"kind": "dead", "reason": reason} for order in orders})
    return ids


def test_a_retry_asks_before_report_as_reports_do_and_sends_an_order_once(
    app: Flask, adroll: AdRoll, run: Run, sandbox: Any, caplog: Caplog
) -> None:
    is_broken, staff = [True], ["new staff", "seen staff"]

    @adroll.before_report
    def hook(event: Event) -> Event | None:
        if is_broken:
            # A cause that was never raised has no traceback.
            raise LookupError("no such table: staff") from ValueError()
        if event.order_id in staff:
            return None
        assert event.value is not None
        return event.replace(value=event.value - 10)

    for order in ("new", "new staff"):
        first, again = report(app, order), report(app, order)
        assert first.status == "invalid"
        assert (again.status, again.id) == ("duplicate", first.id)
    assert "before_report raised LookupError" in run("outbox", "retry", first.id, code=1).output
    assert run("outbox", "retry", "--all-dead").output.endswith("0 events will be sent again\n")

    is_broken.clear()
    bury(app, "seen")
    output = run("outbox", "retry", "--all-dead").output
    assert output == "1 event suppressed by before_report\n2 events will be sent again\n"
    for _ in range(2):
        assert report(app, "new").status == "duplicate"
        run("worker", "--once")
    sold = {one["order_id"]: one["event"]["conversion_value"] for one in sandbox.purchases()}
    assert sold == {"new": "49.90", "seen": "49.90"}, "no event is changed twice"
    assert len(sandbox.purchases()) == 2
    assert "another value" not in caplog.text
    runtime = app.extensions["adroll"]
    assert runtime.counters.get("event_suppressed", "before_report") == 1
    assert runtime.outbox.lookups.counts()["dead"] == 0
    # Suppressed events take no key.
    staff.clear()
    report(app, order_id="new staff")
    assert runtime.outbox.lookups.counts()["waiting"] == 1


@pytest.mark.parametrize("order", ["1001", "k" * 256, "10\u00a001"])
def test_a_fixed_order_is_reported_again(app: Flask, run: Run, caplog: Caplog, order: str) -> None:
    dead = report(app, order_id=order, value="-1")
    wire = json.dumps(json.loads(run("outbox", "show", "--full", dead.id).output)["event"])
    assert "click123" in wire, "it is shown in full"
    run("outbox", "fix", dead.id, "-", input=wire.replace('"-1"', '"59.90"'))
    report(app, order_id=order)
    assert run("outbox", "list").output.count("purchase") == 1
    counters = app.extensions["adroll"].counters
    assert counters.get("event_duplicate") == 1
    assert counters.get("event_duplicate", "another_value") == 0
    assert "another value" not in caplog.text


def test_a_fixed_order_keeps_a_key_of_its_own(app: Flask, run: Run) -> None:
    dead = report(app, deduplication_key="wine-1001").id
    settle(app, **{"owine-1001": {"kind": "dead", "reason": "refused"}})
    wire = json.dumps(json.loads(run("outbox", "show", "--full", dead).output)["event"])
    run("outbox", "fix", dead, "-", input=wire, code=0)
    other = report(app).id  # of the other shop, which has the number as well
    report(app, deduplication_key="wine-1001")
    rows = app.extensions["adroll"].outbox.lookups.list()
    assert {row.id: row.key for row in rows} == {dead: "wine-1001", other: "1001"}


@pytest.mark.parametrize("decide", [release_conversion, cancel_conversion])
def test_what_was_decided_of_an_invalid_order_counts_once_it_is_fixed(
    app: Flask, run: Run, decide: Any
) -> None:
    dead = report(app, currency="EURO", hold=True).id
    with app.app_context():
        decide("1001")
    wire = json.dumps(json.loads(run("outbox", "show", "--full", dead).output)["event"])
    is_paid = decide is release_conversion
    fixed = run("outbox", "fix", dead, "-", input=wire.replace("EURO", "EUR"), code=not is_paid)
    assert ("the shop has cancelled this order" in fixed.output) is not is_paid
    [row] = app.extensions["adroll"].outbox.lookups.list()
    assert (row.id, row.key) == (dead, "1001")
    assert row.state == ("waiting" if is_paid else "cancelled")


def test_fix_says_why_an_event_cannot_be_fixed(app: Flask, run: Run) -> None:
    waiting = report(app, order_id="trial:ann@example.com").id  # whose key is a hash
    wire = json.loads(run("outbox", "show", waiting, "--full").output)["event"]
    unknown = run("outbox", "fix", "f" * 32, "-", input=json.dumps(wire), code=1)
    assert unknown.output.startswith("Error: there is no such event\n")
    alive = run("outbox", "fix", waiting, "-", input=json.dumps(wire), code=1)
    assert alive.output.startswith("Error: this event is waiting, it is no dead letter\n")
    dead = report(app, order_id="1", value="much").id
    twice = run("outbox", "fix", dead, "-", input=json.dumps(wire), code=1)
    assert "another event has reported this order" in twice.output
    assert f"outbox drop {dead}" in twice.output


def test_fix_says_where_json_is_broken_and_which_part_it_takes(app: Flask, run: Run) -> None:
    dead = report(app, value="much").id
    shown = run("outbox", "show", "--full", dead).output
    broken = shown.replace('"attempts": 0,', '"attempts": 0')
    line = next(n for n, text in enumerate(broken.splitlines(), 1) if '"unsure"' in text)
    for text, said in (
        (broken, f"no JSON: Expecting ',' delimiter: line {line} column 3 "),
        ("", "no JSON: Expecting value: line 1 column 1"),
        (b'{"event_name": "\xff"}', "no JSON: 'utf-8' codec can't decode byte"),
        (shown, "takes the event alone: flask adroll"),
        (run("outbox", "export", "--full").output, "takes the event alone: flask adroll"),
    ):
        result = run("outbox", "fix", dead, "-", input=text, code=1)
        assert result.output.startswith(f"Error: {said}")


def test_a_list_shows_the_key_and_when_a_waiting_event_is_due(app: Flask, run: Run) -> None:
    report(app)
    heading, line = run("outbox", "list").output.splitlines()
    assert heading.split()[-2:] == ["attempts", "key"]
    assert line.split()[-2:] == ["0", "1001"]
    assert "kept back" not in run("outbox").output
    settle(app, o1001={"kind": "retry", "reason": "throttled", "delay": 14 * 60 + 20})
    _, line = run("outbox", "list").output.splitlines()
    assert line.split("  ")[-1] == "AdRoll does not take it at present (throttled)"
    assert line.split("  ")[-2] == "in 14 minutes"
    assert "kept back   the next is due in 14 minutes\n" in run("outbox").output
    report(app, order_id="2" * 60)
    report(app, order_id="jo@example.com", user_id=42)
    listed = run("outbox", "list").output
    assert f"  {'2' * 35}…" in listed
    assert "jo@example.com" not in listed
    assert "kept back" not in run("outbox").output
    assert run("forget", "--user-id", "42").output == "1 event erased\n"
    said = "  The visitor said no, or asked to be forgotten\n"
    assert run("outbox", "list").output.endswith(said)


def test_show_and_export_name_no_visitor_unless_they_are_full(app: Flask, run: Run) -> None:
    shown = "show", report(app, email="ann@example.com", user_id="user-ann").id
    for command in (shown, ["export"]):
        said = run("outbox", *command).output
        assert json.loads(said)["event"]["event_attributes"]["order_id"] == "1001"
        assert not [one for one in ("ann", "click123", "203.0", "71d4f55f") if one in said]
        assert "user-ann" in run("outbox", *command, "--full").output


def test_an_import_keeps_keys_as_the_shop_s_own_reports_do(app: Flask, run: Run) -> None:
    report(app, order_id="trial:ann@example.com")
    line = ORDER | {"order_id": "trial:ann@example.com", "adct": "c1", "ip": "203.0.113.7"}
    line |= {"name": "purchase", "page_location": "https://shop.test/"}
    assert "1 duplicate" in run("import", "-", input=json.dumps(line)).output
    assert "trial" not in run("outbox", "list").output
    assert "trial" not in run("outbox", "export").output


def test_drop_removes_what_another_account_left(app: Flask, run: Run, make_app: AppMaker) -> None:
    report(app, order_id="sent")
    run("worker", "--once")
    bury(app, "dead")
    report(app, order_id="held", hold=True)
    report(app, order_id="waits")
    assert ADVERTISABLE_EID not in run("outbox", "list").output
    other = make_app(ADROLL_OUTBOX_URL=f"sqlite:///{app.extensions['adroll'].outbox.place}")

    def run_other(*arguments: str) -> Result:
        return invoke(other, "outbox", *arguments)

    assert f"of account  {ADVERTISABLE_EID}: 1 event waiting" in run_other().output
    ours = report(other, order_id="ours").id
    listed = run_other("list").output
    assert "account" in listed.splitlines()[0]
    assert listed.count(ADVERTISABLE_EID) == 4
    others = f"of account {ADVERTISABLE_EID}, for which there is no token here"
    assert f"1 {others}" in invoke(other, "worker", "--once").output
    assert run_other("drop", "--advertisable", "NOSUCH").output == "0 events dropped\n"
    assert run_other("drop", "--advertisable", ADVERTISABLE_EID).output == "3 events dropped\n"
    left = other.extensions["adroll"].outbox.lookups.list()
    assert {(row.key, row.state) for row in left} == {("sent", "delivered"), ("ours", "waiting")}
    for wrong in ([], [ours, "--advertisable", ADVERTISABLE_EID]):
        assert run_other("drop", *wrong).exit_code == 2


def test_drop_says_why_an_event_stays(app: Flask, run: Run) -> None:
    one, two, three = (report(app, order_id=order).id for order in "123")
    outbox = app.extensions["adroll"].outbox
    outbox.queue.waiting()  # another thread may be at the journal
    claim = outbox.queue.claim(app.config["ADROLL_ADVERTISABLE_EID"], limit=2)
    outbox.queue.begin_sending(claim, [two])
    result = run("outbox", "drop", one, two, three, "f" * 32, code=1)
    assert f"{one}: is claimed, a worker has it; try again" in result.output
    assert f"{two}: is sending, a worker has it; try again" in result.output
    assert f"{'f' * 32}: there is no such event" in result.output
    assert result.output.endswith("1 event dropped\n")
    assert [row.id for row in outbox.lookups.list()] == [one, two]
    four = report(app, order_id="4").id
    settle(app, o4={"kind": "delivered"})
    assert "1 event had been delivered: they stay" in run("outbox", "drop", four, code=1).output


def test_forget_refuses_what_nobody_can_have(run: Run) -> None:
    run("forget", code=2)
    impossible = (("--cookie", "two words"), ("--cookie", "x" * 81), ("--email", "nobody at all"))
    for option, value in impossible:
        result = run("forget", option, value, code=2)
        assert option in result.output
        assert "nothing was erased" in result.output
        assert value not in result.output


def test_a_worker_outlives_its_health_file(
    app: Flask, run: Run, tmp_path: Path, monkeypatch: Patch, caplog: Caplog
) -> None:
    monkeypatch.setattr(cli_worker, "HEALTH_EVERY", 0.01)
    folder = tmp_path / "run"
    path, stop = folder / "health", threading.Event()
    result = run("worker", "--once", "--health-file", str(path), code=1)
    assert result.output.startswith(f"Error: the health file {path} cannot be written: No such f")
    folder.mkdir()
    cli_worker.touch_while_running(path, stop, app.extensions["adroll"])
    try:
        path.unlink()
        folder.rmdir()
        eventually(lambda: "cannot be written" in caplog.text)
        folder.mkdir()
        eventually(path.exists)
    finally:
        stop.set()
    eventually(is_untouched)


def is_untouched() -> bool:
    """Whether nobody touches a health file any more."""
    return "adroll-health" not in {one.name for one in threading.enumerate()}


def test_a_health_file_grows_old_once_the_worker_s_main_thread_has_ended(
    app: Flask, tmp_path: Path, monkeypatch: Patch
) -> None:
    """Another thread may keep the process, which delivers nothing then."""
    monkeypatch.setattr(cli_worker, "HEALTH_EVERY", 0.01)
    stop = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "main_thread", threading.Thread)  # one that does not run
        cli_worker.touch_while_running(tmp_path / "health", stop, app.extensions["adroll"])
        try:
            eventually(is_untouched)
        finally:
            stop.set()


def test_sqlite_needs_no_sqlalchemy(run: Run, monkeypatch: Patch, tmp_path: Path) -> None:
    """Servers' extras bring it; two commands failed without, with a traceback."""
    for name in ("sqlalchemy", "sqlalchemy.exc"):
        monkeypatch.setitem(sys.modules, name, None)
    for _twice in range(2):
        run("outbox", "create-table", code=0)
    moved = run("outbox", "move-from", f"sqlite:///{tmp_path}/old.sqlite")
    assert "there is no outbox at" in moved.output


def test_every_record_has_a_name_that_stays(make_app: AppMaker, caplog: Caplog) -> None:
    report(make_app(ADROLL_STRICT=False), "1001", value="free of charge")
    records = [record for record in caplog.records if record.name.startswith("adroll_flask")]
    assert [record.adroll_event for record in records] == ["event-invalid"]  # type: ignore[attr-defined]
    assert logging.getLogger("adroll_flask").handlers == []

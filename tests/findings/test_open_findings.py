"""Each thing that can be wrong: made by the public way, seen in all views, ended, and gone."""

import html
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from adroll_flask import AdRoll, prometheus, signals
from adroll_flask.findings import site_settings
from adroll_flask.findings.rules import Moment, open_findings
from adroll_flask.outbox import ingest
from tests.conftest import ADVERTISABLE, PIXEL, AppMaker, Caplog, Patch
from tests.support import PATIENCE, eventually, shops, visits
from tests.support.dashboard_shop import DELIVERED, DashboardShop

HOUR, DAY = 3600.0, 86_400.0
#: Nobody does anything about it.
GOOD = {"hint", "ok"}


@pytest.fixture
def shop(make_app: AppMaker) -> DashboardShop:
    return DashboardShop(make_app)


def check(shop: DashboardShop) -> tuple[list[dict[str, Any]], int]:
    result = visits.invoke(shop.app, "check", "--json")
    return json.loads(result.output)["findings"], result.exit_code


def metrics(shop: DashboardShop) -> set[tuple[str, str]]:
    registry = CollectorRegistry()
    registry.register(prometheus.AdRollCollector(shop.app))
    lines = generate_latest(registry).decode().splitlines()
    parts = [line.split('"') for line in lines if line.startswith("adroll_findings{")]
    return {(part[1], part[3]) for part in parts}


def seen(shop: DashboardShop, code: str, *says: str, **values: Any) -> dict[str, Any]:
    """The finding *code*, which is in each view alike, says these words and has these *values*."""
    found = looked_for(shop, code)
    assert found is not None, code
    assert [words for words in says if words not in found["sentence"]] == [], found["sentence"]
    assert {name: found[name] for name in values} == values
    return found


def is_gone(shop: DashboardShop, code: str) -> bool:
    """Whether the finding *code* is in none of the views."""
    return looked_for(shop, code) is None


def looked_for(shop: DashboardShop, code: str) -> dict[str, Any] | None:
    checked, exit_code = check(shop)
    overview = shop.json("overview")
    problems = shop.json("problems")["findings"]
    ours = [one for one in checked if one["code"] == code]
    if not ours:
        assert all(one["code"] != code for one in (*overview["findings"], *problems))
        assert all(labels[0] != code for labels in metrics(shop))
        return None
    [found] = ours
    [same] = [one for one in overview["findings"] if one["code"] == code]
    assert {**same, "sentence": ""} == {**found, "sentence": ""}
    severity = found["severity"]
    assert (code, severity) in metrics(shop)
    if severity not in GOOD:
        assert [one["code"] for one in problems].count(code) == 1
    level = {"error": "bad", "warning": "warn"}
    worst = overview["findings"][0]
    assert overview["verdict"]["level"] in (level.get(worst["severity"], "good"), "idle")
    assert exit_code == any(one["severity"] == "error" for one in checked)
    return found


def test_a_shop_where_all_is_well_has_none(shop: DashboardShop) -> None:
    assert shop.json("overview")["verdict"]["level"] == "idle"
    [said] = shop.json("overview")["findings"]
    assert said["code"] == "nothing-reported"
    assert said in check(shop)[0]
    shop.deliver("1001")
    assert open_findings(Moment(shop.runtime, look=False)) == [], "nobody can look for reports"
    shop.report("1002", gpc=True)  # a visitor's no
    assert shop.json("overview")["findings"] == []
    assert shop.json("overview")["verdict"]["sentence"].startswith("Yes. The one order ")
    assert check(shop)[1] == 0
    assert metrics(shop) == set()


@pytest.mark.parametrize(
    ("config", "code", "severity"),
    [
        ({"ADROLL_ENABLED": False}, "disabled", "error"),
        ({"ADROLL_ACCESS_TOKEN": None}, "account-missing", "error"),
        ({"ADROLL_DRY_RUN": True}, "dry-run", "warning"),
    ],
)
def test_a_setting_keeps_conversions_back(
    make_app: AppMaker, config: dict[str, Any], code: str, severity: str
) -> None:
    shop = DashboardShop(make_app, **config)
    seen(shop, code)
    assert not shop.runtime.outbox.exists(), "looking makes nothing"
    if config.get("ADROLL_ENABLED") is not False:
        shop.report("1001")
    seen(shop, code, severity=severity)
    assert is_gone(DashboardShop(make_app), code)


@pytest.mark.parametrize(
    ("reason", "who"), [("http_401", "marketer and developer"), ("http_404", "developer")]
)
def test_adroll_refuses_everything(shop: DashboardShop, reason: str, who: str) -> None:
    shop.report("1001", value="59.90")
    shop.destination.stop(reason, "print")
    shop.now += 3 * HOUR
    says = ("for 3 hours", " 1 event waits; none is lost.")
    seen(shop, "delivery-stopped", *says, who=who, values=[["EUR", "59.9"]], events=1)
    shop.destination.resume()
    assert is_gone(shop, "delivery-stopped")


def test_a_clock_of_which_adroll_says_that_it_is_ahead(shop: DashboardShop) -> None:
    shop.report("1001")
    shop.destination.stop("http_400_to_everything", "print")
    shop.destination.failed("http_400: [0].timestamp: must not lie in the future")
    seen(shop, "clock-wrong")
    assert is_gone(shop, "delivery-stopped")


def test_adroll_is_away_or_asked_to_wait(shop: DashboardShop) -> None:
    shop.deliver("1001")
    shop.destination.failed("connect_timeout")
    says = "out of reach: the last request failed (connect_timeout)"
    seen(shop, "request-failed", says, severity="warning")
    shop.report("1002")
    shop.now += 2 * HOUR
    seen(shop, "request-failed", severity="error")  # for more than an hour
    shop.destination.succeeded()
    assert is_gone(shop, "request-failed")
    shop.destination.pause(60)
    seen(shop, "delivery-paused", severity="hint")
    shop.now += 61
    assert is_gone(shop, "delivery-paused")


def test_nobody_delivers_is_known_within_a_minute(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app, ADROLL_DELIVERY="worker")
    shop.report("1001")
    shop.now += 59
    assert is_gone(shop, "events-late")
    shop.now += 2
    assert "flask adroll worker" in seen(shop, "events-late")["todo"]
    assert shop.runtime.outbox.queue.claim(ADVERTISABLE, begin=True)  # by a worker that is killed
    shop.now += 119
    assert is_gone(shop, "events-late"), "its lease has not ended long enough"
    shop.now += 2
    seen(shop, "events-late")
    shop.settle(o1001=DELIVERED)
    assert is_gone(shop, "events-late")


def test_a_backlog_that_is_worked_off_is_no_finding(shop: DashboardShop) -> None:
    for order in range(120):
        shop.report(f"{order}")
    shop.now += 3 * HOUR
    assert shop.runtime.outbox.queue.claim(ADVERTISABLE)
    assert is_gone(shop, "events-late")


def test_twenty_reports_that_died_are_an_error_whatever_the_day_was(shop: DashboardShop) -> None:
    shop.deliver(*(f"{order}" for order in range(80)))
    answers: list[Callable[[Any], Any]] = [lambda event: event.no_such_field]
    shop.extension.before_report(lambda event: answers[-1](event))
    shop.now += 1  # ids of one millisecond have no order once their count begins anew
    for order in range(20):
        shop.report(f"d{order}")
    seen(shop, "reports-die", "20 could not be delivered: The site's own before_report")
    answers.append(lambda event: event)
    shop.now += 1
    shop.deliver(*(f"e{order}" for order in range(11)))
    assert is_gone(shop, "reports-die")


def test_a_visitors_no_is_no_failed_delivery(shop: DashboardShop) -> None:
    for order in "1234":
        shop.report(order, hold=True, user_id="42")
    assert visits.invoke(shop.app, "forget", "--user-id", "42").output == "4 events erased\n"
    assert is_gone(shop, "reports-die")
    assert "died: 4" not in visits.invoke(shop.app, "check", "--last", "9", "--json").output
    told = visits.invoke(shop.app, "reconcile", "-", input="order_id\n1\n2\n3\n4\n", code=0)
    assert "4 were not to be reported: The visitor asked to be forgotten" in told.output


def test_a_dead_letter_that_could_be_sent_is_one_however_old(shop: DashboardShop) -> None:
    shop.bury("1001", "1002")
    shop.deliver(*(f"{order}" for order in range(40)))
    shop.now += 60 * DAY
    shop.deliver("today")
    says = "2 events wait for a decision: AdRoll refused"
    found = seen(shop, "dead-letters", says, events=2, values=[["EUR", "119.8"]])
    shop.press("problems/drop", problem=found["key"], until=shop.now, sure="yes")
    assert is_gone(shop, "dead-letters")
    shop.bury("1003", reason="too_large", error="http_413")
    seen(shop, "dead-letters", severity="hint")  # it can only be dropped


def test_lost_reports_are_one_for_seven_days(shop: DashboardShop) -> None:
    shop.deliver("1001")
    for _ in range(120):
        shop.runtime.outbox.note_failure("purchase", "disk_full")
    shop.runtime.outbox.tell_failures()  # as the thread beside the requests does
    shop.deliver("1002")
    todo = seen(shop, "event-lost", "120 reports were lost: the disk")["todo"]
    assert f"df -h {shop.runtime.outbox.folder}" in todo
    assert "This message stays for seven days after the last loss" in todo
    shop.now += 8 * DAY
    assert is_gone(shop, "event-lost")


def test_an_event_that_stopped_coming_is_told_and_signalled_once(
    shop: DashboardShop, caplog: Caplog
) -> None:
    shop.now -= 30 * DAY
    for order in range(30):
        shop.deliver(f"{order}")
        shop.now += DAY
    assert is_gone(shop, "reports-silent")
    shop.now += DAY
    found = seen(shop, "reports-silent", "No purchase event since ")
    assert found["todo"].startswith("Place an order and look what the app's log says.")
    told: list[str] = []

    def hear(_: object, name: str, **_values: object) -> None:
        told.append(name)

    deliverer = shop.runtime.deliverer
    with signals.reports_silent.connected_to(hear, shop.app):
        deliverer._silent_from = 0.0  # it may have looked before
        deliverer.look()
        replace(deliverer).look()  # as another process does
    assert told == ["purchase"]
    assert "no purchase event since" in caplog.text
    assert shop.runtime.counters.get("reports_silent", "purchase") == 1
    shop.deliver("again")
    assert is_gone(shop, "reports-silent")


def test_a_full_disk_is_seen_while_it_is_full(shop: DashboardShop, monkeypatch: Patch) -> None:
    shop.deliver("1001")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
        found = seen(shop, "event-lost", "The disk is full: what is reported now is lost.")
    assert "df -h " in found["todo"]
    assert is_gone(shop, "event-lost")


def test_hosts_that_no_account_is_for(make_app: AppMaker, caplog: Caplog) -> None:
    eids = {"advertisable_eid": ADVERTISABLE, "pixel_eid": PIXEL, "access_token": "x"}
    unset = dict.fromkeys(["ADROLL_ADVERTISABLE_EID", "ADROLL_PIXEL_EID", "ADROLL_ACCESS_TOKEN"])
    shop = DashboardShop(make_app, **unset, ADROLL_ACCOUNTS={"shop.fr": eids})
    shop.report("1001")
    shop.now += 3 * DAY
    seen(shop, "other-account", "1 event of hosts that ADROLL_ACCOUNTS does not list waits")
    shop.runtime.deliverer.look()
    assert "#events-late" in caplog.text
    assert ADVERTISABLE in visits.invoke(shop.app, "send-test", code=0).output  # a host's account
    visits.invoke(shop.app, "outbox", "drop", "--advertisable", "", code=0)
    assert is_gone(shop, "other-account")


def test_events_of_an_account_that_nobody_serves(shop: DashboardShop, make_app: AppMaker) -> None:
    shop.deliver("1001")
    place, other = shop.runtime.outbox.place, "SANDBOXSANDBOXSANDBOX1"
    config = {"ADROLL_OUTBOX_URL": f"sqlite:///{place}", "ADROLL_ADVERTISABLE_EID": other}
    config["ADROLL_JOURNAL_FOLDER"] = str(shop.runtime.outbox.folder)
    neighbour = make_app(AdRoll(clock=lambda: shop.now), **config)
    event = visits.report(neighbour, "9")
    assert metrics(shop) == set()  # which takes in the account's first event as it looks
    visits.settle(neighbour)
    assert is_gone(shop, "other-account")  # another app may be about to take it
    shop.now += 61
    seen(shop, "other-account", f"1 event of the account {other}")
    assert is_gone(shop, "events-late"), "no process of this account could deliver it"
    destination = shop.runtime.outbox.destination(other)
    destination.seen()  # another app's worker, in the same folder
    assert is_gone(shop, "other-account")
    shop.now += 61
    seen(shop, "other-account")
    destination.failed("http_503")  # another app's thread
    assert is_gone(shop, "other-account")
    destination.stop("unauthorized", "x")
    destination.failed("401")
    assert is_gone(shop, "delivery-stopped"), "which is no trouble of ours"
    shop.now += 61
    seen(shop, "other-account", severity="warning")  # another app may ask every five minutes
    shop.now += 300
    seen(shop, "other-account", severity="error")
    shop.destination.stop("http_401", "x")
    found = seen(shop, "delivery-stopped", events=0)
    assert "wait" not in found["sentence"], "nothing that the token could send"
    assert shop.runtime.outbox.admin.drop([event.id]) == 1
    assert is_gone(shop, "other-account")


def test_a_consent_function_that_fails(make_app: AppMaker) -> None:
    answers: list[Callable[[], bool]] = [lambda: bool(1 / 0)]
    shop = DashboardShop(make_app, ADROLL_CONSENT=lambda _request: answers[0]())
    shop.report("1001")
    seen(shop, "consent-unknown", events=1)
    shop.now += 2 * DAY
    answers[0] = lambda: True
    shop.deliver("1002")
    assert is_gone(shop, "consent-unknown")


def test_holds_that_nobody_ended(shop: DashboardShop) -> None:
    shop.deliver("1001")
    shop.report("1002", hold=True)
    assert shop.json("overview")["findings"] == [], "an unpaid hold in time is none"
    shop.now += 7 * DAY + HOUR
    for _ in range(7 * 24 + 2):  # housekeeping follows a clock by an hour a look
        shop.runtime.outbox.admin.keep_house()
    assert seen(shop, "holds-expired")["severity"] == "hint"
    shop.now += 8 * DAY
    assert is_gone(shop, "holds-expired")


def test_an_address_at_which_no_outbox_can_be_is_told_once_by_every_view(
    make_app: AppMaker,
) -> None:
    shop = DashboardShop(make_app, ADROLL_OUTBOX_URL="sqlite:///outbox.db?timeout=3")
    said = "the address of the outbox takes no options after a SQLite file's name"
    [found] = [one for one in check(shop)[0] if one["severity"] == "error"]
    assert (found["code"], found["sentence"]) == ("outbox-url", f"Nothing is reported: {said}.")
    assert ("outbox-url", "error") in metrics(shop)
    answer = shop.client.get("/adroll-dashboard/")
    assert answer.status_code == 503
    assert said in html.unescape(answer.text)


def test_a_clock_that_is_wrong(shop: DashboardShop) -> None:
    shop.deliver("1001")
    shop.now += HOUR
    shop.report("1002")
    shop.now -= HOUR
    shop.bury(*(f"{order}" for order in range(2001, 2020)))
    seen(shop, "reports-die")
    seen(shop, "clock-wrong", "1 hour in the future")
    assert shop.json("overview")["findings"][0]["code"] == "clock-wrong", "it causes others"
    shop.now += HOUR
    assert is_gone(shop, "clock-wrong")


def test_a_clock_set_right_is_no_finding_once_nothing_early_waits(shop: DashboardShop) -> None:
    """It stayed until the time had come at which its last event was reported."""
    shop.now += 5 * HOUR
    shop.deliver("1001")
    shop.report("1002")
    shop.now -= 5 * HOUR
    seen(shop, "clock-wrong")
    shop.settle(o1002=DELIVERED)
    assert is_gone(shop, "clock-wrong")


def test_a_damaged_database_says_what_is_lost_and_where_it_is(shop: DashboardShop) -> None:
    shop.deliver("1001")
    assert shop.runtime.thread.stop(60)  # which would have the file open while it is replaced
    shop.runtime.outbox.close()
    place = Path(shop.runtime.outbox.place)
    for path in place.parent.glob(f"{place.name}*"):
        path.unlink()
    place.write_bytes(b"no database" * 1000)
    shop.deliver("1002")
    found = seen(shop, "outbox-corrupt")
    [old] = place.parent.glob("*.corrupt-*")
    assert str(old) in found["todo"]
    assert str(old) in found["command"]
    os.utime(old, (shop.now, shop.now))
    assert "These figures are not whole" in shop.html("")
    os.utime(old, (shop.now - 2 * DAY, shop.now - 2 * DAY))
    assert "These figures are not whole" not in shop.html("", period="day")
    shop.bury("2001", "2002", "2003", reason="restored")
    assert is_gone(shop, "reports-die"), "these are of the old file"
    assert shop.json("overview")["findings"][0]["code"] == "outbox-corrupt"
    old.unlink()
    assert is_gone(shop, "outbox-corrupt")


def test_a_journal_that_nobody_takes_in(shop: DashboardShop, monkeypatch: Any) -> None:
    shop.deliver("1001")
    assert shop.runtime.thread.stop(60)
    visits.report(shop.app, "1002")
    with monkeypatch.context() as patch:
        patch.setattr(ingest.Ingest, "take_in", lambda *_args, **_more: 0)
        patch.setattr(ingest.Ingest, "take_in_all", lambda _self: None)
        seen(shop, "journal-not-read")
    assert is_gone(shop, "journal-not-read")


def test_a_journal_that_may_not_be_looked_at_is_told_and_no_bare_error(
    shop: DashboardShop, monkeypatch: Patch
) -> None:
    shop.deliver("1001")
    folder, listdir = shop.runtime.outbox.folder, os.listdir

    def refused(path: Any) -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refused)
        patch.setattr(os, "access", lambda path, _mode: Path(path) != folder)
        assert "sudo chown" in seen(shop, "outbox-unavailable")["todo"]
    assert is_gone(shop, "outbox-unavailable")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written(shop: DashboardShop) -> None:
    shop.deliver("1001")
    Path(shop.runtime.outbox.place).chmod(0o400)
    shop.runtime.outbox.close()
    found = [one for one in check(shop)[0] if one["code"] == "outbox-unavailable"]
    assert found
    assert "chown" in found[0]["todo"]


def test_a_network_folder_is_told(shop: DashboardShop, tmp_path: Path, monkeypatch: Patch) -> None:
    """As Linux tells of it; the type is nfs4 for NFS, cifs or smb3 for SMB."""
    (tmp_path / "disk one").mkdir()
    shop.runtime.folder = str(tmp_path / "disk one" / "instance")
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(site_settings, "MOUNTS", mounts)
    root = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
    here = str(tmp_path / "disk one").replace(" ", "\\040")
    network = f"40 22 0:35 / {here} rw,relatime shared:9 master:3 - nfs4 10.0.0.1:/x rw\n"
    beside = f"41 22 0:36 / {tmp_path}/disk rw - cifs //nas/x rw\n"
    disk = f"42 22 8:1 / {here} rw - xfs /dev/sda1 rw\n"

    def pointed_out() -> set[str]:
        found = [one for one in check(shop)[0] if one["code"] == "folder-on-network"]
        assert all("nfs4" in one["sentence"] for one in found)
        return {one["subject"] for one in found}

    mounts.write_text(root + network + beside)
    assert pointed_out() == {"ADROLL_JOURNAL_FOLDER", "ADROLL_OUTBOX_URL"}
    mounts.write_text(root + network + disk)  # hidden by what is mounted over it
    assert pointed_out() == set()
    mounts.write_text(root + beside)
    assert pointed_out() == set()
    mounts.unlink()
    assert pointed_out() == set()


def test_a_locked_database_names_who_holds_it(shop: DashboardShop) -> None:
    shop.deliver("1001")
    assert shop.runtime.thread.stop(60)  # which would have the file open
    shop.runtime.outbox.close()
    place = Path(shop.runtime.outbox.place)
    with closing(sqlite3.connect(place, timeout=PATIENCE)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        [found] = [one for one in check(shop)[0] if one["code"] == "outbox-unavailable"]
        assert time.monotonic() - began < 60
        other.rollback()
    assert f"fuser -v {place}" in found["todo"]


@contextmanager
def worker_running(shop: DashboardShop) -> Iterator[None]:
    """``flask adroll worker`` for *shop*, which has given a sign of life, until it is killed."""
    names = ("advertisable_eid", "pixel_eid", "access_token", "api_url")
    account = {name: shop.app.config[f"ADROLL_{name.upper()}"] for name in names}
    with shops.Shop(Path(shop.app.instance_path), account).running("worker") as child:

        def is_seen() -> bool:
            assert child.poll() is None
            shop.now = time.time()
            unseen = shop.runtime.outbox.lookups.destinations()[ADVERTISABLE].unseen_for
            return unseen is not None and unseen < 30

        eventually(is_seen)
        yield


def test_a_gone_worker_is_known_within_a_minute(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app, ADROLL_DELIVERY="worker")
    shop.now = time.time()
    shop.deliver("1001")
    shop.now += HOUR
    assert is_gone(shop, "worker-gone"), "none ever ran: Celery delivers, say"
    with worker_running(shop):
        assert is_gone(shop, "worker-gone")
    shop.now = time.time() + 30
    assert is_gone(shop, "worker-gone")
    shop.now = time.time() + 61
    found = seen(shop, "worker-gone")
    assert found["sentence"] == "The worker has given no sign of life for 1 minute."
    with worker_running(shop):
        assert is_gone(shop, "worker-gone")
    shop.now = time.time() + 61
    seen(shop, "worker-gone")
    shop.runtime.deliverer.drain()
    assert is_gone(shop, "worker-gone"), "from now on, cron delivers"


def test_of_two_workers_of_two_accounts_the_gone_one_is_missed(make_app: AppMaker) -> None:
    other = "OTHERADVERTISABLE00001"
    account = {"advertisable_eid": other, "pixel_eid": PIXEL, "access_token": "another"}
    accounts = {"shop.fr": account}
    shop = DashboardShop(make_app, ADROLL_DELIVERY="worker", ADROLL_ACCOUNTS=accounts)
    shop.runtime.outbox.destination(other).seen()
    shop.now += 61
    shop.destination.seen()

    seen(shop, "worker-gone")

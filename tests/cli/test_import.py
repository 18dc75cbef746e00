"""``flask adroll import``: a shop's own lists, reported once each."""

import csv
import json
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.cli.conftest import Run
from tests.conftest import AppMaker, Patch
from tests.support import PATIENCE, eventually
from tests.support.outbox_engines import OutboxFailed
from tests.support.pages import SHOP, started
from tests.support.visits import began_long_ago, invoke, kept, report, visit

SET = ("--set", "page_location=https://shop.test/", "--set", "ip=203.0.113.7")


#: A shop's export, as German software writes it.
GERMAN = """Order no.;Total;Date;User
A-1;1.059,90;24.11.2026 20:31;u1
A-2;12,00;24.06.2026 20:31;u2
"""


GERMAN_OPTIONS = (
    *("--column", "order_id=Order no.", "--column", "value=Total"),
    *("--column", "timestamp=Date", "--column", "user_id=User"),
    *("--date-format", "%d.%m.%Y %H:%M", "--timezone", "Europe/Berlin"),
    *("--set", "currency=EUR", "--decimal-comma"),
    *SET,
)


PLAIN = "order_id,value,currency,user_id\n1,59.90,EUR,u1\n2,12.00,USD,u2\n"
NEW = "3,1.00,EUR,u3\n"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(app: Flask) -> Run:
    return partial(invoke, app, "import")


def rejected(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_commas_in_the_headers_quotes_part_no_columns(run: Run) -> None:
    Path("orders.csv").write_text('order_id;"Total, net, EUR";user_id\n1;59.90;u1\n')
    columns = ("--column", "value=Total, net, EUR", "--set", "currency=EUR")
    assert "1 queued" in run("orders.csv", *columns, *SET).output


def test_a_german_shop_s_list_is_read_by_its_columns_dates_and_commas(app: Flask, run: Run) -> None:
    Path("orders.csv").write_text(GERMAN)
    assert "2 queued" in run("orders.csv", *GERMAN_OPTIONS, code=0).output
    first, second = kept(app)
    assert first["event_name"] == "purchase"
    assert first["event_attributes"]["order_id"] == "A-1"
    assert (float(first["conversion_value"]), first["currency"]) == (1059.9, "EUR")
    assert first["identifiers"]["user_id"] == "u1"
    # In Berlin it is winter and an hour from UTC, then summer and two hours.
    assert first["timestamp"] == 1795548660.0
    assert second["timestamp"] == 1782325860.0


def test_an_english_list_has_commas_between_thousands(app: Flask, run: Run) -> None:
    lines = 'order_id,value,currency,user_id\n1,"1,059.90",EUR,u1\n2,"1,059",EUR,u2\n'
    result = run("-", *SET, input=lines)
    assert "1 queued, 1 invalid" in result.output  # the second may be one and a bit
    [event] = kept(app)
    assert float(event["conversion_value"]) == 1059.9


@pytest.mark.parametrize("data", [PLAIN, f"\ufeff{PLAIN}", PLAIN.replace(",", "\t")])
def test_it_is_read_however_it_comes(app: Flask, run: Run, data: str) -> None:
    Path("orders").write_text(data, "utf-8")
    run("orders", *SET, code=0)
    assert [event["event_attributes"]["order_id"] for event in kept(app)] == ["1", "2"]


@pytest.mark.parametrize("at", [1795552260, "1795552260000", 1795552260e3, "2026-11-24T20:31:00"])
def test_json_lines_take_options_as_csv_does(app: Flask, run: Run, at: float | str) -> None:
    line = {"nr": "7", "sum": "1.059,90", "when": at, "user": "u1", "x": 1}
    columns = ("order_id=nr", "value=sum", "timestamp=when", "user_id=user")
    options = [part for column in columns for part in ("--column", column)]
    forms = ("--timezone", "UTC", "--set", "currency=EUR", "--decimal-comma")
    run("-", *options, *forms, *SET, input=json.dumps(line), code=0)
    [event] = kept(app)
    assert event["timestamp"] == 1795552260.0
    assert float(event["conversion_value"]) == 1059.9


def test_bad_lines_are_fixed_in_their_own_file_and_imported_again(app: Flask, run: Run) -> None:
    bad = "A-3;12.90;24.11.2026 20:31;u3\nA-4;1,00;yesterday;u4\n;1,00;24.11.2026 20:31;u5\nA-6;1\n"
    Path("orders.csv").write_text(GERMAN + bad)
    result = run("orders.csv", *GERMAN_OPTIONS, code=1)
    assert "2 queued, 4 invalid" in result.output
    assert "fix orders.csv.rejected.csv" in result.output
    path = Path("orders.csv.rejected.csv")
    assert path.stat().st_mode & 0o777 == 0o600
    head, *lines = path.read_text().splitlines()
    assert head == "rejected_line;rejected_column;rejected_reason;Order no.;Total;Date;User"
    assert lines[0].startswith("4;Total;takes an amount with a comma")
    assert lines[0].endswith(";A-3;12.90;24.11.2026 20:31;u3")
    assert lines[1].startswith("5;Date;is not of the form")
    assert lines[2].startswith('6;Order no.;"a purchase takes the shop')
    assert lines[3] == "7;;has 2 cells, and the header has 4;A-6;1"

    text = path.read_text().replace("12.90", "12,90").replace("yesterday", "24.11.2026 20:31")
    text = text.replace(";;1,00", ";A-5;1,00").replace("A-6;1", "A-6;1;24.11.2026 20:31;u6")
    path.write_text(text)
    # The one that is fixed is not overwritten by the next try of the whole.
    assert "fix orders.csv.rejected-2.csv" in run("orders.csv", *GERMAN_OPTIONS).output
    assert "4 queued" in run(str(path), *GERMAN_OPTIONS, code=0).output
    ids = {event["event_attributes"]["order_id"] for event in kept(app)}
    assert ids == {f"A-{number}" for number in range(1, 7)}


def test_the_file_of_bad_lines_is_new_and_no_link_that_lies_in_wait(app: Flask, run: Run) -> None:
    """It holds what the lines hold: a link there would lead it to where others read."""
    Path("orders.csv").write_text(GERMAN + "A-3;12.90;24.11.2026 20:31;u3\n")
    Path("orders.csv.rejected.csv").symlink_to("elsewhere.csv")
    assert "Nothing was kept" in run("orders.csv", *GERMAN_OPTIONS, code=1).output
    assert not Path("elsewhere.csv").exists()
    assert kept(app) == []


def test_rejected_lines_of_json_are_fixed_as_json(app: Flask, run: Run) -> None:
    good = {"order_id": "1", "value": "1.00", "currency": "EUR", "user_id": "u"}
    lines = [json.dumps(good), "no JSON", json.dumps(good | {"order_id": "2", "value": "-1"})]
    assert "1 queued, 2 invalid" in run("-", *SET, input="\n".join(lines)).output
    path = Path("stdin.rejected.csv")
    first, second = rejected(str(path))
    assert (first["rejected_line"], first["rejected_column"]) == ("2", "")
    assert (second["rejected_line"], second["rejected_column"]) == ("3", "value")
    assert first["json"] == "no JSON"
    third = json.dumps(good | {"order_id": "3"}).replace('"', '""')
    path.write_text(path.read_text().replace("no JSON", f'"{third}"').replace("-1", "1"))
    assert "2 queued" in run(str(path), *SET).output
    assert len(kept(app)) == 3


def test_what_another_outbox_held_is_no_line(app: Flask, run: Run) -> None:
    """A trial order would become a sale, and what AdRoll may have would be sent once more."""
    report(app)
    (line,) = invoke(app, "outbox", "export", "--full").output.splitlines()
    for text in (line, json.dumps(json.loads(line)["event"])):
        assert run("-", *SET, input=text, code=1).output.startswith("line 1: ")
    assert len(kept(app)) == 1


def test_a_check_keeps_nothing_and_makes_nothing(app: Flask, run: Run) -> None:
    Path("orders.csv").write_text(PLAIN + "3,-1,EUR,u3\n")
    assert "2 good, 1 invalid" in run("orders.csv", "--check", *SET, code=1).output
    assert not Path(app.instance_path).exists()


@pytest.mark.parametrize(
    ("line", "at"),
    [('3,"1.00,EUR,u3', 6), ('3,"1.00,EUR,u3\n4,"1.00,EUR,u4', 5), ('3,"1.00"x,EUR,u3', 4)],
)
def test_an_open_quote_refuses_the_whole_file(app: Flask, run: Run, line: str, at: int) -> None:
    Path("orders.csv").write_text(f"{PLAIN}{line}\n5,1.00,EUR,u5\n6,1.00,EUR,u6\n")
    result = run("orders.csv", *SET, code=1)
    assert f"line {at} is no CSV" in result.output
    assert "is a quote in it, or before it, not closed? Nothing was kept" in result.output
    assert kept(app) == []


def test_a_refusal_of_the_whole_leaves_no_file(app: Flask, run: Run) -> None:
    report(app, "1")
    old = "0,-1,EUR,u0,\n3,1.00,EUR,u3,2020-01-01T00:00Z\n"
    for text in (old, '0,-1,EUR,u0,\n3,"1.00,EUR,u3,\n'):
        Path("orders.csv").write_text("order_id,value,currency,user_id,timestamp\n" + text)
        for options in ((), ("--check",)):
            assert "Nothing was kept" in run("orders.csv", *options, *SET, code=1).output
            assert [path.name for path in Path().glob("orders*")] == ["orders.csv"]


def test_nothing_is_reported_twice_by_a_second_run_or_beside_the_shop(app: Flask, run: Run) -> None:
    began_long_ago(app)
    assert report(app, "1")
    for duplicates in (1, 2):
        told = run("-", "--json", *SET, input=PLAIN).stdout
        assert json.loads(told)["duplicates"] == duplicates
    report(app, "2", value="12.00", currency="USD")
    assert [event["event_attributes"]["order_id"] for event in kept(app)] == ["1", "2"]


def test_an_order_is_a_duplicate_however_the_list_writes_its_number(app: Flask, run: Run) -> None:
    """What reconcile called delivered, an import of the same list sold twice."""
    began_long_ago(app)
    for order in ("1", "#2"):
        report(app, order)
    assert "1 queued, 2 duplicate" in run("-", *SET, input=PLAIN.replace("1,", "#1,") + NEW).output
    assert sorted(event["event_attributes"]["order_id"] for event in kept(app)) == ["#2", "1", "3"]


def test_an_order_whose_visitor_said_no_is_not_imported(app: Flask, run: Run) -> None:
    """The file of what did not arrive has these orders, too; a hurried import reported them."""
    from adroll_flask import current_visitor

    began_long_ago(app)
    for order in ("1", "2"):
        report(app, order, gpc=True)
    for options in (("--check",), ()):
        told = run("-", *options, *SET, input=PLAIN.replace("1,", "#1,") + NEW, code=0).output
        assert "2 not to be reported" in told
    assert [event["event_attributes"]["order_id"] for event in kept(app)] == ["3"]
    with visit(app):  # who said yes since
        text = f"order_id,value,currency,visitor\n1,1,EUR,{current_visitor().token()}\n"
    assert "1 queued" in run("-", input=text, code=0).output


def test_a_worker_beside_an_import_hides_no_duplicate(
    app: Flask, run: Run, make_app: AppMaker, monkeypatch: Patch
) -> None:
    began_long_ago(app)
    report(app, "1")
    outbox = app.extensions["adroll"].outbox
    worker = make_app(
        ADROLL_OUTBOX_URL=f"sqlite:///{outbox.place}", ADROLL_JOURNAL_FOLDER=str(outbox.folder)
    )
    record = outbox.record

    def record_beside_a_worker(one: Any) -> None:
        record(one)
        worker.extensions["adroll"].outbox.ingest.take_in_all()

    monkeypatch.setattr(outbox, "record", record_beside_a_worker)
    assert run("-", *SET, input=PLAIN, code=0).output == "1 queued, 1 duplicate\n"


def test_lines_without_an_order_are_told_apart_by_what_they_say(app: Flask, run: Run) -> None:
    lines = "user_id\nann\nbob\n"
    for _ in range(2):
        run("-", "--set", "name=pageView", *SET, input=lines, code=0)
    assert [event["identifiers"]["user_id"] for event in kept(app)] == ["ann", "bob"]


def test_a_token_that_was_kept_with_the_order_tells_who_it_is(app: Flask, run: Run) -> None:
    from adroll_flask import current_visitor

    with visit(app):
        token = current_visitor().token()
    with visit(app, gpc=True):
        opted_out = current_visitor().token()
    orders = f"1,1.00,EUR,{token}\n2,1,EUR,x.y\n3,1,EUR,{opted_out}\n"
    result = run("-", input=f"order_id,value,currency,visitor\n{orders}")
    assert "1 queued, 1 invalid, 1 not to be reported" in result.output
    [event] = kept(app)
    assert event["identifiers"]["adct"] == "click123"
    assert event["ip"] == "203.0.113.7"
    assert rejected("stdin.rejected.csv")[0]["rejected_column"] == "visitor"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*SET, "--column", "order=1"), "did you mean 'order_id'"),
        ((*SET, "--column", "order_id=Nr"), "there is no column 'Nr'; the file has 'order_id'"),
        ((), "no column gives ip, page_location"),
        ((*SET, "--timezone", "Berlin/Europe"), "a time zone such as 'Europe/Berlin'"),
        ((*SET, "--encoding", "utf-99"), "--encoding: there is no 'utf-99'"),
        ((*SET, "--encoding", "hex"), "--encoding: there is no 'hex'"),
    ],
)
def test_what_no_line_can_have_is_said(run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in run("-", *arguments, input=PLAIN, code=2).output


def test_a_file_of_another_encoding_is_refused_until_that_is_named(app: Flask, run: Run) -> None:
    """The first line is kept only after the last was checked."""
    Path("orders.csv").write_bytes(lines(5000).encode() + "ü1,1.00,EUR,u1\n".encode("cp1252"))
    refused = run("orders.csv", *SET, code=1).output
    assert "--encoding" in refused
    assert "Nothing was kept" in refused
    assert kept(app) == []
    assert "5,001 queued" in run("orders.csv", "--encoding", "cp1252", *SET).output


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OutboxFailed("disk_full")])
def test_a_stopped_import_says_where_and_goes_on(
    app: Flask, run: Run, monkeypatch: Patch, stop: BaseException
) -> None:
    outbox = app.extensions["adroll"].outbox
    record = outbox.record
    seen: list[object] = []

    def stopping(one: Any) -> None:
        if seen:
            raise stop
        seen.append(one)
        record(one)

    with monkeypatch.context() as stopped:
        stopped.setattr(outbox, "record", stopping)
        result = run("-", *SET, input=PLAIN)
    assert result.exit_code == (130 if isinstance(stop, KeyboardInterrupt) else 1)
    assert "stopped: 1 of 2 events are kept" in result.output
    assert "run the same command again" in result.output
    assert "1 queued, 1 duplicate" in run("-", *SET, input=PLAIN).output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full: Linux")
def test_without_room_nothing_is_kept(app: Flask, run: Run, monkeypatch: Patch) -> None:
    def full(**_: object) -> Any:
        return open("/dev/full", "r+b")

    monkeypatch.setattr("adroll_flask.cli.import_command.TemporaryFile", full)
    result = run("-", *SET, input=PLAIN, code=1)
    assert "No space left on device" in result.output
    assert "Nothing was kept" in result.output
    assert kept(app) == []


# -- ``flask adroll import`` of a long file: its memory, Ctrl-C, and a kill -----------------------


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and /proc")


def lines(count: int) -> str:
    return "order_id,value,currency,user_id\n" + "".join(
        f"{number},59.90,EUR,u{number}\n" for number in range(count)
    )


def said(process: subprocess.Popen[str], text: str | None = None) -> str:
    return process.communicate(text, timeout=PATIENCE)[0]


def journal(folder: Path) -> list[Path]:
    return [*(folder / "instance" / "adroll-journal").glob("*.journal")]


#: Says at its end how much memory it had at most, as the kernel tells.
MEASURED = f"""{SHOP}
import atexit, pathlib, re
# Not by getrusage: what a process begins with there is its parent's.
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(re.search("VmHWM:.* ([0-9]+) kB", status.read_text())[1]))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for count in (10_000, 60_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        output = said(started(folder, "import", "-", *SET, program=MEASURED), lines(count))
        assert f"{count:,} queued" in output
        peaks.append(int(output.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 40 * 1024  # KiB: 50,000 events are more


@pytest.mark.parametrize(
    ("begin", "more", "problem"),
    [
        ('{"user_id": "', "x" * 10, "line 1 has more than 2,000,000 characters"),
        ("order_id,value\n", "x" * 10, "line 2 has more than 2,000,000 characters"),
        # One row, of cells that each have a line break.
        ("order_id,value\n", '"xxxxxx\n",', "line 200002 has more than 2,000,000 characters"),
        ('\n [{"user_id": "', "x" * 10, "this is a JSON array, and not a JSON object in each line"),
    ],
)
def test_a_row_without_an_end_is_refused_and_not_read(
    tmp_path: Path, begin: str, more: str, problem: str
) -> None:
    arguments = ("import", "-", *SET, "--set", "currency=EUR")
    output = said(started(tmp_path, *arguments, program=MEASURED), begin + more * 6_000_000)
    assert problem in output
    assert "Nothing was kept" in output
    assert int(output.splitlines()[-1]) < 100 * 1024  # KiB: without the line


def test_an_import_that_is_killed_while_it_keeps_goes_on_where_it_was(tmp_path: Path) -> None:
    count = 2000
    (tmp_path / "orders.csv").write_text(lines(count))
    process = started(tmp_path, "import", "orders.csv", *SET)
    eventually(lambda: journal(tmp_path))
    process.kill()
    process.communicate()
    output = said(started(tmp_path, "import", "orders.csv", *SET))
    found = (re.search(rf"([\d,]+) {what}", output) for what in ("queued", "duplicate"))
    assert sum(int(one[1].replace(",", "")) for one in found if one) == count
    rows = said(started(tmp_path, "outbox", "export")).splitlines()
    assert sorted(int(json.loads(row)["key"]) for row in rows) == [*range(count)]
    # What was good lay in a file without a name: nobody has to find and remove it.
    assert {path.name.split(".")[0] for path in (tmp_path / "instance").iterdir()} <= {
        "adroll-journal",
        "adroll-outbox",
    }


def test_ctrl_c_while_lines_are_checked_keeps_nothing_but_what_is_to_be_fixed(
    tmp_path: Path,
) -> None:
    """That file holds customers' data: somebody has to remove it."""
    process = started(tmp_path, "import", "-", *SET)
    assert process.stdin is not None
    process.stdin.write(f"{lines(500)}bad,-1,EUR,u1\n")
    process.stdin.flush()
    eventually((tmp_path / "stdin.rejected.csv").exists)
    process.send_signal(signal.SIGINT)
    output = said(process)
    assert "fix stdin.rejected.csv" in output
    assert "nothing was kept" in output
    assert "Traceback" not in output
    assert process.returncode == 130
    assert journal(tmp_path) == []

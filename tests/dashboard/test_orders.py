"""Orders: one is found by its id and its life told; a list of paid orders is compared."""

import csv
import html
import io
import json
import locale
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from decimal import ROUND_DOWN, FloatOperation, Inexact, localcontext
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from adroll_flask import cancel_conversion, release_conversion, report_event
from adroll_flask.outbox import schema
from tests.conftest import Caplog, Patch
from tests.support import lacking, program
from tests.support.dashboard_shop import DELIVERED, WHERE, DashboardShop
from tests.support.outbox_engines import Attempt
from tests.support.visits import began_long_ago, invoke, visit


def find(shop: DashboardShop, order: str) -> str:
    """The page that the search ends at."""
    answer = shop.post("orders/find", order=order)
    if answer.status_code == 303:
        answer = shop.client.get(answer.location)
    assert answer.status_code == 200
    return answer.text


def steps(shop: DashboardShop, order: str) -> list[str]:
    """The life of an order by its steps."""
    answer = shop.post("orders/find", order=order)
    found = shop.client.get(f"{WHERE}orders.json", query_string=answer.location.partition("?")[2])
    [event] = found.get_json()["found"]["events"]
    return [step["kind"] for step in event["steps"]]


def test_the_newest_orders_are_listed_with_value_and_state(any_shop: DashboardShop) -> None:
    any_shop.bury("1001")
    any_shop.deliver("1002")
    with visit(any_shop.app):
        report_event("homeView")
    any_shop.report("1003", currency="EURO")
    listed = any_shop.json("orders")["newest"]
    assert {one["order"]: (one["state"], one["value"], one["currency"]) for one in listed} == {
        "1001": ("dead", "59.90", "EUR"),
        "1002": ("delivered", "59.90", "EUR"),
        "1003": ("dead", "", ""),
    }
    page = any_shop.html("orders")
    assert "no such currency" in page
    assert "click123" not in page


def test_amounts_are_written_as_on_the_other_pages(any_shop: DashboardShop) -> None:
    any_shop.report("1001", value="1500", currency="JPY")
    any_shop.report("1002", value="1234.5")
    any_shop.settle(o1001=DELIVERED, o1002=DELIVERED)
    page = any_shop.html("orders")
    assert ">1,500 JPY<" in page
    assert ">1,234.50 EUR<" in page
    assert "purchase, 1,500 JPY<" in find(any_shop, "1001")
    listed = any_shop.upload("order,total,currency\n1001,2500,JPY\n").text
    assert ">2,500 JPY<" in listed
    assert "</span>1,500 JPY<" in listed
    [row, _] = csv.DictReader(io.StringIO(any_shop.client.get(f"{WHERE}orders.csv").text))
    assert row["value"] == "1234.50"


@pytest.mark.parametrize("content", [b"\xffnot JSON", b"[" * 9999, b"[1]"])
def test_an_order_whose_content_is_damaged_breaks_no_page_or_command(
    shop: DashboardShop, content: bytes
) -> None:
    shop.bury("1001")
    damage = "UPDATE adroll_event SET payload = :content"
    shop.runtime.outbox.database.write(lambda tx: tx.execute(damage, content=content))
    assert "1001" in find(shop, "1001")
    for page in ("", "orders", "problems", "match-quality"):
        shop.html(page)
    [row] = shop.runtime.outbox.lookups.list()
    for command in ("find 1001 --json", f"show {row.id}", f"show {row.id} --full", "export"):
        assert row.id in invoke(shop.app, "outbox", *command.split(), code=0).output


_TEXTS = "id event_name advertisable_eid dedupe_key digest sender refund record_hash attempt_log"


@pytest.mark.parametrize("column", _TEXTS.split())
@pytest.mark.parametrize("text", [b"\xff\xfe", b"{", b"[1]"])
def test_one_damaged_text_keeps_no_other_order_from_adroll(
    shop: DashboardShop, column: str, text: bytes, caplog: Caplog
) -> None:
    """SQLite does not notice what a disk has changed within a text."""
    shop.report("1001")
    shop.report("1002")
    damage = f"UPDATE adroll_event SET {column} = CAST(:text AS TEXT) WHERE dedupe_key = '1001'"
    shop.runtime.outbox.database.write(lambda tx: tx.execute(damage, text=text))
    shop.runtime.deliverer.drain()
    assert {"1001", "1002"} - {*shop.adroll.taken} <= ({"1001"} if "eid" in column else set())
    for page in ("", "orders", "problems", "match-quality"):
        shop.html(page)
    assert len(shop.runtime.outbox.lookups.list()) == 2
    told = caplog.text.count("outbox-text-damaged")
    # A delivery removes two of them before they are read.
    assert told == (text == b"\xff\xfe") or column in ("record_hash", "attempt_log")


@pytest.mark.parametrize("text", [b"\xff\xfe", b"no number"])
def test_one_damaged_note_keeps_no_order_from_adroll(shop: DashboardShop, text: bytes) -> None:
    database = shop.runtime.outbox.database
    shop.extension.paid_orders(lambda since, until: [{"order_id": "1001"}])
    shop.report("1001", gpc=True)
    shop.runtime.outbox.admin.restored()
    shop.runtime.outbox.admin.keep_house()
    shop.runtime.paid_orders.compare(14)
    notes: dict[str, str] = database.read(lambda tx: schema.metas(tx, ""))
    assert {"began", "noted", "housekeeping_at", "outbox_id"} < notes.keys()
    damage = "UPDATE adroll_meta SET value = CAST(:text AS TEXT) WHERE name = :name"
    for name in notes:
        database.write(methodcaller("execute", damage, text=text, name=name))
        shop.now += 1
        shop.report(name, timestamp=shop.now)
        shop.runtime.deliverer.drain()
        shop.runtime.outbox.admin.keep_house()
        for page in ("", "orders", "problems"):
            shop.html(page)
        database.write(partial(schema.set_meta, name=name, value=notes[name]))
    assert shop.adroll.taken == [*notes]


@pytest.mark.parametrize(("chosen", "orders"), [({}, "4321"), ({"state": "dead"}, "432")])
def test_the_list_goes_on_page_by_page(
    shop: DashboardShop, monkeypatch: Patch, chosen: dict[str, str], orders: str
) -> None:
    monkeypatch.setattr("adroll_flask.dashboard.orders._LISTED", 2)
    shop.deliver("1")
    for order in ("2", "3", "4"):
        shop.now += 1.0
        shop.bury(order)
    first = shop.json("orders", **chosen)
    rest = shop.json("orders", **chosen, before=first["older"])
    assert [one["order"] for one in (*first["newest"], *rest["newest"])] == [*orders]
    assert rest["older"] is None
    assert "Earlier ones" in shop.html("orders", **chosen)
    assert "Earlier orders" in shop.html("orders", **chosen, before=first["older"])


def test_an_orders_life_is_told_step_by_step(any_shop: DashboardShop) -> None:
    any_shop.report("1001", hold=True, email="ann@example.com")
    assert steps(any_shop, "1001") == ["happened", "held"]
    assert "Held until paid" in find(any_shop, "1001")
    with any_shop.app.app_context():
        release_conversion("1001")
    asked = Attempt(0.0, "unsure", 500, "http_500", True)
    any_shop.settle(o1001={"kind": "retry", "unsure": True, "asked": asked})
    assert steps(any_shop, "1001") == ["happened", "held", "released", "attempt"]
    page = find(any_shop, "1001")
    for said in ("http_500; it may have arrived", "Waiting", "What it carried", "conversion_value"):
        assert said in page
    assert not re.search("click123|203.0.113.7|ann@example", page)
    any_shop.settle(o1001=DELIVERED)
    assert steps(any_shop, "1001")[-1] == "delivered"


def test_an_order_that_is_sent_again_by_hand_keeps_its_first_report(shop: DashboardShop) -> None:
    """ "Reported" was the time of the retry, and nothing told of the refusal."""
    shop.bury("1001")
    shop.now += 2 * 3600
    assert shop.press("problems/retry", **shop.open_problem()) == "1 event will be sent again."
    assert steps(shop, "1001") == ["happened", "reported", "attempt", "sent_again"]
    page = find(shop, "1001")
    life = page.partition('class="life"')[2]
    assert re.findall(r"(\w+)</span> <time[^>]*>25 Nov 2026, (1\d:03)", life) == [
        ("Happened", "15:03"),
        ("Reported", "15:03"),
        ("asked", "15:03"),
        ("hand", "17:03"),
    ]
    assert "no such currency" in page
    shop.settle(o1001=DELIVERED)
    assert steps(shop, "1001") == ["happened", "reported", "sent_again", "delivered"]
    told = invoke(shop.app, "outbox", "find", "1001").output
    assert "25 Nov 2026, 15:03 UTC  Reported\n" in told
    assert "25 Nov 2026, 17:03 UTC  Sent again by hand, it had been given up\n" in told


def test_a_refund_is_shown_where_people_look(any_shop: DashboardShop) -> None:
    any_shop.deliver("1001", "1002", "1003")
    with any_shop.app.app_context():
        cancel_conversion("1001")
        release_conversion("1002", value="40.00")
    any_shop.take_in()
    keeps = "AdRoll keeps 59.90 EUR, its API takes nothing back"
    for order, refund in (("1001", "59.90 EUR"), ("1002", "19.90 EUR")):
        assert steps(any_shop, order)[-1] == "refunded"
        assert f"{refund}; {keeps}" in find(any_shop, order)
        assert (
            f"Refunded, {refund}; {keeps}" in invoke(any_shop.app, "outbox", "find", order).output
        )
    assert steps(any_shop, "1003")[-1] == "delivered"
    listed = any_shop.html("orders")
    assert re.findall(r"refunded [\d.]+ EUR", listed) == [
        "refunded 19.90 EUR",
        "refunded 59.90 EUR",
    ]
    found = any_shop.json()
    assert (found["refunded"]["events"], found["refunded"]["values"]) == (2, [["EUR", "79.8"]])
    assert found["way"][-1]["values"] == [["EUR", "179.7"]], "AdRoll has all of it still"
    assert "Refunded after the delivery: <b>79.80 EUR</b>" in any_shop.html()
    # The list has what is left of the second.
    text = any_shop.upload("order,total,currency\n1001,59.90,EUR\n1002,40,EUR\n").text
    assert "2 of 2 paid orders reached AdRoll" in text
    assert "2 were refunded after the delivery; AdRoll keeps them" in text
    assert "another value" not in text
    assert "79.80 EUR" in invoke(any_shop.app, "history").output


@pytest.mark.parametrize("is_trapped", [False, True], ids=["rounds", "raises"])
def test_a_shops_own_decimal_context_changes_no_figure(
    shop: DashboardShop, is_trapped: bool
) -> None:
    with localcontext(prec=4, rounding=ROUND_DOWN) as own:
        own.traps[Inexact] = is_trapped
        own.traps[FloatOperation] = is_trapped
        shop.report("1001", value="12345.67", user_id=7.0)
        shop.report("1002", value="99999.99")
        shop.settle(o1001=DELIVERED, o1002=DELIVERED)
        with shop.app.app_context():
            release_conversion("1001", value="0.33")
        shop.take_in()
        found = shop.json()
        assert found["way"][-1]["values"] == [["EUR", "112345.66"]]
        assert found["refunded"]["values"] == [["EUR", "12345.34"]]
        assert "112,346 EUR" in shop.html()
        assert "112,345.66 EUR" in invoke(shop.app, "history", code=0).output
        text = shop.upload("order,total,currency\n1001,0.33,EUR\n1002,99999.99,EUR\n").text
        assert "2 of 2 paid orders reached AdRoll" in text
        assert "another value" not in text
        missing = "order,total,currency\n1003,77777.77,EUR\n1004,33333.32,EUR\n1005,1-2,EUR\n"
        assert "111,111 EUR" in shop.upload(missing).text
        assert "user id" in find(shop, "1001")


@pytest.fixture
def turkish(tmp_path: Path, monkeypatch: Patch) -> Iterator[None]:
    """The process has the locale of a Turkish server, where "I" is no capital of "i"."""
    made = tmp_path / "tr_TR.UTF-8"
    command = [program("localedef", "libc-bin"), "-i", "tr_TR", "-f", "UTF-8", str(made)]
    subprocess.run(command, check=False, capture_output=True)
    if not made.is_dir():
        lacking("no sources of locales: apt-get install locales")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, made.name)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.mark.usefixtures("turkish")
def test_a_turkish_servers_orders_are_counted_like_others(shop: DashboardShop) -> None:
    shop.report("1001")
    shop.report("1002")
    shop.settle(o1001=DELIVERED, o1002=DELIVERED)
    text = shop.upload("order,total\n1001,59.90\n1002,59.90\n").text
    assert "2 of 2 paid orders reached AdRoll" in text


def test_orders_say_what_they_were_matched_by_and_are_chosen_by_it(
    any_shop: DashboardShop,
) -> None:
    """After the delivery, too, when their content is gone."""
    any_shop.report("1001", email="ann@example.com", user_id="7")
    any_shop.report("1002")
    any_shop.settle(o1001=DELIVERED, o1002=DELIVERED)
    assert "Matched by click id, e-mail and user id." in find(any_shop, "1001")
    assert "Matched by click id." in find(any_shop, "1002")
    output = invoke(any_shop.app, "outbox", "find", "1001").output
    assert "matched by  click id, e-mail and user id" in output
    orders = [one["order"] for one in any_shop.json("orders", carries="email")["newest"]]
    assert orders == ["1001"]
    assert len(any_shop.json("orders", carries="adct")["newest"]) == 2
    page = any_shop.html("orders", carries="email")
    assert "None of the newest" in any_shop.html("orders", carries="device_id")
    assert "orders?state=dead&amp;carries=email" in page


def test_an_order_that_nobody_delivers_says_so(shop: DashboardShop) -> None:
    shop.report("1001")
    assert "Nobody delivers" not in find(shop, "1001")
    shop.now += 120
    said = "Nobody delivers: 1 event waits, and nobody has tried to send it for 2 minutes."
    assert said in find(shop, "1001")
    told = invoke(shop.app, "outbox").output
    assert f"kept back   {said} None is lost: flask adroll worker --once" in told


def test_why_an_order_waits_or_was_not_reported_is_told(any_shop: DashboardShop) -> None:
    any_shop.report("1001")
    assert "has refused" not in find(any_shop, "1001")
    any_shop.destination.stop("http_401", "print")
    assert "AdRoll has refused the access token" in find(any_shop, "1001")
    any_shop.report("1002", gpc=True)
    page = find(any_shop, "1002")
    assert "not reported" in page
    assert "Global Privacy Control" in page


def test_why_an_order_was_not_sent_leads_to_its_problem(any_shop: DashboardShop) -> None:
    any_shop.bury("1001")
    [problem] = any_shop.json("problems")["open"]
    page = find(any_shop, "1001")
    assert "no such currency (E7)" in page
    assert f"problems?problem={problem['id']}" in page
    assert "refused: http_400" not in page, "a code of ours"
    any_shop.report("1002", currency="EURO")
    assert "The shop reported a wrong currency: takes" in find(any_shop, "1002")


def test_an_order_whose_id_is_an_address_is_found_and_not_shown(shop: DashboardShop) -> None:
    """Neither in a URL nor on a page."""
    shop.report("trial:ann@example.com")
    answer = shop.post("orders/find", order="trial:ann@example.com")
    assert answer.status_code == 303
    assert "ann" not in answer.location
    page = shop.client.get(answer.location).text
    assert "Reported" in page
    assert "ann@example.com" not in page
    assert "ann@example.com" not in find(shop, "another:ann@example.com")


def test_an_event_that_is_gone_is_not_found(shop: DashboardShop) -> None:
    shop.report("1001")
    for id in ("0" * 32, "no id", "<script>"):
        answer = shop.client.get(f"{WHERE}orders", query_string={"event": id})
        assert answer.status_code == 404
        assert "no such event" in answer.text
        assert "<script>" not in answer.text


def test_its_csv_has_the_newest_orders_or_the_steps_of_one(shop: DashboardShop) -> None:
    shop.bury("1001")
    [line] = csv.DictReader(io.StringIO(shop.html("orders.csv")))
    assert (line["order"], line["state"]) == ("1001", "dead")
    steps = csv.DictReader(io.StringIO(shop.html("orders.csv", event=line["id"])))
    assert [step["step"] for step in steps] == ["happened", "reported", "attempt", "dead"]


# -- the shop's list -------------------------------------------------------------------------------


def test_a_list_may_be_json_lines_and_name_its_column(shop: DashboardShop) -> None:
    shop.deliver("1001")
    lines = "\n".join(json.dumps({"nummer": order, "total": 59.9}) for order in ("1001", "1002"))
    assert "1 of 2 paid orders reached AdRoll" in shop.upload(lines, column="nummer").text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column is known to hold the order"),
        (b'{"order": 1}\nnothing\n', "line 2: takes one JSON object"),
        (b"name,order,total\nMiller, Ann,1001,5\n", "and the header has 3: put quotes around"),
        (b"\xff\xfe\x00\x01\n\x00", "this is no CSV"),
        (b"PK\x03\x04" + b"\0" * 200, "an Excel file: save it as CSV"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "this is no CSV"),
        (b'"' + b"x" * 200_000, "is no CSV"),
        (b"order\n" + b"y" * 200_000, "is no CSV"),
        (b"order,total\n" + b"1,59.90\n" * 200, "more than 100 orders"),
    ],
)
def test_a_list_that_is_none_is_told(
    shop: DashboardShop, monkeypatch: Patch, content: bytes, said: str
) -> None:
    monkeypatch.setattr("adroll_flask.dashboard.orders._MOST_LINES", 100)
    shop.report("1001")
    answer = shop.upload(content)
    if answer.status_code == 200:
        assert "the list holds no orders" in answer.text
    else:
        assert said in shop.said(answer)
        assert is_bad(shop, answer)
    nothing = shop.post("orders/compare")
    assert shop.said(nothing).startswith("Choose a file")
    assert is_bad(shop, nothing)


def is_bad(shop: DashboardShop, answer: TestResponse) -> bool:
    """Whether what the page says after an action is no success."""
    return 'class="notice bad"' in shop.client.get(answer.location).text


def test_of_a_long_list_what_can_be_acted_on_is_first(shop: DashboardShop) -> None:
    """The page showed the first 200 of the list, 15,700 pixels on a phone."""
    began_long_ago(shop.app)
    for order in range(40):
        shop.report(f"n{order}", gpc=True)
    ids = [*(f"n{order}" for order in range(40)), "lost"]
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(shop.now - 3600))
    text = "order_id,time\n" + "".join(f"{id},{at}\n" for id in ids)
    page = shop.upload(text).text
    rows = re.findall(r'<span class="id">(\w+)</span></th>', page)
    assert rows == ["lost", *(f"n{order}" for order in range(24))]
    assert "The first 25 of 41" in page
    assert "“Download what did not arrive” gives all of them" in page
    listed = csv.DictReader(io.StringIO(shop.upload(text, format="csv").text))
    assert [one["order_id"] for one in listed] == ["lost", *ids[:-1]]


def test_a_sum_stands_beside_what_it_is_the_sum_of(shop: DashboardShop) -> None:
    """One sum of all dead letters stood beside each reason, and that of others beside the good."""
    shop.bury("1001", error="http_422: must be positive")
    shop.report("1002", value="12.00", currency="EURO")
    shop.report("1003", value="50")
    shop.report("1004", value="60")
    shop.report("1005", value="70")
    shop.settle(o1003=DELIVERED, o1004=DELIVERED)
    lines = ("1001;59.90", "1002;12.00", "1003;50", "1004;61", "1005;72")
    page = shop.upload("order;total;currency\n" + "".join(f"{line};EUR\n" for line in lines)).text
    said = re.findall(r'<li class="[a-z]*">([^<]*(?: <b>[^<]*</b>)?)</li>', page)
    assert [html.unescape(re.sub("</?b>", "", one)) for one in said] == [
        "1 was given up: AdRoll refused what the event says · 59.90 EUR",
        "1 was given up: The shop reported a wrong currency · 12.00 EUR",
        "2 were reported with another value than the list's · 133.00 EUR",
        "1 waits to be sent · 72.00 EUR",
        "2 of 5 paid orders reached AdRoll",
        "the list has no times that can be read: orders that it lacks are not looked for, and one"
        " that was paid more than 90 days ago cannot be told from one that is missing",
    ]


def test_a_list_may_write_its_ids_as_people_do(any_shop: DashboardShop) -> None:
    """Shopify's export has "#4473" of an order that it reports as 4473."""
    any_shop.deliver("4473", "#4474", "4476")
    any_shop.report("4475", gpc=True)
    any_shop.report("4477", currency="EURO")
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(any_shop.now - 200))
    ids = ("#4473", "4474", "#4475", "# 4476", "#4477", "#4999", "4473")
    paid = "Name,Total,Paid at\n" + "".join(f"{id},,{at}\n" for id in ids)
    text = any_shop.upload(paid).text
    assert "3 of 6 paid orders reached AdRoll" in text
    for said in (
        "1 was not to be reported: The visitor&#39;s browser says no",
        "1 was given up: The shop reported a wrong",
        "1 was never",
        "1 line repeats",
    ):
        assert said in text
    assert "not in the list" not in text
    answer = any_shop.upload(paid, format="csv")
    assert answer.mimetype == "text/csv"
    found = [(row["order_id"], row["status"]) for row in csv.DictReader(io.StringIO(answer.text))]
    lost = [("#4477", "dead"), ("#4999", "missing"), ("#4475", "suppressed"), ("4473", "duplicate")]
    assert found == lost


def test_an_order_of_a_comparison_leads_to_its_page(shop: DashboardShop) -> None:
    began_long_ago(shop.app)
    shop.bury("1001")
    shop.report("1002", currency="EURO")
    text = shop.upload('order,total,currency\n1001,119,EUR\n1002,1,EUR\n1003,"59,90 €",EUR\n').text
    rows = re.findall(
        r'<th scope="row"><(?:a class="id" href="([^"]*)"|span class="id")>(\d+)', text
    )
    assert {order: bool(link) for link, order in rows} == {"1001": 1, "1002": 1, "1003": 0}
    for link, order in rows:
        if link:
            assert f'<h1>Order <span class="id">{order}</span></h1>' in shop.client.get(link).text
    for amount in ("119.00 EUR", "59.90 EUR"):
        assert f'<td class="number">{amount}</td>' in text


def test_what_is_wrong_with_a_lists_columns_is_told_by_the_form(shop: DashboardShop) -> None:
    shop.report("1001")
    said = shop.said(shop.upload("Bestellung;Summe\n1001;1\n"))
    assert "the order&#39;s id: name it (in the form" in said
    assert said.endswith("there are: Bestellung, Summe.")
    said = shop.said(shop.upload("order;Zahlart\n1001;card\n", group="payment"))
    assert said.endswith(
        "there is no column &#39;payment&#39;; the file has &#39;order&#39;, &#39;Zahlart&#39;."
    )
    page = shop.upload("order;Date\n1001;16.11.2026 14:30\n").text
    assert "the list has no times that can be read" in page


# -- as people write it --------------------------------------------------------------------------


def test_an_order_is_found_as_people_write_it_or_others_are_named(shop: DashboardShop) -> None:
    assert "No order was reported yet." in shop.html("orders")
    assert "It is unknown here" in find(shop, "1001")
    assert shop.press("orders/find", order=" ").startswith("Type the order")
    shop.report("2026-4826")
    for typed in ("#2026-4826", " 2026-4826 ", "# 2026-4826", "Order 2026-4826"):
        assert '<h1>Order <span class="id">2026-4826<' in find(shop, typed)
    for typed in ("4826", "#2026-04826", "Order 2026-4826-B"):
        page = find(shop, typed)
        assert "It is unknown here" in page
        assert "Did you mean" in page
        assert ">2026-4826</a>" in page
    assert "Did you mean" not in find(shop, "2026-4827"), "another order's number says nothing"


def test_an_order_of_the_shops_list_alone_is_told_as_unreported(shop: DashboardShop) -> None:
    """It was unknown here, while the list of the same page had it."""
    began_long_ago(shop.app)
    rows: list[Any] = [{"order_id": "#1002", "value": "59.90", "currency": "EUR"}]
    shop.extension.paid_orders(lambda _since, _until: (one for one in rows))
    shop.deliver("1001")
    for typed in ("1002", "#1002", "Order 1002"):
        page = find(shop, typed)
        assert "It was paid and never reported" in page
        assert "own list of paid orders has it, with <strong>59.90 EUR" in page
        assert "Did you mean" not in page
    page = find(shop, "1001-B")
    assert "It is unknown here" in page
    assert "Did you mean" in page
    assert "of the last 14 days has none of this id" in page
    rows[:] = [7]  # a function that fails is a finding, and no fault of the page
    page = find(shop, "1002")
    assert "It is unknown here" in page
    assert "has none of this id" not in page


@pytest.mark.parametrize("form", ["page", "csv"])
def test_a_list_of_the_shops_own_that_fails_is_told(shop: DashboardShop, form: str) -> None:
    rows: list[Any] = []
    shop.extension.paid_orders(lambda _since, _until: rows[0])
    said = shop.said(shop.post("orders/missing", format=form))
    assert html.unescape(said) == "The shop's own list cannot be read: it raised IndexError."


def test_the_shops_own_list_is_compared_without_an_upload(shop: DashboardShop) -> None:
    began_long_ago(shop.app)
    assert "has not told" in shop.said(shop.post("orders/missing", format="page"))

    @shop.extension.paid_orders
    def paid(_since: Any, _until: Any) -> Any:
        groups = {"1000": "card", "1001": "paypal", "1002": "invoice", "1003": "paypal"}
        for order, group in groups.items():
            yield {"order_id": order, "value": "59.90", "currency": "EUR", "group": group}

    shop.deliver("1000")
    text = shop.post("orders/missing", format="page").text
    said = "3 were never reported: 2 with group &#39;paypal&#39;, 1 with group &#39;invoice&#39;"
    assert f"{said} · <b>179.70 EUR</b>" in text
    assert text.count('<td class="group">paypal</td>') == 2
    listed = csv.DictReader(io.StringIO(shop.post("orders/missing", format="csv").text))
    groups = [(row["order_id"], row["group"]) for row in listed]
    assert groups == [("1001", "paypal"), ("1002", "invoice"), ("1003", "paypal")]


def test_a_command_says_of_an_order_what_its_page_says(
    new_shop: Callable[..., DashboardShop],
) -> None:
    """It named neither order nor value, and had no reason; its times were another zone's."""
    shop = new_shop(ADROLL_TIME_ZONE="Europe/Berlin", ADROLL_DEDUPE_DAYS=30)
    shop.report("1001")
    shop.now += 120
    told = invoke(shop.app, "outbox", "find", "1001", code=0).output
    assert re.match(r"purchase [0-9a-f]{32}, order 1001, 59\.90 EUR\n", told)
    said = "Nobody delivers: 1 event waits, and nobody has tried to send it for 2 minutes."
    page = find(shop, "1001")
    assert "25 Nov 2026, 16:03</time>" in page
    assert "25 Nov 2026, 16:03 CET  Reported" in told
    for view in (told, page):
        assert said in view
    assert "25 Nov 2026, 16:03 CET" in invoke(shop.app, "outbox", "list").output
    may_be_older = "or was it paid before this outbox began (25 Nov 2026, 16:03"
    for view in (invoke(shop.app, "outbox", "find", "9999", code=1).output, find(shop, "9999")):
        assert f"Is it older than 30 days, {may_be_older}" in view
        assert "Then it is not known here, and AdRoll may have it." in view


def test_an_order_that_waits_for_settings_says_which(
    new_shop: Callable[..., DashboardShop],
) -> None:
    shop = new_shop(ADROLL_ACCESS_TOKEN=None)
    shop.report("1001")
    said = "ADROLL_ACCESS_TOKEN not set."
    assert said in find(shop, "1001")
    assert said in invoke(shop.app, "outbox", "find", "1001").output


def test_a_dry_run_is_one_wherever_it_is_told(
    new_shop: Callable[..., DashboardShop], tmp_path: Path
) -> None:
    """The command said "delivered", the comparison "never reported"."""
    shop = new_shop(ADROLL_DRY_RUN=True)
    began_long_ago(shop.app)
    shop.deliver("1001")
    told = invoke(shop.app, "outbox", "find", "1001").output
    assert "EUR, dry run\n" in told
    for view in (told, find(shop, "1001")):
        assert "A dry run: AdRoll checked the event and did not keep it." in view
        assert "AdRoll has it" not in view
    rest = tmp_path / "rest.csv"
    paid = "order\n1001\n"
    compared = invoke(shop.app, "reconcile", "-", "--rest", str(rest), input=paid, code=1).output
    said = "1 was reported as a dry run: AdRoll checks it and does not keep it"
    assert said in compared
    assert "never reported" not in compared
    [row] = csv.DictReader(io.StringIO(rest.read_text()))
    assert (row["order_id"], row["status"]) == ("1001", "dry_run")
    assert said in shop.upload(paid).text

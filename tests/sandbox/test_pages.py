"""Ad, click, pixel and live view, without a browser."""

import json
import stat
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from adroll_flask.sandbox import create_app, event_checks, running, value_checks
from adroll_flask.sandbox.state import SandboxState
from tests.support.sandbox_helpers import ADVERTISABLE_EID, COOKIE, FULL, LEAST, NOW, Api, purchase

IDS = "identifiers"
PAGES = ["/", "/ad", "/click", "/events", "/requests", "/faults", "/assets/live.js", "/nothing"]


@pytest.mark.parametrize("path", [*PAGES, f"/j/{ADVERTISABLE_EID}/roundtrip.js"])
def test_the_sandbox_sets_no_cookie(api: Api, path: str) -> None:
    assert "Set-Cookie" not in api.open(path).headers
    assert "Set-Cookie" not in api.post([FULL]).headers


def test_a_click_leads_to_the_shop_with_a_fresh_click_id(api: Api) -> None:
    found = set()
    for _ in range(3):
        answer = api.open("/click", query_string={"to": "http://shop.test:5000/mug?size=l#top"})
        assert answer.status_code == 302
        assert answer.headers["Cache-Control"] == "no-store"
        target = urlsplit(answer.headers["Location"])
        query = parse_qs(target.query)
        assert (target.netloc, target.path, target.fragment) == ("shop.test:5000", "/mug", "top")
        assert query.pop("size") == ["l"]
        (adct,) = query.pop("adct")
        assert query == {}
        assert value_checks.click_id(adct) is None
        found.add(adct)
    assert {one["adct"] for one in api.sandbox.state.clicks()} == found
    assert len(found) == 3
    answer = api.open("/click", query_string={"to": "http://shop.test/?adct=old&adct=older"})
    (adct,) = parse_qs(urlsplit(answer.headers["Location"]).query)["adct"]
    assert adct not in ("old", "older")


@pytest.mark.parametrize(
    "to",
    [
        *("https://evil.com/", "//evil.com/", "https:evil.com", "https:/evil.com", "", "/ad"),
        *("javascript:alert(1)", "data:text/html,x", "http://shop.test@evil.com/"),
        *("http://evil.com\\@shop.test/", "http://evil.com#@shop.test/", "http://eviltest/"),
        *("http://shop.test.evil.com/", "http://127.0.0.1.evil.com/", "http://shop.test:99999/"),
        "http://shop.test/\r\nSet-Cookie: a=b",
    ],
)
def test_a_click_leads_nowhere_else(api: Api, to: str) -> None:
    for path in ("/click", "/ad"):
        answer = api.open(path, query_string={"to": to})
        assert answer.status_code == 400, path
        assert "Location" not in answer.headers
    assert api.sandbox.state.clicks() == []


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost", "[::1]:5000", "www.shop.test"])
def test_a_click_leads_to_this_machine_and_to_test_names(api: Api, host: str) -> None:
    answer = api.open("/click", query_string={"to": f"http://{host}/"})
    assert answer.headers["Location"].startswith(f"http://{host}/?adct=")


def test_a_click_leads_to_configured_hosts_and_the_shop_that_was_set_up() -> None:
    client = create_app(hosts=frozenset({"staging.shop.com"})).test_client()
    answer = client.get("/click", query_string={"to": "https://staging.shop.com/a"})
    assert answer.headers["Location"].startswith("https://staging.shop.com/a?adct=")
    client = create_app(shop_url="https://shop.com/").test_client()
    assert client.get("/click").headers["Location"].startswith("https://shop.com/?adct=")
    assert client.get("/ad").status_code == 200
    assert client.get("/click", query_string={"to": "https://shop.com/other"}).status_code == 400


def test_the_pixel_is_served_for_the_account_alone(api: Api) -> None:
    answer = api.open(f"/j/{ADVERTISABLE_EID}/roundtrip.js")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert "/*SETTINGS*/" not in answer.get_data(as_text=True)
    for eid in ("OTHER00000000000000001", "x", "%22;alert(1);%22"):
        assert api.open(f"/j/{eid}/roundtrip.js").status_code == 404


def test_a_beacon_comes_by_post_or_as_an_image(api: Api) -> None:
    said = json.dumps({"kind": "track", "name": "addToCart", "cookie": COOKIE, "page": "x"})
    path = f"/pixel/beacon/{ADVERTISABLE_EID}"
    assert api.open(path, method="POST", data=said).status_code == 204
    assert api.open(path, query_string={"data": said}).data.startswith(b"GIF89a")
    assert [one["event_name"] for one in api.sandbox.state.tracked()] == ["addToCart"] * 2
    assert api.open("/pixel/beacon/OTHER", method="POST", data=said).status_code == 404


def test_what_no_pixel_sends_is_refused_and_odd_values_are_left_out(api: Api) -> None:
    path = f"/pixel/beacon/{ADVERTISABLE_EID}"
    long = (b"[" * 9999, b'{"kind": "track"' + b" " * 65536)
    for said in (b"", b"[]", b"{", b'{"kind": "other"}', *long):
        assert api.open(path, method="POST", data=said).status_code == 400
    assert api.sandbox.state.totals()["pixel_events"] == 0
    odd = {"kind": "track", "name": 5, "cookie": "a;b", "page": "javascript:x", "order_id": {}}
    assert api.open(path, method="POST", data=json.dumps(odd)).status_code == 204
    (record,) = api.sandbox.state.tracked()
    assert [record[name] for name in ("event_name", "cookie", "page", "order_id")] == [None] * 4


def test_the_live_page_allows_nothing_foreign_and_no_inline_code(api: Api) -> None:
    answer = api.open("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = answer.get_data(as_text=True)
    assert "style=" not in page
    assert "<script>" not in page
    assert "innerHTML" not in api.open("/assets/live.js").get_data(as_text=True)
    assert api.open("/assets/live.css").status_code == 200
    for path in ("/assets/roundtrip.js", "/assets/../app.py"):
        assert api.open(path).status_code == 404


def test_programs_in_the_same_process_have_it_all_at_hand() -> None:
    with running() as adroll:
        api = Api.of(adroll.app)
        location = adroll.click("http://shop.test/")
        api.post([purchase("1"), LEAST])
        assert len(adroll.accepted()) == 2
        with pytest.raises(TimeoutError, match="1 of 2"):
            adroll.wait(2, "purchase", timeout=0.01)
        assert adroll.clicks()[0]["adct"] in location
        with pytest.raises(ValueError, match="may not lead"):
            adroll.click("https://evil.com/")
        adroll.reset()
        assert adroll.events() == adroll.requests() == adroll.clicks() == []
        api.post([purchase("1")])
        assert api.open("/events", method="DELETE").status_code == 204
        assert adroll.totals()["distinct_orders"] == 0


# -- what the sandbox remembers of events: verdict, coverage, journey, twins; and for how long ----


def click(api: Api) -> str:
    answer = api.open("/click", query_string={"to": "http://shop.test/mug?size=l"})
    return str(answer.headers["Location"]).partition("adct=")[2]


def beacon(api: Api, **said: Any) -> None:
    body = json.dumps({"kind": "cookie", "cookie": COOKIE, "page": "http://shop.test/", **said})
    answer = api.open(f"/pixel/beacon/{ADVERTISABLE_EID}", method="POST", data=body)
    assert answer.status_code == 204


def last(api: Api) -> dict[str, Any]:
    return api.sandbox.state.events()[-1]


def test_an_event_is_kept_as_it_came_a_rejected_one_with_its_errors(api: Api) -> None:
    api.post([FULL])
    record = last(api)
    assert record["event"] == FULL
    assert (record["verdict"], record["received_at"]) == ("accepted", NOW)
    assert (record["event_name"], record["order_id"]) == ("purchase", "1001")
    assert record["request"] == api.sandbox.state.requests()[0]["id"]
    api.post([{**LEAST, "ip": "x"}])
    assert last(api)["verdict"] == "rejected"
    assert [error["field"] for error in last(api)["errors"]] == ["ip"]


def test_the_same_order_twice_is_marked(api: Api) -> None:
    # Refused events and dry runs take no order id.
    api.post([purchase("1", ip="x")])
    api.post([purchase("1")], query={"advertisable": ADVERTISABLE_EID, "dry_run": "true"})
    api.post([purchase("1"), purchase("2")])
    assert api.sandbox.state.totals()["distinct_orders"] == 2
    # Nor is another event of that order a second one, or what has no order id.
    api.post([purchase("1", event_name="addToCart"), LEAST, LEAST])
    assert api.sandbox.state.totals()["duplicates"] == 0
    api.post([purchase("1")])
    assert (last(api)["duplicate"], last(api)["duplicate_of"]) == (True, 3)
    assert api.sandbox.state.totals()["duplicates"] == 1


def test_coverage_of_an_event_and_of_all_accepted_ones(api: Api) -> None:
    assert api.sandbox.state.meter()["score"] is None
    api.post([{**LEAST, IDS: {"adct": "a", "email_md5": "c" * 32}}])
    coverage = last(api)["coverage"]
    assert coverage["carried"] == ["adct", "email_md5"]
    assert sorted(coverage["carried"] + coverage["missing"]) == sorted(event_checks.IDENTIFIERS)
    assert coverage["score"] == round(2 / 7, 3)
    api.post([FULL])
    api.post([{**FULL, "ip": "x"}])
    api.post([FULL], query={"advertisable": ADVERTISABLE_EID, "dry_run": "1"})
    meter = api.sandbox.state.meter()
    assert (meter["events"], meter["score"]) == (2, round(9 / 14, 3))
    assert (meter["carried"]["adct"], meter["carried"]["device_id"]) == (2, 1)


def test_an_event_is_matched_by_the_click_id_of_the_ad(api: Api) -> None:
    adct = click(api)
    api.post([{**LEAST, IDS: {"adct": adct}}])
    journey = last(api)["journey"]
    assert journey["matched_by"] == "click id"
    clicked = {"adct": adct, "known": True, "at": NOW, "to": "http://shop.test/mug?size=l"}
    assert journey["click"] == clicked
    assert api.sandbox.state.totals()["matched"] == 1


def test_an_event_is_matched_by_the_cookie_that_the_pixel_saw_after_the_click(api: Api) -> None:
    beacon(api, page=f"http://shop.test/mug?adct={click(api)}", adopted=True)
    beacon(api, page="http://shop.test/cart")
    api.post([{**LEAST, IDS: {"first_party_cookie": COOKIE}}])
    journey = last(api)["journey"]
    assert journey["matched_by"] == "first-party cookie"
    assert journey["cookie"]["made_by"] == "site"
    assert journey["cookie"]["pages"] == 2
    assert [step["what"] for step in journey["steps"]] == ["click", "page", "page"]
    assert [step["detail"] for step in journey["steps"]] == ["shop.test", "/mug", "/cart"]


def test_an_event_is_matched_however_many_pages_the_visitor_saw(api: Api) -> None:
    beacon(api, page=f"http://shop.test/mug?adct={click(api)}")
    for number in range(20):
        beacon(api, page=f"http://shop.test/page/{number}")
    api.post([{**LEAST, IDS: {"first_party_cookie": COOKIE}}])
    journey = last(api)["journey"]
    assert journey["matched_by"] == "first-party cookie"
    assert journey["steps"][-1]["detail"] == "/page/19"


@pytest.mark.parametrize("query", ["q=100%", "q=a`b"])
def test_the_click_id_of_a_page_counts_whatever_else_its_address_has(api: Api, query: str) -> None:
    beacon(api, page=f"http://shop.test/?{query}&adct={click(api)}")
    api.post([{**LEAST, IDS: {"first_party_cookie": COOKIE}}])
    assert last(api)["journey"]["matched_by"] == "first-party cookie"


def test_an_event_joins_a_click_and_a_cookie_that_were_strangers(api: Api) -> None:
    api.post([{**LEAST, IDS: {"adct": "invented", "first_party_cookie": "GA1.2.3.4"}}])
    journey = last(api)["journey"]
    assert (journey["matched_by"], journey["click"]["known"]) == (None, False)
    assert journey["cookie"]["seen_by_pixel"] is False
    beacon(api)
    adct = click(api)
    api.post([{**LEAST, IDS: {"adct": adct, "first_party_cookie": COOKIE}}])
    assert {step["what"] for step in last(api)["journey"]["steps"]} == {"click", "page"}
    api.post([{**LEAST, IDS: {"first_party_cookie": COOKIE}}])
    assert last(api)["journey"]["matched_by"] == "first-party cookie"


def test_an_event_that_arrives_late_has_its_place_in_the_journey(api: Api) -> None:
    ids = {IDS: {"first_party_cookie": COOKIE}}
    beacon(api)
    api.post([{**LEAST, **ids, "event_name": "addToCart", "timestamp": NOW - 60}])
    assert last(api)["happened_at"] == NOW - 60
    assert last(api)["journey"]["steps"] == []
    api.post([{**purchase("1"), **ids, "timestamp": NOW - 30}])
    assert [step["detail"] for step in last(api)["journey"]["steps"]] == ["addToCart"]
    api.post([{**LEAST, **ids}])
    steps = last(api)["journey"]["steps"]
    assert [step["detail"] for step in steps] == ["addToCart", "purchase", "/"]


@pytest.mark.parametrize("pixel_first", [True, False])
def test_an_order_from_both_sides_is_flagged(api: Api, pixel_first: bool) -> None:
    def pixel() -> None:
        beacon(api, kind="track", name="purchase", order_id="1", attributes={"order_id": "1"})

    if pixel_first:
        pixel()
    api.post([purchase("1"), purchase("2")])
    if not pixel_first:
        pixel()
    flags = [one["reported_by_pixel_too"] for one in api.sandbox.state.events()]
    assert flags == [True, False]
    (tracked,) = api.sandbox.state.tracked()
    assert tracked["reported_by_server_too"] is True
    assert api.sandbox.state.totals()["both_sides"] == 1


def test_beyond_keep_events_go_and_orders_stay() -> None:
    api = Api.of(create_app(keep=3))
    api.post([purchase(str(number)) for number in range(10)])
    assert [one["order_id"] for one in api.sandbox.state.events()] == ["7", "8", "9"]
    api.post([purchase("0")])
    assert last(api)["duplicate"] is True
    totals = api.sandbox.state.totals()
    assert (totals["accepted"], totals["distinct_orders"]) == (11, 10)


def test_events_can_be_picked_by_name_order_and_verdict(api: Api) -> None:
    api.post([purchase("1"), purchase("2"), LEAST])
    api.post([purchase("3", ip="x")])

    def picked(**query: Any) -> list[Any]:
        events = api.open("/events", query_string=query).get_json()["events"]
        return [one["order_id"] for one in events]

    assert picked() == ["1", "2", None, "3"]
    assert picked(event_name="purchase") == ["1", "2", "3"]
    assert picked(order_id="2") == ["2"]
    assert picked(verdict="rejected") == ["3"]
    assert picked(limit=1) == ["3"]
    assert picked(limit=0) == []
    assert picked(after=2) == [None, "3"]


def test_state_survives_in_a_bounded_file(tmp_path: Path) -> None:
    file = tmp_path / "state.jsonl"
    for _ in range(2):
        api = Api.of(create_app(state_file=file))
        state = api.sandbox.state
        beacon(api, page=f"http://shop.test/?adct={click(api)}")
        api.post([purchase("1", identifiers={"first_party_cookie": COOKIE})])
        before = state.events(), state.totals(), state.meter()
        state.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    state = SandboxState(journal=file)
    after = state.events(), state.totals(), state.meter()
    state.close()
    # Requests are not written down, so their numbers are not the same.
    for events, totals, _ in (before, after):
        totals["requests"] = 0
        for event in events:
            event["request"] = 0
    assert after == before
    assert [one["duplicate"] for one in after[0]] == [False, True]
    assert after[0][-1]["journey"]["matched_by"] == "first-party cookie"
    # It is bounded, and a line that is cut short is skipped.
    state = SandboxState(journal=file, keep=10)
    for number in range(95):
        state.add_click(f"click{number}", "http://shop.test/")
    state.close()
    assert len(file.read_text().splitlines()) <= 20
    file.write_text(file.read_text()[:-10])
    state = SandboxState(journal=file, keep=10)
    assert state.clicks()[-1]["adct"] == "click93"
    state.clear()
    state.close()
    assert len(file.read_text().splitlines()) == 1

"""Ad, click, pixel and live view, without a browser."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from adroll_flask.sandbox import RunningSandbox, create_app, running, value_checks
from tests.support import PATIENCE
from tests.support.sandbox_helpers import ADVERTISABLE_EID, COOKIE, FULL, LEAST, Api, purchase

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
    assert len(found) == 3
    assert [one["adct"] for one in api.sandbox.state.clicks()] == [
        one["adct"] for one in api.sandbox.state.clicks() if one["adct"] in found
    ]


def test_a_click_replaces_an_older_click_id(api: Api) -> None:
    answer = api.open("/click", query_string={"to": "http://shop.test/?adct=old&adct=older"})
    (adct,) = parse_qs(urlsplit(answer.headers["Location"]).query)["adct"]
    assert adct not in ("old", "older")


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.com/",
        "//evil.com/",
        "https:evil.com",
        "https:/evil.com",
        "javascript:alert(1)",
        "data:text/html,x",
        "http://shop.test@evil.com/",
        "http://evil.com\\@shop.test/",
        "http://evil.com#@shop.test/",
        "http://shop.test.evil.com/",
        "http://eviltest/",
        "http://127.0.0.1.evil.com/",
        "http://shop.test/\r\nSet-Cookie: a=b",
        "http://shop.test:99999/",
        "",
        "/ad",
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


def test_a_click_leads_to_configured_hosts() -> None:
    client = create_app(hosts=frozenset({"staging.shop.com"})).test_client()
    answer = client.get("/click", query_string={"to": "https://staging.shop.com/a"})
    assert answer.headers["Location"].startswith("https://staging.shop.com/a?adct=")


def test_a_click_leads_to_the_shop_that_was_set_up_wherever_it_is() -> None:
    client = create_app(shop_url="https://shop.com/").test_client()
    assert client.get("/click").headers["Location"].startswith("https://shop.com/?adct=")
    assert client.get("/ad").status_code == 200
    assert client.get("/click", query_string={"to": "https://shop.com/other"}).status_code == 400


def test_the_ad_leads_through_the_click(api: Api) -> None:
    page = api.open("/ad", query_string={"to": "http://shop.test/a?b=c&d=e"}).get_data(as_text=True)
    assert 'href="/click?to=http%3A%2F%2Fshop.test%2Fa%3Fb%3Dc%26d%3De"' in page
    assert "/click?to=http%3A%2F%2F127.0.0.1%3A5000%2F" in api.open("/ad").get_data(as_text=True)


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
    image = api.open(path, query_string={"data": said})
    assert image.data.startswith(b"GIF89a")
    assert [one["event_name"] for one in api.sandbox.state.tracked()] == ["addToCart"] * 2
    assert api.open("/pixel/beacon/OTHER", method="POST", data=said).status_code == 404


@pytest.mark.parametrize(
    "said",
    [b"", b"[]", b"{", b'{"kind": "other"}', b"[" * 9999, b'{"kind": "track"' + b" " * 65536],
)
def test_a_beacon_that_no_pixel_sends_is_refused(api: Api, said: bytes) -> None:
    path = f"/pixel/beacon/{ADVERTISABLE_EID}"
    assert api.open(path, method="POST", data=said).status_code == 400
    assert api.sandbox.state.totals()["pixel_events"] == 0


def test_odd_values_in_a_beacon_are_left_out(api: Api) -> None:
    said = {"kind": "track", "name": 5, "cookie": "a;b", "page": "javascript:x", "order_id": {}}
    path = f"/pixel/beacon/{ADVERTISABLE_EID}"
    assert api.open(path, method="POST", data=json.dumps(said)).status_code == 204
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


def test_assets_are_two_or_three_named_files(api: Api) -> None:
    assert api.open("/assets/live.css").status_code == 200
    assert api.open("/assets/roundtrip.js").status_code == 404
    assert api.open("/assets/../app.py").status_code == 404


def stream(adroll: RunningSandbox) -> Generator[Any, None, None]:
    connection = http.client.HTTPConnection("127.0.0.1", adroll.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/live")
        answer = connection.getresponse()
        assert (answer.getheader("Content-Type") or "").startswith("text/event-stream")
        while line := answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))
    finally:
        connection.close()


def test_the_live_stream_tells_of_events_as_they_arrive(adroll: RunningSandbox) -> None:
    api = Api(adroll.app.extensions["adroll_sandbox"], adroll.app.test_client().open)
    api.post([purchase("1")])
    news = stream(adroll)
    first = next(news)
    assert first["reset"] is True
    assert [one["order_id"] for one in first["events"]] == ["1"]
    api.post([purchase("2"), LEAST])
    orders: list[Any] = []
    for told in news:
        orders += [one["order_id"] for one in told["events"]]
        if told["totals"]["accepted"] == 3:
            break
    assert orders == ["2", None]
    adroll.fault(status=500)
    adroll.reset()
    assert any(told["reset"] and told["events"] == [] for told in news)
    news.close()


def test_a_viewer_who_comes_late_is_told_the_newest(adroll: RunningSandbox) -> None:
    api = Api(adroll.app.extensions["adroll_sandbox"], adroll.app.test_client().open)
    for start in range(0, 300, 100):
        api.post([purchase(str(number)) for number in range(start, start + 100)])
    news = stream(adroll)
    first = next(news)
    news.close()
    assert len(first["events"]) == 200
    assert first["events"][-1]["order_id"] == "299"
    assert first["skipped"] == 100


def test_programs_in_the_same_process_have_it_all_at_hand() -> None:
    with running() as adroll:
        api = Api(adroll.app.extensions["adroll_sandbox"], adroll.app.test_client().open)
        location = adroll.click("http://shop.test/")
        api.post([purchase("1"), LEAST])
        api.post([purchase("2", ip="x")])
        assert [one["order_id"] for one in adroll.purchases()] == ["1"]
        assert len(adroll.events("pageView")) == 1
        assert len(adroll.accepted()) == 2
        assert len(adroll.events(verdict="rejected")) == 1
        assert [one["order_id"] for one in adroll.wait(1, "purchase")] == ["1"]
        with pytest.raises(TimeoutError, match="1 of 2"):
            adroll.wait(2, "purchase", timeout=0.01)
        assert adroll.clicks()[0]["adct"] in location
        with pytest.raises(ValueError, match="may not lead"):
            adroll.click("https://evil.com/")
        assert adroll.api_url == f"http://127.0.0.1:{adroll.port}/api"
        adroll.reset()
        assert adroll.events() == adroll.requests() == adroll.clicks() == []

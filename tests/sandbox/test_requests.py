"""What the event API asks of a request as a whole."""

import gzip
import hashlib
import json
import re
import zlib
from typing import Any
from urllib.parse import urlencode

import iso4217
import pytest

from adroll_flask.sandbox import ADVERTISABLE_EID, event_api, event_checks, value_checks
from tests.support.sandbox_helpers import COOKIE, FULL, LEAST, NOW, Api, full, purchase, spoiled


def test_a_full_event_and_a_least_one_are_taken(api: Api, strict_api: Api) -> None:
    for one in (api, strict_api):
        answer = one.post([FULL, LEAST])
        assert answer.status_code == 200
        assert answer.json == {"results": {"received": 2, "dry_run": False}}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_post_is_taken(api: Api, method: str) -> None:
    answer = api.post([LEAST], method=method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/API", "/api/events", "/v1/api"])
def test_only_the_documented_path_is_taken(api: Api, path: str) -> None:
    assert api.post([LEAST], path=path).status_code == 404


EID = {"advertisable": ADVERTISABLE_EID}
PACKED = gzip.compress(json.dumps([LEAST]).encode())
IP_TWICE = json.dumps([LEAST]).replace('"ip":', '"ip": "94.130.12.8", "ip":')
#: The README's rules for a request as a whole: what is answered, where the fault is, and what is
#: there in requests that break the rule.
RULES: dict[str, tuple[Any, ...]] = {
    "strict: without a slash at its end": (404, "path", "/api/"),
    "`advertisable` is in the query": (400, "advertisable", {}, {"advertisable": ""}),
    "it is an EID": (400, "advertisable", {"advertisable": "sandbox-lower"}),
    "it is given once": (400, "advertisable", "&".join([urlencode(EID)] * 2)),
    "it is the account's": (403, "advertisable", {"advertisable": "A" * 22}),
    "no other query parameters": (400, "token", {**EID, "token": "sandbox-token"}),
    "`dry_run` is `true`, `false`, `1` or `0`": (
        *(400, "dry_run"),
        *({**EID, "dry_run": word} for word in ("", "yes", "True", "2", "on")),
    ),
    "`Authorization` is there": (401, "Authorization", None),
    "its scheme is `Token`": (
        *(401, "Authorization", "Bearer sandbox-token", "Basic sandbox-token"),
        "Tokens sandbox-token",
    ),
    "strict: in this case": (401, "Authorization", "token sandbox-token", "TOKEN sandbox-token"),
    "the token is the account's": (
        *(401, "Authorization", "Token x", "Token  sandbox-tokenx", "Token sandbox-token x"),
    ),
    "`Content-Type: application/json`": (
        *(415, "Content-Type", None, "text/plain", "application/x-www-form-urlencoded"),
        "application/ld+json",
    ),
    "JSON in UTF-8": (415, "Content-Type", "application/json; charset=latin-1"),
    "`Content-Encoding` is absent or `gzip`": (415, "Content-Encoding", "br", "gzip, gzip"),
    "gzip is one whole member": (
        *(400, "gzip", b"[]", PACKED[:-4], PACKED + b"x", PACKED + PACKED, zlib.compress(b"[]")),
    ),
    "at most 4 MiB as sent": (413, "body", b" " * (event_api.MOST_BYTES + 1)),
    "at most 16 MiB unpacked": (413, "gzip", gzip.compress(b" " * (event_api.MOST_UNPACKED + 1))),
    "the body is JSON": (
        *(400, "body", b"", b"[", b"[{}", b'[{"a": NaN}]', b"[1e999]", b"\xff[]", b"[]x"),
    ),
    "no key twice": (400, "body", IP_TWICE.encode()),
    "no bottomless nesting": (400, "body", b"[" * 100_000 + b"]" * 100_000),
    "the body is an array": (400, "body", "text", 1, None),
    "strict: even for one event": (400, "body", LEAST, {"events": [LEAST]}),
    "strict: no `dry_run` in an event": (400, "[0].dry_run", True, False),
    "`dry_run` in an event is `true` or `false`": (400, "[0].dry_run", "true", 1, None, {}),
    "at least one event": (400, "body", []),
    "at most 100 events": (400, "body", [LEAST] * 101),
}


def with_fault(field: str, value: Any) -> dict[str, Any]:
    """A request that has *value* there."""
    fault: dict[str, Any] = {"query": value}
    if field == "gzip":
        fault = {"body": value, "headers": {"Content-Encoding": "gzip"}}
    elif field in ("body", "path"):
        fault = {field: value}
    elif field == "[0].dry_run":
        fault = {"body": [{**LEAST, "dry_run": value}]}
    elif field.istitle():
        fault = {"headers": {field: value}}
    return {"body": [LEAST], **fault}


@pytest.mark.parametrize("rule", RULES)
def test_a_request_that_breaks_a_rule_is_refused(api: Api, strict_api: Api, rule: str) -> None:
    status, field, *values = RULES[rule]
    for one in (strict_api,) if rule.startswith("strict") else (api, strict_api):
        for value in values:
            answer = one.post(**with_fault(field, value))
            assert answer.status_code == status, value
            [error] = answer.get_json()["errors"]
            assert error.keys() == {"message", "code", "field"}
            assert error["field"] == field.replace("gzip", "body")
            if status == 401:
                assert answer.headers["WWW-Authenticate"] == "Token"
                assert re.fullmatch(r"[A-Z][^.]+\. It must be [^.]+\.", error["message"])


def test_what_no_rule_forbids_is_taken(strict_api: Api) -> None:
    utf8 = {"Content-Type": "application/json; charset=utf-8"}
    assert strict_api.post([LEAST] * 100, headers=utf8).status_code == 200
    assert strict_api.post([LEAST], packed=True).status_code == 200
    assert [one["gzip"] for one in strict_api.sandbox.state.requests()] == [False, True]


def test_an_object_around_the_array_is_refused(api: Api) -> None:
    answer = api.post({"events": [LEAST]})
    assert answer.status_code == 400
    assert "[0].events" in {error["field"] for error in answer.get_json()["errors"]}


# -- what AdRoll's own samples do ----------------------------------------------------------------


def sample(*, dry_run: bool, **departures: Any) -> dict[str, Any]:
    """A request as AdRoll's published samples make it (``api.js`` and ``api.py``)."""
    return {
        "body": {**purchase("1"), "conversion_value": "5", "dry_run": dry_run},
        "path": "/api/",
        "query": {"advertisable": ADVERTISABLE_EID, "dry_run": str(int(dry_run))},
        "headers": {"Authorization": "token sandbox-token"},
        **departures,
    }


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_request_of_adrolls_samples_is_taken_with_four_warnings(api: Api, dry_run: bool) -> None:
    answer = api.post(**sample(dry_run=dry_run))
    assert answer.status_code == 200
    assert answer.get_json() == {"results": {"received": 1, "dry_run": dry_run}}
    (event,) = api.sandbox.state.events()
    assert (event["verdict"], event["dry_run"]) == ("accepted", dry_run)
    said = " ".join(event["warnings"])
    for departure in ("/api/", "written token", "one event", "dry_run stands in the event"):
        assert departure in said
    (request,) = api.sandbox.state.requests()
    assert (request["path"], len(request["warnings"])) == ("/api/", 3)
    assert event["event"]["dry_run"] is dry_run


@pytest.mark.parametrize(("value", "dry"), [("true", 1), ("1", 1), ("false", 0), ("0", 0)])
def test_dry_run_validates_and_counts_nothing(api: Api, value: str, dry: bool) -> None:
    query = {"advertisable": ADVERTISABLE_EID, "dry_run": value}
    answer = api.post([purchase("1")], query=query)
    assert answer.get_json()["results"]["dry_run"] is bool(dry)
    totals = api.sandbox.state.totals()
    assert (totals["accepted"], totals["dry_run"]) == (1 - dry, dry)
    assert totals["distinct_orders"] == 1 - dry
    assert api.post([purchase("1", ip="")], query=query).status_code == 400
    # Nor does one count that only the event says.
    api.post([{**purchase("2"), "dry_run": True}])
    assert api.sandbox.state.totals()["accepted"] == 1 - dry


def test_one_bad_event_is_named_and_refuses_the_whole_batch(api: Api) -> None:
    answer = api.post([LEAST, {**LEAST, "ip": "x"}, {**LEAST, "currency": "eur"}])
    assert answer.status_code == 400
    assert [error["field"] for error in answer.get_json()["errors"]] == ["[1].ip", "[2].currency"]
    assert answer.get_json()["errors"][0]["message"].startswith("event 1: ip must be")
    verdicts = [record["verdict"] for record in api.sandbox.state.events()]
    assert verdicts == ["held_back", "rejected", "rejected"]
    assert api.sandbox.state.totals()["accepted"] == 0


def test_requests_are_kept_without_the_token(api: Api) -> None:
    api.post([LEAST, LEAST])
    api.post([LEAST], headers={"Authorization": "Token wrong"})
    first, second = api.sandbox.state.requests()
    assert (first["status"], first["events"], first["at"]) == (200, 2, NOW)
    assert (second["status"], second["events"]) == (401, 0)
    assert "sandbox-token" not in repr([first, second])


# -- what the event API asks of each field of an event --------------------------------------------


IDS = "identifiers"


OF_EVENT = "event_attributes"


PRODUCT = "event_attributes.products[0]"


TEXTS = [
    *("device_os", "device_type", "package_app_name", "package_app_version", f"{IDS}.user_id"),
    *(f"{OF_EVENT}.{name}" for name in ("order_id", "user_id", "keywords")),
    *(f"{PRODUCT}.{name}" for name in ("product_id", "product_group", "category")),
]


WRONG_ADDRESSES = ("", "ann", "@shop.test", "ann@", "a@b@c", "a b@c", "a@b\n", "a" * 255 + "@b")


WRONG_AMOUNTS = ("", "-1", "1,50", "1.", ".5", "1e3", "01", "€5", "5 EUR", "NaN", " 1", "٣")


WRONG_EIDS = ("", "abc", "sandboxadvertisable01x", "A" * 65, "A-" * 11, 7, "OTHER00000000000000001")


WRONG_JSON = ("", "{", "campaign", "{'a': 1}", '{"a": NaN}', '"' + "a" * 65536 + '"', "[" * 9999)


WRONG_TEXTS = ("", " ", "a\x00b", "a" * 2049, 1001, None, "\ud800")


#: What fields do not take, by their paths; null and other types first.
REFUSED: dict[str, tuple[Any, ...]] = {
    " ".join(sorted(set(full()) - {IDS, OF_EVENT})): (None, [], {}, True),
    "advertisable_eid pixel_eid": WRONG_EIDS,
    "event_name": ("", "Purchase", "add_to_cart", "custom", "pageview", 3),
    "page_location": (
        *("", "/thanks", "//shop.test/", "shop.test/thanks", "ftp://shop.test/", "https://"),
        *("javascript:alert(1)", "https:///thanks", "https://shop.test:99999/", "https://[::1/"),
        *("https://shop.test:0/", "https://shop.test/a b", "https://shop.test/ü"),
        *("https://shop.test/\n", "https://shop.test/%zz", "https://shop.test/?q=100%"),
        *('https://shop.test/"><script>', "https://shop.test/" + "a" * 8192),
    ),
    "ip": (
        *("", "localhost", "94.130.12", "94.130.12.7:443", "94.130.12.07", "094.130.12.7"),
        *("[2a01:4f8::1]", "fe80::1%eth0", "94.130.12.7, 10.0.0.1", " 94.130.12.7", 1586631687),
    ),
    "user_agent": ("", "  ", "a\nb", "a" * 4097, 7),
    "timestamp": ("1700000000", 0, -5, 946684800, 1e300, NOW + 3601),
    f"conversion_value {OF_EVENT}.total": (*WRONG_AMOUNTS, -0.01, 1e16),
    f"{PRODUCT}.price": ("", "-1", "41,15", -1, None, "free"),
    "currency": ("", "eur", "EURO", "EU", "QQQ", "€", "978"),
    f"{IDS}.adct": ("", "a b", "a\n", "é", "a" * 241, 5, None),
    f"{IDS}.first_party_cookie": (
        *("", "a b", "a;b", "a,b", 'a"b', "a\\b", "é", COOKIE + "\n", "x" * 81, 7, [COOKIE], None),
    ),
    f"{IDS}.email": (*WRONG_ADDRESSES, [], ["ann@shop.test"], 7),
    f"{IDS}.email_sha256": (
        *("", "1" * 63, "1" * 65, "g" + "1" * 63, [], ["1" * 64], 7, "ann@shop.test"),
        hashlib.sha256().hexdigest(),
    ),
    f"{IDS}.email_md5": (
        *("", "1" * 31, "1" * 33, "g" + "1" * 31, [], ["1" * 32], 7, "ann@shop.test"),
        hashlib.md5().hexdigest().upper(),
    ),
    f"{IDS}.device_id": (
        *("", "6d92078a82464ba4ae5b76104861e7dc", "{6D92078A-8246-4BA4-AE5B-76104861E7DC}", 7),
        "00000000-0000-0000-0000-000000000000",
    ),
    " ".join(TEXTS): WRONG_TEXTS,
    OF_EVENT: (None, [], "order 1001", 5),
    f"{OF_EVENT}.products": (None, {}, "mug", [{"product_id": "mug"}] * 1001),
    PRODUCT: (None, "mug", {}, ["mug"]),
    f"{PRODUCT}.quantity": (0, -1, 1.5, 10**7, "3", True, None),
    "external_data": WRONG_JSON,
    # Keys that it does not know.
    f"advertisable {IDS}.cookie {OF_EVENT}.orderId {PRODUCT}.sku": ("x",),
}


#: What they do take.
TAKEN: dict[str, tuple[Any, ...]] = {
    "event_name": event_checks.EVENT_NAMES,
    "page_location": (
        *("https://shop.test", "http://127.0.0.1:5000/?a[]=1|2#top"),
        *("https://[2a01:4f8::1]:8443/%C3%BC?adct=a+b%20c", "https://xn--bcher-kva.example/"),
    ),
    "ip": ("94.130.12.7", "2a01:4f8::1", "::ffff:94.130.12.7"),
    "timestamp": (NOW + 60, NOW - 30 * 86400 + 0.125),
    "conversion_value": ("0", "0.00", "123.45", "1000000", 123.45, 7, 0),
    # The last one is of AdRoll's samples.
    f"{IDS}.first_party_cookie": (
        *(COOKIE[:32], COOKIE[:-3], "GA1.2.3.4", "x" * 80, "~!#"),
        *(COOKIE[:33] + "a_1730238675",),
    ),
    f"{IDS}.email": ("foo.@docomo.ne.jp", "ü@bücher.test"),
    f"{IDS}.email_sha256": ("0aF" + "1" * 61,),
    f"{IDS}.email_md5": ("0aF" + "1" * 29,),
}


#: What AdRoll's words say of some mistakes.
ANSWERED = [
    (f"{OF_EVENT}.orderid", "1", "did you mean order_id?"),
    ("event_name", "add_to_cart", "did you mean addToCart?"),
    ("timestamp", int(NOW * 1000), "milliseconds"),
    ("timestamp", NOW * 1000 + 0.5, "milliseconds"),
    (f"{IDS}.first_party_cookie", COOKIE[:33] + "s2-1667065540836", "normalised"),
    (f"{IDS}.first_party_cookie", COOKIE[:33] + "1667065540836-", "normalised"),
    (f"{IDS}.first_party_cookie", COOKIE[:33] + "s2-", "normalised"),
    ("external_data", {"campaign": 7}, "not the object itself"),
]


@pytest.mark.parametrize("paths", REFUSED)
def test_what_a_field_does_not_take_is_refused_by_its_name(api: Api, paths: str) -> None:
    for path in paths.split():
        for value in REFUSED[paths]:
            assert api.fields(spoiled(path, value)) == [path], value


def test_an_event_is_an_object_with_what_is_required(api: Api) -> None:
    for event in (None, "text", 1, [], [LEAST]):
        assert api.fields(event) == [""]
    for name in event_checks.REQUIRED:
        assert api.fields({key: full()[key] for key in full() if key != name}) == [name]
    # Of its identifiers a click id or a first-party cookie.
    nobody: list[Any] = [None, [], "click123", {}, {"user_id": "7", "email": "a@b.c"}]
    for value in nobody:
        assert api.fields({**LEAST, IDS: value}) == [IDS]


@pytest.mark.parametrize("path", TAKEN)
def test_what_a_field_takes_has_no_fault(api: Api, path: str) -> None:
    for value in TAKEN[path]:
        assert api.fields(spoiled(path, value)) == [], value


@pytest.mark.parametrize(("path", "value", "said"), ANSWERED)
def test_a_known_mistake_is_told_in_words(api: Api, path: str, value: Any, said: str) -> None:
    assert said in api.post([spoiled(path, value)]).get_json()["errors"][0]["message"]


def test_the_list_of_currencies_is_the_standards() -> None:
    assert {currency.code.upper() for currency in iso4217.Currency} == value_checks.CURRENCIES


def test_every_fault_of_an_event_is_named_at_once(api: Api) -> None:
    event = {**spoiled("identifiers.device_id", "x"), "ip": "x", "currency": "eur"}
    assert set(api.fields(event)) == {"identifiers.device_id", "ip", "currency"}


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"ip": "fd00::1"}, "not a public address"),
        ({"ip": "10.1.2.3"}, "ProxyFix"),
        ({"ip": "127.0.0.1"}, "not a public address"),
        ({"ip": "::ffff:94.130.12.7"}, "written as IPv6"),
        ({"event_name": "purchase"}, "without conversion_value"),
        ({"event_name": "purchase"}, "without event_attributes.order_id"),
        ({"conversion_value": "5"}, "no currency"),
    ],
)
def test_what_looks_wrong_is_warned_of(api: Api, change: dict[str, Any], warning: str) -> None:
    assert api.post([{**LEAST, **change}]).status_code == 200
    (record,) = api.sandbox.state.events()
    assert any(warning in said for said in record["warnings"])


def test_an_event_in_order_has_no_warning(api: Api) -> None:
    api.post([full()])
    assert api.sandbox.state.events()[0]["warnings"] == []
    here = {"ip": "127.0.0.1", "page_location": "http://localhost:5000/thanks"}
    api.post([full() | here])
    assert api.sandbox.state.events()[0]["warnings"] == []

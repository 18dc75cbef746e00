"""What the event API asks of a request as a whole."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from typing import Any

import pytest

from adroll_flask.sandbox import ADVERTISABLE_EID, event_api
from tests.support.sandbox_helpers import FULL, LEAST, NOW, Api, purchase


def refused(answer: Any, status: int, field: str) -> None:
    assert answer.status_code == status
    errors = answer.get_json()["errors"]
    assert [error["field"] for error in errors] == [field]
    assert set(errors[0]) == {"message", "code", "field"}


def test_a_full_event_and_a_least_one_are_taken(api: Api) -> None:
    answer = api.post([FULL, LEAST])
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


def test_strict_takes_no_slash_behind_the_path(strict_api: Api) -> None:
    refused(strict_api.post([LEAST], path="/api/"), 404, "path")
    assert strict_api.post([LEAST]).status_code == 200


def test_the_advertisable_is_required_in_the_query(api: Api) -> None:
    refused(api.post([LEAST], query={}), 400, "advertisable")
    refused(api.post([LEAST], query={"advertisable": ""}), 400, "advertisable")


def test_the_advertisable_is_an_eid(api: Api) -> None:
    refused(api.post([LEAST], query={"advertisable": "sandbox-lower"}), 400, "advertisable")


def test_the_advertisable_is_given_once(api: Api) -> None:
    twice = f"advertisable={ADVERTISABLE_EID}&advertisable={ADVERTISABLE_EID}"
    refused(api.post([LEAST], query=twice), 400, "advertisable")


def test_another_accounts_advertisable_is_forbidden(api: Api) -> None:
    refused(api.post([LEAST], query={"advertisable": "A" * 22}), 403, "advertisable")


def test_unknown_query_parameters_are_refused(api: Api) -> None:
    query = {"advertisable": ADVERTISABLE_EID, "token": "sandbox-token"}
    refused(api.post([LEAST], query=query), 400, "token")


def test_the_token_is_required(api: Api) -> None:
    answer = api.post([LEAST], headers={"Authorization": None})
    refused(answer, 401, "Authorization")
    assert answer.headers["WWW-Authenticate"] == "Token"


@pytest.mark.parametrize("scheme", ["Bearer", "Basic", "Tokens"])
def test_the_scheme_is_token_and_not_bearer(api: Api, strict_api: Api, scheme: str) -> None:
    headers: dict[str, str | None] = {"Authorization": f"{scheme} sandbox-token"}
    for one in (api, strict_api):
        refused(one.post([LEAST], headers=headers), 401, "Authorization")


@pytest.mark.parametrize("scheme", ["token", "TOKEN"])
def test_strict_takes_the_scheme_as_it_is_documented(strict_api: Api, scheme: str) -> None:
    headers: dict[str, str | None] = {"Authorization": f"{scheme} sandbox-token"}
    refused(strict_api.post([LEAST], headers=headers), 401, "Authorization")


@pytest.mark.parametrize("token", ["", " sandbox-token", "sandbox-token ", "other"])
def test_a_wrong_token_is_refused(api: Api, token: str) -> None:
    headers: dict[str, str | None] = {"Authorization": f"Token {token}x"}
    refused(api.post([LEAST], headers=headers), 401, "Authorization")


@pytest.mark.parametrize("header", [None, "Bearer sandbox-token", "Token other"])
def test_a_401_says_in_two_sentences_what_is_wrong_and_what_is_right(
    api: Api, header: str | None
) -> None:
    [error] = api.post([LEAST], headers={"Authorization": header}).get_json()["errors"]
    wrong, right = error["message"].split(". ")
    assert wrong[0].isupper()
    assert right.startswith("It must be")
    assert right.endswith(".")


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/ld+json"]
)
def test_the_content_type_is_json(api: Api, kind: str | None) -> None:
    refused(api.post([LEAST], headers={"Content-Type": kind}), 415, "Content-Type")


def test_json_comes_in_utf8(api: Api) -> None:
    headers: dict[str, str | None] = {"Content-Type": "application/json; charset=latin-1"}
    refused(api.post([LEAST], headers=headers), 415, "Content-Type")
    fine: dict[str, str | None] = {"Content-Type": "application/json; charset=utf-8"}
    assert api.post([LEAST], headers=fine).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"[", b"[{}", b'[{"a": NaN}]', b"[1e999]", b"\xff[]", b"[]x"]
)
def test_the_body_is_json(api: Api, body: bytes) -> None:
    refused(api.post(body), 400, "body")


def test_a_repeated_key_is_refused(api: Api) -> None:
    text = json.dumps([LEAST]).replace('"ip":', '"ip": "94.130.12.8", "ip":').encode()
    refused(api.post(text), 400, "body")


def test_deep_nesting_is_refused_and_not_a_failure(api: Api) -> None:
    refused(api.post(b"[" * 100_000 + b"]" * 100_000), 400, "body")


@pytest.mark.parametrize("body", ["text", 1, None])
def test_the_body_is_an_array(api: Api, body: Any) -> None:
    refused(api.post(body), 400, "body")


@pytest.mark.parametrize("body", [LEAST, {"events": [LEAST]}])
def test_strict_takes_an_array_even_for_one_event(strict_api: Api, body: Any) -> None:
    refused(strict_api.post(body), 400, "body")


def test_an_object_around_the_array_is_refused(api: Api) -> None:
    answer = api.post({"events": [LEAST]})
    assert answer.status_code == 400
    assert "[0].events" in {error["field"] for error in answer.get_json()["errors"]}


@pytest.mark.parametrize("dry_run", [True, False])
def test_strict_takes_dry_run_in_the_query_alone(strict_api: Api, dry_run: bool) -> None:
    refused(strict_api.post([{**LEAST, "dry_run": dry_run}]), 400, "[0].dry_run")


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


def test_each_departure_has_its_own_warning_and_the_documented_form_has_none(api: Api) -> None:
    api.post([purchase("1", conversion_value="5", currency="EUR", user_agent="x")])
    api.post([{**LEAST, "user_agent": "x"}], path="/api/")
    api.post([{**LEAST, "user_agent": "x"}], headers={"Authorization": "TOKEN sandbox-token"})
    api.post({**LEAST, "user_agent": "x"})
    api.post([{**LEAST, "user_agent": "x", "dry_run": False}])
    found = [event["warnings"] for event in api.sandbox.state.events()]
    assert [len(warnings) for warnings in found] == [0, 1, 1, 1, 1]
    assert len({warnings[0] for warnings in found[1:]}) == 4


def test_a_dry_run_that_only_the_event_says_counts_for_nothing(api: Api) -> None:
    api.post([{**purchase("1"), "dry_run": True}, purchase("2")])
    assert [event["dry_run"] for event in api.sandbox.state.events()] == [True, False]
    totals = api.sandbox.state.totals()
    assert (totals["accepted"], totals["dry_run"]) == (1, 1)


@pytest.mark.parametrize("value", ["true", 1, None, {}])
def test_dry_run_in_an_event_is_true_or_false(api: Api, value: Any) -> None:
    refused(api.post([{**LEAST, "dry_run": value}]), 400, "[0].dry_run")


def test_an_empty_array_is_refused(api: Api) -> None:
    refused(api.post([]), 400, "body")


def test_at_most_100_events_are_taken(api: Api) -> None:
    assert api.post([LEAST] * 100).status_code == 200
    refused(api.post([LEAST] * 101), 400, "body")


def test_gzip_is_taken(api: Api) -> None:
    assert api.post([LEAST], packed=True).status_code == 200
    (record,) = api.sandbox.state.requests()
    assert record["gzip"] is True


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip"])
def test_other_encodings_are_refused(api: Api, encoding: str) -> None:
    refused(api.post([LEAST], headers={"Content-Encoding": encoding}), 415, "Content-Encoding")


def test_gzip_is_whole_and_has_nothing_behind_it(api: Api) -> None:
    packed = gzip.compress(json.dumps([LEAST]).encode())
    for body in (b"[]", packed[:-4], packed + b"x", packed + packed, zlib.compress(b"[]")):
        refused(api.post(body, headers={"Content-Encoding": "gzip"}), 400, "body")


def test_unpacking_is_bounded(api: Api) -> None:
    bomb = gzip.compress(b" " * (event_api.MOST_UNPACKED + 1))
    assert len(bomb) < 100_000
    refused(api.post(bomb, headers={"Content-Encoding": "gzip"}), 413, "body")


def test_the_body_is_bounded(api: Api) -> None:
    refused(api.post(b" " * (event_api.MOST_BYTES + 1)), 413, "body")


@pytest.mark.parametrize(("value", "dry"), [("true", 1), ("1", 1), ("false", 0), ("0", 0)])
def test_dry_run_validates_and_counts_nothing(api: Api, value: str, dry: bool) -> None:
    query = {"advertisable": ADVERTISABLE_EID, "dry_run": value}
    answer = api.post([purchase("1")], query=query)
    assert answer.get_json()["results"]["dry_run"] is bool(dry)
    totals = api.sandbox.state.totals()
    assert (totals["accepted"], totals["dry_run"]) == (1 - dry, dry)
    assert totals["distinct_orders"] == 1 - dry
    bad = api.post([purchase("1", ip="")], query=query)
    assert bad.status_code == 400


@pytest.mark.parametrize("value", ["", "yes", "True", "2", "on"])
def test_dry_run_takes_four_words_only(api: Api, value: str) -> None:
    query = {"advertisable": ADVERTISABLE_EID, "dry_run": value}
    refused(api.post([LEAST], query=query), 400, "dry_run")


def test_errors_name_the_event_and_the_field(api: Api) -> None:
    answer = api.post([LEAST, {**LEAST, "ip": "x"}, {**LEAST, "currency": "eur"}])
    assert answer.status_code == 400
    assert [error["field"] for error in answer.get_json()["errors"]] == ["[1].ip", "[2].currency"]
    assert answer.get_json()["errors"][0]["message"].startswith("event 1: ip must be")


def test_one_bad_event_refuses_the_whole_batch(api: Api) -> None:
    api.post([purchase("1"), purchase("2", ip="x")])
    verdicts = [record["verdict"] for record in api.sandbox.state.events()]
    assert verdicts == ["held_back", "rejected"]
    assert api.sandbox.state.totals()["accepted"] == 0


def test_errors_do_not_repeat_the_visitors_values(api: Api) -> None:
    secret = "s3cret-value"
    event = {
        **FULL,
        secret + " ": 1,
        "ip": secret,
        "event_name": secret,
        "identifiers": {"adct": secret + " ", "email": secret},
    }
    answer = api.post([event])
    assert answer.status_code == 400
    assert secret not in answer.get_data(as_text=True)


def test_requests_are_kept_without_the_token(api: Api) -> None:
    api.post([LEAST, LEAST])
    api.post([LEAST], headers={"Authorization": "Token wrong"})
    first, second = api.sandbox.state.requests()
    assert (first["status"], first["events"], first["at"]) == (200, 2, NOW)
    assert (second["status"], second["events"]) == (401, 0)
    assert "sandbox-token" not in repr([first, second])


def test_a_batch_of_100_full_events_costs_a_few_milliseconds(api: Api) -> None:
    body = gzip.compress(json.dumps([FULL] * 100).encode())

    def cost() -> float:
        began = time.thread_time()
        reading = event_api.Reading()
        events = event_api.parse(event_api.unpack(body, gzipped=True), reading)
        batch = event_api.judge(
            events, account=api.sandbox.account, dry_run=False, now=NOW, reading=reading
        )
        api.sandbox.state.add_batch(batch, status=200)
        return time.thread_time() - began

    # Measured 7 ms of processor time; the bound leaves room for a slow machine.
    assert min(cost() for _ in range(5)) < 0.05

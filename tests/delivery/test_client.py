"""One call: its URL, headers and body, and that the token shows nowhere."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adroll_flask.accounts import Account
from adroll_flask.delivery.client import Answer, Client
from adroll_flask.delivery.transport import Transport
from adroll_flask.settings import Settings
from tests.support.anything import JSON
from tests.support.delivery_kit import EID, PIXEL, AdRoll, refusal


def client(transport: Transport, account: Account | None = None, **changes: Any) -> Client:
    values = {
        "advertisable_eid": EID,
        "pixel_eid": PIXEL,
        "access_token": "canary-token-1",
        "secret_key": ("key",),
    }
    settings = Settings(**(values | changes))
    return Client(settings, account or settings.account, transport)


def send(client: Client, *payloads: bytes, dry_run: bool = False) -> Answer:
    return client.send(payloads or [b"{}"], dry_run, client.token())


def fingerprint(**changes: Any) -> str:
    one = client(AdRoll(), **changes)
    return one.fingerprint(one.token())


def test_a_batch_is_one_gzipped_array_with_the_token_in_its_header_only() -> None:
    transport = AdRoll()
    answer = send(client(transport), b'{"a":1}', b'{"b":2}')
    assert answer == Answer("accepted", "http_200", 200)
    assert transport.urls == [f"https://srv.adroll.com/api?advertisable={EID}"]
    assert transport.wires == [{"a": 1}, {"b": 2}]
    assert transport.headers["Authorization"] == "Token canary-token-1"
    assert transport.headers["Content-Type"] == "application/json"
    assert transport.headers["Content-Encoding"] == "gzip"


def test_an_api_url_with_a_query_keeps_it_and_another_account_is_named() -> None:
    transport = AdRoll()
    other = Account(advertisable_eid="OTHEREID01", access_token="canary-token-2")
    send(client(transport, other, api_url="https://gate.example/api?via=us#part"))
    assert transport.urls == ["https://gate.example/api?via=us&advertisable=OTHEREID01"]
    assert transport.tokens == ["Token canary-token-2"]


def test_the_fingerprint_changes_with_token_eids_url_and_key() -> None:
    others = {
        "access_token": "other",
        "advertisable_eid": "OTHEREID01",
        "pixel_eid": "OTHEREID01",
        "api_url": "https://other.example/api",
        "secret_key": ("other",),
    }
    prints = [fingerprint(), fingerprint(secret_key=())]
    prints += [fingerprint(**{name: other}) for name, other in others.items()]
    assert len(set(prints)) == 7
    assert fingerprint() == fingerprint(secret_key=(b"key",)) == prints[0]


def test_words_hide_the_token_and_the_visitors_of_the_batch() -> None:
    said = {"message": "click-canary or canary-token-1 or key-canary or a@canary.com is unknown"}
    transport = AdRoll(lambda *_: refusal(400, said))
    payload = {
        "identifiers": {"adct": "click-canary"},
        "event_attributes": {"user_id": "key-canary"},
    }
    answer = send(client(transport), json.dumps(payload).encode())
    assert "canary" not in answer.words
    assert "is unknown" in answer.words


NAMES = ("identifiers", "ip", "products", "page_location", "surprise")


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_the_answer_to_a_damaged_event_can_still_be_read(wire: dict[str, object]) -> None:
    transport = AdRoll(lambda *_: refusal(400, {"code": "E7"}))
    assert send(client(transport), json.dumps(wire).encode()).words == "http_400: E7"

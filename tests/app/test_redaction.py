"""What may be seen of a text, an event, a URL and an exception."""

import json
import pickle
import sqlite3
import time
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroll_flask import TokenExpiredError
from adroll_flask.errors import AdRollError, ConfigurationError, DeliveryError, EventError
from adroll_flask.events.event import matcher
from adroll_flask.outbox.model import OutboxFailed
from adroll_flask.redaction import describe, redact_event, redact_text, safe_url
from tests.support import event_kit
from tests.support.anything import JSON

COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"


SHA256 = "b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514"


HARMLESS = (
    *("adct is required", "ip: field required; email: invalid.", ""),
    *("std::vector at 12:34:56, Python 3.11", "value must be a number, got 59"),
    "table adroll_history_2, shop_production_v2",
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no such user ann@example.com", "no such user [email]"),
        ("no such user ann%40example.com", "no such user [email]"),
        (r'{"m": "ann\u0040example.com is bad"}', '{"m": "[email] is bad"}'),
        ("adct=click123&x=1", "adct=[redacted]&x=1"),
        ('{"adct": "click 123", "code": 7}', '{"adct": [redacted], "code": 7}'),
        ("adct 'click123' is unknown", "adct [redacted] is unknown"),
        ("user_id: fieldy", "user_id: [redacted]"),
        (f"cookie value {COOKIE}", "cookie value [token]"),
        (f"hash {SHA256}!", "hash [token]!"),
        ("from 192.0.2.17, again", "from [ip], again"),
        ("from [2001:db8::8a2e:370:7334]:443.", "from [[ip]]:443."),
        ("to 2001:db8:0:0:0:8a2e:370:7334.", "to [ip]."),
        ("from ::ffff:192.0.2.17", "from [ip]"),
        ("client 192.0.2.17:4431: bad", "client [ip]:4431: bad"),
        (f"visitor-cookie.{COOKIE}", "[token]"),
        ("phone +491701234567", "phone [token]"),
        ("x4111111111111 deadbeefcafebabe", "[token] [token]"),
        ("Authorization: Token abc123", "Authorization: [redacted]"),
        ("sent Token a1b2c3d4", "sent Token [token]"),
        ("GET https://u:p@shop.example/a?adct=x#y now", "GET https://shop.example/a now"),
        ("at /thanks?order=1&e=ann", "at /thanks?[query]"),
        ("eyJhbGciOi0.Z0abc1.c2lnbmF0dXJl and eyJhbGciOi0eyJhbGciOi0.Z0.x", None),
        ("device 6D92078A-8246-4BA4-AE5B-76104861E7DC", "device [token]"),
        ("card 4111111111111111", "card [token]"),
        ("a\r\nlevel=ERROR forged\x1b[0m", "a level=ERROR forged [0m"),
        ("half of an emoji: \ud83d.", "half of an emoji:  ."),
        *((harmless, harmless) for harmless in HARMLESS),
    ],
)
def test_a_text_keeps_its_sense_and_loses_its_values(text: str, shown: str | None) -> None:
    redacted = redact_text(text)

    if shown is None:
        assert "eyJhbGciOi0eyJhbGciOi0" not in redacted
    else:
        assert redacted == shown


def test_values_that_the_caller_knows_go_whatever_they_look_like() -> None:
    assert redact_text("bad: sandbox-token, x1y2", secrets=["sandbox-token", "x1y2"]) == (
        "bad: [redacted], [redacted]"
    )
    assert redact_text("abcd abcdefgh", secrets=["abcd", "abcdefgh"]) == "[redacted] [redacted]"
    assert redact_text("an answer", secrets=["", "a"]) == "an answer", "no word is torn apart"


def test_a_text_is_cut_without_leaving_half_a_value() -> None:
    for padding in range(1970, 2005):
        text = redact_text("x" * 9 + " " + "word " * (padding // 5) + "ann.smith@example.com tail")
        assert len(text) <= 500
        assert "smith" not in text
    assert "ann" not in redact_text("ann@" * 50_000)


@given(st.text(max_size=80), st.integers(10, 100))
def test_any_text_comes_out_bounded_and_on_one_line(text: str, limit: int) -> None:
    shown = redact_text(text, limit=limit)

    assert len(shown) <= limit
    assert "\n" not in shown
    assert "\r" not in shown


@given(
    before=st.text("abc ,.:;'\"(){}[]/", max_size=40),
    after=st.text("abc ,;'\"(){}[]/", max_size=40),
    value=st.sampled_from(
        ["zoe.quill@mail.example", COOKIE, SHA256, "203.0.113.77", "2001:db8:77::9d3f", "A1" * 12]
    ),
)
def test_no_surroundings_bring_a_value_through(before: str, after: str, value: str) -> None:
    # A separator keeps the surroundings from making another value of it.
    assert value not in redact_text(f"{before} {value} {after}")


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "@", "a@", "1.", "::", "a1", "?a=", "http://", "ip=", "ab-", "%40"),
        *("email 'x", "Token 1"),
    ],
)
def test_no_text_takes_long(pattern: str) -> None:
    text = pattern * (60_000 // len(pattern))
    started = time.process_time()

    redact_text(text, limit=15_000)

    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://shop.example/thanks?order=7&adct=x#top", "https://shop.example/thanks"),
        ("https://ann:pw@shop.example:8443/", "https://shop.example:8443/"),
        ("http://[2001:db8::1]:80/x", "http://[2001:db8::1]:80/x"),
        ("https://shop.example/u/ann@example.com/x", "https://shop.example/u/[email]/x"),
        ("sqlite:////var/lib/shop/adroll.sqlite", "sqlite:////var/lib/shop/adroll.sqlite"),
        ("sqlite:///adroll.sqlite?timeout=5", "sqlite:///adroll.sqlite"),
        ("postgresql+psycopg://shop:pw@db:5432/orders", "postgresql+psycopg://db:5432/orders"),
        ("mysql+pymysql://shop:p/w#1?@db/orders", "mysql+pymysql://db/orders"),
        ("postgresql:///orders?host=/run&password=pw", "postgresql:///orders"),
        ("https://u:p/w@shop.example/", "https://[url]"),
        ("https://[broken/", "https://[url]"),
        ("nothing at all", "[url]"),
        ("", "[url]"),
    ],
)
def test_a_url_shows_where_and_not_what(url: str, shown: str) -> None:
    assert safe_url(url) == shown


@given(st.text(st.characters(exclude_characters="wW"), max_size=100))
def test_any_text_may_be_taken_for_a_url(text: str) -> None:
    assert "pw" not in safe_url(f"postgresql://shop:pw@{text}")


PURCHASE = event_kit.strictly(
    **event_kit.PURCHASE,
    email="ann@example.com",
    user_id="user-canary",
    device_id="6D92078A-8246-4BA4-AE5B-76104861E7DC",
    keywords="red canary",
    total="59.90",
    external_data={"canary": 1},
).event.wire()


def test_a_shown_event_says_what_happened_and_not_to_whom() -> None:
    attributes = {**PURCHASE["event_attributes"], "user_id": "present", "keywords": "present"}
    assert redact_event(PURCHASE) == {
        **PURCHASE,
        **dict.fromkeys(("ip", "user_agent", "external_data"), "present"),
        "page_location": "https://shop.example/thanks",
        "event_attributes": {**attributes, "products": 1},
        "identifiers": dict.fromkeys(PURCHASE["identifiers"], "present"),
    }
    assert redact_event({"order_id": "ann@example.com"}) == {"order_id": "present"}


@given(st.dictionaries(st.sampled_from([*PURCHASE, "surprise"]), JSON))
def test_a_damaged_event_can_still_be_shown(wire: dict[str, object]) -> None:
    json.dumps(redact_event(wire))


def test_an_exception_is_described_by_the_names_along_its_chain() -> None:
    try:
        try:
            with closing(sqlite3.connect(":memory:")) as connection:
                connection.execute("SELECT 'ann@example.com' FROM nowhere")
        except sqlite3.Error as error:
            raise RuntimeError("ann@example.com") from error
    except RuntimeError as error:
        described = describe(error)

    assert described == "RuntimeError <- sqlite3.OperationalError(SQLITE_ERROR)"


def test_our_own_messages_are_kept_and_foreign_ones_are_not() -> None:
    assert describe(ConfigurationError("ADROLL_PIXEL", "takes 'load'")) == (
        "ConfigurationError: ADROLL_PIXEL: takes 'load'"
    )
    assert describe(EventError("ip", "unknown here: pass ip= with it")) == (
        "EventError: ip: unknown here: pass ip= with it"
    )
    assert describe(DeliveryError("refused")) == "DeliveryError: refused"
    assert describe(ValueError("s3cret")) == "ValueError"


def test_what_was_hidden_with_from_none_stays_hidden() -> None:
    hidden = ValueError()
    hidden.__context__, hidden.__suppress_context__ = KeyError("s3cret"), True
    assert describe(hidden) == "ValueError"


@pytest.mark.parametrize(
    "problem",
    [
        ConfigurationError("SECRET_KEY", "set it", others=[ConfigurationError("a", "b")]),
        EventError("currency", "takes three letters"),
        TokenExpiredError(),
        DeliveryError("refused"),
        OutboxFailed("full", "1 GiB"),
    ],
)
def test_an_error_reaches_another_process_as_it_was(problem: AdRollError) -> None:
    there = pickle.loads(pickle.dumps(problem))

    assert type(there) is type(problem)
    assert str(there) == str(problem)
    assert (there.help, there.__notes__) == (problem.help, problem.__notes__)
    assert {**vars(there), "others": ""} == {**vars(problem), "others": ""}


def test_an_address_in_clear_and_a_click_id_find_their_events() -> None:
    match = matcher(email="Jo@Example.com")
    assert match({"identifiers": {"email_md5": "f" * 32, "email": "jo@example.com"}})
    assert not match({"identifiers": {"adct": "another"}})
    assert not match({})
    assert matcher(click_id="click123")({"identifiers": {"adct": "click123"}})


def test_a_device_id_finds_its_events_in_whatever_case_either_is() -> None:
    mixed = "Ab3dEf12-1111-2222-3333-444455556666"
    for asked in (mixed, mixed.lower(), mixed.upper()):
        match = matcher(device_id=asked)
        assert all(match({"identifiers": {"device_id": kept}}) for kept in (mixed, mixed.lower()))
    assert not matcher(user_id="ann")({"identifiers": {"user_id": "ANN"}}), "another user"

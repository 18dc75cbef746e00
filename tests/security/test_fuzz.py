"""Anything at all, at every place where something comes in: no fault, and nothing that grows.

``FUZZ_CASES`` is the number of cases over all targets together: 3,000 by default, 100,000 in CI,
the same in every run; ``make fuzz`` takes ten million. Each example of Hypothesis is
tried as it is and in :data:`VARIANTS` damaged forms, which makes most cases cheap.
"""

import json
import os
import random
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from werkzeug.test import Client

from adroll_flask import Receipt, TokenError, Visitor, identify, report_event
from adroll_flask.counters import Counters
from adroll_flask.events.event import wire_bytes
from adroll_flask.events.names import FIELD_NAMES
from adroll_flask.settings import Settings
from adroll_flask.testing import reports
from adroll_flask.visitor import identifiers
from adroll_flask.visitor.kit_message import Refused, parse
from adroll_flask.visitor.packing import pack, unpack
from adroll_flask.visitor.record import Record
from adroll_flask.visitor.tracked_request import TrackedRequest
from adroll_flask.visitor.visitors import Visitors
from tests.support.anything import ANYTHING, SPICE, spiced
from tests.support.sites import EIDS, HOST, Clock, MakeSite, Site

CASES = int(os.environ.get("FUZZ_CASES", "3000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
VARIANTS = 24
#: More than this in one run and Hypothesis remembers too much of what it has tried.
ROUND = 5_000


def damaged(text: str) -> Iterator[str]:
    """*text*, and forms of it that are cut, doubled, spliced or spoilt in one place."""
    yield text
    rng = random.Random(zlib.crc32(text.encode("utf-8", "surrogatepass")))
    for _ in range(VARIANTS - 1):
        at, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        spice = rng.choice(SPICE)
        match rng.randrange(5):
            case 0:
                yield text[:at] + text[end:]
            case 1:
                yield text[:at] + spice + text[at:]
            case 2:
                yield text[:at] + text[at:end] * 3 + text[end:]
            case 3:
                yield text[:at] + chr(rng.randrange(256)) + text[at + 1 :]
            case _:
                yield text[:at] + spice + text[end:]


def fuzz(share: float, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Run *check* on examples of *strategy*: *share* of a hundred cases."""
    cases = max(1, int(CASES * share) // 100)
    for turn, done in enumerate(range(0, cases, ROUND)):
        bounded = settings(
            max_examples=min(cases - done, ROUND),
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        # Given a function that was decorated before, Hypothesis would go on where it stopped.
        seed(SEED + turn)(bounded(given(strategy)(lambda example: check(example))))()


def fuzz_texts(
    share: float, strategy: st.SearchStrategy[str], check: Callable[[str], None]
) -> None:
    """Run *check* on each damaged form of texts: what costs little, so most of all cases."""

    def each(text: str) -> None:
        for form in damaged(text):
            check(form)

    fuzz(share / VARIANTS, strategy, each)


def latin(text: str) -> str:
    """*text* as WSGI hands it over (PEP 3333): bytes as Latin-1."""
    return text.encode("utf-8", "replace").decode("latin-1")


@pytest.fixture
def visitors() -> Visitors:
    return Visitors(Settings(), Counters(), keys=["a key"], clock=Clock())


def test_any_query_gives_a_click_id_that_fits_a_header_or_none(visitors: Visitors) -> None:
    def check(query: str) -> None:
        environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": query}
        adct = TrackedRequest(visitors, environ).adct
        assert adct is None or re.fullmatch(r"[!-~]{1,240}", adct)

    fuzz_texts(22, spiced, check)


def test_any_cookie_header_gives_well_formed_values_or_none(visitors: Visitors) -> None:
    signed = visitors.sign(Record(adct="click", first_party_cookie="a" * 32 + "-1667065540836"))

    def check(text: str) -> None:
        seen = visitors.read(latin(text), secure=False)
        assert seen.record is None
        assert seen.cookie is None or re.fullmatch(identifiers.COOKIE_PATTERN, seen.cookie)
        beside = visitors.read(latin(f"x={text}; adroll_visitor={signed}"), secure=False)
        assert beside.record is None or beside.record.adct == "click"

    fuzz_texts(22, spiced, check)
    assert visitors._verified.cache_info().currsize <= 1
    assert set(visitors.counters.snapshot()) <= {
        "record_ignored:forged",
        "record_ignored:expired",
        "cookie_ignored:malformed",
    }


def test_any_message_is_taken_whole_or_refused() -> None:
    def check(text: str) -> None:
        for body in (text.encode("utf-8", "surrogatepass"), latin(text).encode("utf-16")):
            try:
                told = parse(body)
            except Refused:
                continue
            assert told.adct is None or identifiers.accept_adct(told.adct) == told.adct
            assert told.consent in (True, False, None)

    wrapped = spiced.map(lambda text: f'{{"adct": "click", "first_party_cookie": {text}}}')
    fuzz_texts(22, spiced, check)
    fuzz_texts(10, wrapped, check)


def test_any_signed_text_is_ours_and_any_payload_is_read_or_refused(visitors: Visitors) -> None:
    about: Any = {"adct": "click", "adct_at": 0.0, "ip": "2001:db8::1", "record_id": "ab" * 12}
    minted = Visitor(**about, host=HOST, _make=visitors._token_of)
    token = minted.token()

    def check(text: str) -> None:
        for candidate in (text, token[: len(text) % len(token)] + text[:20], f"{token}{text}"):
            try:
                visitor = visitors.read_token(candidate).visitor
            except TokenError:
                continue
            assert visitor == minted
            assert re.fullmatch(r"[\w.-]+", candidate, re.ASCII)
        payload = latin(text).encode("latin-1")
        try:
            record, max_age = unpack(payload)
        except ValueError:
            pass
        else:
            # What was read can be written again.
            assert unpack(pack(record, max_age=max_age))[0].consent == record.consent
        record_text = visitors._record_signer.sign(payload[:200])
        visitors.read(f"adroll_visitor={record_text}", secure=False)

    fuzz_texts(20, spiced, check)
    assert visitors._verified.cache_info().currsize <= 2048


REQUESTS = st.fixed_dictionaries(
    {
        "REQUEST_METHOD": st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "BREW"]),
        "PATH_INFO": st.sampled_from(["/", "/who", "/buy", "/_adroll/identity", "/_adroll/kit.js"])
        | spiced.map(lambda text: "/_adroll/" + latin(text)),
        "QUERY_STRING": spiced.map(latin),
        "CONTENT_TYPE": st.sampled_from(["application/json", "text/plain", ""]) | spiced.map(latin),
        "body": spiced,
    },
    optional={
        "HTTP_COOKIE": spiced.map(latin),
        "HTTP_HOST": st.just(HOST) | spiced.map(latin),
        "HTTP_ORIGIN": st.just(f"https://{HOST}") | spiced.map(latin),
        "HTTP_SEC_FETCH_SITE": st.just("same-origin") | spiced.map(latin),
        "HTTP_SEC_FETCH_DEST": st.just("document") | spiced.map(latin),
        "HTTP_SEC_GPC": st.sampled_from(["1", "0", "true"]),
        "HTTP_USER_AGENT": spiced.map(latin),
        "HTTP_IF_NONE_MATCH": spiced.map(latin),
        "HTTP_X_FORWARDED_FOR": spiced.map(latin),
        "REMOTE_ADDR": spiced.map(latin),
        "CONTENT_LENGTH": spiced.map(latin),
        "SCRIPT_NAME": spiced.map(lambda text: "/" + latin(text)),
    },
)
#: What a site counts, and nothing of a visitor's among it.
COUNTED = re.compile(r"[a-z_]+(:[a-z0-9_. ]{1,60})?")


def test_any_request_is_answered_without_a_fault(site: Site) -> None:
    def check(environ: dict[str, Any]) -> None:
        body = environ["body"].encode("utf-8", "replace")
        overrides = {key: value for key, value in environ.items() if key != "body"}
        browser = Client(site._served, use_cookies=False)

        answer = browser.open("/", method="POST", data=body, environ_overrides=overrides)

        assert answer.status_code < 500
        for name, value in answer.headers:
            assert "\n" not in name + value
            assert "\r" not in name + value

    fuzz(1, REQUESTS, check)
    assert not [name for name in site.counts if "fault" in name or "internal" in name]
    assert all(COUNTED.fullmatch(name) for name in site.counts)
    assert len(site.counts) < 80


FIELDS = [*FIELD_NAMES, "visitor", "surprise"]
SOUND = {
    "order_id": "1001",
    "value": "59.90",
    "currency": "EUR",
    "email": "ann@example.com",
    "products": [{"product_id": "mug", "price": "29.95", "quantity": 2}],
}
REPORTS = st.tuples(
    st.sampled_from(["purchase", "addToCart", "pageView", "Purchase"]) | spiced | ANYTHING,
    st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=6)
    # A sound event with a broken field or two gets further.
    | st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=2).map(lambda bad: SOUND | bad),
)


def test_any_report_gets_a_receipt_and_what_is_queued_is_what_adroll_takes(
    make_flask_site: MakeSite,
) -> None:
    site = make_flask_site()
    seen: set[str] = set()

    def check(case: tuple[Any, dict[str, Any]]) -> None:
        name, fields = case
        reported.clear()
        with site.app.test_request_context(
            "/?adct=click", base_url=f"https://{HOST}", environ_base={"REMOTE_ADDR": "8.8.8.8"}
        ):
            receipt = report_event(name, **fields)
            who = ("email", "user_id", "device_id")
            identify(**{field: fields[field] for field in who if field in fields})

        assert isinstance(receipt, Receipt)
        seen.add(receipt.status)
        assert receipt.status in ("queued", "suppressed", "invalid", "failed")
        assert receipt.reason != "internal", "a fault of ours"
        if receipt.status == "queued":
            [event] = reported
            payload = wire_bytes(event)
            wire = json.loads(payload, parse_constant=pytest.fail)
            assert wire["event_name"] in ("purchase", "addToCart", "pageView")
            assert wire["identifiers"].keys() & {"adct", "first_party_cookie"}
            assert wire["advertisable_eid"] == EIDS["ADVERTISABLE_EID"]
            assert len(payload) < 100_000

    with reports(site.app) as reported:
        fuzz(1, REPORTS, check)
    assert seen == {"queued", "invalid"}
    assert all(COUNTED.fullmatch(name) for name in site.counts)
    assert len(site.counts) < 80


class Unbound:
    """As werkzeug's LocalProxy outside of its context: every look at it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("unbound")


def test_a_value_that_raises_when_looked_at_is_no_fault_of_the_shop(
    make_flask_site: MakeSite,
) -> None:
    site = make_flask_site()
    for field in FIELDS:
        broken: dict[str, Any] = {field: Unbound()}
        with site.app.test_request_context("/?adct=click", base_url=f"https://{HOST}"):
            receipt = report_event("purchase", **broken)
        assert receipt.status in ("queued", "invalid", "failed"), field

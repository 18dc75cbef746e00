"""Who the visitor is: record, cookie, token, without any request."""

from datetime import timedelta
from typing import Any

import pytest

from adroll_flask import ConfigurationError, EventError, TokenExpiredError, Visitor
from adroll_flask.counters import Counters
from adroll_flask.settings import Settings
from adroll_flask.visitor.record import Record
from adroll_flask.visitor.request_cookies import RENEW_AFTER
from adroll_flask.visitor.visitors import Visitors
from tests.support.sites import Clock

NOW = 1_750_000_000.0
A = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"
B = "00000000000000000000000000000b0b-1700000000000"
C = "00000000000000000000000000000c0c-1700000000000"


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def counters() -> Counters:
    return Counters()


def make(clock: Clock, counters: Counters, keys: Any = ("secret",)) -> Visitors:
    return Visitors(Settings(), counters, keys=keys, clock=clock)


@pytest.fixture
def visitors(clock: Clock, counters: Counters) -> Visitors:
    return make(clock, counters)


def cookie(record: str = "", *values: str) -> str:
    parts = [f"adroll_visitor={record}"] if record else []
    return "; ".join(["theme=dark", *parts, *(f"__adroll_fpc={value}" for value in values)])


RECORD = Record(
    adct="click123",
    adct_at=NOW,
    adct_source="url",
    first_party_cookie=A,
    first_party_cookie_source="server",
)


@pytest.mark.parametrize("behind", [1, 3601, 400 * 86_400])
def test_what_was_signed_by_a_clock_that_is_ahead_is_kept(
    clock: Clock, counters: Counters, behind: int
) -> None:
    """Two hosts of one site, or one whose clock was put right: no click is lost for that."""
    text = make(clock, counters).sign(RECORD)
    token = visitor(make(clock, counters)).token()
    clock.now -= behind
    visitors = make(clock, counters)

    record = visitors.read(cookie(text, A), secure=False).record

    assert record == RECORD
    assert record.signed_at == clock.now, "a time that is yet to come counts as now"
    told = visitors.read_token(token)
    assert (told.visitor.adct, told.made_at, told.is_expired) == (RECORD.adct, clock.now, False)
    assert counters.snapshot() == {}


def test_a_record_is_due_for_renewal_after_a_day(visitors: Visitors, clock: Clock) -> None:
    text = visitors.sign(RECORD)
    clock.now += RENEW_AFTER - 1
    assert visitors.read(cookie(text, A), secure=False).settled(clock.now)
    clock.now += 1
    assert not visitors.read(cookie(text, A), secure=False).settled(clock.now)


def test_of_several_cookies_without_a_record_the_first_well_formed_wins(visitors: Visitors) -> None:
    assert visitors.read(cookie("", "x" * 81, B + "-", C), secure=False).cookie == B


@pytest.mark.parametrize("tossed", [9, 150])
def test_the_cookie_that_the_record_names_wins_behind_others(
    visitors: Visitors, tossed: int
) -> None:
    """A sister host can put as many cookies of this name before the true one as it likes."""
    others = [f"{n:032x}-1700000000000" for n in range(tossed)]
    seen = visitors.read(cookie(visitors.sign(RECORD), *others, A), secure=False)
    assert seen.cookie == A
    assert seen.record == RECORD
    assert seen.settled(NOW)


@pytest.mark.parametrize("tossed", [8, 150])
@pytest.mark.parametrize("junk", ["x", "a.b.c", "A" * 300, f"{'A' * 60}.Y2h8gA.{'A' * 43}"])
def test_the_record_is_found_behind_others(visitors: Visitors, junk: str, tossed: int) -> None:
    header = "; ".join([f"adroll_visitor={junk}"] * tossed)
    seen = visitors.read(f"{header}; {cookie(visitors.sign(RECORD), B, A)}", secure=False)
    assert seen.record == RECORD
    assert seen.cookie == A


def test_a_bomb_of_cookies_costs_a_bounded_look(visitors: Visitors, counters: Counters) -> None:
    assert visitors.read(cookie("", "käse", *["x" * 81] * 5_000), secure=False).cookie is None
    assert counters.get("cookie_ignored", "malformed") == 200
    visitors.read("; ".join(["adroll_visitor=junk"] * 5_000), secure=False)
    assert counters.get("record_ignored", "forged") == 200


def test_without_a_key_writing_says_what_to_set(clock: Clock, counters: Counters) -> None:
    visitors = make(clock, counters, keys=())
    assert visitors.read(cookie("x", A), secure=False).cookie == A
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        visitors.visitor(RECORD, ip=None, host=None, consent=None).token()
    with pytest.raises(ConfigurationError, match="this visitor belongs to no app"):
        Visitor(adct="click123").token()


# -- tokens --------------------------------------------------------------------------------


def visitor(visitors: Visitors, record: Record = RECORD, **changes: Any) -> Visitor:
    values: dict[str, Any] = {
        "ip": "203.0.113.7",
        "host": "shop.example",
        "consent": True,
    } | changes
    return visitors.visitor(record, **values)


def test_the_longest_token_with_a_user_agent_is_as_long_as_documented(visitors: Visitors) -> None:
    longest = RECORD.with_adct("~" * 240, NOW, "url")
    year = timedelta(days=365)
    lengths = []
    for letters in (*range(1, 60), 200):
        host = "h" * letters + ".example"
        about = {"ip": "2001:db8:1:2:3:4:5:6", "host": host, "user_agent": "Mozilla/5.0 " * 100}
        told = visitor(visitors, longest, **about)
        token = told.token(max_age=year, user_agent=True)
        lengths.append((len(token), len(told.token(max_age=year))))
        back = visitors.read_token(token).visitor
        assert back.user_agent == about["user_agent"][:512].strip()
        assert back.adct == "~" * 240
        assert back.host in (host, None)  # a long one gives way
    longest_of_all, without_agent = map(max, zip(*lengths, strict=True))
    assert 1_040 <= longest_of_all <= 1_050
    assert 440 <= without_agent <= 450


@pytest.mark.parametrize(
    ("agent", "kept"),
    [
        *((agent, agent) for agent in ("Mozilla/5.0 (X11)", "Mozilla/5.0 (X11; Linux x86_64)")),
        ("Mozïlla\x00 \x1f5.0", "Moz?lla? ?5.0"),
        (" ", None),
    ],
)
def test_a_token_is_silent_about_the_user_agent_unless_asked(
    visitors: Visitors, agent: str, kept: str | None
) -> None:
    told = visitor(visitors, user_agent=agent)
    assert visitors.read_token(told.token()).visitor.user_agent is None
    back = visitors.read_token(told.token(user_agent=True)).visitor
    assert (back.user_agent, back.host, back.adct) == (kept, "shop.example", "click123")


@pytest.mark.parametrize(
    ("max_age", "life"),
    [
        *((max_age, 3600) for max_age in (timedelta(hours=1), 3600, 3600.9)),
        (timedelta(days=365), 365 * 86_400),  # beyond the setting
        (None, 90 * 86_400),
    ],
)
def test_a_token_lives_its_life(
    visitors: Visitors, clock: Clock, max_age: timedelta | float | None, life: int
) -> None:
    token = visitor(visitors).token(max_age=max_age)
    clock.now += life
    assert visitors.read_token(token).visitor.adct == "click123"
    assert not visitors.read_token(token).is_expired
    clock.now += 1
    if life < 365 * 86_400:
        assert visitors.read_token(token).is_expired
    clock.now += 365 * 86_400  # nor is a no known for longer
    with pytest.raises(TokenExpiredError):
        visitors.read_token(token)


@pytest.mark.parametrize("max_age", [0, -1, 0.5, timedelta(days=366), True, "90", float("nan")])
def test_a_life_that_is_none_says_what_it_takes(visitors: Visitors, max_age: Any) -> None:
    with pytest.raises(EventError, match="max_age: takes a timedelta or seconds, from 1 s"):
        visitor(visitors).token(max_age=max_age)


@pytest.mark.parametrize("consent", [False, None])
def test_a_token_after_a_no_holds_the_no_alone(visitors: Visitors, consent: bool | None) -> None:
    told = visitor(visitors, Record(), consent=consent, user_agent="Mozilla/5.0 (X11)")
    back = visitors.read_token(told.token(user_agent=True)).visitor
    assert back == Visitor(consent=consent)


def test_memory_of_visitors_is_bounded_and_holds_nothing_forged(visitors: Visitors) -> None:
    for number in range(3_000):
        text = visitors.sign(RECORD.with_adct(f"click{number}", NOW, "url"))
        visitors.read(cookie(text, A), secure=False)
    assert visitors._verified.cache_info().currsize == 2048
    visitors._verified.cache_clear()
    for number in range(10):
        visitors.read(cookie(f"forged{number}", A), secure=False)
    assert visitors._verified.cache_info().currsize == 0

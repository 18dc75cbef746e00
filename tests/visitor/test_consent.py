"""The server's half of consent: what counts as yes, and that nothing else does."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import pytest

from adroll_flask.counters import Counters
from adroll_flask.settings import Settings
from adroll_flask.visitor.consent import Decision, decide
from adroll_flask.visitor.visitors import Visitors
from tests.conftest import Caplog
from tests.support.tcf import NO, STRINGS, YES

GRANTED = Decision(True, "")
REFUSED = Decision(False, "consent_refused")
UNKNOWN = Decision(None, "consent_unknown")
ERROR = Decision(None, "consent_error")
GPC = Decision(False, "consent_gpc")


def decided(
    consent: Any = None,
    *,
    gpc: str = "",
    cookies: Mapping[str, str] | None = None,
    request: object = "the request",
    recorded: bool | None = None,
    counters: Counters | None = None,
    **settings: Any,
) -> Decision:
    """The decision on a request."""
    cookie = "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())
    environ = {"HTTP_SEC_GPC": gpc} if gpc else {"HTTP_COOKIE": cookie}
    config = {f"ADROLL_{k.upper()}": v for k, v in {"consent": consent, **settings}.items()}
    counters = counters or Counters()
    made = Settings.from_mapping(config), counters, (), time.time, lambda _environ: request
    return decide(Visitors(*made), environ, recorded)


def test_without_a_setting_consent_is_granted() -> None:
    assert decided() == Decision(True, "")


@pytest.mark.parametrize("consent", [None, "tcf", "gpp", lambda request: True])
@pytest.mark.parametrize("recorded", [True, False, None])
def test_gpc_is_a_no_whatever_else_was_said(consent: Any, recorded: bool | None) -> None:
    # An extension may say it beside the browser: servers join the two.
    for gpc in ("1", "1,1", "1, 1"):
        assert decided(consent, gpc=gpc, recorded=recorded) == GPC


def test_a_site_may_overrule_gpc_knowingly() -> None:
    assert decided(gpc="1", honor_gpc=False).granted
    assert decided(lambda request: False, gpc="1", honor_gpc=False) == REFUSED


def test_the_callable_is_given_the_request_and_its_answer_counts() -> None:
    seen = []

    def ask(request: object) -> bool:
        seen.append(request)
        return True

    assert decided(ask, recorded=False) == GRANTED
    assert seen == ["the request"]
    assert decided(lambda request: False, recorded=True) == REFUSED


@pytest.mark.parametrize(
    ("recorded", "expected"), [(True, GRANTED), (False, REFUSED), (None, UNKNOWN)]
)
def test_else_the_recorded_answer_counts(recorded: bool | None, expected: Decision) -> None:
    assert decided(lambda request: None, recorded=recorded) == expected
    assert decided("tcf", cookies={}, recorded=recorded) == expected
    assert decided("tcf", cookies={"euconsent-v2": ""}, recorded=recorded) == expected
    # No string is read for it, whatever cookies the platform keeps.
    assert decided("gpp", cookies={"euconsent-v2": NO}, recorded=recorded) == expected


def test_a_callable_that_raises_is_counted_and_no_consent(caplog: Caplog) -> None:
    counters = Counters()

    def ask(request: object) -> bool:
        raise LookupError("ann@example.com")

    with caplog.at_level(logging.DEBUG, "adroll_flask"):
        assert decided(ask, recorded=True, counters=counters) == ERROR
        assert decided(ask, recorded=True, counters=counters) == ERROR

    assert counters.snapshot() == {"consent_error:raised": 2}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "LookupError" in caplog.text
    assert "ann@example.com" not in caplog.text


@pytest.mark.parametrize("answer", ["yes", "denied", 1, 0, "", {}, [True], object(), 1.0])
def test_only_true_is_a_yes(answer: object, caplog: Caplog) -> None:
    counters = Counters()

    assert decided(lambda request: answer, recorded=True, counters=counters) == ERROR
    assert counters.snapshot() == {"consent_error:wrong_type": 1}
    assert "ADROLL_CONSENT: takes a callable that returns True, False or None" in caplog.text
    assert "denied" not in caplog.text


def test_an_async_callable_is_no_yes_and_leaves_no_warning() -> None:
    async def ask(request: object) -> bool:
        await asyncio.sleep(0)
        return True

    assert decided(ask) == ERROR


def test_the_tc_string_answers_for_adroll_alone() -> None:
    assert decided("tcf", cookies={"euconsent-v2": YES}) == GRANTED
    assert decided("tcf", cookies={"euconsent-v2": NO}, recorded=True) == REFUSED
    assert decided("tcf", cookies={"euconsent-v2": STRINGS["130 without purpose 7"]}) == REFUSED


@pytest.mark.parametrize("several", [(YES, NO), (NO, YES)])
def test_of_several_tc_strings_any_no_is_a_no(several: tuple[str, str]) -> None:
    # As where a platform came to write for the domain what it had written for a host. The browser
    # sends the older one first.
    cookie = "; euconsent-v2=".join(several)
    assert decided("tcf", cookies={"euconsent-v2": cookie}, recorded=True) == REFUSED


def test_another_script_s_cookie_in_latin_1_hides_no_tc_string() -> None:
    assert decided("tcf", cookies={"name": "Ren\xe9", "euconsent-v2": YES}) == GRANTED


def test_cookie_vendor_and_purposes_of_the_tc_string_are_settings() -> None:
    without_7 = STRINGS["130 without purpose 7"]

    only_1 = decided("tcf", cookies={"my_tc": without_7}, tcf_cookie="my_tc", tcf_purposes=[1])
    assert only_1 == GRANTED
    assert decided("tcf", cookies={"euconsent-v2": YES}, tcf_vendor=131) == REFUSED


@pytest.mark.parametrize(
    "text", ["garbage", YES.partition(".")[0][:-9], STRINGS["version 1"], "C" * 9000, "\x00é"]
)
def test_an_unreadable_tc_string_is_counted_and_no_consent(text: str, caplog: Caplog) -> None:
    counters = Counters()

    assert decided("tcf", cookies={"euconsent-v2": text}, recorded=True, counters=counters) == ERROR
    assert counters.snapshot() == {"consent_error:tc_string": 1}
    assert text not in caplog.text

"""The one made-up event: good enough for AdRoll, and of nobody."""

import json

import pytest

from adroll_flask import errors, sandbox, settings
from adroll_flask.events import build, names
from adroll_flask.sandbox import ADVERTISABLE_EID, PIXEL_EID, event_checks

NOW = 1_667_065_540.836
ACCOUNT = settings.Account(advertisable_eid=ADVERTISABLE_EID, pixel_eid=PIXEL_EID)


@pytest.mark.parametrize("name", names.EVENT_NAMES)
def test_a_trial_event_of_any_name_is_without_fault(name: str) -> None:
    wire = json.loads(build.trial_event(ACCOUNT, NOW, name))
    assert event_checks.faults(wire, account=sandbox.Account(), now=NOW) == []
    assert wire["event_name"] == name


def test_two_trials_are_of_two_visitors() -> None:
    first, second = (json.loads(build.trial_event(settings.Account(), NOW)) for _ in range(2))
    assert first["identifiers"].keys() == {"first_party_cookie"}
    assert first["identifiers"] != second["identifiers"]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(errors.EventError, match="event_name"):
        build.trial_event(settings.Account(), NOW, "bought")

"""The one made-up event: good enough for AdRoll, and of nobody."""

import json

import pytest

from adroll_flask import sandbox
from adroll_flask.errors import EventError
from adroll_flask.events.build import trial_event
from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.sandbox import ADVERTISABLE_EID, PIXEL_EID, event_checks
from adroll_flask.settings import Account

NOW = 1_667_065_540.836
ACCOUNT = Account(advertisable_eid=ADVERTISABLE_EID, pixel_eid=PIXEL_EID)


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_a_trial_event_of_any_name_is_without_fault(name: str) -> None:
    wire = json.loads(trial_event(ACCOUNT, NOW, name))
    assert event_checks.faults(wire, account=sandbox.Account(), now=NOW) == []
    assert wire["event_name"] == name


def test_two_trials_are_of_two_visitors() -> None:
    first, second = (json.loads(trial_event(Account(), NOW)) for _ in range(2))
    assert first["identifiers"].keys() == {"first_party_cookie"}
    assert first["identifiers"] != second["identifiers"]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(EventError, match="event_name"):
        trial_event(Account(), NOW, "bought")

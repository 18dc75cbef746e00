"""The one made-up event: good enough for AdRoll, and of nobody."""

import json

import pytest

from adroll_flask import errors, settings
from adroll_flask.events import build

NOW = 1_667_065_540.836


def test_two_trials_are_of_two_visitors() -> None:
    first, second = (json.loads(build.trial_event(settings.Account(), NOW)) for _ in range(2))
    assert first["identifiers"].keys() == {"first_party_cookie"}
    assert first["identifiers"] != second["identifiers"]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(errors.EventError, match="event_name"):
        build.trial_event(settings.Account(), NOW, "bought")

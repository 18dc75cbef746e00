"""Whatever is sent, the sandbox answers; it never fails and never takes what it cannot keep."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adroll_flask.sandbox import create_app
from tests.support.sandbox_helpers import FULL, Api, spoiled

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)


def paths(value: Any, prefix: str = "") -> list[str]:
    found = []
    if isinstance(value, dict):
        for name, member in value.items():
            path = f"{prefix}.{name}" if prefix else name
            found += [path, *paths(member, path)]
    elif isinstance(value, list):
        for index, member in enumerate(value):
            found += [f"{prefix}[{index}]", *paths(member, f"{prefix}[{index}]")]
    return found


EVENTS = st.builds(spoiled, st.sampled_from(paths(FULL)), JSON) | JSON


APP = create_app(keep=50)


def fresh() -> Api:
    """One sandbox for all examples, which has forgotten what it saw."""
    APP.extensions["adroll_sandbox"].state.clear()
    return Api(APP.extensions["adroll_sandbox"], APP.test_client().open)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(EVENTS, max_size=3))
def test_any_events_are_answered_and_can_be_read_back(events: list[Any]) -> None:
    api = fresh()
    answer = api.post(events)
    assert answer.status_code in (200, 400)
    back = api.open("/events").get_json()
    if events:
        assert [one["event"] for one in back["events"]] == json.loads(json.dumps(events))
    if answer.status_code == 400:
        assert answer.get_json()["errors"]
        assert back["totals"]["accepted"] == 0


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_answered_at_every_door(body: bytes) -> None:
    api = fresh()
    assert api.post(body).status_code in (200, 400)
    assert api.post(body, headers={"Content-Encoding": "gzip"}).status_code == 400
    path = f"/pixel/beacon/{api.sandbox.account.advertisable_eid}"
    assert api.open(path, method="POST", data=body).status_code in (204, 400)
    kind = "application/json"
    answer = api.open("/faults", method="POST", data=body, content_type=kind)
    assert answer.status_code in (201, 400)

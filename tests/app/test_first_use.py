"""The app's parts are made at their first use, once, however many threads come first."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from adroll_flask import AdRoll
from adroll_flask.delivery import deliverer
from adroll_flask.forks import PerProcess
from adroll_flask.outbox import outbox
from adroll_flask.runtime import Runtime
from adroll_flask.visitor import tracked_request
from tests.support import PATIENCE, in_a_child

PARTS: dict[str, type[Any]] = {
    "outbox": outbox.Outbox,
    "deliverer": deliverer.Deliverer,
    "services": tracked_request.VisitorServices,
}


@pytest.mark.parametrize("part", PARTS)
def test_threads_that_come_first_together_get_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Two delivery threads were seen in a process whose first two orders came at once."""
    app = Flask("shop", instance_path=str(tmp_path))
    app.config["SECRET_KEY"] = "a key of a shop under test"
    AdRoll(app)
    runtime: Runtime = app.extensions["adroll"]
    together = threading.Barrier(4)
    really = PARTS[part].__init__

    def slowly(self: Any, *given: Any, **named: Any) -> None:
        together.wait(PATIENCE)  # all four are making one
        really(self, *given, **named)

    monkeypatch.setattr(PARTS[part], "__init__", slowly)
    found: list[Any] = []

    def ask() -> None:
        found.append(getattr(runtime, part))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE)

    assert len(found) == 4
    assert len({id(one) for one in found}) == 1
    assert getattr(runtime, part) is found[0]


# -- what belongs to a process and not to its forks -----------------------------------------------


def test_a_child_makes_its_own_and_leaves_the_parents_locks_as_they_are() -> None:
    locks = PerProcess(threading.Lock)
    parents = locks.own()
    with parents:

        def is_apart() -> bool:
            own = locks.own()
            return own is not parents and own.acquire(blocking=False) and parents.locked()

        assert in_a_child(is_apart)
    assert locks.own() is parents

"""What belongs to a process and not to its forks."""

from __future__ import annotations

import threading

from adroll_flask.forks import PerProcess
from tests.support import in_a_child


def test_a_thing_of_a_process_is_made_once_and_threads_at_once_take_the_same() -> None:
    together = threading.Barrier(2)

    def make() -> object:
        together.wait()  # both have found none
        return object()

    things = PerProcess(make)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(things.own())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [things.own()] * 2


def test_a_child_makes_its_own_and_leaves_the_parents_locks_as_they_are() -> None:
    locks = PerProcess(threading.Lock)
    parents = locks.own()
    with parents:

        def is_apart() -> bool:
            own = locks.own()
            return own is not parents and own.acquire(blocking=False) and parents.locked()

        assert in_a_child(is_apart)
    assert locks.own() is parents

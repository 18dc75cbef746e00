"""What belongs to a process and not to its forks."""

from __future__ import annotations

import os
import threading

from adroll_flask.forks import PerProcess


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
        child = os.fork()
        if child == 0:
            status = 1
            try:
                own = locks.own()
                free = own is not parents and own.acquire(blocking=False)
                status = 0 if free and parents.locked() else 1
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert locks.own() is parents

"""Delivery by Celery: a task that drains the outbox, a beat schedule, and a nudge after a commit.

::

    from adroll_flask.celery import deliver_with

    app.config["ADROLL_DELIVERY"] = "worker"
    adroll.init_app(app)
    deliver_with(celery_app, app)

The outbox stays the only place where events wait: a task that is lost, doubled or killed costs
and doubles nothing, since leases in the outbox decide who sends what.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from . import request_state
from .errors import ConfigurationError
from .forks import PerProcess
from .logs import Logger, get_logger
from .redaction import describe

if TYPE_CHECKING:
    from celery import Celery
    from flask import Flask

    from .runtime import Runtime

logger: Logger = get_logger("adroll_flask.celery")

#: The task's name.
TASK = "adroll_flask.drain"
#: Seconds after which a task ends and leaves the rest to the next one, so that a worker's warm
#: shutdown and broker's acknowledgement time-outs are met.
LONGEST_RUN = 55.0


def deliver_with(
    celery: Celery, app: Flask, *, every: float = 30.0, queue: str | None = None
) -> Any:
    """Let *celery* deliver the events of *app*.

    Registers the task ``adroll_flask.drain``, adds it to the beat schedule, and sends it once a
    linger after an event's commit (at most one a linger and process).

    :param celery: the Celery app.
    :param app: a Flask app with AdRoll on it and ``ADROLL_DELIVERY="worker"``.
    :param every: seconds between two beats; what a nudge missed is delivered then.
    :param queue: the queue to use, if not Celery's default.
    :returns: the task.
    :raises ConfigurationError: *app* delivers otherwise, or has no AdRoll.
    """
    runtime = request_state.runtime_of(app, "deliver_with")
    if runtime.settings.delivery != "worker":
        raise ConfigurationError("ADROLL_DELIVERY", "takes 'worker' where Celery delivers")

    # Acknowledged late and returned by a lost worker: a kill costs no run. Not shared: of two apps
    # in one process each has its own, and Celery would take the first for both.
    @celery.task(  # type: ignore[untyped-decorator]
        name=TASK, shared=False, acks_late=True, reject_on_worker_lost=True, ignore_result=True
    )
    def drain() -> int:
        with app.app_context():
            ended, more = _drain(runtime)
        if more:
            nudge()
        return ended

    options: dict[str, Any] = {"expires": max(every, 60.0)}
    if queue is not None:
        options["queue"] = queue
    celery.conf.beat_schedule = {
        **(celery.conf.beat_schedule or {}),
        "adroll-drain": {"task": TASK, "schedule": every, "options": options},
    }
    runtime.nudge = nudge = Nudge(drain, runtime.settings.linger, options)
    return drain


def _drain(runtime: Runtime) -> tuple[int, bool]:
    """Deliver until nothing is due; how many events ended, and whether there are more."""
    stop = threading.Event()
    timer = threading.Timer(LONGEST_RUN, stop.set)
    timer.daemon = True
    timer.start()
    ended = 0
    try:
        # Steps and not drain(): they keep house as well, which nobody else does here.
        while not stop.is_set():
            step = runtime.deliverer.step(stop)
            ended += step.ended
            if not step.more:
                return ended, False
        return ended, True
    finally:
        timer.cancel()


class Nudge:
    """Sends the task soon after a commit, from a thread of its own.

    A request must not wait for the broker (promise 1), and a broker that is away costs a log line:
    beat delivers what no nudge announced.
    """

    def __init__(self, task: Any, linger: float, options: dict[str, Any]) -> None:
        self._task = task
        self._linger = linger
        self._options = options
        # Threads do not survive a fork.
        self._wanted = PerProcess(self._start)

    def __call__(self) -> None:
        try:
            self._wanted.own().set()
        except RuntimeError as problem:
            # No thread to be had, or the interpreter is exiting: beat finds the event.
            logger.warning("AdRoll: no thread to nudge Celery from: %s [celery-nudge]", problem)

    def _start(self) -> threading.Event:
        wanted = threading.Event()
        # Of two that are begun at once only one is ever woken.
        threading.Thread(target=self._run, args=(wanted,), name="adroll-nudge", daemon=True).start()
        return wanted

    def _run(self, wanted: threading.Event) -> None:
        failing = False
        while True:
            wanted.wait()
            # Events of one linger go with one task.
            time.sleep(self._linger)
            wanted.clear()
            try:
                self._task.apply_async(retry=False, **self._options)
            except Exception as problem:
                if not failing:
                    logger.warning(
                        "AdRoll: Celery's broker took no nudge: %s [celery-nudge]",
                        describe(problem),
                    )
                failing = True
            else:
                failing = False

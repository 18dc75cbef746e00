"""Delivery by Celery: a task that drains the outbox, and a beat schedule.

::

    from adroll_flask.celery import deliver_with

    app.config["ADROLL_DELIVERY"] = "worker"
    adroll.init_app(app)
    deliver_with(celery_app, app)

The outbox stays the only place where events wait, and its leases decide who sends what. So a task
that is lost, or that runs twice, loses no event and sends none twice.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import request_state
from .errors import ConfigurationError
from .outbox.model import OutboxFailed

if TYPE_CHECKING:
    from celery import Celery
    from flask import Flask

    from .runtime import Runtime

#: The task's name.
TASK = "adroll_flask.drain"
#: Seconds after which a task ends and leaves the rest to the next one, so that a worker's warm
#: shutdown and broker's acknowledgement time-outs are met.
LONGEST_RUN = 55.0
#: The task's own limits, in the place of those of all of a shop's tasks: seconds until Celery
#: interrupts it, and until it kills it. They are longer than the longest run with its last request
#: and what is written after it: if a limit ends a request, nobody knows whether AdRoll took it, and
#: up to 100 orders may be sent twice.
LIMITS = {"soft_time_limit": 300, "time_limit": 330}


def deliver_with(
    celery: Celery, app: Flask, *, every: float = 30.0, queue: str | None = None
) -> Any:
    """Let *celery* deliver the events of *app*.

    Registers the task ``adroll_flask.drain`` and adds it to the beat schedule.

    :param celery: the Celery app.
    :param app: a Flask app with AdRoll on it and ``ADROLL_DELIVERY="worker"``.
    :param every: seconds between two beats.
    :param queue: the queue to use, if not Celery's default.
    :returns: the task.
    :raises ConfigurationError: *app* delivers otherwise, or has no AdRoll; or *celery* delivers
        the events of another app.
    """
    runtime = request_state.runtime_of(app, "deliver_with")
    if runtime.settings.delivery != "worker":
        raise ConfigurationError("ADROLL_DELIVERY", "takes 'worker' where Celery delivers")
    # The Celery app's one task delivers the first app's events. Runtimes are compared and not apps:
    # *app* may be Flask's proxy of the same app.
    if vars(celery).setdefault("_adroll", runtime) is not runtime:
        raise ConfigurationError("deliver_with", "takes one Flask app with each Celery app")

    # Acknowledged late and returned by a lost worker: a kill costs no run. Not shared: of two apps
    # in one process each has its own, and Celery would take the first for both.
    @celery.task(  # type: ignore[untyped-decorator]
        name=TASK,
        shared=False,
        acks_late=True,
        reject_on_worker_lost=True,
        ignore_result=True,
        **LIMITS,
    )
    def drain() -> int:
        """Deliver until nothing is due; how many events ended."""
        stop = threading.Event()
        ended = 0
        more = runtime.settings.enabled
        timer = threading.Timer(LONGEST_RUN, stop.set)  # also within a step of many requests
        timer.daemon = True
        timer.start()
        try:
            with app.app_context():
                # Steps and not drain(): they keep house as well, which nobody else does here.
                while more and not stop.is_set():
                    step = runtime.deliverer.step(stop)
                    ended += step.ended
                    more = step.more
                if runtime.settings.enabled:
                    with suppress(OutboxFailed):  # which the steps have told
                        _keep_house(runtime)
            return ended
        finally:
            timer.cancel()

    # The limits again: what a message says goes before the task's own, which `task_annotations`
    # may have changed.
    options: dict[str, Any] = {"expires": max(every, 60.0), **LIMITS}
    if queue:
        options["queue"] = queue
    celery.conf.beat_schedule = {
        **(celery.conf.beat_schedule or {}),
        "adroll-drain": {"task": TASK, "schedule": every, "options": options},
    }
    return drain


def _keep_house(runtime: Runtime) -> None:
    """Keep house once a minute of all processes.

    A step does so in its process's second minute. With ``worker_max_tasks_per_child`` a child may
    have ended by then.
    """
    outbox = runtime.outbox
    if outbox.exists() and outbox.lookups.take_turn("housekeeping", 60.0):
        outbox.admin.keep_house()
        runtime.paid_orders.look(patience=LONGEST_RUN)

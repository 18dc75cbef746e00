"""The Celery app of a shop, configured by the environment; imported by Celery's worker."""

import json
import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_init, worker_process_init

from adroll_flask.celery import deliver_with
from tests.support.server_shop import make_shop
from tests.support.shop_orders import do

app = make_shop()
celery = Celery("shop", broker=os.environ["BROKER"])
celery.conf.update(
    task_default_queue=os.environ["QUEUE"],
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,
)
if limits := os.environ.get("LIMITS"):
    celery.conf.update(json.loads(limits))
deliver_with(celery, app, every=float(os.environ["EVERY"]), queue=os.environ["QUEUE"])

# A lease of a minute would let most tests wait for so long.
app.extensions["adroll"].deliverer.lease = float(os.environ["LEASE"])


@celery.task(name="shop.buy")  # type: ignore[untyped-decorator]
def buy(order: str) -> None:
    assert do(app, "order", order, "9.90") == "queued"


@worker_init.connect  # type: ignore[untyped-decorator]
def before_the_fork(**_: object) -> None:
    # The parent's connection is open when it forks: no child may use it.
    buy("parent")


@worker_process_init.connect  # type: ignore[untyped-decorator]
def in_each_child(**_: object) -> None:
    # Whom to kill: beat is a child of the worker as well.
    Path(os.environ["SHOP_FOLDER"], f"child-{os.getpid()}").touch()

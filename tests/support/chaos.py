"""Kills a shop's processes at random and checks that no order is lost and none doubled unmarked.

``python -m tests.support.chaos --kills 500``; with ``FLASK_ADROLL_OUTBOX_URL``: on a server.

Four processes share one outbox: two shops whose own threads deliver what they report, one that
leaves that to others, and ``flask adroll worker``. Orders are placed in requests and in app
contexts; one whose receipt is true is written down as acknowledged. All are killed with SIGKILL at
random moments, some while a request of theirs hangs at AdRoll (the sandbox, in this process), and
started again at once. In the end every acknowledged order must have arrived, and those that arrived
twice must carry the mark *unsure*. Prints a summary as JSON; exit code 1: not so.

``--careless`` leaves out the one commit that all hangs on, that of ``sending``: this must fail.
"""

import argparse
import itertools
import json
import logging
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask.cli import FlaskGroup

from adroll_flask import report_conversion
from adroll_flask.accounts import SANDBOX_ACCOUNT
from adroll_flask.delivery import batch
from adroll_flask.delivery.transport import RequestsTransport, Timeouts
from adroll_flask.events.build import warm
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.sandbox import running
from adroll_flask.settings import Settings
from tests.support import started
from tests.support.server_shop import make_shop

#: Seconds. A request takes at most 2.2 here, a lease is longer.
LEASE = 3.0
#: Connecting, between two bytes, in all.
TIMEOUTS = (0.5, 1.0, 1.2)
PAGE, ADDRESS = "https://shop.example/", "203.0.113.9"
WEBHOOK: Any = {"value": 1, "currency": "EUR", "adct": "c", "ip": ADDRESS, "page_location": PAGE}


def outbox_of(folder: Path) -> Outbox:
    """The shop's: in a file, or where ``$FLASK_ADROLL_OUTBOX_URL`` says."""
    url = os.environ.get("FLASK_ADROLL_OUTBOX_URL")
    # Whoever serves no account of the sandbox has its events told apart.
    names = {f"ADROLL_{name.upper()}": value for name, value in asdict(SANDBOX_ACCOUNT).items()}
    settings = Settings.from_mapping(names | ({"ADROLL_OUTBOX_URL": url} if url else {}))
    return Outbox(settings, folder=folder)


def verdict(
    acknowledged: Iterable[str], arrived: Mapping[str, int], rows: Mapping[str, Any]
) -> list[str]:
    """What is wrong: each order that is missing, doubled without a mark, or dead."""
    wrong = [f"{order}: acknowledged and lost" for order in acknowledged if not arrived.get(order)]
    for order, count in arrived.items():
        row = rows.get(order)
        if row is None:
            wrong.append(f"{order}: arrived and is not in the outbox")
        elif count > 1 and not row.unsure:
            wrong.append(f"{order}: arrived {count} times without a mark")
        elif count > row.attempts:
            wrong.append(f"{order}: arrived {count} times in {row.attempts} requests")
    wrong += [f"{key}: is {row.state}" for key, row in rows.items() if row.state != "delivered"]
    return wrong


# The children


def create_app(delivery: str = "worker") -> Any:
    """The shop, configured by the environment, with a lease that a test can wait for."""
    os.environ["FLASK_ADROLL_DELIVERY"] = delivery
    app = make_shop()
    # Kills meet a request every second here: none may become a dead letter for that, and none has
    # minutes to wait.
    vars(batch)["UNSURE_PAUSES"] = (0.5,) * 1000
    deliverer = app.extensions["adroll"].deliverer
    deliverer.lease, deliverer.poll = LEASE, 0.2
    deliverer.transport = RequestsTransport(Timeouts(*TIMEOUTS))
    if os.environ["CHAOS_CARELESS"]:
        forget_to_commit(type(deliverer.outbox.queue))
    return app


def forget_to_commit(queue: Any) -> None:
    """Let no queue commit ``sending``."""
    claim = queue.claim

    def only_claim(self: Any, account: str, limit: int, lease: float, *, begin: bool) -> Any:
        return claim(self, account, limit, lease)

    def begin_nothing(self: Any, claim: Any, ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(ids)

    queue.claim, queue.begin_sending = only_claim, begin_nothing


def place(app: Any, name: str) -> None:
    """Place orders until killed; note what is acknowledged."""
    noted = Path(os.environ["SHOP_FOLDER"], f"{name}.acknowledged")
    acknowledged = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    visitor = app.test_client()
    visitor.environ_base["REMOTE_ADDR"] = ADDRESS
    for number in itertools.count():
        order = f"{name}-{number}"
        # A reload of the thank-you page now and then.
        for _ in range(2 if number % 7 == 0 else 1):
            if number % 2:  # no browser, as in a payment's webhook
                with app.app_context():
                    status = report_conversion(order_id=order, **WEBHOOK).status
            else:
                status = visitor.post(f"/orders/{order}", base_url=PAGE).json["status"]
            if status == "queued":
                os.write(acknowledged, f"{order}\n".encode())
            elif status != "duplicate":
                raise AssertionError(f"{order} is {status}")
        time.sleep(random.uniform(0.0, 0.03))


def follow(parent: Any) -> None:
    """End with the parent, whatever ended it."""
    parent.join()
    os._exit(1)


def live(kind: str, name: str) -> None:
    """What a child does until it is killed."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=follow, args=(parent,), daemon=True).start()
    warm()
    logging.getLogger("adroll_flask").setLevel(logging.CRITICAL)
    random.seed(f"{name}{time.time()}")
    try:
        if kind == "worker":
            flask = FlaskGroup(create_app=create_app, load_dotenv=False)
            flask.main(["adroll", "worker"], prog_name="flask")
        else:
            place(create_app("thread" if kind == "shop" else "worker"), name)
    except BaseException:
        crash = Path(os.environ["SHOP_FOLDER"], f"{name}.crashed")
        crash.write_text(traceback.format_exc())


# The test


class Family:
    """The processes, each of which is started again when it was killed.

    They are forks of a process that has imported everything: Python's start would take longer than
    their lives.
    """

    KINDS = ("shop", "shop", "reporter", "worker")

    def __init__(self) -> None:
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(
            ["__main__", "flask.cli", "requests", "sqlalchemy", "tests.support.server_shop"]
        )
        self._born = 0
        self.children: dict[Any, str] = {}
        self.kills = 0
        for kind in self.KINDS:
            self.start(kind)

    def start(self, kind: str) -> None:
        self._born += 1
        child = self._forks.Process(target=live, args=(kind, f"{kind}{self._born}"), daemon=True)
        child.start()
        self.children[child] = kind

    def kill(self, child: Any) -> str:
        """Kill it; its kind."""
        self.kills += child.is_alive()  # or it crashed, which is reported in the end
        child.kill()
        child.join()
        return self.children.pop(child)


def set_faults(sandbox: Any, **first: Any) -> int:
    """Every request takes a while, so that kills meet requests; *first* comes before that."""
    sandbox.clear_faults()
    number = sandbox.fault(**first, times=1) if first else 0
    sandbox.fault(latency=0.04)
    return number


def hang_and_kill(sandbox: Any, family: Family, rng: random.Random, *, take: bool) -> bool:
    """Let a request hang, taken or not, and kill whoever may have sent it."""
    number = set_faults(sandbox, hang=30, take=take)

    def is_hanging() -> bool:
        if take:  # its body was read, and not only its head
            return any(one["fault"] == number for one in sandbox.requests())
        with urllib.request.urlopen(f"{sandbox.url}/faults", timeout=10) as answer:
            return number not in {fault["id"] for fault in json.load(answer)["faults"]}

    until = time.monotonic() + 6.0
    while not is_hanging():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 0.3))
    for child, kind in list(family.children.items()):
        if kind != "reporter":
            family.start(family.kill(child))
    set_faults(sandbox)
    return True


def chaos(kills: int, hangs: int, seed: int, folder: Path, *, careless: bool) -> dict[str, Any]:
    """Kill until both numbers are reached; returns the summary."""
    rng = random.Random(seed)
    began = time.monotonic()
    with running(keep=1_000_000) as sandbox:
        os.environ |= {
            "SHOP_FOLDER": str(folder),
            "CHAOS_CARELESS": "yes" if careless else "",
            "FLASK_ADROLL_API_URL": sandbox.api_url,
        }
        set_faults(sandbox)
        family = Family()
        hung = 0
        try:
            sandbox.wait(20, timeout=120)
            while family.kills < kills or hung < hangs:
                time.sleep(rng.uniform(0.0, 0.6))
                if hung < hangs and rng.random() < 0.4:
                    hung += hang_and_kill(sandbox, family, rng, take=hung % 2 == 0)
                else:
                    family.start(family.kill(rng.choice(list(family.children))))
            sandbox.clear_faults()
        finally:
            for child in list(family.children):
                family.kill(child)
        left, code = drain(folder)
        arrived = Counter(record["order_id"] for record in sandbox.purchases())
    acknowledged = [
        line for log in folder.glob("*.acknowledged") for line in log.read_text().splitlines()
    ]
    with closing(outbox_of(folder)) as outbox:
        rows = {row.key or "": row for row in outbox.lookups.list(limit=1_000_000)}
        counted = Counter[str]()
        for hour in outbox.lookups.history(0, ["outcome"]):
            counted[hour.outcome] += hour.events
    wrong = [crash.read_text() for crash in folder.glob("*.crashed")]
    if code:
        wrong.append(f"the last worker ended with {code}")
    wrong += verdict(acknowledged, arrived, rows)
    if counted["delivered"] != len(rows) or counted["dead"]:
        wrong.append(f"{counted} in the history, {len(rows)} delivered")
    return {
        "seed": seed,
        "kills": family.kills,
        "kills_while_hanging": hung,
        "acknowledged": len(acknowledged),
        "arrived": len(arrived),
        "arrived_twice": sum(count > 1 for count in arrived.values()),
        "marked_unsure": sum(row.unsure for row in rows.values()),
        "in_history": counted,
        "left": left,
        "wrong": wrong[:20],
        "seconds": round(time.monotonic() - began, 1),
    }


def drain(folder: Path) -> tuple[int, int]:
    """Let a last worker finish; how many events it left, and how it ended when told to."""
    command = (sys.executable, "-m", "flask", "--app", "tests.support.chaos:create_app")
    with started(*command, "adroll", "worker") as worker:
        with closing(outbox_of(folder)) as outbox:
            until = time.monotonic() + 180
            while (left := outbox.queue.waiting()) and time.monotonic() < until:
                time.sleep(0.1)
        worker.terminate()
        return left, worker.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--hangs", type=int, help="kills while a request hangs; default: a fifth")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--careless", action="store_true", help="without the commit of 'sending'")
    options = parser.parse_args()
    hangs = max(1, options.kills // 5) if options.hangs is None else options.hangs
    with tempfile.TemporaryDirectory() as folder:
        summary = chaos(options.kills, hangs, options.seed, Path(folder), careless=options.careless)
    print(json.dumps(summary, indent=2))
    return 1 if summary["wrong"] or summary["left"] else 0


if __name__ == "__main__":
    sys.exit(main())

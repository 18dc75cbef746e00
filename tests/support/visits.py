"""A visitor of a Flask shop, and what they buy; and the settings of a shop at a sandbox."""

import json
from dataclasses import asdict
from typing import Any

from click.testing import Result
from flask import Flask

from adroll_flask import report_conversion
from adroll_flask.cli.commands import commands
from adroll_flask.outbox.model import Outcome
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.sandbox import RunningSandbox
from tests.support import PATIENCE

ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}


VISIT: dict[str, Any] = {
    "base_url": "https://shop.test",
    "environ_base": {"REMOTE_ADDR": "203.0.113.7"},
}


def visit(app: Flask, url: str = "/?adct=click123", *, gpc: bool = False) -> Any:
    """A request of a visitor."""
    return app.test_request_context(url, headers={"Sec-GPC": "1"} if gpc else {}, **VISIT)


def report(app: Flask, order: str = "1001", *, gpc: bool = False, **fields: Any) -> Any:
    """Report a visitor's order; the receipt."""
    with visit(app, gpc=gpc):
        return report_conversion(**(ORDER | {"order_id": order} | fields))


def begin_long_ago(outbox: Outbox) -> None:
    """Let *outbox* know of orders of any time."""
    outbox.database.create_tables()
    long_ago = "UPDATE adroll_meta SET value = '1000.0' WHERE name = 'began'"
    outbox.database.write(lambda tx: tx.execute(long_ago))


def began_long_ago(app: Flask) -> None:
    """Let the app's outbox know of orders of any time."""
    begin_long_ago(app.extensions["adroll"].outbox)


def settle(app: Flask, account: str = "", /, **ends: dict[str, Any]) -> None:
    """Let orders end: ``o1001={"kind": "delivered"}``; the others are put back.

    :param account: whose orders; without it, the app's first.
    """
    outbox = app.extensions["adroll"].outbox
    outbox.ingest.take_in(patience=PATIENCE)
    claim = outbox.queue.claim(account or app.config["ADROLL_ADVERTISABLE_EID"])
    put_back = {"kind": "return"}
    outcomes = [Outcome(ids=[one.id], **ends.get(f"o{one.key}", put_back)) for one in claim.events]
    outbox.queue.settle(claim, outcomes)


def named_at(sandbox: RunningSandbox) -> dict[str, str]:
    """The settings of a shop whose AdRoll is *sandbox*, without ``ADROLL_``, in lower case."""
    return {"api_url": sandbox.api_url, **asdict(sandbox.account)}


def at(sandbox: RunningSandbox) -> dict[str, Any]:
    """The configuration of a shop whose AdRoll is *sandbox*."""
    named = named_at(sandbox).items()
    return {"ADROLL_STRICT": False, **{f"ADROLL_{name.upper()}": value for name, value in named}}


def invoke(app: Flask, *arguments: str, code: int | None = None, **kwargs: Any) -> Result:
    """What a `flask adroll` command prints, and how it exits: with *code*, if one is given."""
    result = app.test_cli_runner().invoke(commands, [*arguments], **kwargs)
    assert code in (None, result.exit_code), result.output
    return result


# -- what an app's outbox holds, as AdRoll's JSON -------------------------------------------------


def kept(app: Any, state: Any = None) -> list[dict[str, Any]]:
    """The events of a Flask app, of the middleware or of its runtime, oldest first."""
    if isinstance(app, Flask):
        app = app.extensions["adroll"]
    lookups = getattr(app, "runtime", app).outbox.lookups
    shown = [lookups.show(row.id) for row in lookups.list(state, limit=1000)]
    # An id begins with its time. Times in the outbox are the database's: of two events that
    # were taken in one after the other on a busy machine, the later one may seem the older.
    rows = sorted((row for row in shown if row is not None), key=lambda row: row.id)
    return [json.loads(row.payload) for row in rows if row.payload]

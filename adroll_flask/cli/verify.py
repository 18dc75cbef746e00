"""``flask adroll verify``: visits, clicks and buys at the running shop, and says what is missing"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin

import click
from flask.cli import with_appcontext
from werkzeug.utils import import_string

from adroll_flask.events.names import BITS, FORM_NAMES
from adroll_flask.outbox import Row
from adroll_flask.redaction import describe
from adroll_flask.reporting.order_life import find_order
from adroll_flask.runtime import Runtime

from .console import AS_JSON, as_typed, current_runtime, show, table

#: Seconds for connecting and for an answer, and between two looks into the outbox.
_TIMEOUT: Final = (5.0, 30.0)
_EVERY: Final = 0.2
_EMAIL: Final = "pass email= to report_conversion, or give it by @adroll.identity"
#: What to do where an order lacks an identifier.
_FIXES: Final = {
    "adct": "the click id is lost between the landing page and the order",
    "first_party_cookie": "the order's request has no cookie of the visit: is it on another host?",
    "user_id": "pass user_id= to report_conversion, or give it by @adroll.identity",
    **dict.fromkeys(FORM_NAMES.values(), _EMAIL),
}


class Step(NamedTuple):
    """One step of a buyer, whether it did what it should, and what is to be told of it.

    :param lacks: identifiers that its event has not.
    """

    name: str
    good: bool
    said: str
    lacks: Sequence[str] = ()


@click.command("verify")
@click.argument("url")
@click.option(
    "--recipe",
    metavar="MODULE:FUNCTION",
    help="A function of yours that buys something and returns the order id.",
)
@click.option(
    "--wait", default=20.0, show_default=True, help="Seconds to wait for the order to arrive."
)
@AS_JSON
@with_appcontext
def verify(url: str, recipe: str | None, wait: float) -> None:
    """Visit, click and buy at the running shop at URL, and say in a line what is missing.

    The recipe is called with a browser: a Session of requests that keeps cookies, comes from a
    click on an ad, and takes addresses relative to URL. It buys, calls the payment's webhook where
    there is one, and returns the order id. Its order is reported like any other: try it where
    ADROLL_DRY_RUN is set, with the sandbox, or with an order that you take back.

    Run it on the shop's host, with the shop's settings. Exits with 1 where something is missing.
    """
    steps = list(_tried(current_runtime(), url, recipe, wait))
    missing = steps[-1].lacks
    fixes = dict.fromkeys(_FIXES[name] for name in missing)
    last = next((f"missing: {step.name}" for step in reversed(steps) if not step.good), "")
    if missing:
        last = f"missing: {', '.join(missing)} ({'; '.join(fixes)})"
    told = [dict(zip(("name", "good", "said"), step, strict=False)) for step in steps]
    rows = [(step.name, "ok" if step.good else "NO", step.said) for step in steps]
    text = table(("step", "", "what came of it"), rows)
    data = {"steps": told, "missing": missing}
    show(data, f"{text}\n{last or 'nothing is missing'}", failed=bool(last))


def _tried(runtime: Runtime, site: str, recipe: str | None, wait: float) -> Iterator[Step]:
    """What a buyer sees, up to the first step that fails."""
    import requests

    class Browser(requests.Session):
        """Keeps cookies, as a visitor's browser; addresses are relative to the shop's."""

        def request(self, method: Any, url: Any, *args: Any, **more: Any) -> requests.Response:
            more.setdefault("timeout", _TIMEOUT)
            return super().request(method, urljoin(site, url), *args, **more)

    name = "visit"
    with Browser() as shop:
        shop.headers.update({"Accept": "text/html", "User-Agent": "adroll_flask verify"})
        try:
            steps = _visited(runtime, shop, site)
            yield from steps
            if recipe is None or not all(step.good for step in steps):
                return
            name = "order"
            order = str(_function(recipe)(shop))
        except requests.RequestException as problem:
            answer = problem.response
            said = describe(problem) if answer is None else f"answered {answer.status_code}"
            yield Step(name, False, said)
            return
    yield Step("order", True, order)
    row = _found(runtime, order, wait)
    if row is None or row.state == "held":
        why = f"no report of it within {wait:g} seconds: is the order id the one that it reports?"
        if row is not None:
            why = "is held: the recipe has to call the webhook, or the webhook to release it"
        yield Step("report", False, why)
        return
    good = row.state == "delivered"
    said = f"{row.state}: {row.why}" if row.why else row.state
    if not good and row.settled_at is None:
        said += as_typed(f" after {wait:g} seconds; `flask adroll check` says why")
    yield Step("report", good, said)
    carried = [name for name, bit in BITS.items() if row.identifiers & bit]
    wanted = {"adct", "first_party_cookie", "user_id"}
    wanted |= {FORM_NAMES[form] for form in runtime.settings.email}
    missing = [name for name in BITS if name in wanted.difference(carried)]
    yield Step("identifiers", not missing, ", ".join(carried) or "none", missing)


def _visited(runtime: Runtime, shop: Any, url: str) -> list[Step]:
    """A visit, and a click on an ad that leads there."""
    page, probe = shop.get(url), f"verify-{secrets.token_hex(8)}"
    snippet = "data-adroll" in page.text
    said = f"{page.status_code}, {'with' if snippet else 'without'} the snippet"
    visit = Step("visit", page.ok and snippet, said)
    shop.get(url, params={"adct": probe})
    cookies = "; ".join(f"{name}={value}" for name, value in shop.cookies.items())
    kept = runtime.services.records.read(cookies).merged.adct == probe
    said = "the click id is in the visitor's cookie"
    if not kept:
        said = "the click id is not in the visitor's cookie: a redirect, a cache, or no consent"
    return [visit, Step("click", kept, said)]


def _function(name: str) -> Any:
    sys.path.insert(0, os.getcwd())
    try:
        return import_string(name)
    except ImportError as problem:
        raise click.UsageError(f"--recipe {name}: {problem}") from None


def _found(runtime: Runtime, order: str, wait: float) -> Row | None:
    """The order's event, once a process of the shop has reported it and its hold is over."""
    end = time.monotonic() + wait
    while True:
        rows = find_order(runtime.reporter, order).events
        on_its_way = not rows or rows[-1].state in ("held", "waiting", "claimed", "sending")
        if not on_its_way or time.monotonic() > end:
            return rows[-1] if rows else None
        time.sleep(_EVERY)

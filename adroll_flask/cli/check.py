"""``flask adroll check``, ``go-live``, ``verify``: what is wrong with a site, and what to do.

What ``check`` looks at is told in :mod:`adroll_flask.findings.app_check`, and what ``check --url``
looks at in :mod:`adroll_flask.findings.page_check`.
``verify`` buys at the running shop.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urljoin

import click
from flask import current_app
from flask.cli import with_appcontext
from werkzeug.utils import import_string

from adroll_flask.accounts import is_of_sandbox
from adroll_flask.errors import ConfigurationError
from adroll_flask.events.names import BITS, FORM_NAMES, coverage_of
from adroll_flask.findings import app_check
from adroll_flask.findings.finding import Finding, finding_of, meaning, ok, why_of
from adroll_flask.outbox.model import HistorySum, OutboxFailed, Row
from adroll_flask.plurals import counted
from adroll_flask.redaction import describe
from adroll_flask.reporting.kept_events import find_order
from adroll_flask.runtime import Runtime
from adroll_flask.visitor.request_cookies import are_secure

from . import console

#: Further checks of a site, beside those of :func:`.check_app`.
More: TypeAlias = Callable[[Runtime], Iterable[Finding]]

_COLOURS: Final = {"error": "red", "warning": "yellow", "hint": "blue", "ok": "green"}
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


@console.commands.command("check", with_appcontext=False)
@click.option("--url", help="Also fetch this page, as two new visitors would.")
@click.option("--since", metavar="TIME", help="Fail where a report died since then: a deploy.")
@console.shop_and_json
def check(url: str | None, since: str | None, account: str | None) -> None:
    """Say all that is wrong with this site, each with its fix.

    Looks at settings, keys, outbox, cookies and endpoints. It tries to write to the outbox's
    database, and takes that back. --since takes a time with its offset (2026-11-27T05:00+01:00),
    seconds since the epoch, or 2h.

    Exits with 1 if something keeps conversions from AdRoll or harms the site.
    """
    findings = _site_findings(url, account, partial(_reports, since, account))
    kinds = Counter(finding.severity for finding in findings)
    sums = f"{counted(kinds['error'], 'error')}, {counted(kinds['warning'], 'warning')}"
    _say_findings(findings, sums, bad=kinds["error"])


@console.commands.command("go-live", with_appcontext=False)
@click.option("--url", help="A page of the real site, as visitors reach it.")
@console.shop_and_json
def go_live(url: str | None, account: str | None) -> None:
    """Say what is still to do before real orders are reported.

    Looks at all that check looks at. Then it looks for what is left of the sandbox, and whether
    hosts and consent are decided. It sends AdRoll an event as a dry run, and fetches the page at
    --url.

    Exits with 1 while something is to do.
    """
    findings = [
        # It is a hint while a site is being made, and has to be gone before the site goes live.
        replace(finding, severity="error") if finding.code == "api-url-elsewhere" else finding
        for finding in _site_findings(url, account, partial(_of_the_real_site, url, account))
    ]
    undone = sum(finding.severity in ("error", "warning") for finding in findings)
    sums = f"{counted(undone, 'thing')} to do" if undone else "nothing is left to do"
    _say_findings(findings, sums, bad=undone)


def _site_findings(url: str | None, account: str | None, more: More) -> list[Finding]:
    """What is wrong with the site, also where its app does not start.

    :param account: the advertisable EID of the shop that is looked at; ``None``: all shops.
    :param more: further checks, where the app starts.
    """
    try:
        return with_appcontext(_findings_of_app)(url, account, more)
    except ConfigurationError as problem:
        return app_check.check_start(problem)


def _findings_of_app(url: str | None, account: str | None, more: More) -> list[Finding]:
    runtime = console.current_runtime()
    is_here = runtime.functions.are_here
    findings = app_check.check_app(current_app, runtime, ask_endpoints=is_here, account=account)
    if url is not None:
        from adroll_flask.findings.page_check import check_url  # which loads requests

        findings += check_url(url, runtime.settings)
    with suppress(ConfigurationError):  # which is among the findings
        findings += more(runtime)
    return findings


def _of_the_real_site(url: str | None, account: str | None, runtime: Runtime) -> Iterator[Finding]:
    result = app_check.send_test_event(runtime, "pageView", account)
    if result.ok:
        yield ok("send-test", result.meaning)
    else:
        words = "; ".join(result.answer.get("errors", ()))
        yield finding_of("send-test-failed", meaning=result.meaning, answer=words)
    yield from result.clock_findings()
    rows: Sequence[HistorySum] = ()
    with suppress(OutboxFailed):  # which is among the other findings
        if runtime.outbox.exists():
            rows = runtime.outbox.lookups.history(0.0, ("advertisable_eid", "outcome"))
    if number := sum(row.events for row in rows if is_of_sandbox(row.advertisable_eid)):
        # Events that the sandbox had stay here, and are counted apart.
        yield finding_of("sandbox-apart", events=number)
    if not runtime.settings.hosts:
        yield finding_of("hosts-not-set")
    if url is None:
        yield finding_of("page-not-looked-at")


def _reports(since: str | None, account: str | None, runtime: Runtime) -> Iterator[Finding]:
    """Whether events died that were reported since a deploy, where the caller asks for that."""
    if since is None:
        return
    begin = console.since_when(since, runtime.clock(), runtime.settings.time_zone)
    newest = runtime.outbox.lookups.of(account).list(None, console.MOST_EVENTS, newest=True)
    rows = [row for row in newest if row.queued_at >= begin]
    dead = Counter(row.reason for row in rows if row.has_died)
    reports = f"{counted(len(rows), 'report')} since {console.when(begin)}"
    why = ", ".join(f"{meaning('dead', reason).title} ({n})" for reason, n in dead.most_common(5))
    if not rows:
        yield finding_of("nothing-reported/lately", begin=console.when(begin))
    elif not dead:
        yield ok("reports", f"none of {reports} died")
    else:
        yield finding_of("reports-died", events=dead.total(), reports=reports, why=why)


def _say_findings(findings: Sequence[Finding], sums: str, *, bad: int) -> None:
    """Print *findings*, and exit with 1 where some are *bad*."""
    lines = []
    for finding in findings:
        severity = f"{finding.severity.upper():<8}"
        coloured = click.style(severity, fg=_COLOURS[finding.severity])
        lines.append(f"{coloured}{finding.subject}: {finding.sentence}")
        more = {
            "AdRoll's words": finding.answer,
            "fix": finding.todo,
            "run": finding.command,
            "see": finding.help,
        }
        lines += [f"        {name}: {text}" for name, text in more.items() if text]
    data = {"ok": not bad, "findings": [finding.as_dict() for finding in findings]}
    console.show(data, "\n".join([*lines, sums]), failed=bool(bad))


# -- a buyer ------------------------------------------------------------------------------------


class BuyerStep(NamedTuple):
    """One step of a buyer, or an identifier of its event; whether it is as it should be."""

    name: str
    good: bool
    said: str


@console.commands.command("verify")
@click.argument("url")
@click.option("--recipe", metavar="MODULE:FUNCTION", help="Buys something, returns the order id.")
@click.option("--wait", default=20.0, show_default=True, help="Seconds to wait for the order.")
@console.AS_JSON
def verify(url: str, recipe: str | None, wait: float) -> None:
    """Visit, click and buy at the running shop at URL, and say in a line what is missing.

    The recipe is called with a browser: a Session of requests that keeps cookies, comes from a
    click on an ad, and takes addresses relative to URL. It buys, calls the payment's webhook where
    there is one, and returns the order id. Its order is reported like any other: try it where
    ADROLL_DRY_RUN is set, with the sandbox, or with an order that you take back.

    Run it on the shop's host, with the shop's settings. Exits with 1 where something is missing.
    """
    steps = list(_buy(console.current_runtime(), url, recipe, wait))
    missing = [step.name for step in steps if not step.good]
    rows = [(step.name, "ok" if step.good else "NO", step.said) for step in steps]
    table = console.table(("step", "", "what came of it"), rows)
    last = f"missing: {', '.join(missing)}" if missing else "nothing is missing"
    data = {"steps": [step._asdict() for step in steps], "missing": missing}
    console.show(data, f"{table}\n{last}", failed=bool(missing))


def _buy(runtime: Runtime, site: str, recipe: str | None, wait: float) -> Iterator[BuyerStep]:
    """What a buyer sees, up to the first step that fails, and what became of the order."""
    import requests

    class Browser(requests.Session):
        """Keeps cookies, as a visitor's browser; addresses are relative to the shop's."""

        def request(self, method: Any, url: Any, *args: Any, **more: Any) -> requests.Response:
            more.setdefault("timeout", _TIMEOUT)
            try:
                return super().request(method, urljoin(site, url), *args, **more)
            except ValueError as problem:  # requests does not always raise its own
                raise requests.exceptions.InvalidURL from problem

    name = "visit"
    probe = f"verify-{secrets.token_hex(8)}"
    with Browser() as shop:
        shop.headers.update({"Accept": "text/html", "User-Agent": "adroll_flask verify"})
        try:
            page = shop.get(site)
            snippet = "data-adroll" in page.text
            words = f"{page.status_code}, {'with' if snippet else 'without'} the snippet"
            yield BuyerStep(name, page.ok and snippet, words)
            name = "click"  # on an ad that leads there
            shop.get(site, params={"adct": probe})
            cookies = "; ".join(f"{key}={value}" for key, value in shop.cookies.items())
            secure = are_secure(runtime.settings, over_https=site.lower().startswith("https:"))
            record = runtime.visitors.read(cookies, secure=secure).record
            kept = record is not None and record.adct == probe
            words = "the click id is in the visitor's cookie"
            if not kept:
                words = "the visitor's cookie has no click id: a redirect, a cache, or no consent"
            yield BuyerStep(name, kept, words)
            if recipe is None or not (page.ok and snippet and kept):
                return
            name = "order"
            order = str(_function_of(recipe)(shop))
        except requests.RequestException as problem:
            answer = problem.response
            words = describe(problem) if answer is None else f"answered {answer.status_code}"
            yield BuyerStep(name, False, words)
            return
    yield BuyerStep("order", True, order)
    yield from _steps_of_event(runtime, order, wait)


def _steps_of_event(runtime: Runtime, order: str, wait: float) -> Iterator[BuyerStep]:
    """Whether the order's event reached AdRoll, and what it lacks."""
    row = _event_of(runtime, order, wait)
    if row is None:
        why = f"no report of it within {wait:g} seconds: is the order id the one that it reports?"
        yield BuyerStep("report", False, why)
        return
    words = f"{row.state}: {why_of(row)}" if row.why else row.state
    if row.state == "held":
        words = "is held: the recipe has to call the webhook, or the webhook to release it"
    elif row.settled_at is None:
        words += f" after {wait:g} seconds; `flask adroll check` says why"
    yield BuyerStep("report", row.state == "delivered", words)
    has = tuple(bool(row.identifiers & bit) for bit in BITS.values())
    # Whoever clicked on an ad has a click id.
    coverage = coverage_of(has, runtime.settings.email, is_derived=True, is_app=False)
    yield BuyerStep("identifiers", bool(coverage.carried), ", ".join(coverage.carried) or "none")
    for name in coverage.missing:
        yield BuyerStep(name, False, _FIXES[name])


def _function_of(name: str) -> Any:
    sys.path.insert(0, os.getcwd())
    try:
        return import_string(name)
    except ImportError as problem:
        raise click.UsageError(f"--recipe {name}: {problem}") from None


def _event_of(runtime: Runtime, order: str, wait: float) -> Row | None:
    """The order's event, once a process of the shop has reported it and its hold is over."""
    end = time.monotonic() + wait
    while True:
        row = next(reversed(find_order(runtime.reporter, order).events), None)
        is_over = row is not None and row.state in ("delivered", "dead", "cancelled")
        if is_over or time.monotonic() > end:
            return row
        time.sleep(_EVERY)

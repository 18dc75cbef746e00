"""``flask adroll check``, ``go-live``, ``verify``: what is wrong with a site, and what to do.

``verify`` buys at the running shop.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin

import click
from flask import current_app
from flask.cli import with_appcontext
from werkzeug.utils import import_string

from adroll_flask.errors import ConfigurationError
from adroll_flask.events.names import BITS, FORM_NAMES
from adroll_flask.findings import site_settings
from adroll_flask.findings.finding import Finding, finding_of, ok
from adroll_flask.outbox.model import OutboxFailed, Row
from adroll_flask.plurals import counted
from adroll_flask.redaction import describe
from adroll_flask.reporting.kept_events import find_order
from adroll_flask.runtime import Runtime
from adroll_flask.settings import is_of_sandbox
from adroll_flask.visitor.request_cookies import are_secure

from . import console

_COLOURS: Final = {"error": "red", "warning": "yellow", "hint": "blue", "ok": "green"}
#: What is a hint while a site is made, and has to be gone before it goes live.
_NOT_LIVE: Final = ("api-url-elsewhere",)

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
@click.option("--last", type=console.NUMBER, help="Fail where one of the last N reports died.")
@console.SHOP
@console.AS_JSON
def check(url: str | None, since: str | None, last: int | None, account: str | None) -> None:
    """Say all that is wrong with this site, each with its fix.

    Looks at settings, keys, outbox, cookies and endpoints. It tries to write to the outbox's
    database, and takes that back. --since takes a time with its offset (2026-11-27T05:00+01:00),
    seconds since the epoch, or 2h.

    Exits with 1 if something keeps conversions from AdRoll or harms the site.
    """
    is_asked = since or last
    reports: Any = lambda: [_reports(since, last, account)] if is_asked else []  # noqa: E731
    findings = site_findings(url, reports, account)
    kinds = Counter(finding.severity for finding in findings)
    sums = f"{counted(kinds['error'], 'error')}, {counted(kinds['warning'], 'warning')}"
    _say(findings, sums, bad=kinds["error"])


@console.commands.command("go-live", with_appcontext=False)
@click.option("--url", help="A page of the real site, as visitors reach it.")
@console.SHOP
@console.AS_JSON
def go_live(url: str | None, account: str | None) -> None:
    """Say what is still to do before real orders are reported.

    Looks at all that check looks at. Then it looks for what is left of the sandbox, and whether
    hosts and consent are decided. It sends AdRoll an event as a dry run, and fetches the page at
    --url.

    Exits with 1 while something is to do.
    """
    findings = [
        replace(finding, severity="error") if finding.code in _NOT_LIVE else finding
        for finding in site_findings(url, lambda: _of_the_real_site(url, account), account)
    ]
    undone = sum(finding.severity in ("error", "warning") for finding in findings)
    sums = f"{counted(undone, 'thing')} to do" if undone else "nothing is left to do"
    _say(findings, sums, bad=undone)


def site_findings(
    url: str | None = None, more: Callable[[], list[Finding]] = list, account: str | None = None
) -> list[Finding]:
    """What is wrong with the site, as a command tells it; also where its app does not start.

    :param more: what else is asked for where it does.
    :param account: the advertisable EID of the shop that is looked at; ``None``: all shops.
    """

    @with_appcontext
    def of_app() -> list[Finding]:
        runtime = console.current_runtime()
        alone = isinstance(current_app._get_current_object(), console.SettingsAlone)  # type: ignore[attr-defined]
        how: Any = {"ask_endpoints": not alone, "account": account}
        findings = site_settings.check_app(current_app, runtime, **how)
        if url is not None:
            from adroll_flask.findings.page import check_url  # which loads requests

            findings += check_url(url, runtime.settings)
        with suppress(ConfigurationError):  # why is among the findings
            findings += more()
        return findings

    try:
        return of_app()
    except ConfigurationError as problem:
        return site_settings.check_start(problem)


def _of_the_real_site(url: str | None, account: str | None) -> list[Finding]:
    runtime = console.current_runtime()
    result = site_settings.send_test_event(runtime, "pageView", account)
    words = "; ".join(result.answer.get("errors", ()))
    sent = finding_of("send-test-failed", "send-test", meaning=result.meaning, answer=words)
    findings = [ok("send-test", result.meaning) if result.ok else sent]
    findings += result.clock_findings()
    with suppress(OutboxFailed):  # which the rest says
        findings += _of_the_sandbox(runtime)
    if not runtime.settings.hosts:
        findings.append(finding_of("hosts-not-set", "ADROLL_HOSTS"))
    if url is None:
        findings.append(finding_of("page-not-looked-at", "--url"))
    return findings


def _of_the_sandbox(runtime: Runtime) -> list[Finding]:
    """What becomes of what the sandbox had: it stays here, and is told apart from then on."""
    if not runtime.outbox.exists():
        return []
    rows = runtime.outbox.lookups.history(0.0, ("advertisable_eid", "outcome"))
    number = sum(row.events for row in rows if is_of_sandbox(row.advertisable_eid))
    return [finding_of("sandbox-apart", "ADROLL_SANDBOX", events=number)] if number else []


def _reports(since: str | None, last: int | None, account: str | None) -> Finding:
    """Whether what was reported since a deploy died."""
    runtime = console.current_runtime()
    now = runtime.clock()
    begin = console.since_when(since, now) if since else None
    if since and since.endswith("m"):
        raise click.BadParameter("--since takes 2h, 1d or a time; 10m would be ten months")
    if begin is not None and begin > now + 60:
        raise click.BadParameter("--since lies in the future; a number is of seconds")
    most = last or console.MOST_EVENTS
    newest = runtime.outbox.lookups.of(account).list(None, most, newest=True)
    rows = [row for row in newest if begin is None or row.queued_at >= begin]
    dead = Counter(row.reason for row in rows if row.has_died)
    since_then = f" since {console.when(begin)}" if begin else ""
    if not rows:
        return finding_of("nothing-reported/lately", since_when=since_then)
    reports = f"{counted(len(rows), 'report')}{since_then}"
    if not dead:
        return ok("reports", f"none of {reports} died")
    why = ", ".join(f"{number} {reason}" for reason, number in dead.most_common(5))
    return finding_of("reports-died", "reports", events=dead.total(), reports=reports, why=why)


def _say(findings: Sequence[Finding], sums: str, *, bad: int) -> None:
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


class Step(NamedTuple):
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
    steps = list(_tried(console.current_runtime(), url, recipe, wait))
    missing = [step.name for step in steps if not step.good]
    rows = [(step.name, "ok" if step.good else "NO", step.said) for step in steps]
    table = console.table(("step", "", "what came of it"), rows)
    last = f"missing: {', '.join(missing)}" if missing else "nothing is missing"
    data = {"steps": [step._asdict() for step in steps], "missing": missing}
    console.show(data, f"{table}\n{last}", failed=bool(missing))


def _tried(runtime: Runtime, site: str, recipe: str | None, wait: float) -> Iterator[Step]:
    """What a buyer sees, up to the first step that fails, and what its event lacks."""
    import requests

    class Browser(requests.Session):
        """Keeps cookies, as a visitor's browser; addresses are relative to the shop's."""

        def request(self, method: Any, url: Any, *args: Any, **more: Any) -> requests.Response:
            more.setdefault("timeout", _TIMEOUT)
            try:
                return super().request(method, urljoin(site, url), *args, **more)
            except ValueError as problem:  # of what is no address it is not always its own
                raise requests.exceptions.InvalidURL from problem

    name = "visit"
    probe = f"verify-{secrets.token_hex(8)}"
    with Browser() as shop:
        shop.headers.update({"Accept": "text/html", "User-Agent": "adroll_flask verify"})
        try:
            page = shop.get(site)
            snippet = "data-adroll" in page.text
            said = f"{page.status_code}, {'with' if snippet else 'without'} the snippet"
            yield Step(name, page.ok and snippet, said)
            name = "click"  # on an ad that leads there
            shop.get(site, params={"adct": probe})
            cookies = "; ".join(f"{name}={value}" for name, value in shop.cookies.items())
            secure = are_secure(runtime.settings, over_https=site.lower().startswith("https:"))
            kept_record = runtime.visitors.read(cookies, secure=secure).record
            kept = kept_record is not None and kept_record.adct == probe
            why = "" if kept else ": a redirect, a cache, or no consent"
            said = f"the click id is {'' if kept else 'not '}in the visitor's cookie{why}"
            yield Step(name, kept, said)
            if recipe is None or not (page.ok and snippet and kept):
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
    if row is None:
        why = f"no report of it within {wait:g} seconds: is the order id the one that it reports?"
        yield Step("report", False, why)
        return
    said = f"{row.state}: {row.why}" if row.why else row.state
    if row.state == "held":
        said = "is held: the recipe has to call the webhook, or the webhook to release it"
    elif row.settled_at is None:
        said += f" after {wait:g} seconds; `flask adroll check` says why"
    yield Step("report", row.state == "delivered", said)
    carried = [name for name, bit in BITS.items() if row.identifiers & bit]
    yield Step("identifiers", bool(carried), ", ".join(carried) or "none")
    wanted = {FORM_NAMES[form] for form in runtime.settings.email}
    wanted |= {"adct", "first_party_cookie", "user_id"}
    for name in BITS:
        if name in wanted.difference(carried):
            yield Step(name, False, _FIXES[name])


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
        row = next(reversed(find_order(runtime.reporter, order).events), None)
        is_over = row is not None and row.state in ("delivered", "dead", "cancelled")
        if is_over or time.monotonic() > end:
            return row
        time.sleep(_EVERY)

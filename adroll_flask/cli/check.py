"""``flask adroll check``, ``go-live``, ``explain``, ``verify``: what is wrong with a site, and what
to do.

``verify`` buys at the running shop. ``explain`` says what a message means without the Internet: it
reads docs/errors.md.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin

import click
from flask import current_app
from flask.cli import with_appcontext
from werkzeug.utils import import_string

from adroll_flask.errors import ConfigurationError
from adroll_flask.events.names import BITS, FORM_NAMES, suggestion
from adroll_flask.findings import site_settings
from adroll_flask.findings.finding import MEANINGS, Finding, found, meaning, ok
from adroll_flask.findings.sums import by
from adroll_flask.outbox.model import Row
from adroll_flask.plurals import counted
from adroll_flask.redaction import describe
from adroll_flask.reporting.kept_events import find_order
from adroll_flask.runtime import Runtime

from . import console

_COLOURS: Final = {"error": "red", "warning": "yellow", "hint": "blue", "ok": "green"}
#: What is a hint while a site is made, and has to be gone before it goes live.
_NOT_LIVE: Final = ("api-url-elsewhere",)

_PAGE: Final = Path(__file__).parents[2] / "docs" / "errors.md"
_COPY: Final = Path(__file__).with_name("errors.md")
#: An entry of the page: its anchor, its title, and its lines.
_ENTRY: Final = re.compile(r"^\(([a-z-]+)\)=\n### (.+)\n\n((?:- .+\n)+)", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]+)\]\(([\w/-]+\.md)?[^)]*\)")

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
@console.AS_JSON
def check(url: str | None, since: str | None, last: int | None) -> None:
    """Say all that is wrong with this site, each with its fix.

    Looks over settings, keys, outbox, cookies and endpoints. --since takes a time with its offset
    (2026-11-27T05:00+01:00), seconds since the epoch, or 2h.

    Exits with 1 where something keeps conversions from AdRoll or harms the site.
    """
    is_asked = since or last
    findings = site_findings(url, lambda: [_reports(since, last)] if is_asked else [])
    kinds = Counter(finding.severity for finding in findings)
    sums = f"{counted(kinds['error'], 'error')}, {counted(kinds['warning'], 'warning')}"
    _say(findings, sums, bad=kinds["error"])


@console.commands.command("go-live", with_appcontext=False)
@click.option("--url", help="A page of the real site, as visitors reach it.")
@console.AS_JSON
def go_live(url: str | None) -> None:
    """Say what is still to do before real orders are reported.

    Looks over all that check looks over, for what is left of the sandbox, and for the decisions on
    hosts and consent; sends AdRoll an event as a dry run, and fetches the page at --url.

    Exits with 1 while something is to do.
    """
    findings = [
        replace(finding, severity="error") if finding.code in _NOT_LIVE else finding
        for finding in site_findings(url, lambda: _of_the_real_site(url))
    ]
    left = sum(finding.severity in ("error", "warning") for finding in findings)
    sums = f"{counted(left, 'thing')} to do" if left else "nothing is left to do"
    _say(findings, sums, bad=left)


def site_findings(
    url: str | None = None, more: Callable[[], list[Finding]] = list
) -> list[Finding]:
    """What is wrong with the site, as a command tells it; also where its app does not start.

    :param more: what else is asked for where it does.
    """

    @with_appcontext
    def of_app() -> list[Finding]:
        runtime = console.current_runtime()
        alone = isinstance(current_app._get_current_object(), console.SettingsAlone)  # type: ignore[attr-defined]
        findings = site_settings.check_app(current_app, runtime, ask_endpoints=not alone)
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


def _of_the_real_site(url: str | None) -> list[Finding]:
    runtime = console.current_runtime()
    result = site_settings.send_test_event(runtime, "pageView")
    sent = found("send-test-failed", "send-test", meaning=result.meaning)
    findings = [ok("send-test", result.meaning) if result.ok else sent]
    if not runtime.settings.hosts:
        findings.append(found("hosts-not-set", "ADROLL_HOSTS"))
    if url is None:
        findings.append(found("page-not-looked-at", "--url"))
    return findings


def _reports(since: str | None, last: int | None) -> Finding:
    """Whether what was reported since a deploy died."""
    runtime = console.current_runtime()
    now = runtime.clock()
    begin = console.since_when(since, now) if since else None
    if since and since.endswith("m"):
        raise click.BadParameter("--since takes 2h, 1d or a time; 10m would be ten months")
    if begin is not None and begin > now + 60:
        raise click.BadParameter("--since lies in the future; a number is of seconds")
    most = last or console.MOST_EVENTS
    rows = runtime.outbox.lookups.list(None, most, begin, newest=True)
    dead = Counter(row.reason for row in rows if row.has_died)
    since_then = f" since {console.when(begin)}" if begin else ""
    if not rows:
        return found("nothing-reported/lately", since_when=since_then)
    reports = f"{counted(len(rows), 'report')}{since_then}"
    if not dead:
        return ok("reports", f"none of {reports} died")
    why = ", ".join(f"{number} {reason}" for reason, number in dead.most_common(5))
    return found("reports-died", "reports", events=dead.total(), reports=reports, why=why)


def _say(findings: Sequence[Finding], sums: str, *, bad: int) -> None:
    """Print *findings*, and exit with 1 where some are *bad*."""
    lines = []
    for finding in findings:
        severity = f"{finding.severity.upper():<8}"
        coloured = click.style(severity, fg=_COLOURS[finding.severity])
        lines.append(f"{coloured}{finding.subject}: {finding.sentence}")
        more = {"fix": finding.todo, "run": finding.command, "see": finding.help_url}
        lines += [f"        {name}: {text}" for name, text in more.items() if text]
    data = {"ok": not bad, "findings": [finding.as_dict() for finding in findings]}
    console.show(data, "\n".join([*lines, sums]), failed=bool(bad))


# -- what a message means --------------------------------------------------------------------


class Entry(NamedTuple):
    """What the page says of one code; each line begins with what it is: Cause, Meaning, Fix."""

    title: str
    lines: Sequence[str]


def entries() -> Mapping[str, Entry]:
    """The page's entries by their codes, without its markup; a link tells its page."""
    # A wheel has a copy beside this module.
    text = (_COPY if _COPY.exists() else _PAGE).read_text("utf-8")
    plain = _LINK.sub(lambda link: f"{link[1]} (docs/{link[2]})" if link[2] else link[1], text)
    return {
        code: Entry(title, [line.removeprefix("- ") for line in body.splitlines()])
        for code, title, body in _ENTRY.findall(plain.replace("**", ""))
    }


@console.commands.command("explain", with_appcontext=False)
@click.argument("code", required=False)
@console.AS_JSON
def explain(code: str | None) -> None:
    """Say what a message means, and whether it is so here.

    CODE is the end of the address that the message ends in, or the address itself; or a reason
    that events died of, such as too_old. Without it, all codes are listed, those first that are so
    here.
    """
    known, here = entries(), by(lambda finding: finding.code, site_findings())
    if code is None:
        codes = sorted(known, key=lambda one: (one not in here, one))
        rows = [(one, known[one].title, _figures(here.get(one, ()))) for one in codes]
        listed = [dict(zip(("code", "title", "here"), row, strict=True)) for row in rows]
        console.show(listed, console.table(("code", "meaning", "here"), rows))
        return
    code = code.rpartition("#")[2]
    so, entry = here.get(code, []), known.get(code) or _of_reason(code, known)
    lines = [entry.title, *entry.lines]
    lines += [f"Here. {finding.subject}: {finding.sentence}" for finding in so]
    wrapped = [textwrap.fill(console.as_typed(line), 100, subsequent_indent="  ") for line in lines]
    data = {"code": code, **entry._asdict(), "here": [finding.as_dict() for finding in so]}
    console.show(data, "\n".join(wrapped))


def _of_reason(reason: str, known: Iterable[str]) -> Entry:
    """What a reason means, by which the history and dead letters say what became of events.

    :raises click.UsageError: it is none.
    """
    # Of several the first: events die of the reasons that are told before.
    outcomes = {one.partition("/")[2]: one.partition("/")[0] for one in reversed(MEANINGS)}
    outcome = "invalid" if reason.startswith("invalid:") else outcomes.get(reason, "answer")
    kinds = ("", "*", "unpaid", "settable", "invalid:")
    if outcome == "answer" or reason in kinds:
        told = [one for one, of in outcomes.items() if of != "answer" and one not in kinds]
        near = suggestion(reason, [*known, *told])
        raise click.UsageError(f"there is no code {reason!r}{near or '; explain lists all'}")
    what = meaning(outcome, reason)
    return Entry(what.title, [f"Fix. {what.advice}"] if what.advice else [])


def _figures(findings: Sequence[Finding]) -> str:
    """What is so here: how many events, and their money."""
    events = sum(finding.events for finding in findings)
    values = [f"{value:,.2f} {name}" for finding in findings for name, value in finding.values]
    return ", ".join([f"{events:,} events"] * bool(events) + values) or "yes" * bool(findings)


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

    name, probe = "visit", f"verify-{secrets.token_hex(8)}"
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
            kept = runtime.visitors.read(cookies).merged.adct == probe
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

"""``flask adroll check``, ``go-live``, ``explain``: what is wrong with a site, and what to do.

``explain`` says what a message means without the Internet: it reads docs/errors.md.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

import click
from flask import current_app
from flask.cli import with_appcontext

from adroll_flask.errors import ConfigurationError
from adroll_flask.findings import reasons, setup
from adroll_flask.findings.finding import Finding, found, ok
from adroll_flask.findings.sums import by
from adroll_flask.plurals import counted

from . import console
from .outbox import MOST_EVENTS

_COLOURS: Final = {"error": "red", "warning": "yellow", "hint": "blue", "ok": "green"}
#: What is a hint while a site is made, and has to be gone before it goes live.
_NOT_LIVE: Final = ("api-url-elsewhere",)

_PAGE: Final = Path(__file__).parents[2] / "docs" / "errors.md"
_COPY: Final = Path(__file__).with_name("errors.md")
#: An entry of the page: its anchor, its title, and its lines.
_ENTRY: Final = re.compile(r"^\(([a-z-]+)\)=\n### (.+)\n\n((?:- .+\n)+)", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]+)\]\(([\w/-]+\.md)?[^)]*\)")
#: What is said of an answer of AdRoll's, by its kind.
_OF_ANSWERS: Final = {
    "denied": "delivery-stopped",
    "throttled": "request-failed",
    "unsure": "request-failed",
    "content": "dead-letters",
    "too_large": "dead-letters",
}
#: What tells of events of which no dead letters are left, by their reason.
_NAMED: Final = {"hold_expired": "holds-expired", "consent_error": "consent-unknown"}


@click.command("check")
@click.option("--url", help="Also fetch this page, as two new visitors would.")
@click.option(
    "--since", metavar="TIME", help="Fail where an event died that was reported since a deploy."
)
@click.option(
    "--last", type=click.IntRange(1, MOST_EVENTS), help="Fail where one of the last N reports died."
)
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


@click.command("go-live")
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
        findings = setup.check_app(current_app, runtime, ask_endpoints=not alone)
        if url is not None:
            from adroll_flask.findings.page import check_url  # which loads requests

            findings += check_url(url, runtime.settings)
        return findings + more()

    try:
        return of_app()
    except ConfigurationError as problem:
        return setup.check_start(problem)


def _of_the_real_site(url: str | None) -> list[Finding]:
    from adroll_flask.findings.send_test import send_test_event

    runtime = console.current_runtime()
    result = send_test_event(runtime, "pageView")
    sent = found("send-test-failed", "send-test", meaning=result.meaning)
    findings = [ok("send-test", result.meaning) if result.ok else sent]
    if not runtime.settings.hosts:
        findings.append(found("hosts-not-set", "ADROLL_HOSTS"))
    if url is None:
        findings.append(found("page-not-looked-at", "--url"))
    return findings


def _reports(since: str | None, last: int | None) -> Finding:
    """Whether what was reported since a deploy died."""
    store, now = console.kept_outbox(), console.current_runtime().clock()
    begin = console.since_when(since, now) if since else None
    if since and since.endswith("m"):
        raise click.BadParameter("--since takes 2h, 1d or a time; 10m would be ten months")
    if begin is not None and begin > now + 60:
        raise click.BadParameter("--since lies in the future; a number is of seconds")
    most = last or MOST_EVENTS
    rows = () if store is None else store.lookups.list(None, most, None, begin, newest=True)
    dead = Counter(row.reason for row in rows if row.state == "dead")
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
    findings, lines = [finding.written(console.as_typed) for finding in findings], []
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


@click.command("explain")
@click.argument("code", required=False)
@console.AS_JSON
def explain(code: str | None) -> None:
    """Say what a message means, and whether it is so here.

    CODE is the end of the address that the message ends in, or the address itself; or a reason
    that events died of, such as http_401. Without it, all codes are listed, those first that are so
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
    so, entry = here.get(code, []), known.get(code)
    if entry is None:
        entry = _of_reason(code, known)
        so = [one for its in here.values() for one in its if _tells_of(one, code, entry.title)]
    lines = [entry.title, *entry.lines]
    lines += [f"Here. {finding.subject}: {finding.sentence}" for finding in so]
    wrapped = [textwrap.fill(console.as_typed(line), 100, subsequent_indent="  ") for line in lines]
    data = {"code": code, **entry._asdict(), "here": [finding.as_dict() for finding in so]}
    console.show(data, "\n".join(wrapped))


def _of_reason(reason: str, known: Mapping[str, Entry]) -> Entry:
    """What a reason means, by which the history and dead letters say what became of events.

    :raises click.UsageError: it is none.
    """
    from adroll_flask.delivery.client import answer_from
    from adroll_flask.delivery.transport import Response

    if answered := re.fullmatch(r"http_([1-5]\d\d)(_to_everything)?", reason):
        kind = answer_from(Response(int(answered[1]), {}, b""), now=0.0).kind
        if code := _OF_ANSWERS.get("denied" if answered[2] else kind):
            entry = known[code]
            return entry._replace(title=f"AdRoll answered {answered[1]}: {entry.title}")
    # Of several the first: events die of the reasons that are told before.
    outcomes = {one.partition("/")[2]: one.partition("/")[0] for one in reversed(reasons.MEANINGS)}
    outcome = "invalid" if reason.startswith("invalid:") else outcomes.get(reason, "answer")
    if outcome == "answer" or reason in ("", "*", "unpaid", "settable", "invalid:"):
        near = ", ".join(get_close_matches(reason, [*known, *outcomes]))
        more = f"; did you mean {near}?" if near else ""
        raise click.UsageError(f"there is no code {reason!r}{more}")
    what = reasons.meaning(outcome, reason)
    return Entry(what.title, [f"Fix. {what.advice}"] if what.advice else [])


def _tells_of(finding: Finding, reason: str, title: str) -> bool:
    """Whether *finding* is about events that this became of, which people read as *title*.

    Of AdRoll's answers, whether it has that very status: of another the page says other things.
    """
    told = rf"\b{reason}\b" if reason.startswith("http_") else rf": {re.escape(title)}[.:] "
    text = f"{finding.key} {finding.sentence} {finding.answer}"
    return bool(re.search(told, text)) or _NAMED.get(reason, reason) in (finding.code, finding.key)


def _figures(findings: Sequence[Finding]) -> str:
    """What is so here: how many events, and their money."""
    events = sum(finding.events for finding in findings)
    values = [f"{value:,.2f} {name}" for finding in findings for name, value in finding.values]
    return ", ".join([f"{events:,} events"] * bool(events) + values) or "yes" * bool(findings)

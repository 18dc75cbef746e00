"""``flask adroll …``: the commands, each a translation of options to a call."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from adroll_flask.errors import ConfigurationError, EventError, help_url
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import OutboxFailed
from adroll_flask.plurals import counted

from .app_runtime import SettingsAlone, current_runtime, used_runtime
from .as_typed import as_typed
from .dashboard import dashboard
from .history import history
from .import_command import import_
from .outbox import outbox
from .reconcile import reconcile
from .refusal import Refusal
from .worker import worker

if TYPE_CHECKING:
    from adroll_flask.checks.finding import Finding


logger: Logger = get_logger("adroll_flask")


class Commands(AppGroup):
    """``flask adroll``, known to Flask by an entry point: also where the app does not start.

    Flask makes the app when a command asks for it. What a command then learns of a wrong setting,
    or of a database that is down, is one line to whoever typed it, and not where it was raised.
    """

    def invoke(self, context: click.Context) -> Any:
        try:
            return self._invoke(context)
        except click.ClickException as problem:
            slug = getattr(problem, "slug", "command-usage")
            text = f"{as_typed(problem.format_message())}\n{help_url(slug)}"
            problem.format_message = lambda: text  # type: ignore[method-assign]
            raise

    def _invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ConfigurationError as problem:
            text = f"{problem.key}: {problem.problem}"
            if problem.others:
                more = counted(len(problem.others), "more wrong setting")
                text += f" (and {more}; {context.command_path} check lists all)"
            raise Refusal(text, slug=problem.slug) from None
        except OutboxFailed as problem:
            runtime = used_runtime(context)
            if runtime is None:
                raise
            from adroll_flask.checks.outbox_state import outbox_trouble

            text, fix = outbox_trouble(runtime, problem)
            raise Refusal(f"ADROLL_OUTBOX_URL: {text}; {fix}", slug=problem.slug) from None


commands: Commands = Commands(
    "adroll", help="AdRoll server-to-server: check, deliver, look after events."
)
commands.add_command(outbox)
commands.add_command(import_)
commands.add_command(history)
commands.add_command(dashboard)
commands.add_command(reconcile)
commands.add_command(worker)

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


# -- first contact -------------------------------------------------------------------------


@commands.command(with_appcontext=False)
@click.option("--url", help="Also fetch this page twice: is it as cacheable as it was?")
@click.option(
    "--uwsgi-ini",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also look over this uWSGI configuration (default: uwsgi.ini, where there is one).",
)
@_AS_JSON
def check(url: str | None, uwsgi_ini: Path | None, as_json: bool) -> None:
    """Look over settings, keys, outbox, cookies and endpoints; say all that is wrong at once.

    Exits with 1 where something keeps conversions from AdRoll or harms the site.
    """
    from adroll_flask.checks.app import check_start

    if uwsgi_ini is None and Path("uwsgi.ini").is_file():
        uwsgi_ini = Path("uwsgi.ini")
    try:
        findings = with_appcontext(_findings)(url, uwsgi_ini)
    except ConfigurationError as problem:
        findings = check_start(problem)
    findings = [
        replace(finding, text=as_typed(finding.text), fix=as_typed(finding.fix))
        for finding in findings
    ]
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [f.as_dict() for f in findings]}))
    else:
        _show(findings)
    raise SystemExit(1 if failed else 0)


def _findings(url: str | None, uwsgi_ini: Path | None) -> list[Finding]:
    from adroll_flask.checks.app import check_app
    from adroll_flask.checks.page import check_url

    runtime = current_runtime()
    alone = isinstance(current_app._get_current_object(), SettingsAlone)  # type: ignore[attr-defined]
    unasked = "no app was named, so that none was asked; pass --app" if alone else ""
    findings = check_app(current_app, runtime, uwsgi_ini=uwsgi_ini, unasked=unasked)
    if url is not None:
        findings += check_url(url, runtime.settings)
    return findings


def _show(findings: list[Finding]) -> None:
    colours = {"error": "red", "warning": "yellow", "info": "blue", "ok": "green"}
    for finding in findings:
        level = click.style(f"{finding.level.upper():<8}", fg=colours[finding.level])
        click.echo(level, nl=False)
        click.echo(f"{finding.subject}: {finding.text}")
        if finding.fix:
            click.echo(f"        fix: {finding.fix}")
        if finding.help_url:
            click.echo(f"        see: {finding.help_url}")
    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    click.echo(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")


@commands.command()
@click.option(
    "--base",
    help="Where this app is, as browsers reach it: https://api.shop.example. "
    "Default: SERVER_NAME with PREFERRED_URL_SCHEME and APPLICATION_ROOT.",
)
def tag(base: str | None) -> None:
    """Print the tag for pages that this app does not serve: a front end of ADROLL_ORIGINS."""
    from .tag import tag_of

    click.echo(tag_of(current_app.config, current_runtime(), base))


@commands.command("send-test")
@click.option("--event", "name", default="pageView", show_default=True, help="The event's name.")
@_AS_JSON
def send_test(name: str, as_json: bool) -> None:
    """Send one event with dry_run=true through the real client and say what AdRoll answers."""
    from adroll_flask.checks.send_test import keep_result, send_test_event

    runtime = current_runtime()
    result = send_test_event(runtime, name)
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        click.echo(result.as_text())
    if runtime.may_have_events():  # a trial must not make an outbox
        keep_result(runtime, name, result)
    raise SystemExit(0 if result.ok else 1)


@commands.command(with_appcontext=False)
def schema() -> None:
    """Print the JSON Schema of an event as it is sent."""
    from adroll_flask.events.build import json_schema

    click.echo(json.dumps(json_schema(), indent=2, sort_keys=True))


# -- visitors' data ------------------------------------------------------------------------


@commands.command()
@click.option("--email", help="Erase events with this address, or its hash.")
@click.option("--user-id", help="Erase events with this user id.")
@click.option("--cookie", help="Erase events with this first-party cookie.")
def forget(email: str | None, user_id: str | None, cookie: str | None) -> None:
    """Erase what is queued of one visitor, and leave an audit line without personal data."""
    from adroll_flask.reporting.erasure import forget_matching, matcher
    from adroll_flask.visitor.identifiers import normalise_first_party_cookie

    if not (email or user_id or cookie):
        raise click.UsageError("give --email, --user-id or --cookie")
    if cookie and normalise_first_party_cookie(cookie) is None:
        raise click.BadParameter(
            "takes a first-party cookie (__adroll_fpc): 1 to 80 printable ASCII characters without "
            'space, ";", ",", \'"\' and "\\"; nothing was erased',
            param_hint="--cookie",
        )
    try:
        match = matcher(email=email, user_id=user_id, cookie=cookie)
    except EventError as problem:
        text = f"{problem.expected}; nothing was erased"
        raise click.BadParameter(text, param_hint="--email") from None
    runtime = current_runtime()
    by = [n for n, v in (("email", email), ("user id", user_id), ("cookie", cookie)) if v]
    count = forget_matching(runtime.outbox.admin, match, by=by, counters=runtime.counters)
    click.echo(f"{counted(count, 'event')} erased")


# -- the sandbox ---------------------------------------------------------------------------


@commands.command(
    "sandbox",
    with_appcontext=False,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    short_help="Run AdRoll on this machine.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sandbox(arguments: tuple[str, ...]) -> None:
    """Run AdRoll on this machine: http://127.0.0.1:5001 (--help for its options)."""
    from adroll_flask.sandbox.__main__ import main

    raise SystemExit(main(list(arguments), prog="flask adroll sandbox"))

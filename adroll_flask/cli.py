"""``flask adroll …``: the commands, each a translation of options to a call."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from .cli_outbox import current_runtime, outbox, used_runtime, why_waiting
from .errors import ConfigurationError
from .outbox import OutboxFailed
from .plurals import counted

if TYPE_CHECKING:
    from .checks import Finding
    from .runtime import Runtime


class _Commands(AppGroup):
    """``flask adroll``, known to Flask by an entry point: also where the app does not start.

    Flask makes the app when a command asks for it. What a command then learns of a wrong setting,
    or of a database that is down, is one line to whoever typed it, and not where it was raised.
    """

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ConfigurationError as problem:
            text = f"{problem.key}: {problem.problem}"
            if problem.others:
                more = counted(len(problem.others), "more wrong setting")
                text += f" (and {more}; flask adroll check lists all)"
            raise click.ClickException(text) from None
        except OutboxFailed as problem:
            runtime = used_runtime(context)
            if runtime is None:
                raise
            from .probes import outbox_trouble

            text, mend = outbox_trouble(runtime, problem)
            raise click.ClickException(f"ADROLL_OUTBOX_URL: {text}; {mend}") from None


commands = _Commands("adroll", help="AdRoll server-to-server: check, deliver, look after events.")
commands.add_command(outbox)

#: Seconds without a step after which a worker's loop counts as hanging: a batch that is halved
#: down to its events may take several requests of up to 35 seconds each.
HANGS_AFTER = 300.0

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
    """Look over settings, keys, outbox, cookies and doors; say all that is wrong at once.

    Exits with 1 where something keeps conversions from AdRoll or harms the site.
    """
    from .checks import check_start

    if uwsgi_ini is None and Path("uwsgi.ini").is_file():
        uwsgi_ini = Path("uwsgi.ini")
    try:
        findings = with_appcontext(_findings)(url, uwsgi_ini)
    except ConfigurationError as problem:
        findings = check_start(problem)
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [f.as_dict() for f in findings]}))
    else:
        _show(findings)
    raise SystemExit(1 if failed else 0)


def _findings(url: str | None, uwsgi_ini: Path | None) -> list[Finding]:
    from .checks import check_app
    from .livepage import check_url

    runtime = current_runtime()
    findings = check_app(current_app, runtime, uwsgi_ini=uwsgi_ini)
    if url is not None:
        findings += check_url(url, runtime.settings)
    return findings


def _show(findings: list[Finding]) -> None:
    colours = {"error": "red", "warning": "yellow", "info": "blue", "ok": "green"}
    for finding in findings:
        level = click.style(f"{finding.level.upper():<8}", fg=colours[finding.level])
        click.echo(level, nl=False)
        click.echo(f"{finding.subject}: {finding.text}")
        if finding.mend:
            click.echo(f"        mend: {finding.mend}")
    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    click.echo(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")


@commands.command("send-test")
@click.option("--event", "name", default="pageView", show_default=True, help="The event's name.")
@_AS_JSON
def send_test(name: str, as_json: bool) -> None:
    """Send one event with dry_run=true through the real client and say what AdRoll answers."""
    from .probes import send_test_event

    result = send_test_event(current_runtime(), name)
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        click.echo(result.as_text())
    raise SystemExit(0 if result.ok else 1)


@commands.command(with_appcontext=False)
def schema() -> None:
    """Print the JSON Schema of an event as it is sent."""
    from .events import json_schema

    click.echo(json.dumps(json_schema(), indent=2, sort_keys=True))


# -- delivery ------------------------------------------------------------------------------


@commands.command()
@click.option("--once", is_flag=True, help="Deliver what is due, then exit: for cron.")
@click.option(
    "--health-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Touch this file while the worker lives; its age tells a supervisor.",
)
def worker(once: bool, health_file: Path | None) -> None:
    """Deliver events until stopped; several may run at once, on any number of hosts.

    SIGTERM and SIGINT let the request under way finish first.
    """
    runtime = current_runtime()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(stop, runtime))
    if health_file is not None:
        _touch_while_running(health_file, stop, runtime)
    if once:
        delivered = runtime.deliverer.drain(stop)
        waiting = runtime.outbox.waiting()
        why = why_waiting(runtime) if waiting else ""
        told = f"{delivered} settled, {waiting} waiting"
        click.echo(f"{told} ({why})" if why else told)
    else:
        runtime.deliverer.run(stop)
    runtime.outbox.close()


def _stop(stop: threading.Event, runtime: Runtime) -> None:
    stop.set()
    runtime.outbox.wake()


def _touch_while_running(path: Path, stop: threading.Event, runtime: Runtime) -> None:
    path.touch()
    main = threading.main_thread()

    def touch() -> None:
        # A file that stays young over a dead worker, or one whose loop hangs, would lie.
        while not stop.wait(5.0) and main.is_alive():
            if time.monotonic() - runtime.deliverer.stepped_at < HANGS_AFTER:
                path.touch()

    threading.Thread(target=touch, name="adroll-health", daemon=True).start()


# -- visitors' data ------------------------------------------------------------------------


@commands.command()
@click.option("--email", help="Erase events with this address, or its hash.")
@click.option("--user-id", help="Erase events with this user id.")
@click.option("--cookie", help="Erase events with this first-party cookie.")
def forget(email: str | None, user_id: str | None, cookie: str | None) -> None:
    """Erase what is queued of one visitor, and leave an audit line without personal data."""
    from .forgetting import forget_matching, matcher

    if not (email or user_id or cookie):
        raise click.UsageError("give --email, --user-id or --cookie")
    match = matcher(email=email, user_id=user_id, cookie=cookie)
    runtime = current_runtime()
    by = [n for n, v in (("email", email), ("user id", user_id), ("cookie", cookie)) if v]
    count = forget_matching(runtime.outbox, match, by=by, counters=runtime.counters)
    click.echo(f"{counted(count, 'event')} erased")


@commands.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--check", "only_check", is_flag=True, help="Check every line, keep nothing.")
def import_(file: Any, only_check: bool) -> None:
    """Report events from FILE, one JSON object a line ("-": standard input).

    A line is either what `outbox export --full` writes, an event as the API takes it, or the
    arguments of report_event with its "name". Lines with a known deduplication key are counted
    as duplicates, so that an import can be run again.
    """
    from .importing import import_lines

    counts, faults = import_lines(current_runtime(), file, only_check=only_check)
    for number, text in faults:
        click.echo(f"line {number}: {text}", err=True)
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing to do")
    raise SystemExit(1 if faults else 0)


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
    from .sandbox.__main__ import main

    raise SystemExit(main(list(arguments), prog="flask adroll sandbox"))

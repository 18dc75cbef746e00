"""``flask adroll import``: its options, its progress and what it says in the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask.cli import with_appcontext

from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.plurals import counted

from .app_runtime import current_runtime
from .as_typed import as_typed

if TYPE_CHECKING:
    from .import_orders import Import, Summary
    from .import_values import ValueForms

#: Why the journal takes no more, and what to do.
_STOPPED = {
    "interrupted": "",
    "full": "the outbox is full (ADROLL_OUTBOX_MAX_BYTES): let events be delivered",
    "disk_full": "the disk is full: make room",
    "read_only": "the journal cannot be written to: see flask adroll check",
}


@click.command("import")
@click.argument("file")
@click.option("--check", "only_check", is_flag=True, help="Check every line, keep nothing.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar='FIELD="TEXT"',
    help='The column that gives a field: order_id="Order no.". May be given many times.',
)
@click.option(
    "--set",
    "constants",
    multiple=True,
    metavar="FIELD=TEXT",
    help="What a line has that says nothing of it: page_location=https://shop.example/",
)
@click.option("--currency", help="The currency of lines that name none: as --set currency=EUR.")
@click.option("--event", default="purchase", show_default=True, type=click.Choice(EVENT_NAMES))
@click.option("--date-format", help="As strptime takes it: '%d.%m.%Y %H:%M'. Default: ISO 8601.")
@click.option("--timezone", help="Of times without an offset: Europe/Berlin.")
@click.option("--decimal-comma", is_flag=True, help="Amounts are written 1.059,90.")
@click.option("--format", "file_format", type=click.Choice(["csv", "jsonl"]), help="Of FILE.")
@click.option("--delimiter", help="Between a CSV file's cells. Default: as the header has it.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of FILE.")
@click.option(
    "--rejected",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where bad lines go. Default: FILE.rejected.csv.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@with_appcontext
def import_(file: str, only_check: bool, as_json: bool, **options: Any) -> None:
    """Report events from FILE: CSV or JSON lines, also gzip ("-": standard input).

    A CSV file's columns are the arguments of report_event; --column names others. A line of JSON
    holds these arguments, an event as the API takes it, or what `outbox export --full` writes.

    Every line is checked before the first one is kept. Bad lines go into FILE.rejected.csv with
    what is wrong: fix them there and import that file. What was reported before, by an import or
    by the shop, is a duplicate, so that an import can be run again.
    """
    work, unused = _prepare(file, options)
    click.get_current_context().call_on_close(work.close)
    if unused:
        click.echo(f"columns that nothing takes: {', '.join(unused)}", err=True)
    with _bar(work.source.size, "checking", "lines", lambda: work.summary.checked) as progress:
        work.check(progress, keep=not only_check)
    for text in work.rejected.told:
        click.echo(text, err=True)
    more = work.summary.rejected - len(work.rejected.told)
    if more > 0:
        click.echo(f"and {more:,} more", err=True)
    if not only_check and not work.summary.stopped:
        with _bar(work.summary.good, "keeping", "events", lambda: work.summary.kept) as progress:
            work.keep(progress)
    if as_json:
        click.echo(json.dumps(work.summary.as_dict()))
    else:
        _say(work.summary, only_check=only_check)
    if work.summary.stopped:
        raise SystemExit(130 if work.summary.stopped == "interrupted" else 1)
    raise SystemExit(1 if work.summary.rejected else 0)


def _prepare(file: str, options: dict[str, Any]) -> tuple[Import, list[str]]:
    """The import that the options ask for, and the columns that it passes over."""
    from .import_lines import Source
    from .import_orders import Import
    from .import_rejected import Rejected
    from .import_values import ValueForms, columns_of, read_pairs, read_zone

    runtime = current_runtime()
    delimiter = options["delimiter"]
    if delimiter is not None:
        delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
        if len(delimiter) != 1:
            raise click.UsageError("--delimiter takes one character, or tab")
    columns = read_pairs(options["columns"], "--column")
    constants = read_pairs(options["constants"], "--set")
    if options["currency"]:
        constants["currency"] = options["currency"]
    zone = read_zone(options["timezone"])
    source = Source(
        file,
        file_format=options["file_format"],
        delimiter=delimiter,
        encoding=options["encoding"],
    )
    unused: list[str] = []
    if source.file_format == "csv" and not source.is_rejected_json:
        columns, unused = columns_of(source.columns, columns)
    forms = ValueForms(
        columns,
        constants,
        options["date_format"],
        zone,
        decimal_comma=options["decimal_comma"],
        header=source.columns,
    )
    if source.file_format == "csv" and not source.is_rejected_json and source.columns:
        _refuse_incomplete(options["event"], forms, source.columns)
    rejected = options["rejected"] or Path(
        "stdin.rejected.csv" if file == "-" else f"{file}.rejected.csv"
    )
    return Import(runtime, source, forms, Rejected(rejected, source), options["event"]), unused


def _refuse_incomplete(event: str, forms: ValueForms, header: list[str]) -> None:
    """Say at once what no line of a file could have."""
    given = forms.columns.keys() | forms.constants.keys()
    needed = (
        ["order_id", "value", "currency"] if event == "purchase" and "name" not in given else []
    )
    if "visitor" not in given:
        needed += ["ip", "page_location"]
    missing = [name for name in needed if name not in given]
    if missing:
        raise click.UsageError(
            f"no column gives {', '.join(missing)}: name it with --column "
            f'{missing[0]}="…", or give all lines the same with --set {missing[0]}=…; the file has '
            + ", ".join(map(repr, header))
        )


@contextmanager
def _bar(
    length: int | None, label: str, noun: str, count: Callable[[], int]
) -> Iterator[Callable[[int], None]]:
    """Shows how far a step is, its rate, and the time left where that is known."""
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    began = time.monotonic()

    def rate(_: object) -> str:
        return f"{count():,} {noun}, {count() / max(0.1, time.monotonic() - began):,.0f}/s"

    with click.progressbar(
        length=length,
        label=label,
        file=sys.stderr,
        show_eta=length is not None,
        item_show_func=rate,
    ) as bar:
        yield lambda steps: bar.update(steps, "")


def _say(summary: Summary, *, only_check: bool) -> None:
    counts = [(summary.rejected, "invalid"), (summary.suppressed, "without consent")]
    if only_check:
        counts.insert(0, (summary.good, "good"))
    else:
        counts.insert(0, (summary.kept - summary.duplicates, "queued"))
        counts.insert(1, (summary.duplicates, "duplicate"))
    parts = [f"{count:,} {name}" for count, name in counts if count]
    seconds = max(0.1, summary.seconds)
    told = f" ({summary.checked / seconds:,.0f} lines/s)" if seconds > 1 else ""
    click.echo((", ".join(parts) or "nothing to do") + told)
    if summary.rejected_file:
        click.echo(
            f"fix {summary.rejected_file} and import it with the same options: "
            f"it has {counted(summary.rejected, 'line')}"
        )
    if summary.stopped:
        _say_stopped(summary)


def _say_stopped(summary: Summary) -> None:
    why = as_typed(_STOPPED.get(summary.stopped, f"the journal took no more ({summary.stopped})"))
    kept = f"{summary.kept:,} of {summary.good:,} events are kept"
    if not summary.kept:
        kept = "nothing was kept"
    click.echo(f"stopped: {kept}{'; ' + why if why else ''}", err=True)
    again = "run the same command again"
    after = "; what is kept already is a duplicate then" if summary.kept else ""
    click.echo(f"to go on, {again}{after}", err=True)

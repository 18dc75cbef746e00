"""``flask adroll import``: events that were kept elsewhere, each reported once.

Two passes. The first checks every line: what is good waits in a file without a name, what is not
goes to a file that can be fixed and imported again. The second puts the good ones into the journal,
as every report is, and from there into the outbox. Memory does not grow with the file.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import click
from flask.cli import with_appcontext

from adroll_flask.errors import AdRollError
from adroll_flask.events.names import EVENT_NAMES, FIELD_NAMES, nearest
from adroll_flask.outbox import OutboxFailed
from adroll_flask.outbox.files import make_folder
from adroll_flask.plurals import counted

from .app_runtime import Refusal, as_typed, current_runtime
from .import_file import REJECTED_COLUMNS, ImportFile, Rejects
from .printing import AS_JSON, bar

if TYPE_CHECKING:
    from adroll_flask.runtime import Runtime

    from .import_events import EventMaker

#: The fields that a column may give: an event's name, a visitor's token, and what an event takes.
FIELDS: Final = ("name", "visitor", *(name for name in FIELD_NAMES if name != "product_map"))
#: Events of one transaction of the outbox, while which others wait. Small ones write the same pages
#: of its indexes again and again.
_TOGETHER: Final = 5000
#: Seconds that the last look waits for another process that takes in.
_PATIENCE: Final = 2.0
#: Why the journal takes no more, and what to do.
_STOPPED: Final = {
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
    help="What a line has that says nothing of it: currency=EUR",
)
@click.option("--event", default="purchase", show_default=True, type=click.Choice(EVENT_NAMES))
@click.option("--date-format", help="As strptime takes it: '%d.%m.%Y %H:%M'. Default: ISO 8601.")
@click.option("--timezone", help="Of times without an offset: Europe/Berlin.")
@click.option("--decimal-comma", is_flag=True, help="Amounts are written 1.059,90.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of FILE.")
@click.option(
    "--rejected",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where bad lines go. Default: FILE.rejected.csv.",
)
@AS_JSON
@with_appcontext
def import_(file: str, only_check: bool, as_json: bool, **options: Any) -> None:
    """Report orders, or other events, that a file holds.

    FILE is CSV or JSON lines, also gzip; "-" is standard input. A CSV file's columns are the
    arguments of report_event; --column names others. A line of JSON holds these arguments, an event
    as the API takes it, or what `outbox export --full` writes.

    Every line is checked before the first one is kept. Bad lines go into FILE.rejected.csv with
    what is wrong: fix them there and import that file. What was reported before, by an import or
    by the shop, is a duplicate, so that an import can be run again.
    """
    from .import_events import EventMaker

    runtime = current_runtime()
    source, forms = _read_options(file, options)
    has_json = source.has_json
    default = "stdin.rejected.csv" if file == "-" else f"{file}.rejected.csv"
    rejects = Rejects(options["rejected"] or Path(default), source)
    maker = EventMaker(runtime=runtime, has_json=has_json, event_name=options["event"], **forms)
    summary = Summary()
    began = time.monotonic()
    try:
        with nullcontext() if only_check else _spool(runtime) as spool:
            _check(source, maker, rejects, spool, summary)
            if spool is not None:
                spool.seek(0)
                _queue(runtime, spool, summary)
    except KeyboardInterrupt:
        summary.stopped = "interrupted"
    summary.seconds = time.monotonic() - began
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        _say(summary, only_check=only_check)
    failed = bool(summary.stopped or summary.rejected)
    raise SystemExit(130 if summary.stopped == "interrupted" else failed)


@dataclass(slots=True)
class Summary:
    """What became of a file's lines.

    :param checked: lines that were looked at.
    :param good: of them, those that can be reported.
    :param rejected: of them, those that cannot.
    :param suppressed: of them, those whose visitor's token carries no consent.
    :param kept: events that the journal has.
    :param duplicates: of them, those whose key was known, as this process saw.
    :param stopped: ``""``, ``interrupted``, or why the journal took no more.
    """

    checked: int = 0
    good: int = 0
    rejected: int = 0
    suppressed: int = 0
    kept: int = 0
    duplicates: int = 0
    stopped: str = ""
    rejected_file: str | None = None
    seconds: float = 0.0


def _read_options(file: str, options: Mapping[str, Any]) -> tuple[ImportFile, dict[str, Any]]:
    """The file, and how it writes its values; says at once what no line could have."""
    columns = _pairs(options["columns"], "--column")
    constants = _pairs(options["constants"], "--set")
    name = options["timezone"]
    try:
        zone = None if name is None else ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise click.UsageError(
            f"--timezone: there is no {name!r}; it takes UTC or a name such as Europe/Berlin"
        ) from None
    source = ImportFile(file, options["encoding"])
    if not source.has_json:
        columns, unused = _columns(source.columns, columns)
        if unused:
            click.echo(f"columns that nothing takes: {', '.join(unused)}", err=True)
        given = columns.keys() | constants.keys()
        is_purchase = options["event"] == "purchase" and "name" not in given
        needed = ["order_id", "value", "currency"] if is_purchase else []
        needed += [] if "visitor" in given else ["ip", "page_location"]
        missing = [name for name in needed if name not in given]
        if missing and source.columns:
            raise click.UsageError(
                f"no column gives {', '.join(missing)}: name it with --column "
                f'{missing[0]}="…", or give all lines the same with --set {missing[0]}=…; the '
                f"file has {', '.join(map(repr, source.columns))}"
            )
    forms = {name: options[name] for name in ("date_format", "decimal_comma")}
    return source, {"columns": columns, "constants": constants, "zone": zone, **forms}


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """``FIELD=text`` of an option that may be given many times.

    :raises click.UsageError: one has no ``=``, or names no field.
    """
    pairs = {}
    for text in texts:
        name, _, rest = text.partition("=")
        name = name.strip()
        if not rest.strip():
            raise click.UsageError(f'{option} takes FIELD="text", such as order_id="Order no."')
        if name not in FIELDS:
            near = nearest(name, FIELDS)
            hint = f"; did you mean {near}?" if near else f"; there are {', '.join(FIELDS)}"
            raise click.UsageError(f"{option}: there is no field {name!r}{hint}")
        pairs[name] = rest.strip()
    return pairs


def _columns(header: Sequence[str], given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """By field, the column of a CSV file that gives it; and the columns that nothing takes.

    :param given: what ``--column`` says; other columns are known by the names of fields.
    :raises click.UsageError: ``--column`` names a column that is not there.
    """
    for name, column in given.items():
        if column not in header:
            columns = ", ".join(map(repr, header))
            raise click.UsageError(
                f"--column {name}: there is no column {column!r}; the file has {columns}"
            )
    columns_by_field = dict(given)
    unused = []
    for column in header:
        name = column.lower().replace(" ", "_").replace("-", "_")
        if column in given.values():
            continue
        if name in FIELDS and name not in columns_by_field:
            columns_by_field[name] = column
        elif column and column not in REJECTED_COLUMNS:
            unused.append(column)
    return columns_by_field, unused


@contextmanager
def _spool(runtime: Runtime) -> Iterator[IO[bytes]]:
    """Where good events wait until all lines are checked: a file without a name, gone with us."""
    # Beside the journal: what fits there fits the disk, and /tmp may be memory.
    folder = runtime.journal_folder.parent
    try:
        make_folder(folder)
        with TemporaryFile(dir=folder) as spool:
            yield spool
    except OSError as problem:
        said = f"what is good cannot be written ({problem.strerror}); nothing was kept"
        raise Refusal(said, slug="import-file") from None


def _check(
    source: ImportFile,
    maker: EventMaker,
    rejects: Rejects,
    spool: IO[bytes] | None,
    summary: Summary,
) -> None:
    """The first pass: what is good goes to *spool*, what is not to *rejects*."""
    read = 0
    with bar("checking", source.size) as progress:
        try:
            for line in source:
                summary.checked += 1
                try:
                    event = maker.event(line)
                except AdRollError as problem:
                    summary.rejected += 1
                    rejects.add(line, *maker.fault(problem))
                else:
                    summary.suppressed += event is None
                    summary.good += event is not None
                    if spool is not None and event is not None:
                        pickle.dump(event, spool, pickle.HIGHEST_PROTOCOL)
                progress(source.position() - read)
                read = source.position()
        finally:
            rejects.close()
            summary.rejected_file = rejects.kept_as
    for text in rejects.told:
        click.echo(text, err=True)
    if summary.rejected > len(rejects.told):
        click.echo(f"and {summary.rejected - len(rejects.told):,} more", err=True)


def _queue(runtime: Runtime, spool: IO[bytes], summary: Summary) -> None:
    """The second pass: what is in *spool* goes into the journal, and into the outbox."""
    from adroll_flask.outbox.entries import EventEntry

    outbox, before = runtime.outbox, runtime.counters.get("event_duplicate")
    # All are reported at one time, so that they stay in the order of their lines.
    now = runtime.clock()

    def take_in(patience: float = 0.0) -> int:
        # Where the outbox fails the journal has them: whoever delivers takes them in.
        with suppress(OutboxFailed):
            return outbox.queue.take_in(_TOGETHER, patience=patience)
        return 0

    try:
        with bar("keeping", summary.good) as progress:
            while summary.kept < summary.good:
                outbox.record(EventEntry(pickle.load(spool), now))  # noqa: S301 - our own file
                summary.kept += 1
                progress(1)
                if summary.kept % _TOGETHER == 0:
                    take_in()
    except OutboxFailed as failure:
        summary.stopped = failure.reason
    finally:
        while take_in(_PATIENCE):
            pass
        summary.duplicates = runtime.counters.get("event_duplicate") - before


def _say(summary: Summary, *, only_check: bool) -> None:
    counts = {
        "good": summary.good if only_check else 0,
        "queued": summary.kept - summary.duplicates,
        "duplicate": summary.duplicates,
        "invalid": summary.rejected,
        "without consent": summary.suppressed,
    }
    parts = [f"{count:,} {name}" for name, count in counts.items() if count]
    rate = f" ({summary.checked / summary.seconds:,.0f} lines/s)" if summary.seconds > 1 else ""
    click.echo((", ".join(parts) or "nothing to do") + rate)
    if summary.rejected_file:
        lines = counted(summary.rejected, "line")
        said = f"fix {summary.rejected_file} and import it with the same options"
        click.echo(f"{said}: it has {lines}")
    if summary.stopped:
        kept = f"{summary.kept:,} of {summary.good:,} events are kept"
        why = _STOPPED.get(summary.stopped, f"the journal took no more ({summary.stopped})")
        why = "" if summary.stopped == "interrupted" else f"; {as_typed(why)}"
        click.echo(f"stopped: {kept if summary.kept else 'nothing was kept'}{why}", err=True)
        after = "; what is kept already is a duplicate then" if summary.kept else ""
        click.echo(f"to go on, run the same command again{after}", err=True)

"""``flask adroll import``: events that were kept elsewhere, each reported once.

There are two passes. The first one checks every line. Good events wait in a temporary file without
a name. Bad lines go to a file that somebody can fix and import. The second pass puts the good
events into the journal, as a report does, and from there into the outbox. Memory does not grow with
the file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import tzinfo
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final, NamedTuple

import click

from adroll_flask import settings
from adroll_flask.errors import AdRollError, ConfigurationError, EventError
from adroll_flask.events import names
from adroll_flask.events.build import build
from adroll_flask.events.dedupe_key import kept_key, suppressed_key
from adroll_flask.outbox import model
from adroll_flask.outbox.local_files import make_folder
from adroll_flask.outbox.lookups import Lookups
from adroll_flask.plurals import counted
from adroll_flask.reporting import lists
from adroll_flask.reporting.reporter import Reporter
from adroll_flask.runtime import Runtime

from . import console

#: The fields that a column may give: an event's name, a visitor's token, and what an event takes.
FIELDS: Final = ("name", "visitor", *(name for name in names.FIELD_NAMES if name != "product_map"))
#: The columns that a file of rejected lines has before those of the imported file. An import of
#: that file does not read them.
REJECTED_COLUMNS: Final = ["rejected_line", "rejected_column", "rejected_reason"]
#: What may stand between thousands, beside commas and points.
_SPACES: Final = re.compile(r"[\s\u00a0\u202f'\u2019]")
#: ``1,059.90``: only where a point follows is it certain that a comma separates thousands.
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+\.[0-9]+\Z")
_WITH_COMMA: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?\Z|[0-9]+(?:,[0-9]+)?\Z")
#: Rejected lines that a terminal shows.
_SHOWN: Final = 10
#: Events that one transaction takes into the outbox. It is large, although others wait for it:
#: small transactions write the same pages of the indexes again and again.
_TOGETHER: Final = 5000
#: Seconds to wait for another process that takes events in.
_PATIENCE: Final = 2.0


def _zone(_context: click.Context, _option: click.Parameter, name: str | None) -> Any:
    try:
        return settings.as_kept("time_zone", "--timezone", name) if name else None
    except ConfigurationError as fault:
        raise click.BadParameter(fault.problem) from None


@console.commands.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--check", "only_check", is_flag=True, help="Check every line. Keep nothing.")
@console.pairs(FIELDS, "--column", "columns", help='The column of a field: order_id="Order no."')
@console.pairs(FIELDS, "--set", "constants", help="For lines without the field: currency=EUR")
@click.option("--date-format", help="As strptime takes it: '%d.%m.%Y %H:%M'. Default: ISO 8601.")
@click.option("--timezone", "zone", callback=_zone, help="Of times without offset: Europe/Berlin.")
@click.option("--decimal-comma", is_flag=True, help="Amounts are written 1.059,90.")
@click.option("--encoding", default="utf-8-sig", help="Of FILE. Default: UTF-8.")
@click.option("--although-unknown", is_flag=True, help="Send those paid before the outbox began.")
@console.AS_JSON
def import_(
    file: IO[bytes], only_check: bool, encoding: str, although_unknown: bool, **forms: Any
) -> None:
    """Report orders, or other events, that a file holds.

    FILE is CSV or JSON lines. "-" is standard input. The columns of a CSV file are the arguments of
    report_event. --column names others. A line of JSON is an object of these arguments.

    Every line is checked before the first one is kept. Bad lines go into FILE.rejected.csv, each
    with what is wrong. Correct them there, and import that file. An order that was reported before
    is a duplicate, so an import can be run again.

    AdRoll may already have orders that were paid before the outbox began, or longer ago than it
    keeps orders (ADROLL_DEDUPE_DAYS). If the shop has reported here, a file with such orders is
    refused. With --although-unknown they are sent.
    """
    summary = Summary()
    named = Path(getattr(file, "name", "-"))
    path = named if named.is_file() else Path("stdin")
    try:
        text = io.TextIOWrapper(file, encoding, newline="")
    except LookupError:
        raise click.UsageError(f"--encoding: there is no {encoding!r}") from None
    click.get_current_context().call_on_close(text.close)
    try:
        runtime = console.current_runtime()
        source = lists.Lines(text)
        if not source.has_json:
            forms["columns"] = _columns(source.columns, forms)
        maker = EventMaker(runtime.reporter, **forms)
        # Beside the journal: what fits there fits the disk, and /tmp may be memory.
        folder = runtime.outbox.folder.parent
        if not only_check:
            make_folder(folder)
        with TemporaryFile(dir=folder if folder.exists() else None) as spool:
            _check(source, maker, path, spool, summary)
            if not although_unknown:
                _refuse_unknown(runtime, spool, summary)
            if not only_check:
                _queue(runtime, spool, summary)
    except KeyboardInterrupt:
        summary.stopped = "interrupted"
    except Exception as problem:
        if summary.rejected_file is not None:
            os.unlink(summary.rejected_file)
        why = _why_refused(problem, path)
        if not why:
            raise
        raise console.Refusal(f"{why} Nothing was kept", slug="import-file") from None
    console.show(asdict(summary), _summary_text(summary, only_check=only_check))
    failed = bool(summary.stopped or summary.rejected)
    raise SystemExit(130 if summary.stopped == "interrupted" else failed)


def _why_refused(problem: Exception, path: Path) -> str:
    """What is wrong with the file at *path*; empty: it is not the file."""
    if isinstance(problem, lists.ReconcileError):
        return f"{problem}.".replace("?.", "?")  # it may end in a question
    if isinstance(problem, UnicodeError):
        return f"{path} is not of this encoding: pass --encoding, such as cp1252."
    if isinstance(problem, OSError):
        return f"{problem.filename or path}: {problem.strerror or problem}."
    return ""


@dataclass(slots=True)
class Summary:
    """What became of a file's lines.

    :param checked: lines that were looked at.
    :param good: of these lines, those that can be reported.
    :param rejected: of these lines, those that are wrong.
    :param suppressed: of these lines, those that may not be reported: the visitor's token carries
        no consent, or the site kept the order back when it was placed.
    :param kept: events that the journal has.
    :param duplicates: of these events, those whose key another event has.
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


def _columns(header: list[str], forms: Mapping[str, Any]) -> dict[str, str]:
    """By field, the column of a CSV file that gives it. Refuses a file that lacks columns.

    :param forms: the command's options. ``columns`` has the fields whose column is named by
        ``--column``. The column of another field has the field's name.
    """
    spellings = {name: [name.replace("_", "")] for name in FIELDS}
    try:
        column_of = lists.find_columns(header, forms["columns"], spellings)
    except lists.ReconcileError as problem:
        raise click.UsageError(f"--column: {problem}") from None
    if twice := [name for name in column_of.values() if header.count(name) > 1]:
        raise console.Refusal(f"the header names a column twice: {twice[0]}", slug="import-file")
    taken = {*column_of.values(), *REJECTED_COLUMNS, ""}
    if unused := [name for name in header if name not in taken]:
        click.echo(f"columns that nothing takes: {', '.join(unused)}", err=True)
    filled = column_of.keys() | forms["constants"].keys()
    is_purchase = "name" not in column_of and forms["constants"].get("name") in (None, "purchase")
    needed = ["order_id", "value", "currency"] if is_purchase else []
    if "visitor" not in filled:
        needed += ["ip", "page_location"]
    missing = [name for name in needed if name not in filled]
    if missing and header:
        raise click.UsageError(
            f"no column gives {', '.join(missing)}: name it with --column "
            f'{missing[0]}="…", or give all lines the same with --set {missing[0]}=…; the '
            f"file has {', '.join(map(repr, header))}"
        )
    return column_of


def _check(
    source: lists.Lines, maker: EventMaker, path: Path, spool: IO[bytes], summary: Summary
) -> None:
    """The first pass: good lines go to *spool*, bad ones into a file beside *path*."""
    # If the file is itself one of rejected lines, its lines begin with these three cells already.
    was_rejected = source.columns[: len(REJECTED_COLUMNS)] == REJECTED_COLUMNS
    begin = len(REJECTED_COLUMNS) if was_rejected else 0
    writer: Any = None
    batch: list[LineEvent] = []
    with ExitStack() as files:
        for line in source:
            summary.checked += 1
            try:
                good = maker.event(line)
            except AdRollError as problem:
                summary.rejected += 1
                column, why = maker.fault(problem)
                if writer is None:
                    file = files.enter_context(_rejected_file(path, summary))
                    writer = csv.writer(file, delimiter=source.delimiter, lineterminator="\n")
                    writer.writerow([*REJECTED_COLUMNS, *source.columns[begin:]])
                writer.writerow([line.number, column, why, *line.cells[begin:]])
                if summary.rejected <= _SHOWN:
                    place = f"{column}: " if column else ""
                    click.echo(f"line {line.number}: {place}{why}", err=True)
                continue
            if good is None:
                summary.suppressed += 1
                continue
            batch.append(good)
            if len(batch) == model.BATCH:
                _spool(maker.reporter.outbox.lookups, batch, spool, summary)
                batch.clear()
    _spool(maker.reporter.outbox.lookups, batch, spool, summary)
    if summary.rejected > _SHOWN:
        click.echo(f"and {summary.rejected - _SHOWN:,} more", err=True)


def _spool(lookups: Lookups, batch: list[LineEvent], spool: IO[bytes], summary: Summary) -> None:
    """Keep *batch* for the second pass, but for the orders that the site kept back.

    An order may have been reported with its id in another spelling. It then gets the key of that
    report, so that it is a duplicate.
    """
    reported = lookups.of_orders([order for good in batch for order in good.orders])
    kept_back = lookups.suppressed([hashed for good in batch for hashed in good.hashes])
    for good in batch:
        keys = [order.key for order in good.orders if order in reported]
        if keys:
            good.event.key = keys[0]
        elif any(hashed in kept_back for hashed in good.hashes):
            summary.suppressed += 1
            continue
        summary.good += 1
        pickle.dump((good.event, good.paid_at), spool, pickle.HIGHEST_PROTOCOL)


def _rejected_file(path: Path, summary: Summary) -> IO[str]:
    """A new file for bad lines of the file at *path*.

    Only its owner may read it: the lines hold people's data. An older file of this name stays as it
    is: somebody may be correcting it.
    """
    wanted = path.with_name(f"{path.name}.rejected.csv")
    others = (wanted.with_stem(f"{wanted.stem}-{number}") for number in count(2))
    new = next(place for place in chain([wanted], others) if not place.exists())
    # The name is noted before the file is made: after an interrupt, the summary has to tell it.
    summary.rejected_file = str(new)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return open(handle, "w", encoding="utf-8", newline="")


def _batches(spool: IO[bytes], number: int) -> Iterator[list[tuple[model.NewEvent, float | None]]]:
    """The first *number* events of *spool*, each with the time at which it was paid."""
    spool.seek(0)
    for begin in range(0, number, model.BATCH):
        size = min(model.BATCH, number - begin)
        yield [pickle.load(spool) for _ in range(size)]  # noqa: S301 - our own file


def _refuse_unknown(runtime: Runtime, spool: IO[bytes], summary: Summary) -> None:
    """Refuse a file with orders that AdRoll may already have: a person has to decide about them.

    :raises Refusal: there are such orders.
    """
    lookups = runtime.outbox.lookups
    lookups.take_in_all()
    if not lookups.has_reports():  # the file is what the site begins with
        return
    knowledge = runtime.reporter.knowledge()
    unknown = 0
    now = runtime.clock()
    for batch in _batches(spool, summary.good):
        old = [event.order for event, paid_at in batch if not knowledge.knows(paid_at, now)]
        reported = lookups.of_orders([order for order in old if order is not None])
        unknown += sum(order not in reported for order in old)
    if unknown:
        raise console.Refusal(
            f"{counted(unknown, 'order')} of the file may be with AdRoll already: paid before this"
            f" outbox began ({console.when(knowledge.began)}), at a time of which it knows nothing,"
            " longer ago than it keeps orders, or without a timestamp; or are of visitors who said"
            " no under another SECRET_KEY. Nothing was kept;"
            " --although-unknown sends them",
            slug="import-unknown",
        )


def _queue(runtime: Runtime, spool: IO[bytes], summary: Summary) -> None:
    """The second pass: what is in *spool* goes into the journal, and into the outbox."""
    outbox = runtime.outbox
    # All are reported at the same time, so that they stay in the order of their lines.
    now = runtime.clock()
    try:
        for event, _ in chain.from_iterable(_batches(spool, summary.good)):
            event.at = now
            outbox.record(event)
            summary.kept += 1
    except model.OutboxFailed as failure:
        summary.stopped = failure.reason
    finally:
        # If the outbox fails, the journal keeps the events. Whoever delivers takes them in later.
        with suppress(model.OutboxFailed):
            while outbox.ingest.take_in(_TOGETHER, patience=_PATIENCE):
                pass
        with suppress(model.OutboxFailed):
            summary.duplicates = _duplicates(outbox.lookups, spool, summary.kept)


def _duplicates(lookups: Lookups, spool: IO[bytes], number: int) -> int:
    """How many of the first *number* events have the key of another event.

    A worker may have taken in some of them, so only the outbox knows it of all.
    """
    duplicates = 0
    for batch in _batches(spool, number):
        orders = [(event.id, event.order) for event, _ in batch if event.order is not None]
        rows = lookups.of_orders([order for _, order in orders])
        duplicates += sum(order in rows and rows[order].id != id for id, order in orders)
    return duplicates


def _summary_text(summary: Summary, *, only_check: bool) -> str:
    """What came of an import. If it was stopped, this also prints on stderr how to go on."""
    counts = {
        "good": summary.good if only_check else 0,
        "queued": summary.kept - summary.duplicates,
        "duplicate": summary.duplicates,
        "invalid": summary.rejected,
        "not to be reported": summary.suppressed,
    }
    text = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    if summary.rejected_file is not None:
        lines = counted(summary.rejected, "line")
        text += f"\nfix {summary.rejected_file} and import it with the same options: it has {lines}"
    if summary.stopped:
        outcome = "nothing was kept"
        if summary.kept:
            outcome = f"{summary.kept:,} of {summary.good:,} events are kept"
        if summary.stopped != "interrupted":
            outcome += f"; the journal takes no more ({summary.stopped}): see flask adroll check"
        click.echo(console.as_typed(f"stopped: {outcome}"), err=True)
        click.echo("to go on, run the same command again: what is kept is a duplicate", err=True)
    return text or "nothing to do"


# -- from a line to its event ----------------------------------------------------------------------


class LineEvent(NamedTuple):
    """An event of a line.

    :param paid_at: when its order was paid, seconds since the epoch; ``None``: the line does not
        say it. It is infinite for another event than a purchase, since that is never too old.
    :param orders: the keys by which its order may have been reported: a list may write #1001 for
        1001.
    :param hashes: the hashes by which the outbox may know that its order was suppressed. There are
        none where the visitor's token carries consent.
    """

    event: model.NewEvent
    paid_at: float | None
    orders: Sequence[model.OrderKey]
    hashes: Sequence[str]


@dataclass(frozen=True, slots=True)
class EventMaker:
    """Makes events of lines.

    :param columns: by field, the column that gives it; empty: columns have the fields' names.
    :param constants: by field, the value for lines that have none.
    :param date_format: as ``strptime`` takes it; ``None``: ISO 8601.
    :param zone: of times without an offset.
    :param decimal_comma: amounts are written 1.059,90.
    """

    reporter: Reporter
    columns: Mapping[str, str]
    constants: Mapping[str, str]
    date_format: str | None
    zone: tzinfo | None
    decimal_comma: bool

    def event(self, line: lists.Line) -> LineEvent | None:
        """The event of *line*; ``None``: its visitor's token carries no consent.

        :raises AdRollError: the line is wrong.
        """
        if line.problem:
            raise EventError("line", line.problem)
        reporter = self.reporter
        texts = self._values(line.values)
        values = dict(texts)
        name = values.pop("name", "purchase")
        token = values.pop("visitor", None)
        if token is None:
            defaults = reporter.defaults_at(values)
        else:
            defaults = reporter.of_token(token, values, None, strict=True)
        if defaults.refusal:
            return None
        if name == "purchase":
            reporter.check_purchase(values, strict=True)
        built = build(name, values, defaults, strict=True)
        if built.key is None:
            # It is made of the line alone, so that another import of the line makes the same key.
            content = repr(sorted(texts.items())).encode()
            built.key = f"import:{hashlib.sha256(content).hexdigest()[:40]}"
        event = reporter.new_event(built)
        event.dry_run = reporter.is_dry_run(built.event.page_location, None)
        event.identifiers |= model.IMPORTED
        paid_at = event.occurred_at if "timestamp" in texts else None
        id = str(texts.get("deduplication_key") or texts.get("order_id") or "")
        ids = lists.spellings(id) if id else ()
        secret = reporter.visitors.dedupe_secret
        order = model.OrderKey(event.advertisable_eid, event.dry_run, event.name, built.key)
        return LineEvent(
            event,
            paid_at if event.name == "purchase" else float("inf"),
            orders=[order._replace(key=kept_key(id, secret)) for id in ids],
            hashes=[suppressed_key(name, id, secret) for id in ids if token is None],
        )

    def fault(self, problem: AdRollError) -> tuple[str, str]:
        """Which column is wrong (empty: the line as a whole), and what is wrong with it."""
        if not isinstance(problem, EventError):  # then it is about the visitor's token
            return self.columns.get("visitor", "visitor"), str(problem)
        name = problem.field.partition("[")[0]
        return "" if name == "line" else self.columns.get(name, name), problem.expected

    def _values(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """A line's values, as arguments of ``report_event``.

        :param cells: the line's cells by column, or its JSON object.
        :raises EventError: a value is not of its form.
        """
        values: dict[str, Any] = dict(self.constants)
        columns = self.columns or {name: name for name in cells}
        for name, column in columns.items():
            value = cells.get(column)
            value = value.strip() if isinstance(value, str) else value
            if value not in (None, ""):
                values[name] = value
        for name in values.keys() & {"value", "total"}:
            values[name] = self._amount(values[name], name)
        moment = values.get("timestamp")
        products = values.get("products")
        if moment is not None:
            try:
                values["timestamp"] = lists.read_time(str(moment), self.zone, self.date_format)
            except ValueError:
                form = self.date_format or "2026-11-24T20:31:23+01:00"
                text = f"is not of the form {form!r} (--date-format), or has no offset (--timezone)"
                raise EventError("timestamp", text) from None
        if isinstance(products, str):
            try:
                values["products"] = json.loads(products)
            except (ValueError, RecursionError):
                raise EventError("products", "takes a JSON list of products") from None
        return values

    def _amount(self, value: Any, name: str) -> Any:
        """*value*; a text is written with a point, and without separators of thousands."""
        if not isinstance(value, str):
            return value
        text = _SPACES.sub("", value)
        if not self.decimal_comma:
            return text.replace(",", "") if _THOUSANDS.match(text) else value
        if not _WITH_COMMA.match(text):
            raise EventError(name, "takes an amount with a comma, such as 1.059,90")
        return text.replace(".", "").replace(",", ".")

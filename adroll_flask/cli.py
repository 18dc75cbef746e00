"""``flask adroll …``: the commands, each a translation of options to a call."""

from __future__ import annotations

import click
from flask.cli import AppGroup

commands = AppGroup(
    "adroll", help="AdRoll server-to-server: check, deliver, look after events."
)


@commands.command("sandbox", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sandbox(arguments: tuple[str, ...]) -> None:
    """Run AdRoll on this machine: http://127.0.0.1:5001 (--help for its options)."""
    from .sandbox.__main__ import main

    raise SystemExit(main(list(arguments)))

"""Appends numbered records and prints each number once it is acknowledged.

``python -m tests.support.journal_program FOLDER [--count N] [--sync] [--name NAME]``

Without ``--count`` until it is killed or refused; with it, waits then for the end of its input.
"""

import argparse
import os
import sys
from pathlib import Path

from adroll_flask.outbox import journal, model
from tests.support.journal_kit import line


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--count", type=int)
    arguments.add_argument("--sync", action="store_true")
    arguments.add_argument("--name", default="")
    given = arguments.parse_args()
    writer = journal.Journal(given.folder, sync=given.sync)
    n = 0
    while given.count is None or n < given.count:
        try:
            writer.append(line(f"{given.name}{n} ".encode() + b"." * (n * 37 % 3000)))
        except model.OutboxFailed:
            return
        os.write(1, b"%d\n" % n)
        if n % 20 == 0:
            writer.close()
        n += 1
    sys.stdin.read()


if __name__ == "__main__":
    main()

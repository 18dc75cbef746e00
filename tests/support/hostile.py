"""A program that builds purchases, and the drafts of their dead letters, with one field too long.

Each line of JSON that it reads says which field, and how long: it is tried with each kind of text.
"""

import json
import logging
import sys
from typing import Any

from adroll_flask import EventError
from adroll_flask.events.build import build
from adroll_flask.events.fix import draft
from tests.support.event_kit import PURCHASE, WEB


def texts(size: int) -> list[Any]:
    """Texts of each kind that has cost more than its length."""
    return [
        "x" * size,
        " " * size + "x",
        "\x00" * size,
        "https://shop.example/?q=" + "%40" * (size // 3),
        "https://shop.example/" + "?a=@" * (size // 4),
        "https://" + "\xe4" * size,
        "a@" * (size // 2),
        "9" * size,
        "[" + ":" * size,
        10**size,
        ["x"] * size,
    ]


def try_each(field: str, values: list[Any]) -> None:
    """Build a purchase with each of *values* in *field*."""
    for value in values:
        fields = dict(PURCHASE)
        if field.startswith("products."):
            fields["products"] = [{"product_id": "mug", field.removeprefix("products."): value}]
        else:
            fields[field] = value
        try:
            build("purchase", fields, WEB, strict=False)
        except EventError:
            draft("purchase", fields, WEB)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    # Made before anything is counted.
    made = {size: texts(size) for size in map(int, sys.argv[1:])}
    for line in sys.stdin:
        told = json.loads(line)
        try_each(told["field"], made[told["size"]])
        print(flush=True)

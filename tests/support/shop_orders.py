"""A shop's process that reports what each line of its input says, and answers with the receipts.

``order:1001 hold:1002 release:1002 cancel:1003 suppressed:1004``: each word is what to do and with
which order (``brief`` is a hold of five seconds); ``order:1001-1100`` are a hundred,
``order:1001@59.90`` is not worth 9.90, and several words take turns. When its input ends it dies as
by ``kill -9``: nothing is flushed, closed or delivered. A line ``exit`` ends it as programs end.
"""

import json
import os
import re
import sys
from collections.abc import Iterator

from flask import Flask

from adroll_flask import cancel_conversion, release_conversion, report_conversion
from tests.support.server_shop import make_shop

ADDRESS = {"REMOTE_ADDR": "203.0.113.9"}
_SPAN = re.compile(r"(\d+)-(\d+)")


def orders_of(span: str) -> Iterator[str]:
    """``"7"`` or ``"7-9"``."""
    if found := _SPAN.fullmatch(span):
        yield from map(str, range(int(found[1]), int(found[2]) + 1))
    else:
        yield span


def do(app: Flask, what: str, order: str, value: str) -> str:
    """Do it in a request of a visitor who clicked on the ad; what the receipt says."""
    headers = {"Sec-GPC": "1"} if what == "suppressed" else {}
    with app.test_request_context("/?adct=click-1", environ_base=ADDRESS, headers=headers):
        if what == "release":
            return release_conversion(order).status
        if what == "cancel":
            return cancel_conversion(order).status
        hold = {"hold": True, "brief": 5}.get(what)
        return report_conversion(order_id=order, value=value, currency="EUR", hold=hold).status


def main() -> None:
    app = make_shop()
    for line in sys.stdin:
        if line.strip() == "exit":
            return
        spans = [word.partition(":")[::2] for word in line.split()]
        todo = [
            [(what, order, value or "9.90") for order in orders_of(span)]
            for what, (span, _, value) in ((what, rest.partition("@")) for what, rest in spans)
        ]
        told = []
        while any(todo):
            told += [do(app, *some.pop(0)) for some in todo if some]
        print(json.dumps(told), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()

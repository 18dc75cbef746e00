"""The shop under uWSGI with a mule and a spooler, which report orders beside its workers."""

from importlib import import_module
from typing import Any

from flask import Flask, Response, jsonify

from adroll_flask import report_conversion
from tests.support import server_shop

ORDER: dict[str, Any] = {
    "value": "9.90",
    "currency": "EUR",
    "adct": "click-1",
    "visitor": None,
    "ip": "203.0.113.7",
    "page_location": "https://shop.test/",
}


def make_shop() -> Flask:
    # What is there in a process of uWSGI's alone, and has no types.
    uwsgi: Any = import_module("uwsgi")
    decorators: Any = import_module("uwsgidecorators")
    app = server_shop.make_shop()

    def report(order: str) -> None:
        with app.app_context():
            report_conversion(order_id=order, **ORDER)

    def in_the_spooler(order: str) -> int:
        report(order)
        return int(uwsgi.SPOOL_OK)

    in_a_mule = decorators.mulefunc(report)
    spooled = decorators.spool(pass_arguments=True)(in_the_spooler)

    @app.post("/beside/<how>/<order>")
    def beside(how: str, order: str) -> Response:
        if how == "mule":
            in_a_mule(order)
        else:
            spooled.spool(order)
        return jsonify(status="handed over")

    return app

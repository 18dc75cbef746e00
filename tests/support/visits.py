"""A visitor of a Flask shop, and what they buy; and the settings of a shop at a sandbox."""

from __future__ import annotations

from typing import Any

from flask import Flask

from adroll_flask import report_conversion
from adroll_flask.sandbox import RunningSandbox

ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}
VISIT: dict[str, Any] = {
    "base_url": "https://shop.test",
    "environ_base": {"REMOTE_ADDR": "203.0.113.7"},
}


def visit(app: Flask, url: str = "/?adct=click123", *, gpc: bool = False) -> Any:
    """A request of a visitor."""
    return app.test_request_context(url, headers={"Sec-GPC": "1"} if gpc else {}, **VISIT)


def report(app: Flask, order: str = "1001", *, gpc: bool = False, **fields: Any) -> Any:
    """Report a visitor's order; the receipt."""
    with visit(app, gpc=gpc):
        return report_conversion(**(ORDER | {"order_id": order} | fields))


def at(sandbox: RunningSandbox) -> dict[str, Any]:
    """The settings of a shop whose AdRoll is *sandbox*."""
    account = sandbox.account
    return {
        "ADROLL_STRICT": False,
        "ADROLL_API_URL": sandbox.api_url,
        "ADROLL_ADVERTISABLE_EID": account.advertisable_eid,
        "ADROLL_PIXEL_EID": account.pixel_eid,
        "ADROLL_ACCESS_TOKEN": account.access_token,
    }

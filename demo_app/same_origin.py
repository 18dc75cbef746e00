"""Forms are taken from the shop's own pages only.

Browsers say with ``Sec-Fetch-Site`` where a request comes from (W3C, Fetch Metadata), which no
page can forge; older ones send ``Origin`` with every POST. So no token is needed in the forms,
and pages that hold a form can still be cached for everybody.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import abort, request


def refuse_foreign_forms() -> None:
    """Answer 403 to a request that changes something and comes from another site."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        origin = request.headers.get("Origin")
        # Neither header: not a browser, so there is no visitor whose cookies could be misused.
        same = origin is None or urlsplit(origin).netloc == request.host
    else:
        same = site in ("same-origin", "none")
    if not same:
        abort(403)


def is_this_machine() -> bool:
    """Whether the request comes from this machine, under one of its own names."""
    host = urlsplit(f"//{request.host}").hostname
    return request.remote_addr in ("127.0.0.1", "::1") and host in ("127.0.0.1", "::1", "localhost")

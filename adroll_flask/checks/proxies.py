"""Whether reports carry the visitor's address, or that of a proxy before the app."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adroll_flask.plurals import counted
from adroll_flask.visitor.identifiers import is_public_ip

from .finding import Finding

if TYPE_CHECKING:
    from adroll_flask.runtime import Runtime


def proxy_findings(runtime: Runtime) -> Iterator[Finding]:
    private = seen = 0
    outbox = runtime.outbox
    for row in outbox.orders.those([row.id for row in outbox.admin.list("waiting", 50)]):
        if not row.payload:
            continue
        ip = json.loads(row.payload).get("ip")
        if isinstance(ip, str):
            seen += 1
            private += not is_public_ip(ip)
    if private:
        yield Finding(
            "warning",
            "addresses",
            f"in {private} of {counted(seen, 'waiting event')}: a private or loopback address, "
            "the proxy's",
            "wrap the app in werkzeug's ProxyFix with the number of proxies before it",
            slug="proxy-address",
        )

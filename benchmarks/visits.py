"""A browser's requests to a WSGI app, as a server would hand them over, and its cookies."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

from flask import Flask

HOST = "shop.example"
IP = "203.0.113.9"
AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36"
)
_COOKIES = ("__Host-adroll_visitor", "__adroll_fpc", "session")


def ask(app: Any, path: str, *, method: str = "GET", query: str = "", cookies: str = "") -> bytes:
    """One request, and the body of its answer."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": HOST,
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": HOST,
        "HTTP_USER_AGENT": AGENT,
        "HTTP_ACCEPT": "text/html,application/xhtml+xml",
        "HTTP_SEC_FETCH_DEST": "document",
        "REMOTE_ADDR": IP,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if cookies:
        environ["HTTP_COOKIE"] = cookies
    body = app(environ, _start_response)
    try:
        return b"".join(body)
    finally:
        body.close()


def _start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
    assert status < "4", status


def cookies_of(app: Flask, path: str) -> str:
    """What a new visitor's browser sends after a look at *path*."""
    client = app.test_client()
    client.get(path, base_url=f"https://{HOST}")
    kept = (client.get_cookie(name, domain=HOST) for name in _COOKIES)
    return "; ".join(f"{one.key}={one.value}" for one in kept if one)

"""A real nginx with a cache, in front of a Flask app that a thread serves."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.support import listening_at, program
from tests.support.serving import serving

#: Keeps what its headers allow; nginx itself leaves alone what sets a cookie.
HONEST = ""
#: Keeps everything, whatever the headers say, and hands it out as it came: cookies too.
HOARDING = """
    proxy_ignore_headers Cache-Control Set-Cookie Vary Expires;
    proxy_cache_valid any 10m;
"""
#: The same, but nobody is given a cookie by a page.
HIDING = HOARDING + "proxy_hide_header Set-Cookie;"
#: What a proxy has to tell the app; nginx does none of it by itself.
FORWARDING = """
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
"""

CONFIG = """
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=pages:1m use_temp_path=off;
  # As CDNs do for pages: the click id in the query makes no second copy.
  proxy_cache_key $host$uri;
  add_header X-Cache-Status $upstream_cache_status always;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      {forwarding}
      proxy_pass http://127.0.0.1:{upstream};
      proxy_cache pages;
      {location}
    }}
    {more}
  }}
}}
"""
ENDPOINTS = """
    location /_adroll/ {{ {forwarding} proxy_pass http://127.0.0.1:{upstream}; {identity} }}
"""


@dataclass
class CachedSite:
    """A site behind nginx."""

    app: Flask
    port: int
    cache: Path
    #: What reached the app: method, path and the status of its answer.
    hits: list[tuple[str, str, int]] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def stored(self) -> bytes:
        """Every byte that the cache keeps on its disk."""
        return b"".join(file.read_bytes() for file in self.cache.rglob("*") if file.is_file())


@contextmanager
def behind_nginx(
    app: Flask,
    folder: Path,
    location: str = HONEST,
    *,
    forwarding: str = FORWARDING,
    identity: str | None = "",
    proxies: int = 1,
) -> Iterator[CachedSite]:
    """Serve *app* behind an nginx that caches as *location* says.

    :param identity: directives for our endpoints, which are not cached; ``None``: they are
        treated as any page.
    :param proxies: how many ProxyFix is told of.
    """
    nginx = program("nginx", "nginx-light")
    # nginx inherits the socket, as from the nginx before it in an upgrade (`ngx_inherited`): who
    # looks for a free port and lets go of it may lose it to another test.
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    port = listening.getsockname()[1]
    site = CachedSite(app, port, folder / "cache")
    fixed = ProxyFix(app, x_for=proxies, x_proto=1)

    def noting(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, *rest: Any) -> Any:
            path = environ["PATH_INFO"].encode("latin-1").decode()  # PEP 3333
            site.hits.append((environ["REQUEST_METHOD"], path, int(status[:3])))
            return start_response(status, headers, *rest)

        return fixed(environ, start)

    folder.mkdir(exist_ok=True)
    config, log = folder / "nginx.conf", folder / "nginx.log"
    with serving(noting) as upstream, listening:
        more = ENDPOINTS.format(forwarding=forwarding, upstream=upstream, identity=identity)
        config.write_text(
            CONFIG.format(
                folder=folder,
                port=port,
                upstream=upstream,
                forwarding=forwarding,
                location=location,
                more="" if identity is None else more,
                # Root's workers would be nobody's, who may not write below pytest's folders.
                user="user root;" if os.geteuid() == 0 else "",
            )
        )
        command = [nginx, "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
        handed: dict[str, Any] = {"pass_fds": [listening.fileno()]}
        handed["env"] = os.environ | {"NGINX": f"{listening.fileno()};"}
        with listening_at(port, log, *command, **handed):
            yield site

"""Real shared caches before a Flask app that a thread serves: Apache's mod_cache, and Varnish.

nginx is in :mod:`tests.support.nginx`, which has more of it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.support import free_port, listening_at, program
from tests.support.nginx import CachedSite, behind_nginx
from tests.support.serving import serving

#: mod_cache as Debian enables it, and nothing of its settings changed.
APACHE = """
ServerRoot {folder}
ServerName 127.0.0.1
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog {folder}/error.log
Listen 127.0.0.1:{port}
{modules}
{user}
CacheRoot {folder}/cache
CacheEnable disk /
CacheHeader on
ProxyPreserveHost on
ProxyPass / http://127.0.0.1:{upstream}/
"""
MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http", "cache", "cache_disk")
VARNISH = """
vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{upstream}"; }}
sub vcl_deliver {{
    set resp.http.X-Hits = obj.hits;
}}
"""


@contextmanager
def behind_apache(app: Flask, folder: Path) -> Iterator[CachedSite]:
    """Serve *app* behind Apache with mod_cache."""
    apache = program("apache2", "apache2-bin")
    # Root's Apache works as another user, who may not enter pytest's folders.
    own = Path(tempfile.mkdtemp(prefix="apache-", dir="/tmp"))
    own.chmod(0o755)
    (own / "cache").mkdir(mode=0o700)
    user = ""
    if os.geteuid() == 0:
        shutil.chown(own / "cache", "nobody", "nogroup")
        user = "User nobody\nGroup nogroup"
    site = CachedSite(app, free_port(), own / "cache")
    library = "/usr/lib/apache2/modules"
    modules = "\n".join(f"LoadModule {name}_module {library}/mod_{name}.so" for name in MODULES)
    try:
        with serving(ProxyFix(app, x_for=1, x_host=1)) as upstream:
            config = own / "apache.conf"
            values = {"folder": own, "modules": modules, "user": user}
            config.write_text(APACHE.format(port=site.port, upstream=upstream, **values))
            command = (apache, "-f", str(config), "-DFOREGROUND")
            with listening_at(site.port, folder / "apache.log", *command):
                yield site
    finally:
        shutil.rmtree(own)


@contextmanager
def behind_varnish(app: Flask, folder: Path) -> Iterator[CachedSite]:
    """Serve *app* behind Varnish with its built-in rules."""
    varnish = program("varnishd", "varnish")
    site = CachedSite(app, free_port(), folder / "nothing")
    with serving(ProxyFix(app, x_for=1)) as upstream:
        rules = folder / "rules.vcl"
        rules.write_text(VARNISH.format(upstream=upstream))
        command = [varnish, "-F", "-f", str(rules), "-n", str(folder / "varnish")]
        command += ["-a", f"127.0.0.1:{site.port}", "-s", "default=malloc,16m", "-T", "none"]
        if os.geteuid() == 0:
            command[1:1] = ["-j", "none"]
        with listening_at(site.port, folder / "varnish.log", *command):
            yield site


#: By name.
CACHES = {"apache": behind_apache, "nginx": behind_nginx, "varnish": behind_varnish}

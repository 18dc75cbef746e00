"""docs/how-to/deploy/whole.md as it stands: nginx, gunicorn, PostgreSQL and a worker under one
supervisor, which reads the page's own units."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import requests

from adroll_flask.sandbox import RunningSandbox
from tests.support import ROOT, eventually, free_port, listening_at, program, ran
from tests.support.outbox_engines import database
from tests.support.pages import Page, Shell, blocks
from tests.support.supervisor import supervised

pytestmark = pytest.mark.slow

PAGE = "docs/how-to/deploy/whole.md"
FOLDER = ROOT / "docs" / "how-to" / "deploy"
NGINX = """{user}
pid {folder}/nginx.pid;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {server}
}}
"""


def code(section: str) -> str:
    return next(block.code for block in blocks(PAGE) if block.section == section)


def test_an_order_of_the_whole_server_arrives_with_the_visitors_address(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    nginx, app_port, port = program("nginx", "nginx-light"), free_port(), free_port()
    srv, var, run, etc = (tmp_path / name for name in ("srv", "var", "run", "env"))
    for path in (srv, var, run):
        path.mkdir()
    with Shell(srv) as shell, Page(PAGE, shell) as page:
        page.run()
    here = {
        "/srv/shop/.venv/bin": str(Path(sys.executable).parent),
        "/srv/shop": str(srv),
        "/etc/shop/env": str(etc),
        "/var/lib/shop": str(var),
        "/run/adroll-worker-%i": str(run),
        "127.0.0.1:8000": f"127.0.0.1:{app_port}",
        "listen 80": f"listen 127.0.0.1:{port}",
        # A visitor from elsewhere: here everybody is this machine.
        "$remote_addr": "203.0.113.7",
        "ADVERTISABLE0000000001": sandbox.account.advertisable_eid,
        "PIXEL00000000000000001": sandbox.account.pixel_eid,
        "the token": sandbox.account.access_token,
    }

    def told(text: str) -> str:
        for said, where in here.items():
            text = text.replace(said, where)
        return text

    units = {
        "shop": told((FOLDER / "shop.service").read_text()),
        "worker": told((FOLDER / "adroll-worker@.service").read_text()),
    }
    server = told((FOLDER / "shop.nginx").read_text())
    user = "user root;" if os.geteuid() == 0 else ""
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(user=user, folder=tmp_path, server=server))
    with database("postgresql", whole=True) as url:
        settings = told(code("What the shop and the worker agree on"))
        settings = re.sub(r"postgresql://.*", f'"{url}"', settings)
        etc.write_text(f"{settings}FLASK_ADROLL_API_URL={sandbox.api_url}\nPYTHONPATH={ROOT}\n")
        command = [nginx, "-p", str(tmp_path), "-c", str(config), "-g", "daemon off;"]
        with (
            supervised(tmp_path, units) as running,
            listening_at(port, tmp_path / "nginx.log", *command),
        ):
            worker = running["worker"]
            environment = {**os.environ, **worker.environment}
            flask = str(Path(sys.executable).parent / "flask")

            def delivered() -> int:
                overview = ran(flask, "adroll", "outbox", "--json", cwd=srv, env=environment)
                return int(json.loads(overview)["counts"]["delivered"])

            buy(f"http://127.0.0.1:{port}", sandbox)
            # Killed between AdRoll's answer and the note of it, the order would wait for its lease.
            eventually(lambda: delivered() == 1)
            assert worker.process is not None
            os.kill(worker.process.pid, signal.SIGKILL)
            buy(f"http://127.0.0.1:{port}", sandbox)
            assert worker.starts == 2
            assert f"and the journal {var}/adroll-journal." in worker.log()
            assert "Reads the outbox postgresql" in worker.log()
            eventually(lambda: delivered() == 2)


def buy(url: str, sandbox: RunningSandbox) -> None:
    """A visitor comes by an ad and buys, and AdRoll has the order from the visitor's address."""
    host = {"Host": "shop.example", "X-Forwarded-For": "198.51.100.66"}
    with requests.Session() as visitor:
        visitor.headers.update(host)

        def is_up() -> bool:
            return visitor.get(f"{url}/?adct=click123", timeout=60).status_code == 200

        eventually(is_up)
        page = visitor.get(f"{url}/", timeout=60).text
        order = page.partition("/orders/")[2].partition(">")[0]
        visitor.post(f"{url}/orders/{order}", timeout=60).raise_for_status()
    eventually(lambda: sandbox.purchases(order_id=order))
    [record] = sandbox.purchases(order_id=order)
    event = record["event"]
    assert (event["ip"], event["identifiers"]["adct"]) == ("203.0.113.7", "click123")

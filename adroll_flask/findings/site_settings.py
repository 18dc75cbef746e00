"""``flask adroll check`` and ``send-test``: all that is wrong with this site, each with its fix."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.test import Client

from adroll_flask.delivery import thread
from adroll_flask.errors import AdRollError, ConfigurationError
from adroll_flask.events.build import trial_event
from adroll_flask.outbox.location import places, wrong_places
from adroll_flask.outbox.model import OutboxFailed
from adroll_flask.plurals import counted
from adroll_flask.redaction import describe, safe_url
from adroll_flask.runtime import Runtime
from adroll_flask.settings import Account, Settings
from adroll_flask.visitor.identifiers import is_public_ip
from adroll_flask.visitor.record import FIRST_PARTY_COOKIE

if TYPE_CHECKING:
    from adroll_flask.delivery.client import Client as DeliveryClient

from .finding import TABLE, Finding, found, meaning, ok
from .rules import Moment, open_findings


def check_app(app: Flask, runtime: Runtime, *, ask_endpoints: bool = True) -> list[Finding]:
    """Look over an app; every check runs, whatever the others found.

    :param ask_endpoints: whether this app's own endpoints are asked. Meanwhile no report of this
        process is kept, so not where visitors are served.
    """
    settings = runtime.settings
    findings: list[Finding] = []
    for check in (
        _account(runtime),
        _keys(runtime),
        _settings(app, settings),
        _endpoints(app, runtime, ask_endpoints),
        _policy(settings),
        _outbox(runtime),
        _uwsgi(settings),
    ):
        try:
            findings += check
        except Exception as problem:
            findings.append(found("check-failed", "check", problem=describe(problem)))
    return findings


def check_start(problem: ConfigurationError) -> list[Finding]:
    """What keeps an app from starting, in the form of the other findings.

    :param problem: what making the app, or asking it for its AdRoll, raised.
    """
    findings = []
    for fault in (problem, *problem.others):
        kind = "value" if fault.problem.startswith("takes") else "name"
        todo = TABLE["check-failed/start"][kind] if fault.key.startswith("ADROLL_") else ""
        findings.append(Finding("error", fault.slug, fault.key, fault.problem, todo, "developer"))
    return [*findings, found("check-failed/rest", "check")]


def _tried(settings: Settings) -> Account:
    """The account that is tried: where each host has its own, the first of them."""
    return next(iter(settings.served_accounts.values()), settings.account)


def _client(runtime: Runtime) -> DeliveryClient:
    """The real client, of the account that is tried."""
    from adroll_flask.delivery import client, transport

    network = runtime.transport or transport.RequestsTransport()
    return client.Client(runtime.settings, _tried(runtime.settings), network, runtime.clock)


def _account(runtime: Runtime) -> Iterator[Finding]:
    settings = runtime.settings
    for name in ("advertisable_eid", "pixel_eid"):
        eid = getattr(settings, name)
        if eid and len(eid) != 22:
            yield found("eid-length", f"ADROLL_{name.upper()}", length=len(eid))
    if callable(_tried(settings).access_token):
        try:
            _client(runtime).token()
        except AdRollError as problem:
            name = "ADROLL_ACCESS_TOKEN" if settings.access_token else "ADROLL_ACCOUNTS"
            yield found("token-callable", name, problem=problem)
    if not settings.missing:
        yield ok("account", "all three values are set; try `flask adroll send-test`")


def _keys(runtime: Runtime) -> Iterator[Finding]:
    keys = runtime.signing_keys()
    if not keys:
        yield found("secret-key-missing", "SECRET_KEY")
    elif len(keys[0]) < 16:
        yield found("secret-key-short", "SECRET_KEY")
    else:
        yield ok("keys", f"{len(keys)} to verify with, the newest signs")


def _settings(app: Flask, settings: Settings) -> Iterator[Finding]:
    config, consent, domain = app.config, settings.consent, settings.cookie_domain
    server = str(config.get("SERVER_NAME") or "").partition(":")[0]
    ours = (settings.cookie_name, FIRST_PARTY_COOKIE)
    covered = domain == "auto" or f".{server}".endswith(f".{domain}")
    # The commands make an app of this name for a site on another framework: its debug says nothing
    # of the site's own.
    is_strict = settings.strict and not app.debug and not app.testing
    is_flask = app.import_name != "adroll_flask"
    so = {
        "host-not-listed": not settings.is_real(server),
        "strict-in-production": is_strict and is_flask,
        "strict-in-production/elsewhere": is_strict and not is_flask,
        "email-in-clear": "plain" in settings.email,
        "consent-not-set": consent is None,
        "tcf-and-banner": consent == "tcf" and settings.pixel == "load",
        "session-cookie-name": config.get("SESSION_COOKIE_NAME") in ours,
        "cookie-insecure": settings.cookie_secure is False and config.get("SESSION_COOKIE_SECURE"),
        "cookie-domain": server and domain and not covered,
        "cached-paths": settings.cached_paths and not settings.inject,
    }
    yield from (found(name, name=server) for name, is_so in so.items() if is_so)
    address = safe_url(settings.api_url)
    if settings.sandbox:
        yield found("api-url-elsewhere/sandbox", value=settings.sandbox, address=address)
        parts = urlsplit(settings.api_url)
        try:
            socket.create_connection((parts.hostname or "", parts.port or 80), timeout=2).close()
        except OSError:
            port = "" if settings.sandbox is True else f" --port {parts.port}"
            yield found("sandbox-away", address=address, port=port)
    elif settings.api_url != type(settings)().api_url:
        yield found("api-url-elsewhere", address=address)


def _endpoints(app: Flask, runtime: Runtime, ask: bool) -> Iterator[Finding]:
    """Ask our own endpoints through the app: a login guard may stand before them."""
    settings = runtime.settings
    if settings.enabled and not ask:
        yield found("endpoints-not-asked", "endpoints")
    if not (settings.enabled and ask):
        return
    client, prefix = app.test_client(use_cookies=False), settings.url_prefix
    ours = str(app.config.get("APPLICATION_ROOT") or "/").rstrip("/") + prefix
    path = f"{ours}/kit.{runtime.snippet.hash}.js"
    with runtime.collecting(None):
        kit = client.get(path).status_code
        # Without a body: refused by our endpoint with 415, so nothing is kept.
        answer = client.post(f"{ours}/identity", headers={"Sec-Fetch-Site": "same-origin"})
    identity = answer.status_code
    for name, got, wanted in (("kit", kit, 200), ("identity", identity, 415)):
        if got != wanted:
            yield found("endpoint-taken", f"{prefix}/{name}", got=got, prefix=prefix)
    if (kit, identity) == (200, 415):
        yield ok("endpoints", f"{prefix}/ answers")
    django = sys.modules.get("django.conf")
    if app.import_name == "adroll_flask" and django is not None and django.settings.configured:
        from django.core.servers.basehttp import get_internal_wsgi_application

        # What `manage.py runserver` serves, by Django's own word.
        served = Client(get_internal_wsgi_application()).get(path).headers
        if "javascript" not in served.get("Content-Type", ""):
            debug = django.settings.DEBUG
            yield found("bypassed/django", "WSGI_APPLICATION", severity="error" if debug else None)


def _policy(settings: Settings) -> Iterator[Finding]:
    """What a Content-Security-Policy of this site has to allow, for kit and pixel."""
    parts = urlsplit(safe_url(settings.pixel_url))
    host = f"{parts.scheme}://{parts.netloc}"
    # The script comes from one host of AdRoll's, and loads from and talks to another.
    more = "https://d.adroll.com" if host == "https://s.adroll.com" else host
    if settings.csp_nonce is not None:
        yield ok("ADROLL_CSP_NONCE", "the tag carries the response's nonce")
    else:
        scripts = " ".join(dict.fromkeys((host, more)))
        name = "csp/no-pixel" if settings.pixel == "none" else "csp"
        yield found(name, scripts=scripts, more=more)


def _outbox(runtime: Runtime) -> Iterator[Finding]:
    """The outbox's place, and all that is open now."""
    try:
        place = runtime.outbox.place
        wrong = list(_places(runtime))
        yield from wrong
        is_ready = _is_made(runtime)
        if is_ready:
            runtime.outbox.ingest.take_in(patience=5.0)
    except (OutboxFailed, ConfigurationError) as problem:
        yield from open_findings(Moment(runtime, trouble=problem))
        return
    # What the rules ask would make the tables of a server, or of an empty file.
    moment = Moment(runtime, look=is_ready or not runtime.outbox.exists())
    yield from open_findings(moment)
    engine = runtime.outbox.database.dialect
    if is_ready:
        yield ok("outbox", f"{engine}, {moment.number} waiting")
        if not runtime.settings.sandbox:  # whose visitors are this machine's
            yield from _addresses(runtime)
    elif not isinstance(place, Path) or place.exists():
        yield found("outbox-not-made", "outbox", place=engine)
    elif not wrong:
        folder, instance = place.parent, Path(runtime.folder).absolute()
        there = next(parent for parent in place.parents if parent.exists())
        # A typo must show before the first report makes the folder.
        if there != folder and folder != instance and instance not in folder.parents:
            yield found("outbox-not-made/folder", "ADROLL_OUTBOX_URL", path=place)
        else:
            yield found("outbox-not-made/file", "outbox", path=place)


def _is_made(runtime: Runtime) -> bool:
    """Whether there is an outbox with its tables; looking makes neither.

    :raises OutboxFailed: its database cannot be worked with.
    :raises ConfigurationError: there is no outbox over such a database.
    """
    place = runtime.outbox.place
    try:
        if isinstance(place, Path) and not place.exists():
            # What waits in the journal makes it, as soon as somebody looks.
            return runtime.outbox.exists()
    except OSError as problem:
        raise OutboxFailed("read_only", type(problem).__name__) from None
    # So it is while somebody else is about to make its tables.
    is_new = isinstance(place, Path) and runtime.outbox.lookups.bytes_waiting() > 0
    return runtime.outbox.database.has_tables() or is_new


def _places(runtime: Runtime) -> Iterator[Finding]:
    folder = Path(runtime.folder).absolute()
    for variant, key, place, problem in wrong_places(runtime.settings, folder):
        yield found(f"folder-not-writable{variant}", key, problem=problem, place=place)
    for key, place in places(runtime.settings, folder):
        kind = _file_system(place.resolve())
        if _NETWORK.fullmatch(kind):
            yield found("folder-on-network", key, place=place, kind=kind)


#: Where Linux tells what is mounted (proc_pid_mountinfo(5)).
MOUNTS: Final = Path("/proc/self/mountinfo")
#: Types of file systems whose files are on another machine: SQLite's WAL does not work over a
#: network (https://sqlite.org/wal.html), and a lock of one machine may mean nothing on another.
_NETWORK: Final = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|beegfs"
    r"|fuse\.(sshfs|s3fs|gcsfuse|rclone|ceph|glusterfs|blobfuse2?|juicefs|davfs)"
)


def _file_system(path: Path) -> str:
    """The type of the file system of *path*; empty where nobody tells."""
    found = Path(), ""
    with suppress(OSError):
        for line in MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
            about, _, kind = line.partition(" - ")
            escaped = about.split(" ")[4]
            place = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
            # The last one that is mounted at a place hides those before.
            if path.is_relative_to(place) and len(place.parts) >= len(found[0].parts):
                found = place, kind.partition(" ")[0]
    return found[1]


def _addresses(runtime: Runtime) -> Iterator[Finding]:
    """Whether reports carry the visitor's address, or that of a proxy before the app."""
    lookups = runtime.outbox.lookups
    rows = lookups.those([row.id for row in lookups.list("waiting", 50)])
    ips = [json.loads(row.payload).get("ip") for row in rows if row.payload]
    seen = [is_public_ip(ip) for ip in ips if isinstance(ip, str)]
    if private := seen.count(False):
        waiting = counted(len(seen), "waiting event")
        yield found("proxy-address", "addresses", private=private, waiting=waiting)


def _uwsgi(settings: Settings) -> Iterator[Finding]:
    if settings.delivery == "thread" and not thread.threads_are_on():
        yield found("uwsgi-threads", "uWSGI")


# -- one event through the real client, and what AdRoll answers ------------------------------------

_HEADERS: Final = (
    "Authorization: Token ********",
    "Content-Type: application/json",
    "Content-Encoding: gzip",
)


@dataclass(frozen=True, slots=True)
class SendTestResult:
    """What came of it.

    :param meaning: what the answer means, as a person reads it.
    :param request: the address and the body; the token is not in it.
    """

    ok: bool
    meaning: str
    request: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)

    def as_text(self) -> str:
        """The result as a person reads it; the token is not in it."""
        lines = []
        if self.request:
            body = json.dumps(self.request["body"], indent=2)
            lines = [f"POST {self.request['url']}", *_HEADERS, "", body, ""]
        if self.answer:
            lines.append(f"answer: {self.answer['status'] or 'none'} ({self.answer['reason']})")
            lines += [f"        {text}" for text in self.answer["errors"]]
        return "\n".join([*lines, self.meaning])


def send_test_event(runtime: Runtime, name: str) -> SendTestResult:
    """Send one event with ``dry_run=true`` through the real client.

    :param name: one of the thirteen.
    """
    settings = runtime.settings
    if missing := " and ".join(settings.missing):
        return SendTestResult(False, f"{missing} not set: {meaning('answer', 'none').title}")
    try:
        payload = trial_event(_tried(settings), time.time(), name)
        sender = _client(runtime)
        answer = sender.send([payload], True, sender.token())
    except AdRollError as problem:
        return SendTestResult(False, f"Nothing was sent: {problem}")
    said = {name: getattr(answer, name) for name in ("status", "reason", "kind", "errors")}
    request = {"url": sender.url(dry_run=True), "body": [json.loads(payload)]}
    title = meaning("answer", answer.kind).title
    return SendTestResult(answer.kind == "accepted", title, request, said)

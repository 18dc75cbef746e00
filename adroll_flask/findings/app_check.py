"""``flask adroll check`` and ``send-test``: all that is wrong with this site, each with its fix."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.test import Client

from adroll_flask import forks
from adroll_flask.accounts import Account
from adroll_flask.errors import AdRollError, ConfigurationError
from adroll_flask.events.build import trial_event
from adroll_flask.logs import logger
from adroll_flask.outbox import clocks
from adroll_flask.outbox.location import is_network, mount_of, places, wrong_places
from adroll_flask.outbox.model import OutboxFailed
from adroll_flask.redaction import describe, safe_url
from adroll_flask.runtime import Runtime
from adroll_flask.settings import Settings, fleeting_host
from adroll_flask.visitor.request_cookies import cookie_names

if TYPE_CHECKING:
    from adroll_flask.delivery.client import Answer
    from adroll_flask.delivery.client import Client as DeliveryClient

from .finding import TABLE, Finding, finding_of, meaning, ok
from .rules import Moment, open_findings, own_settings, wrong_clock


def check_app(
    app: Flask, runtime: Runtime, *, ask_endpoints: bool = True, account: str | None = None
) -> list[Finding]:
    """Look over an app; every check runs, whatever the others found.

    :param ask_endpoints: whether this app's own endpoints are asked. Meanwhile no report of this
        process is kept, so not where visitors are served.
    :param account: the advertisable EID of the shop that is looked at; ``None``: all shops.
    """
    findings: list[Finding] = []
    for check in (
        _account(runtime, account),
        _settings(app, runtime),
        _late_settings(app, runtime.settings),
        _own_endpoints(app, runtime, ask_endpoints),
        _policy(runtime.settings),
        _outbox(runtime, account),
    ):
        try:
            findings += check
        except Exception as problem:
            findings.append(finding_of("check-failed", problem=describe(problem)))
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
    return [*findings, finding_of("check-failed/rest")]


def _tried(settings: Settings, eid: str | None) -> Account:
    """The account to try: that of *eid*; ``None``: the first one."""
    accounts = settings.served_accounts
    return accounts.get(eid or "") or next(iter(accounts.values()), settings.account)


def _client(runtime: Runtime, account: Account) -> DeliveryClient:
    """The real client of *account*."""
    from adroll_flask.delivery import client, transport

    network = runtime.transport or transport.RequestsTransport()
    return client.Client(runtime.settings, account, network, runtime.clock)


def _account(runtime: Runtime, eid: str | None) -> Iterator[Finding]:
    settings = runtime.settings
    accounts = settings.served_accounts.values() if eid is None else [_tried(settings, eid)]
    for account in accounts:
        own_eid = account.advertisable_eid or ""
        for name in ("advertisable_eid", "pixel_eid"):
            length = len(getattr(account, name) or "")
            if length not in (0, 22):
                yield finding_of("eid-length", settings.setting_of(own_eid, name), length=length)
        if callable(account.access_token):
            try:
                _client(runtime, account).token()
            except AdRollError as problem:
                name = settings.setting_of(own_eid, "access_token")
                yield finding_of("token-callable", name, problem=problem)
    if not settings.missing:
        yield ok("account", "all three values are set; try `flask adroll send-test`")


def _settings(app: Flask, runtime: Runtime) -> Iterator[Finding]:
    settings = runtime.settings
    keys = runtime.signing_keys()
    config = app.config
    domain = settings.cookie_domain
    server = str(config.get("SERVER_NAME") or "").partition(":")[0]
    covered = domain == "auto" or f".{server}".endswith(f".{domain}")
    # For a site on another framework the commands make an app whose name begins so. Its debug mode
    # says nothing of the site's own.
    is_strict = settings.strict and not app.debug and not app.testing
    is_flask = not app.import_name.startswith("adroll_flask")
    applies = {
        "secret-key-missing": not keys,
        "secret-key-short": keys and len(keys[0]) < 16,
        "host-not-listed": not settings.is_real(server),
        "strict-in-production": is_strict and is_flask,
        "strict-in-production/elsewhere": is_strict and not is_flask,
        "email-in-clear": "plain" in settings.email,
        "consent-not-set": settings.consent is None,
        "tcf-and-banner": settings.consent == "tcf" and settings.pixel == "load",
        "session-cookie-name": config.get("SESSION_COOKIE_NAME") in cookie_names(settings),
        "cookie-insecure": settings.cookie_secure is False and config.get("SESSION_COOKIE_SECURE"),
        "cookie-domain": server and domain and not covered,
        "cached-paths": settings.cached_paths and not settings.inject,
        "uwsgi-threads": settings.delivery == "thread" and not forks.threads_are_on(),
    }
    yield from (finding_of(name, name=server) for name in applies if applies[name])
    if keys and not applies["secret-key-short"]:
        yield ok("keys", f"{len(keys)} to verify with, the newest signs")
    address = safe_url(settings.api_url)
    if settings.sandbox:
        yield finding_of("api-url-elsewhere/sandbox", value=settings.sandbox, address=address)
        parts = urlsplit(settings.api_url)
        try:
            socket.create_connection((parts.hostname or "", parts.port or 80), timeout=2).close()
        except OSError:
            port = "" if settings.sandbox is True else f" --port {parts.port}"
            yield finding_of("sandbox-away", address=address, port=port)
    elif settings.api_url != type(settings)().api_url:
        yield finding_of("api-url-elsewhere", address=address)


def _late_settings(app: Flask, settings: Settings) -> Iterator[Finding]:
    """What stands in ``app.config`` and did not when ``AdRoll(app)`` read it."""
    if app.import_name.startswith("adroll_flask"):  # Another framework's: its config is no site's.
        return
    try:
        now = Settings.from_mapping(app.config)
        names = [setting.name for setting in fields(now)]
        changed = [name for name in names if getattr(now, name) != getattr(settings, name)]
        late = [f"ADROLL_{name.upper()}" for name in changed]
    except ConfigurationError as fault:  # A value that AdRoll(app) would have refused.
        late = [wrong.key for wrong in (fault, *fault.others)]
    yield from (finding_of("setting-late", key) for key in late)


def _own_endpoints(app: Flask, runtime: Runtime, ask: bool) -> Iterator[Finding]:
    """Ask our own endpoints through the app: a login guard may stand before them."""
    settings = runtime.settings
    if settings.enabled and not ask:
        yield finding_of("endpoints-not-asked")
    if not (settings.enabled and ask):
        return
    client = app.test_client(use_cookies=False)
    prefix = settings.url_prefix
    path = f"{prefix}/kit.{runtime.snippet.hash}.js"
    # As browsers ask the real site: one that redirects to https, or that refuses other hosts than
    # its own (Flask 3.1), would answer something else.
    trusted = app.config.get("TRUSTED_HOSTS") or ["localhost"]
    site = f"https://{app.config.get('SERVER_NAME') or trusted[0].removeprefix('.')}"
    root = str(app.config.get("APPLICATION_ROOT") or "").rstrip("/")
    with runtime.collecting(None):
        kit = client.get(f"{site}{root}{path}").status_code
        if root and kit != 200:  # The server takes the root off, not a dispatcher in the app.
            root = ""
            kit = client.get(f"{site}{path}").status_code
        # Without a body our endpoint refuses it with 415, so nothing is kept.
        same_origin = {"Sec-Fetch-Site": "same-origin"}
        answer = client.post(f"{site}{root}{prefix}/identity", headers=same_origin)
    identity = answer.status_code
    for name, got, wanted in (("kit", kit, 200), ("identity", identity, 415)):
        if got != wanted:
            yield finding_of("endpoint-taken", f"{prefix}/{name}", got=got, prefix=prefix)
    if (kit, identity) == (200, 415):
        yield ok("endpoints", f"{prefix}/ answers")
    django = sys.modules.get("django.conf")
    if app.import_name == "adroll_flask" and django is not None and django.settings.configured:
        from django.core.servers.basehttp import get_internal_wsgi_application

        # What `manage.py runserver` serves, by Django's own word.
        served = Client(get_internal_wsgi_application()).get(path).headers
        if "javascript" not in served.get("Content-Type", ""):
            level = "error" if django.settings.DEBUG else None
            yield finding_of("bypassed/django", severity=level)


def _policy(settings: Settings) -> Iterator[Finding]:
    """What a Content-Security-Policy of this site has to allow, for kit and pixel."""
    parts = urlsplit(safe_url(settings.pixel_url))
    host = f"{parts.scheme}://{parts.netloc}"
    # The script comes from one host of AdRoll's. It loads more from another, and talks to that.
    more = "https://d.adroll.com" if host == "https://s.adroll.com" else host
    if settings.csp_nonce is not None:
        yield ok("ADROLL_CSP_NONCE", "the tag carries the response's nonce")
    else:
        scripts = " ".join(dict.fromkeys((host, more)))
        name = "csp/no-pixel" if settings.pixel == "none" else "csp"
        yield finding_of(name, scripts=scripts, more=more)


def _outbox(runtime: Runtime, account: str | None) -> Iterator[Finding]:
    """The outbox's place, and all that is wrong now."""
    try:
        place = runtime.outbox.place
        wrong = list(_places(runtime))
        yield from wrong
        is_ready = runtime.outbox.is_made()
        if is_ready:
            runtime.outbox.ingest.take_in(patience=5.0)
    except (OutboxFailed, ConfigurationError) as problem:
        yield from open_findings(Moment(runtime, look=False), problem)
        return
    # The rules' questions would make the tables, of a server or of an empty file.
    look = is_ready or not runtime.outbox.exists()
    moment = Moment(runtime, look=look, account=account)
    now = open_findings(moment)
    yield from now
    engine = runtime.outbox.database.dialect
    if is_ready:
        yield ok("outbox", f"{engine}, {moment.number_waiting} waiting")
    elif not isinstance(place, Path) or place.exists():
        yield finding_of("outbox-not-made", place=engine)
    elif not wrong and all(finding.code != "folder-not-writable" for finding in now):
        is_usual = place.is_relative_to(Path(runtime.folder))
        # A typo must show before the first report makes the folder.
        name = "file" if is_usual or place.parent.exists() else "folder"
        yield finding_of(f"outbox-not-made/{name}", path=place)


def _places(runtime: Runtime) -> Iterator[Finding]:
    """Where events are perhaps not kept for long."""
    settings = runtime.settings
    folder = Path(runtime.folder)
    host = fleeting_host()
    for variant, key, place, problem in wrong_places(settings, folder):
        if variant == "group":  # what cannot be written at all is among what is wrong now
            yield finding_of("folder-not-writable/group", key, problem=problem, folder=place)
    for key, place in places(settings, folder):
        mount, kind = mount_of(place.resolve())
        if is_network(kind):
            yield finding_of("folder-on-network", key, place=place, kind=kind)
        is_journal = key == "ADROLL_JOURNAL_FOLDER"
        is_beside = is_journal and settings.outbox_commit == "database"
        # On the disk of the container itself, and not on a volume.
        if host and not is_beside and mount in (Path(), Path("/")):
            name = "disk-not-kept/journal" if is_journal else "disk-not-kept"
            yield finding_of(name, key, place=place, host=host)


# -- one event through the real client, and what AdRoll answers ------------------------------------


@dataclass(frozen=True, slots=True)
class SendTestResult:
    """What came of a test event.

    :param meaning: what the answer means, as a person reads it.
    :param request: the address and the body; the token is not in it.
    :param clock_ahead: seconds by which this host's clock is ahead of AdRoll's, where that is too
        much; behind: below 0.
    """

    ok: bool
    meaning: str
    request: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    clock_ahead: float = 0.0

    def clock_findings(self) -> list[Finding]:
        """What is wrong with this host's clock by AdRoll's answers."""
        here = clocks.WrongClock("adroll", clocks.this_host(), self.clock_ahead)
        return list(wrong_clock(here))

    def as_text(self) -> str:
        """The result as a person reads it; the token is not in it."""
        lines = []
        if self.request:
            body = json.dumps(self.request["body"], indent=2)
            lines = [f"POST {self.request['url']}", body]
        if self.answer:
            lines.append(f"answer: {self.answer['status'] or 'none'} ({self.answer['reason']})")
            lines += [f"        {text}" for text in self.answer["errors"]]
        lines += [f"clock:  {finding.sentence}" for finding in self.clock_findings()]
        return "\n".join([*lines, self.meaning])


def send_test_event(runtime: Runtime, name: str, eid: str | None = None) -> SendTestResult:
    """Send one event with ``dry_run=true`` through the real client.

    :param name: one of the thirteen.
    :param eid: the advertisable EID of the account that is tried; ``None``: the first.
    """
    settings = runtime.settings
    account = _tried(settings, eid)
    if missing := " and ".join(settings.missing):
        return SendTestResult(False, f"{missing} not set: {meaning('answer', 'none').title}")
    try:
        payload = trial_event(account, time.time(), name)
        sender = _client(runtime, account)
        answer = sender.send([payload], True, sender.token())
        clock = _clock_by(answer, lambda: sender.send([payload], True, sender.token()))
    except AdRollError as problem:
        return SendTestResult(False, f"Nothing was sent: {problem}")
    if answer.kind == "accepted":
        _end_stop_of(runtime, sender)
    parts = {name: getattr(answer, name) for name in ("status", "reason", "kind", "errors")}
    request = {"url": sender.url(dry_run=True), "body": [json.loads(payload)]}
    own = own_settings(Moment(runtime, look=False, account=account.advertisable_eid))
    title = meaning("answer", answer.kind, **own).title
    return SendTestResult(answer.kind == "accepted", title, request, parts, clock)


def _clock_by(answer: Answer, ask_again: Callable[[], Answer]) -> float:
    """Seconds by which this host's clock is ahead (behind: below 0), where two of AdRoll's answers
    agree that it is wrong; else 0."""
    ahead = answer.clock_ahead or 0.0
    if abs(ahead) < clocks.WARNS_FROM:
        return 0.0
    again = ask_again().clock_ahead or 0.0
    return again if abs(again - ahead) <= clocks.AGREES else 0.0


def _end_stop_of(runtime: Runtime, sender: DeliveryClient) -> None:
    """End a stop that began with this very account, token and address."""
    with suppress(OutboxFailed):  # which other findings say
        if not runtime.outbox.exists():
            return
        destination = runtime.outbox.destination(sender.account.advertisable_eid or "")
        fingerprint = sender.fingerprint(sender.token())
        if destination.state().fingerprint == fingerprint and destination.resume(fingerprint):
            logger.warning("AdRoll takes a test event: the stop has ended [delivery-stopped]")
            runtime.outbox.wake_up.wake()

"""``flask adroll check`` and ``send-test``: what is wrong with this site, all of it, with mends."""

from __future__ import annotations

import configparser
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from . import uwsgi
from .errors import ConfigurationError
from .identifiers import is_public_ip
from .plurals import counted
from .redaction import describe, safe_url
from .visitor import FIRST_PARTY_COOKIE, RECORD_COOKIE

if TYPE_CHECKING:
    from flask import Flask

    from .runtime import Runtime
    from .settings import Settings

Level = Literal["error", "warning", "info", "ok"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    subject: str
    text: str
    #: What to do about it; empty where there is nothing to do.
    mend: str = ""

    def as_dict(self) -> dict[str, str]:
        """The finding as JSON takes it."""
        return asdict(self)


def check_app(app: Flask, runtime: Runtime, *, uwsgi_ini: Path | None = None) -> list[Finding]:
    """Look over an app; every check runs, whatever the others found.

    :param uwsgi_ini: a uWSGI configuration to look over too.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _account(runtime.settings),
        lambda: _keys(app, runtime),
        lambda: _modes(app, runtime.settings),
        lambda: _cookies(app, runtime.settings),
        lambda: _doors(app, runtime),
        lambda: _csp(runtime.settings),
        lambda: _outbox(runtime),
        lambda: _uwsgi(runtime.settings, uwsgi_ini),
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as problem:
            findings.append(
                Finding("error", "check", f"could not be completed: {describe(problem)}")
            )
    return findings


def check_start(problem: ConfigurationError) -> list[Finding]:
    """What keeps an app from starting, in the form of the other findings.

    :param problem: what making the app, or asking it for its AdRoll, raised.
    """
    findings = []
    for fault in (problem, *problem.others):
        mend = ""
        if fault.key.startswith("ADROLL_"):
            mend = (
                "give it what it takes, or remove it to have the default"
                if fault.problem.startswith("takes")
                else "correct its name, or remove it"
            ) + " (docs/configuration.md)"
        findings.append(Finding("error", fault.key, fault.problem, mend))
    return [*findings, Finding("info", "check", "looks at the rest once this is mended")]


def _account(settings: Settings) -> Iterator[Finding]:
    where = {
        "ADROLL_ADVERTISABLE_EID": "the id in AdRoll's dashboard, 22 upper-case letters and digits",
        "ADROLL_PIXEL_EID": "the id in AdRoll's dashboard, 22 upper-case letters and digits",
        "ADROLL_ACCESS_TOKEN": "ask your AdRoll account manager for a Server Access Token",
    }
    for key in settings.missing:
        yield Finding("error", key, "is not set; events wait in the outbox", where[key])
    for name in ("advertisable_eid", "pixel_eid"):
        eid = getattr(settings, name)
        if eid and len(eid) != 22:
            yield Finding(
                "warning",
                f"ADROLL_{name.upper()}",
                f"has {len(eid)} characters, AdRoll's ids usually have 22",
                "compare it with AdRoll's dashboard",
            )
    if callable(settings.access_token):
        try:
            token = settings.access_token()
        except Exception as problem:
            yield Finding(
                "error",
                "ADROLL_ACCESS_TOKEN",
                f"the callable raised {describe(problem)}",
                "make it return the token",
            )
        else:
            if not isinstance(token, str) or not token:
                yield Finding(
                    "error",
                    "ADROLL_ACCESS_TOKEN",
                    "the callable returned no text",
                    "make it return the token",
                )
    if not settings.missing:
        yield Finding("ok", "account", "all three values are set; try `flask adroll send-test`")


def _keys(app: Flask, runtime: Runtime) -> Iterator[Finding]:
    from .settings import app_keys

    keys = runtime.settings.secret_key or app_keys(app.config)
    if not keys:
        yield Finding(
            "error",
            "SECRET_KEY",
            "is not set: no click id and no cookie can be kept",
            "set SECRET_KEY (or ADROLL_SECRET_KEY) to a long random text, the same on every host",
        )
    elif len(keys[0]) < 16:
        yield Finding(
            "warning",
            "SECRET_KEY",
            "is short enough to be guessed; who knows it can forge visitors and tokens",
            "python -c 'import secrets; print(secrets.token_hex())'",
        )
    else:
        yield Finding("ok", "keys", f"{len(keys)} to verify with, the newest signs")


def _modes(app: Flask, settings: Settings) -> Iterator[Finding]:
    if not settings.enabled:
        yield Finding("warning", "ADROLL_ENABLED", "is False: nothing is captured or reported")
    if settings.dry_run:
        yield Finding(
            "warning",
            "ADROLL_DRY_RUN",
            "is True: AdRoll validates events and forgets them",
            "set it to False to have conversions counted",
        )
    if settings.strict and not app.debug and not app.testing:
        yield Finding(
            "warning",
            "ADROLL_STRICT",
            "is True outside of debugging and tests: a wrong event raises in a checkout",
            "leave it unset",
        )
    if "plain" in settings.email:
        yield Finding(
            "info", "ADROLL_EMAIL", "addresses leave the server in clear text, as configured"
        )
    if settings.api_url != type(settings)().api_url:
        yield Finding(
            "info", "ADROLL_API_URL", f"events go to {safe_url(settings.api_url)}, not to AdRoll"
        )
    if settings.consent is None:
        yield Finding(
            "info",
            "ADROLL_CONSENT",
            "is not set: visitors count as consenting unless their browser sends Sec-GPC",
            "where consent is needed, set 'tcf' or a callable (docs/privacy.md)",
        )


def _cookies(app: Flask, settings: Settings) -> Iterator[Finding]:
    names = (RECORD_COOKIE, FIRST_PARTY_COOKIE)
    if app.config.get("SESSION_COOKIE_NAME") in names:
        yield Finding(
            "error",
            "SESSION_COOKIE_NAME",
            "is the name of one of AdRoll's cookies",
            "give the session another name",
        )
    if settings.cookie_secure is False and app.config.get("SESSION_COOKIE_SECURE"):
        yield Finding(
            "warning",
            "ADROLL_COOKIE_SECURE",
            "is False on a site whose session is https only",
            "leave it unset: it follows the request",
        )
    server = str(app.config.get("SERVER_NAME") or "").partition(":")[0]
    domain = settings.cookie_domain
    if server and domain and domain != "auto" and not f".{server}".endswith(f".{domain}"):
        yield Finding(
            "error",
            "ADROLL_COOKIE_DOMAIN",
            "does not cover SERVER_NAME: browsers would refuse the cookie there",
            "use a parent domain of the site, or 'auto'",
        )
    if settings.cached_paths and not settings.inject:
        yield Finding(
            "warning",
            "ADROLL_CACHED_PATHS",
            "on cached pages only the kit captures, and ADROLL_INJECT is False",
            "place {{ adroll_snippet() }} in their template",
        )


def _doors(app: Flask, runtime: Runtime) -> Iterator[Finding]:
    """Ask our own endpoints through the app: a login guard may stand before them."""
    settings = runtime.settings
    if not settings.enabled:
        return
    client = app.test_client(use_cookies=False)
    prefix = str(app.config.get("APPLICATION_ROOT") or "/").rstrip("/")
    with runtime.trying():
        answers = {
            "kit": client.get(f"{prefix}{settings.url_prefix}/kit.{runtime.snippet.hash}.js"),
            # Without a body: refused by our endpoint with 415, so nothing is kept.
            "identity": client.post(
                f"{prefix}{settings.url_prefix}/identity",
                headers={"Sec-Fetch-Site": "same-origin"},
            ),
        }
    for name, wanted in (("kit", 200), ("identity", 415)):
        got = answers[name].status_code
        if got != wanted:
            yield Finding(
                "error",
                f"{settings.url_prefix}/{name}",
                f"answers {got}: something before it (a login guard, a redirect to https, a "
                "catch-all) takes the request, and the browser's half does not work",
                f"let requests to {settings.url_prefix}/ pass",
            )
    if all(answers[name].status_code == code for name, code in (("kit", 200), ("identity", 415))):
        yield Finding("ok", "endpoints", f"{settings.url_prefix}/ answers")


def _csp(settings: Settings) -> Iterator[Finding]:
    if settings.csp_nonce is not None:
        yield Finding("ok", "ADROLL_CSP_NONCE", "the tag carries the response's nonce")
        return
    pixel = safe_url(settings.pixel_url).partition("://")
    host = f"{pixel[0]}://{pixel[2].partition('/')[0]}"
    ours = "script-src 'self'; connect-src 'self'"
    text = f"a Content-Security-Policy has to allow our part: {ours}"
    if settings.pixel == "load":
        text += f"; the pixel is AdRoll's, loaded from {host}, and loads more of AdRoll's hosts"
    yield Finding("info", "CSP", text, "or set ADROLL_CSP_NONCE and allow 'strict-dynamic'")


def _outbox(runtime: Runtime) -> Iterator[Finding]:
    from .outbox import OutboxFailed
    from .probes import outbox_state, outbox_trouble

    try:
        state = outbox_state(runtime)
        if state != "ready":
            yield from _unmade_outbox(runtime)
            return
        overview = runtime.outbox.overview()
    except OutboxFailed as problem:
        yield Finding("error", "ADROLL_OUTBOX_URL", *outbox_trouble(runtime, problem))
        return
    except ConfigurationError as problem:
        yield Finding("error", problem.key, problem.problem, "docs/outbox.md has the forms")
        return
    waiting = sum(overview.counts.get(state, 0) for state in ("waiting", "claimed", "sending"))
    yield Finding("ok", "outbox", f"{overview.engine}, {waiting} waiting")
    if overview.counts.get("dead"):
        yield Finding(
            "warning",
            "outbox",
            counted(overview.counts["dead"], "dead letter"),
            "flask adroll outbox list --dead",
        )
    if overview.destination.held:
        yield Finding(
            "error",
            "delivery",
            f"is held: {overview.destination.held}",
            "flask adroll send-test shows what AdRoll answers",
        )
    if overview.oldest_due is not None and overview.oldest_due > 900:
        how = {
            "worker": "run `flask adroll worker`",
            "sync": "use ADROLL_DELIVERY 'thread' or 'worker'",
        }.get(runtime.settings.delivery, "look for errors of adroll_flask.delivery in the log")
        yield Finding(
            "error",
            "delivery",
            f"the oldest event is {overview.oldest_due / 60:.0f} minutes late",
            how,
        )
    yield from _spilled(overview.spilled_bytes)
    yield from _addresses(runtime)


def _spilled(size: int) -> Iterator[Finding]:
    if size:
        yield Finding(
            "warning",
            "outbox",
            f"the spill file holds {counted(size, 'byte')}",
            "they are read back by the next worker on this host",
        )


def _unmade_outbox(runtime: Runtime) -> Iterator[Finding]:
    """File, folder or tables come with the first report: a typo must show before."""
    from .probes import nothing_kept

    place = runtime.outbox_place
    if not isinstance(place, Path) or place.exists():
        engine = "sqlite" if isinstance(place, Path) else place.get_backend_name() if place else ""
        yield Finding(
            "info",
            "outbox",
            f"{engine}, its tables are not there yet; they are made at the first use",
            "flask adroll outbox create-table makes them now",
        )
    else:
        yield _unmade_file(place, Path(runtime.folder).absolute())
    yield from _spilled(nothing_kept(runtime).spilled_bytes)


def _unmade_file(path: Path, instance: Path) -> Finding:
    folder = path.parent
    there = next(parent for parent in path.parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            "error",
            "ADROLL_OUTBOX_URL",
            f"{path} is not there, and cannot be made: {there} "
            + ("may not be written by this user" if there.is_dir() else "is not a folder"),
            "correct the path, or make its folder, writable for the app's user",
        )
    if there != folder and folder != instance and instance not in folder.parents:
        return Finding(
            "warning",
            "ADROLL_OUTBOX_URL",
            f"{path} is not there, nor is its folder; both are made with the first report",
            "correct the path, or make its folder for the app's user",
        )
    return Finding("info", "outbox", f"{path} is not there yet; it is made with the first report")


def _addresses(runtime: Runtime) -> Iterator[Finding]:
    private = seen = 0
    for row in runtime.outbox.list("waiting", 50):
        shown = runtime.outbox.show(row.id)
        if shown is None or not shown.payload:
            continue
        ip = json.loads(shown.payload).get("ip")
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
        )


def _uwsgi(settings: Settings, ini: Path | None) -> Iterator[Finding]:
    if settings.delivery != "thread":
        return
    found = uwsgi.running_problems()
    if ini is not None:
        parser = configparser.ConfigParser(strict=False, allow_no_value=True, interpolation=None)
        parser.read(ini)
        found = uwsgi.problems(parser["uwsgi"]) if parser.has_section("uwsgi") else iter(())
    for problem in found:
        yield Finding(problem.level, "uWSGI", problem.text, problem.mend)

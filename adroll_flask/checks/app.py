"""``flask adroll check``: all that is wrong with this site, each thing with its fix."""

from __future__ import annotations

import configparser
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from adroll_flask.delivery import uwsgi
from adroll_flask.errors import ConfigurationError
from adroll_flask.redaction import describe, safe_url
from adroll_flask.visitor.records import FIRST_PARTY_COOKIE, RECORD_COOKIE

from .finding import Finding
from .outbox import outbox_findings
from .policy import policy_needed

if TYPE_CHECKING:
    from flask import Flask

    from adroll_flask.runtime import Runtime
    from adroll_flask.settings import Settings


def check_app(
    app: Flask, runtime: Runtime, *, uwsgi_ini: Path | None = None, unasked: str = ""
) -> list[Finding]:
    """Look over an app; every check runs, whatever the others found.

    :param uwsgi_ini: a uWSGI configuration to look over too.
    :param unasked: why this app's own endpoints are not to be asked; empty: they are. Meanwhile
        no report of this process is kept, so not where visitors are served.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _account(runtime.settings),
        lambda: _keys(app, runtime),
        lambda: _modes(app, runtime.settings),
        lambda: _cookies(app, runtime.settings),
        lambda: _endpoints(app, runtime, unasked),
        lambda: policy_needed(runtime.settings),
        lambda: outbox_findings(runtime),
        lambda: _uwsgi(runtime.settings, uwsgi_ini),
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as problem:
            findings.append(
                Finding(
                    "error",
                    "check",
                    f"could not be completed: {describe(problem)}",
                    slug="check-failed",
                )
            )
    return findings


def check_start(problem: ConfigurationError) -> list[Finding]:
    """What keeps an app from starting, in the form of the other findings.

    :param problem: what making the app, or asking it for its AdRoll, raised.
    """
    findings = []
    for fault in (problem, *problem.others):
        fix = ""
        if fault.key.startswith("ADROLL_"):
            fix = (
                "give it what it takes, or remove it to have the default"
                if fault.problem.startswith("takes")
                else "correct its name, or remove it"
            ) + " (docs/reference/settings.md)"
        findings.append(Finding("error", fault.key, fault.problem, fix, slug=fault.slug))
    return [
        *findings,
        Finding("info", "check", "looks at the rest once this is fixed", slug="check-failed"),
    ]


def _account(settings: Settings) -> Iterator[Finding]:
    id_form = "the id in AdRoll's dashboard: 8 to 40 upper-case letters and digits, usually 22"
    where = {
        "ADROLL_ADVERTISABLE_EID": id_form,
        "ADROLL_PIXEL_EID": id_form,
        "ADROLL_ACCESS_TOKEN": "ask your AdRoll account manager for a Server Access Token",
    }
    if len(settings.missing) == len(where):
        yield Finding(
            "info",
            "ADROLL_SANDBOX",
            "is not set; nor is an account",
            "to try things out, set it to True and run `flask adroll sandbox`; for the real "
            "account go on with what follows",
            slug="account-missing",
        )
    for key in settings.missing:
        yield Finding(
            "error",
            key,
            "is not set; events wait in the outbox",
            where[key],
            slug="account-missing",
        )
    for name in ("advertisable_eid", "pixel_eid"):
        eid = getattr(settings, name)
        if eid and len(eid) != 22:
            yield Finding(
                "warning",
                f"ADROLL_{name.upper()}",
                f"has {len(eid)} characters, AdRoll's ids usually have 22",
                "compare it with AdRoll's dashboard",
                slug="eid-length",
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
                slug="token-callable",
            )
        else:
            if not isinstance(token, str) or not token:
                yield Finding(
                    "error",
                    "ADROLL_ACCESS_TOKEN",
                    "the callable returned no text",
                    "make it return the token",
                    slug="token-callable",
                )
    if not settings.missing:
        yield Finding("ok", "account", "all three values are set; try `flask adroll send-test`")


def _keys(app: Flask, runtime: Runtime) -> Iterator[Finding]:
    from adroll_flask.settings import app_keys

    keys = runtime.settings.secret_key or app_keys(app.config)
    if not keys:
        yield Finding(
            "error",
            "SECRET_KEY",
            "is not set: no click id and no cookie can be kept",
            "set SECRET_KEY (or ADROLL_SECRET_KEY) to a long random text, the same on every host",
            slug="secret-key-missing",
        )
    elif len(keys[0]) < 16:
        yield Finding(
            "warning",
            "SECRET_KEY",
            "is short enough to be guessed; who knows it can forge visitors and tokens",
            "python -c 'import secrets; print(secrets.token_hex())'",
            slug="secret-key-short",
        )
    else:
        yield Finding("ok", "keys", f"{len(keys)} to verify with, the newest signs")


def _modes(app: Flask, settings: Settings) -> Iterator[Finding]:
    if not settings.enabled:
        yield Finding(
            "warning",
            "ADROLL_ENABLED",
            "is False: nothing is captured or reported",
            slug="disabled",
        )
    if settings.dry_run:
        yield Finding(
            "warning",
            "ADROLL_DRY_RUN",
            "is True: AdRoll validates events and forgets them",
            "set it to False to have conversions counted",
            slug="dry-run",
        )
    name = str(app.config.get("SERVER_NAME") or "").partition(":")[0]
    if not settings.is_real(name):
        yield Finding(
            "warning",
            "ADROLL_HOSTS",
            f"does not list SERVER_NAME ({name}): what is reported here goes out as dry runs",
            "on the real site, add its hosts",
            slug="host-not-listed",
        )
    if settings.strict and not app.debug and not app.testing:
        # The commands make an app of this name for a site on another framework (without_flask.py):
        # its debug says nothing of the site's own.
        is_known = app.import_name != "adroll_flask"
        where = " outside of debugging and tests" if is_known else ""
        yield Finding(
            "warning" if is_known else "info",
            "ADROLL_STRICT",
            f"is True{where}: a wrong event raises in a checkout",
            "leave it unset" if is_known else "leave it unset on the real site",
            slug="strict-in-production",
        )
    if "plain" in settings.email:
        yield Finding(
            "info",
            "ADROLL_EMAIL",
            "addresses leave the server in clear text, as configured",
            slug="email-in-clear",
        )
    if settings.sandbox:
        yield from _sandbox(settings)
    elif settings.api_url != type(settings)().api_url:
        yield Finding(
            "info",
            "ADROLL_API_URL",
            f"events go to {safe_url(settings.api_url)}, not to AdRoll",
            slug="api-url-elsewhere",
        )
    if settings.consent is None:
        yield Finding(
            "info",
            "ADROLL_CONSENT",
            "is not set: visitors count as consenting unless their browser sends Sec-GPC",
            "where consent is needed, set 'tcf' or a callable (docs/explanation/privacy.md)",
            slug="consent-not-set",
        )
    elif settings.consent == "tcf" and settings.pixel == "load":
        yield Finding(
            "info",
            "ADROLL_CONSENT",
            "is 'tcf' with ADROLL_PIXEL 'load': the kit loads the pixel after a yes in __tcfapi; "
            "where AdRoll's own banner, which comes with the pixel, is the only consent platform, "
            "nobody ever asks",
            "then put AdRoll's tag into the page and set ADROLL_PIXEL = 'present' "
            "(docs/explanation/privacy.md)",
            slug="tcf-and-banner",
        )


def _sandbox(settings: Settings) -> Iterator[Finding]:
    address = safe_url(settings.api_url)
    yield Finding(
        "info",
        "ADROLL_SANDBOX",
        f"is {settings.sandbox}: events go to {address}, not to AdRoll",
        "remove it on the real site",
        slug="api-url-elsewhere",
    )
    parts = urlsplit(settings.api_url)
    port = "" if settings.sandbox is True else f" --port {settings.sandbox}"
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=2).close()
    except OSError:
        yield Finding(
            "error",
            "ADROLL_SANDBOX",
            f"nobody listens at {address}: events wait",
            f"run `flask adroll sandbox{port}`",
            slug="sandbox-away",
        )


def _cookies(app: Flask, settings: Settings) -> Iterator[Finding]:
    names = (RECORD_COOKIE, FIRST_PARTY_COOKIE)
    if app.config.get("SESSION_COOKIE_NAME") in names:
        yield Finding(
            "error",
            "SESSION_COOKIE_NAME",
            "is the name of one of AdRoll's cookies",
            "give the session another name",
            slug="session-cookie-name",
        )
    if settings.cookie_secure is False and app.config.get("SESSION_COOKIE_SECURE"):
        yield Finding(
            "warning",
            "ADROLL_COOKIE_SECURE",
            "is False on a site whose session is https only",
            "leave it unset: it follows the request",
            slug="cookie-insecure",
        )
    server = str(app.config.get("SERVER_NAME") or "").partition(":")[0]
    domain = settings.cookie_domain
    if server and domain and domain != "auto" and not f".{server}".endswith(f".{domain}"):
        yield Finding(
            "error",
            "ADROLL_COOKIE_DOMAIN",
            "does not cover SERVER_NAME: browsers would refuse the cookie there",
            "use a parent domain of the site, or 'auto'",
            slug="cookie-domain",
        )
    if settings.cached_paths and not settings.inject:
        yield Finding(
            "warning",
            "ADROLL_CACHED_PATHS",
            "on cached pages only the kit captures, and ADROLL_INJECT is False",
            "place {{ adroll_snippet() }} in their template",
            slug="cached-paths",
        )


def _endpoints(app: Flask, runtime: Runtime, unasked: str) -> Iterator[Finding]:
    """Ask our own endpoints through the app: a login guard may stand before them."""
    settings = runtime.settings
    if not settings.enabled:
        return
    if unasked:
        yield Finding("info", "endpoints", unasked, slug="endpoints-not-asked")
        return
    client = app.test_client(use_cookies=False)
    prefix = str(app.config.get("APPLICATION_ROOT") or "/").rstrip("/")
    with runtime.dry_requests():
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
                slug="endpoint-taken",
            )
    if all(answers[name].status_code == code for name, code in (("kit", 200), ("identity", 415))):
        yield Finding("ok", "endpoints", f"{settings.url_prefix}/ answers")


def _uwsgi(settings: Settings, ini: Path | None) -> Iterator[Finding]:
    if settings.delivery != "thread":
        return
    found = uwsgi.running_problems()
    if ini is not None:
        parser = configparser.ConfigParser(strict=False, allow_no_value=True, interpolation=None)
        parser.read(ini)
        found = uwsgi.problems(parser["uwsgi"]) if parser.has_section("uwsgi") else iter(())
    for problem in found:
        yield Finding(problem.level, "uWSGI", problem.text, problem.fix, slug="uwsgi-threads")

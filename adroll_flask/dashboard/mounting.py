"""Puts the dashboard's pages into a Flask app: addresses, headers, files, JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from flask import Blueprint, Flask, abort, current_app, redirect, request, url_for
from flask.json.provider import DefaultJSONProvider
from jinja2 import Environment, PackageLoader, StrictUndefined
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from adroll_flask._version import __version__
from adroll_flask.errors import ConfigurationError, documented
from adroll_flask.findings.rules import Moment, open_findings
from adroll_flask.outbox.model import OutboxFailed
from adroll_flask.runtime import Runtime, exempt_from_csrf
from adroll_flask.times import iso, span, written

from . import formats, match_quality, orders, overview, problems
from .guard import COOKIE, Guard
from .page import SHOP, Data, Done, Page, Visit, coded, csv_file, for_developer, for_lookers
from .periods import PERIODS

#: The pages, in the navigation's order; the first is at the dashboard's own address.
PAGES: Final = (overview.PAGE, match_quality.PAGE, orders.PAGE, problems.PAGE)
#: The blueprint's name; the extension leaves responses of it alone.
NAME: Final = "adroll_dashboard"
#: Where an environ has whether the request is of somebody who may look.
_OPEN: Final = "adroll_flask.dashboard.open"
_POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": browsers would then send forms with "Origin: null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Robots-Tag": "noindex",
}


def mount(
    app: Flask,
    runtime: Runtime,
    *,
    access: Callable[[], Any] | None,
    operator: Callable[[], Any] | None = None,
    url_prefix: str = "/adroll-dashboard",
) -> None:
    """Put the dashboard into *app*; see :meth:`adroll_flask.AdRoll.dashboard`.

    :raises ConfigurationError: *access* is missing or no function, or there is one already.
    """
    if not callable(access):
        raise ConfigurationError(
            "dashboard",
            "access= has to be a function that says who may look, such as"
            " access=lambda: current_user.is_authenticated and current_user.is_staff",
        )
    if operator is not None and not callable(operator):
        raise ConfigurationError("dashboard", "operator= has to be a function that says who acts")
    if not url_prefix.startswith("/") or not url_prefix.strip("/"):
        raise ConfigurationError("dashboard", "url_prefix= takes a path such as /adroll-dashboard")
    if NAME in app.blueprints:
        raise ConfigurationError("dashboard", "this app has a dashboard already")
    app.register_blueprint(
        _Dashboard(runtime, Guard(runtime, access, operator)).blueprint(app.url_map.host_matching),
        url_prefix=f"/{url_prefix.strip('/')}",
    )


class _Dashboard:
    """One app's dashboard."""

    def __init__(self, runtime: Runtime, guard: Guard) -> None:
        self._runtime = runtime
        self._guard = guard
        # An environment of our own: the site's may have other delimiters and filters, and functions
        # that ask its database at each page.
        self._templates = Environment(
            loader=PackageLoader("adroll_flask.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        zone = runtime.settings.time_zone
        self._templates.filters.update(
            moment=lambda at: "–" if at is None else written("%-d %b %Y, %H:%M", at, zone),
            written=lambda at, form, other: written(form, at, other or zone),
            iso=iso,
            span=span,
            for_lookers=for_lookers,
            coded=coded,
            for_developer=for_developer,
        )
        self._templates.globals.update(number=formats, zone=str(zone), documented=documented)
        self._templates.globals.update(pages=PAGES, periods=PERIODS, link=_link, asset=_asset)

    def blueprint(self, has_hosts: bool) -> Blueprint:
        blueprint = Blueprint(NAME, __name__, static_folder="assets")
        add: Any = blueprint.add_url_rule
        if has_hosts:  # then no request meets a rule without a host
            add = partial(add, host="<adroll_host>")
            add("/assets/<path:filename>", "static", blueprint.send_static_file)
            blueprint.url_defaults(lambda _, values: values.setdefault("adroll_host", request.host))
        blueprint.before_request(self._check_access)
        blueprint.after_request(_protect)
        blueprint.register_error_handler(HTTPException, self._error)
        for problem in (OutboxFailed, ConfigurationError):
            blueprint.register_error_handler(problem, self._outbox_failed)
        for place, page in enumerate(PAGES):
            path = f"/{page.name}"
            add(path if place else "/", page.name, partial(self._show, page))
            for form in ("json", "csv"):
                add(f"{path}.{form}", f"{page.name}_{form}", partial(self._show, page, form))
            for name in (*page.actions, *page.questions):
                act = partial(self._act, page, name)
                end = f"{page.name}_{name}"
                add(f"{path}/{name}", end, act, methods=["POST"])
                # What a browser opens again, such as the address of a closed tab, never acts.
                add(f"{path}/{name}", f"{end}_again", partial(_back, page))

        # Our forms have a token of their own; Flask-WTF would miss its.
        @blueprint.url_value_preprocessor
        def exempt(_endpoint: str | None, values: dict[str, Any] | None) -> None:
            (values or {}).pop("adroll_host", None)
            exempt_from_csrf(current_app, blueprint)

        return blueprint

    def _check_access(self) -> Response | None:
        # The page that says no needs the style, too. The files are the package's, and no secret.
        if request.endpoint == f"{NAME}.static":
            return None
        refused = self._guard.check_access()
        request.environ[_OPEN] = refused is None
        return refused

    # -- pages ---------------------------------------------------------------------------------

    def _show(self, page: Page, form: str = "") -> Response:
        visit = Visit(self._runtime, request, is_operator=self._guard.is_operator())
        data = page.data(visit)
        if form and visit.refused:
            abort(400, visit.refused)
        if form == "csv":
            return csv_file(page.name, formats.csv_text(page.rows(data)))
        if form == "json":
            text = json.dumps(data, default=DefaultJSONProvider.default, ensure_ascii=False)
            return current_app.response_class(text, mimetype="application/json")
        return self._rendered(page, visit, data)

    def _rendered(self, page: Page, visit: Visit, data: Data) -> Response:
        has_forms = visit.is_operator or page.questions
        cookie, is_new = self._guard.cookie(request) if has_forms else ("", False)
        said = self._guard.unseal(request.args.get("said", ""))
        if said is None and visit.refused:
            said = visit.refused, False
        response = self._response(
            f"{page.name}.html",
            page=page,
            data=data,
            said=said,
            visit=visit,
            token=self._guard.token(cookie) if cookie else "",
            carried=_query_of(page.arguments),
            kept={to.name: _query_of(set(page.arguments) & set(to.kept)) for to in PAGES},
            **page.names,
        )
        if is_new:
            path = url_for(f"{NAME}.{PAGES[0].name}")
            secure = request.is_secure
            response.set_cookie(
                COOKIE, cookie, path=path, secure=secure, httponly=True, samesite="Strict"
            )
        return response

    def _response(self, template: str, status: int = 200, **values: Any) -> Response:
        is_open = request.environ.get(_OPEN, False)
        html = self._templates.get_template(template).render(is_open=is_open, **values)
        return current_app.response_class(html, status=status, mimetype="text/html")

    def _act(self, page: Page, name: str) -> Response:
        visit = Visit(self._runtime, request, is_operator=self._guard.is_operator())
        if name in page.actions and not visit.is_operator:
            abort(403, "the function given as operator= says no")
        self._guard.check_origin(request, page.largest)
        done = {**page.questions, **page.actions}[name](visit)
        if isinstance(done, Response):
            return done
        if not isinstance(done, Done):
            return self._rendered(page, visit, done)
        text = {"said": self._guard.seal(done.text, done.good)} if done.text else {}
        return redirect(_link(page.name, **done.arguments, **text), 303)

    # -- the rest ------------------------------------------------------------------------------

    def _error(self, problem: HTTPException) -> Response:
        if isinstance(problem.response, Response):  # abort(a response), or a redirect
            return problem.response
        status = problem.code or 500
        return self._response(
            "error.html", status, page=None, title=problem.name, text=problem.description or ""
        )

    def _outbox_failed(self, problem: OutboxFailed | ConfigurationError) -> Response:
        if isinstance(problem, ConfigurationError) and problem.key != "ADROLL_OUTBOX_URL":
            raise problem  # from the site's own code, such as access=
        open_now = open_findings(Moment(self._runtime, look=False), problem)
        findings = [finding.as_dict() for finding in open_now]
        if (request.endpoint or "").endswith("_json"):
            data = {"verdict": {**findings[0], "level": "bad"}, "findings": findings}
            response = current_app.make_response(current_app.json.response(data))
            response.status_code = 503
            return response
        names = {"page": None, "findings": findings, "is_operator": self._guard.is_operator()}
        return self._response("unreadable.html", 503, **names)


def _query_of(names: Iterable[str]) -> dict[str, str]:
    """Those of *names* that the address's query has."""
    return {name: request.args[name] for name in names if request.args.get(name)}


def _back(page: Page) -> Response:
    return redirect(_link(page.name), 303)


def _asset(name: str) -> str:
    """The address of a file in ``assets/``."""
    return url_for(f"{NAME}.static", filename=name, v=__version__)


def _link(name: str, form: str = "", **arguments: Any) -> str:
    """The address of a page, of its ``json`` or ``csv``, or of an action of it."""
    shop = {SHOP: request.args.get(SHOP) or None}
    return url_for(f"{NAME}.{name}" + (f"_{form}" if form else ""), **shop | arguments)


def _protect(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    for name, value in _HEADERS.items():
        response.headers[name] = value
    return response

"""``flask adroll check --url`` sends a click id along the redirects and names where it is lost."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask, Response, redirect, request

from adroll_flask.findings.finding import Finding
from adroll_flask.findings.page_check import click_finding, pixel_findings
from adroll_flask.settings import Settings
from tests.conftest import PAGE, AppMaker
from tests.support.nginx import behind_nginx
from tests.support.serving import serving

DOC = (Path(__file__).parents[2] / "docs" / "how-to" / "click-trackers.md").read_text()
#: The one line of nginx in each section of the page, by the section's name.
NGINX = dict(re.findall(r"\n## ([^\n]+)\n(?:(?!\n## ).)*?```nginx\n([^\n]+)\n```", DOC, re.DOTALL))

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves redirects, ``path=target`` (or a response), and returns the server's address.

    ``{query}`` in a target is the query that came.
    """
    with ExitStack() as stack:

        def start(host: str = "127.0.0.1", app: Flask | None = None, **targets: Any) -> str:
            site = app or Flask("redirects")

            def answer(path: str) -> Any:
                target = targets.get(path.replace("/", "_").replace("-", "_") or "home", PAGE)
                if isinstance(target, str) and target != PAGE:
                    query = request.query_string.decode()
                    filled = target.replace("{query}", query).replace("{quoted}", quote(query, ""))
                    return redirect(filled)
                return target

            site.add_url_rule("/", "home", lambda: answer(""))
            site.add_url_rule("/<path:path>", "answer", answer)
            return f"http://{host}:{stack.enter_context(serving(site))}"

        yield start


def look(url: str) -> Finding:
    return click_finding(url, Settings())


# -- it arrives --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hops", "path", "over"),
    [
        ({}, "/", ""),
        ({"c": "/d?x=1&{query}", "d": "/e?{query}#part"}, "/c?campaign=7", " over 2 redirects"),
        ({"c": "/app#/landing?{query}"}, "/c", " over 1 redirect"),  # read by the kit
    ],
    ids=["no redirect", "handed on", "in the fragment"],
)
def test_it_arrives(serve: Serve, hops: dict[str, str], path: str, over: str) -> None:
    finding = look(serve(**hops) + path)
    assert (finding.severity, finding.sentence) == ("ok", f"a click id arrives{over}")


def test_an_address_that_is_sent_in_utf_8_is_the_next_one() -> None:
    def site(environ: Any, start_response: Any) -> list[bytes]:
        letter = "/d\u00c3\u00a9"  # é, as WSGI has its bytes
        targets = {"/c": f"{letter}?{environ['QUERY_STRING']}", letter: ""}
        target = targets.get(environ["PATH_INFO"], "/lost")
        start_response("302 Found" if target else "200 OK", [("Location", target)])
        return []

    with serving(site) as port:
        assert look(f"http://127.0.0.1:{port}/c").sentence == "a click id arrives over 1 redirect"


# -- it gets lost ------------------------------------------------------------------------------


def test_a_redirect_by_the_page_itself_is_a_hop(serve: Serve) -> None:
    refresh = '<head>\xe9<meta http-equiv="refresh" content="0; url=/mugs?a=1&amp;b=2"></head>'
    site = serve(c="/d?{query}", d=Response(refresh.encode("latin-1"), mimetype="text/html"))
    finding = look(site + "/c")
    assert finding.severity == "error"
    assert f"gets lost at hop 2, {site}/d to {site}/mugs" in finding.sentence


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/mugs?next=%2Fmugs%3F{quoted}", "put into another parameter"),
        ("/mugs?adct=other", "is changed"),
        ("/mugs?ADCT=x", "gets lost"),
        ("/c?{query}", "more than 20 times"),
        ("mailto:a@shop.example", "no page"),
        ("shop://open", "no page"),
    ],
)
def test_a_click_id_that_arrives_otherwise_is_said_to(serve: Serve, target: str, says: str) -> None:
    finding = look(serve(c=target) + "/c")
    assert (finding.severity, says in finding.sentence) == ("error", True)


@pytest.mark.parametrize(
    ("target", "says", "fix"),
    [
        ("https://127.0.0.1/c", "from http to https", "https://$host$request_uri"),
        ("/c/", "a trailing slash", "$uri/$is_args$args"),
        ("/en/mugs", "a choice of language", "/en$request_uri"),
        ("/pt-BR/c", "a choice of language", "request.query_string"),
        ("/cookie-consent?back=/c", "a consent page", "request.query_string"),
        ("http://consent.shop.example/c", "a consent page", "request.query_string"),
        ("/age-check", "a consent page", "request.query_string"),
        ("http://other.example/c", "a click tracker, or another site", "tracker"),
        ("/welcome", "a redirect of the site's own", "$is_args$args"),
    ],
)
def test_the_redirect_is_named_with_its_fix(serve: Serve, target: str, says: str, fix: str) -> None:
    finding = look(serve(c=target) + "/c")
    assert finding.severity == "error"
    assert f"({says})" in finding.sentence
    assert fix in finding.todo
    assert "docs/how-to/click-trackers.md" in finding.todo


def test_www_is_a_name_of_the_same_site() -> None:
    from adroll_flask.findings.page_check import _click_lost

    said = _click_lost("a", 1, "https://shop.example/a", "https://www.shop.example/a", "gets lost")
    assert "(from one name of the site to another)" in said.sentence
    assert said.todo.startswith("nginx: return 301 $scheme://www.shop.example$request_uri;")


# -- the app keeps it --------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [None, True], ids=["before a yes", "agreed"])
def test_what_the_app_has_in_its_cookie_is_not_lost(make_app: AppMaker, answer: Any) -> None:
    app = make_app(ADROLL_CONSENT=lambda _request: answer)
    app.add_url_rule("/old", "old", lambda: redirect("/"))
    with serving(app) as port:
        finding = look(f"http://127.0.0.1:{port}/old")
    assert finding.severity == ("ok" if answer else "error")
    assert "gets lost at hop 1" in finding.sentence
    assert ("the app has it in its cookie" in finding.sentence) is bool(answer)


# -- the fixes of the page ---------------------------------------------------------------------

BROKEN = {
    "HTTP → HTTPS, and www": "return 301 https://$host$uri;",
    "Trailing slashes": "return 301 $uri/;",
    "A choice of language": "return 302 /en$uri;",
}


@pytest.mark.parametrize("section", BROKEN)
def test_the_pages_nginx_hands_it_on(make_app: AppMaker, tmp_path: Path, section: str) -> None:
    assert NGINX.keys() == BROKEN.keys(), "each section with a line of nginx is tried"
    arrived: dict[str, bool] = {}
    for name, line in (("broken", BROKEN[section]), ("fixed", NGINX[section])):
        # The test's nginx speaks no TLS: where the line names https, it is played by /secure.
        played = line.replace("https://$host", "$scheme://$http_host/secure")
        where = f"location = /landing {{ {played} }} location = /secure {{ return 204; }}"
        beside = f"}} {where} location /unused {{"  # the test's own, which it closes first
        with behind_nginx(make_app(), tmp_path / name, identity=None, location=beside) as site:
            finding = look(site.url("/landing"))
        arrived[name] = finding.severity == "ok"
    assert arrived == {"broken": False, "fixed": True}


# -- one side only -----------------------------------------------------------------------------

EID = "ADVERTISABLE0000000001"
LOADER = f'<script>adroll_adv_id = "{EID}"; adroll_pix_id = "P";</script>'
SITE_LOADS: Any = {"advertisable_eid": EID, "pixel": "present"}


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ('adroll.track("purchase", {order_id: "1"})', "purchase"),
        ("window.adroll.track( 'purchase' )", "purchase"),
        ('adroll.track("pageView"); adroll.track("addToCart")', "addToCart"),
        ("adroll_conversion_value = 59.90", "purchase"),
        ("adroll_conversion_value_in_dollars = 59.90; adroll.track('purchase')", "purchase"),
        ("adroll.track('formFill'); adroll.track('demoRequest')", "demoRequest, formFill"),
        *((script, "") for script in ('adroll.track("pageView")', 'adroll.track("nonsense")')),
        ("my.track('purchase')", ""),
    ],
)
def test_a_page_whose_pixel_reports_too_is_told_to_use_one_side(script: str, names: str) -> None:
    page = f"{LOADER}<script>{script}</script>"
    found = [*pixel_findings("page", page, Settings(**SITE_LOADS))]
    told = [(one.severity, "from one side" in one.todo) for one in found]
    assert told == [("warning", True)] * bool(names)
    assert all(f"reports {names} by the pixel" in one.sentence for one in found)


@pytest.mark.parametrize(
    ("page", "eid", "says"),
    [
        (LOADER * 2, EID, "loads AdRoll's pixel 2 times"),
        (LOADER, "ANOTHER000000000000001", "another advertisable than ADROLL_ADVERTISABLE_EID"),
    ],
)
def test_a_second_pixel_and_another_accounts_are_found(page: str, eid: str, says: str) -> None:
    settings = Settings(**SITE_LOADS | {"advertisable_eid": eid})
    [finding] = pixel_findings("page", page, settings)
    assert (finding.severity, says in finding.sentence) == ("warning", True)

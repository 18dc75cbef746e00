"""``flask adroll check --url``: a live page judged through a real nginx."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, redirect, request

from adroll_flask import current_visitor
from tests.conftest import PAGE, AppMaker
from tests.support.nginx import FORWARDING, HIDING, HOARDING, HONEST, CachedSite, behind_nginx
from tests.support.serving import serving
from tests.support.visits import invoke

Found = dict[str, list[str]]


def add_page(app: Flask, path: str, body: str = PAGE, **headers: str) -> None:
    fixed = {name.replace("_", "-"): value for name, value in headers.items()}
    app.add_url_rule(path, path, lambda: Response(body, headers=fixed))


def look(site: CachedSite, path: str) -> Found:
    """The findings' texts by level; each error says what to do."""
    found: Found = {"error": [], "warning": [], "hint": [], "ok": []}
    for finding in checked(site.app, site.url(path)):
        sentence, todo = finding["sentence"], finding["todo"]
        found[finding["severity"]].append(f"{sentence} | {todo}")
        assert finding["severity"] != "error" or todo or "answers" in sentence
    return found


def checked(app: Flask, url: str) -> list[dict[str, str]]:
    """What ``check`` finds of a page, beside what it finds of the app."""
    told = json.loads(invoke(app, "check", "--json", "--url", url).output)["findings"]
    return [one for one in told if one["subject"].startswith("http") or one["code"] == "url-form"]


def only(found: Found, level: str | None, *parts: str) -> None:
    """One thing is pointed out with *parts*, at *level*; or nothing is that has the first."""
    texts = [text for text in found["warning"] + found["hint"] if parts[0] in text]
    assert len(texts) == (level is not None)
    for text in texts:
        assert text in found[str(level)]
        assert all(part in text for part in parts)


@contextmanager
def nginx_before(make_app: AppMaker, folder: Path, *args: Any, **kwargs: Any) -> Iterator[Any]:
    config = {name: kwargs.pop(name) for name in list(kwargs) if name.isupper()}
    with behind_nginx(make_app(**config), folder / "nginx", *args, **kwargs) as site:
        yield site


@pytest.fixture
def honest(make_app: AppMaker, tmp_path: Path) -> Iterator[CachedSite]:
    with nginx_before(make_app, tmp_path, HONEST) as site:
        yield site


@pytest.mark.parametrize(
    ("control", "level", "said"),
    [
        ("public, max-age=600", "ok", "as cacheable as it was"),
        ("", "hint", "we made it private"),
        ("no-store", "ok", "as the site set them"),
        ("private, max-age=60", "ok", "as the site set them"),
        ("no-cache", "ok", "as the site set them"),
    ],
)
def test_a_page_is_as_cacheable_as_it_was(
    honest: CachedSite, control: str, level: str, said: str
) -> None:
    add_page(honest.app, "/own", **{"Cache-Control": control} if control else {})
    found = look(honest, "/own")
    assert found["error"] == found["warning"] == []
    assert any(said in text for text in found[level])
    assert any("carries the snippet once" in text for text in found["ok"])
    assert any("answers browsers" in text for text in found["ok"])


@pytest.mark.parametrize("location", [HOARDING, HIDING], ids=["hoarding", "hiding"])
def test_cached_paths_fix_it(make_app: AppMaker, tmp_path: Path, location: str) -> None:
    with nginx_before(make_app, tmp_path, location, ADROLL_CACHED_PATHS=["/*"]) as site:
        found = look(site, "/")
    assert found["error"] == found["warning"] == []
    assert any("as cacheable as it was" in text for text in found["ok"])


def test_a_cache_that_keeps_private_pages_is_a_warning(make_app: AppMaker, tmp_path: Path) -> None:
    with nginx_before(make_app, tmp_path, HIDING) as site:
        found = look(site, "/")
    assert found["error"] == []
    [warning] = found["warning"]
    assert "does not follow its Cache-Control" in warning


#: nginx's default: the app sees the upstream's name and sets cookies for it.
HIDDEN = "proxy_set_header Host app.internal;"


@pytest.mark.parametrize(
    ("nginx", "said"),
    [
        ({"forwarding": HIDDEN}, ["another host"]),
        ({"identity": HIDDEN}, ["proxy_set_header Host"]),
        # It overwrites what the app said, for whatever stands before nginx.
        ({"location": "expires 10m;"}, ["may be kept by a shared cache"]),
        # This wins over proxy_pass: a rule against bots, or a path that only a CDN knows.
        ({"identity": "return 404;"}, ["the kit does not reach browsers", "not reach the app"]),
        (
            {"identity": "proxy_hide_header Set-Cookie;", "ADROLL_CACHED_PATHS": ["/*"]},
            ["cookies do not arrive"],
        ),
        (
            {"identity": "add_header Set-Cookie '__adroll_fpc=a;domain=27.0.0.1';"},
            ["sets __adroll_fpc for 27.0.0.1: browsers refuse it here"],
        ),
    ],
)
def test_what_a_proxy_takes_or_adds_is_an_error(
    make_app: AppMaker, tmp_path: Path, nginx: dict[str, Any], said: list[str]
) -> None:
    with nginx_before(make_app, tmp_path, **{"location": HIDING} | nginx) as site:
        errors = look(site, "/")["error"]
    assert len(errors) == len(said)
    for error, words in zip(errors, said, strict=True):
        assert words in error


#: A visitor from the internet: here everybody is this machine.
VISITOR = FORWARDING.replace("$remote_addr", "8.8.4.4")


@pytest.mark.parametrize("proxies", [0, 1])
def test_an_app_that_takes_the_proxy_for_the_visitor_is_an_error_at_once(
    make_app: AppMaker, tmp_path: Path, proxies: int
) -> None:
    assert VISITOR != FORWARDING
    with nginx_before(make_app, tmp_path, HONEST, forwarding=VISITOR, proxies=proxies) as site:
        errors = look(site, "/")["error"]
        answer = invoke(site.app, "go-live", "--json", "--url", site.url("/"), code=1)
    told = [one["code"] for one in json.loads(answer.output)["findings"]]
    assert ("proxy-address" in told) == (proxies == 0)
    if proxies == 0:
        [error] = errors
        assert "takes a proxy's address for the visitor's address" in error
        assert "ProxyFix(app.wsgi_app, x_for=1" in error
    else:
        assert errors == []


def test_an_app_that_is_told_of_no_visitor_is_an_error_at_once(
    make_app: AppMaker, tmp_path: Path
) -> None:
    # By a name of the internet, so that private addresses are not the site's own network.
    forwarding = "proxy_set_header Host shop.example;"
    with nginx_before(make_app, tmp_path, HONEST, forwarding=forwarding) as site:
        found = checked(site.app, site.url("/", host="localhost"))
    [error] = [one for one in found if one["code"] == "proxy-address"]
    assert "takes a private or loopback address for the visitor's address" in error["sentence"]


def test_a_page_without_the_snippet_is_an_error(honest: CachedSite) -> None:
    add_page(honest.app, "/zipped", Content_Encoding="identity, x-none")
    [error] = look(honest, "/zipped")["error"]
    assert "does not carry the snippet" in error


def test_a_server_whose_requests_do_not_come_through_us_is_told_so(make_app: AppMaker) -> None:
    bare = Flask("bare")
    add_page(bare, "/")
    with serving(bare) as port:
        found = checked(make_app(), f"http://127.0.0.1:{port}/")
    assert "bypassed" in {one["code"] for one in found if one["severity"] == "error"}


def test_a_page_that_asks_for_a_language_is_asked_as_browsers_do(honest: CachedSite) -> None:
    @honest.app.get("/welcome")
    def welcome() -> Any:
        return PAGE if request.accept_languages else ("which language?", 406)

    assert look(honest, "/welcome")["error"] == []


def test_a_page_that_speaks_of_the_snippet_carries_it_once(honest: CachedSite) -> None:
    body = PAGE.replace("Hello", "<p>data-adroll <!-- <script data-adroll></script> -->")
    add_page(honest.app, "/docs", body)
    found = look(honest, "/docs")
    assert any("carries the snippet once" in text for text in found["ok"])
    assert found["warning"] == []


def test_a_missing_page_is_not_judged_and_a_redirects_target_is_named(honest: CachedSite) -> None:
    honest.app.add_url_rule("/old", "old", lambda: redirect("/"))
    found = look(honest, "/nowhere")
    assert found["error"] == ["answers 404: no page to judge | "]
    assert found["ok"] == []
    assert any("leads to" in text for text in look(honest, "/old")["hint"])


def test_a_public_page_that_shows_the_visitor_is_a_warning(honest: CachedSite) -> None:
    @honest.app.get("/hello")
    def hello() -> Response:
        current_visitor()
        return Response(PAGE, headers={"Cache-Control": "public, max-age=600"})

    [warning] = look(honest, "/hello")["warning"]
    assert "varies by Cookie" in warning


def test_a_second_pixel_in_the_page_is_a_warning(honest: CachedSite) -> None:
    tag = '<script>adroll_adv_id = "A"; adroll_pix_id = "B";</script></head>'
    add_page(honest.app, "/own", PAGE.replace("</head>", tag))
    [warning] = look(honest, "/own")["warning"]
    assert "loads AdRoll's pixel itself" in warning
    assert "ADROLL_PIXEL = 'present'" in warning


@pytest.mark.parametrize(
    ("container", "level", "says"),
    [
        ('"function":"__cvt_1_2","vtp_url":"https://s.adroll.com/j/"', "warning", "has a tag of"),
        ('"function":"__ua"', None, ""),
        (None, "hint", "could not be read"),
    ],
)
def test_a_second_pixel_by_tag_manager_is_told(
    honest: CachedSite, container: str | None, level: str | None, says: str
) -> None:
    asked: list[str] = []

    def gtm() -> Response:
        asked.append(request.args["id"])
        return Response(container or "", status=200 if container else 404)

    honest.app.add_url_rule("/gtm.js", "gtm", gtm)
    loader = f"<script>load('{honest.url('/gtm.js')}?id=' + 'GTM-AB12CD')</script></head>"
    add_page(honest.app, "/tagged", PAGE.replace("</head>", loader))
    found = look(honest, "/tagged")
    assert asked == ["GTM-AB12CD"]
    only(found, level, "GTM-AB12CD", says, "ADROLL_PIXEL = 'present'")


@pytest.mark.parametrize(
    ("head", "level"),
    [
        ("", "warning"),
        ("<script>window.__tcfapi = function () {}</script>", None),
        ('<script src="https://cdn.cookielaw.org/scripttemplates/otSDKStub.js"></script>', None),
        ("<script>load('https://tags.shop.invalid/gtm.js?id=' + 'GTM-AB12CD')</script>", "hint"),
    ],
)
def test_tcf_where_nobody_asks_is_pointed_out(
    make_app: AppMaker, tmp_path: Path, head: str, level: str | None
) -> None:
    with nginx_before(make_app, tmp_path, HONEST, ADROLL_CONSENT="tcf") as site:
        add_page(site.app, "/asked", PAGE.replace("</head>", f"{head}</head>"))
        only(look(site, "/asked"), level, "nobody ever asks", "ADROLL_PIXEL = 'present'")


#: As asgi-caches and starlette-caches: an answer with a cookie is kept if the request had one, too.
IF_COOKIE = """
    set $bare "";
    if ($http_cookie = "") { set $bare 1; }
    proxy_no_cache $bare;
"""


@pytest.mark.parametrize("location", [HOARDING, HOARDING + IF_COOKIE], ids=["all", "if_cookie"])
def test_a_cache_that_hands_out_cookies_is_an_error(
    make_app: AppMaker, tmp_path: Path, location: str
) -> None:
    with nginx_before(make_app, tmp_path, location, forwarding=FORWARDING) as site:
        result = invoke(site.app, "check", "--json", "--url", site.url("/"), code=1)
        [error] = look(site, "/")["error"]
    assert "the same __adroll_fpc and adroll_visitor" in error
    assert "ADROLL_CACHED_PATHS" in error
    assert error.partition(" | ")[0] in [
        finding["sentence"] for finding in json.loads(result.output)["findings"]
    ]


def test_a_site_that_cannot_be_reached_is_an_error(make_app: AppMaker) -> None:
    app = make_app()
    [finding] = checked(app, "http://127.0.0.1:9/?token=secret")
    assert finding["severity"] == "error"
    assert "could not be fetched" in finding["sentence"]
    assert "secret" not in f"{finding}"
    [finding] = checked(app, "shop.example")
    assert "full http" in finding["sentence"]
    told = invoke(app, "check", "--url", "http://www..shop.example/", code=1).output
    assert "could not be fetched" in told
    assert "could not be fetched" in invoke(app, "check", "--url", "http://[::1/", code=1).output

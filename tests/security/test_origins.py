"""``ADROLL_ORIGINS``: front ends on other origins may tell who the visitor is; nobody else may."""

import itertools
import json
from typing import Any

import pytest
from flask_cors import CORS
from flask_wtf.csrf import CSRFProtect
from werkzeug.test import TestResponse

from adroll_flask import ConfigurationError, Visitor
from tests.conftest import AppMaker
from tests.support.sites import ADDRESS, HOST, MakeSite, Site

WWW = "https://www.shop.example"
FOREIGN = "https://brand.example"
COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site(origins=[WWW, FOREIGN])


def from_www(site: Site, body: Any, **headers: str) -> TestResponse:
    given = {"Origin": WWW, "Sec-Fetch-Site": "same-site", **headers}
    return site.tell(body, headers=given)


def from_foreign(site: Site, body: Any, **headers: str) -> TestResponse:
    return from_www(site, body, **{"Origin": FOREIGN, "Sec-Fetch-Site": "cross-site", **headers})


def preflight(site: Site, origin: str | None) -> TestResponse:
    headers = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
        **({"Origin": origin} if origin else {}),
    }
    return site.browser.options("/_adroll/identity", base_url=f"https://{HOST}", headers=headers)


def cors(response: TestResponse) -> dict[str, str]:
    named = response.headers.items()
    return {name: value for name, value in named if name.startswith("Access-Control")}


def told_by(site: Site, response: TestResponse) -> Visitor:
    """Whom the token of an answer names."""
    return site.runtime.visitors.read_token(json.loads(response.data)["token"]).visitor


def vary(response: TestResponse) -> set[str]:
    return {name.strip() for name in ",".join(response.headers.getlist("Vary")).split(",")}


# -- what a listed front end may do ------------------------------------------------------------


def test_a_listed_front_end_of_the_same_site_tells_the_visitor(site: Site) -> None:
    told = from_www(site, {"adct": "click123", "first_party_cookie": COOKIE})

    assert told.status_code == 204
    assert told.headers.getlist(ALLOW) == [WWW]
    assert told.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in vary(told)
    assert site.visitor()["adct"] == "click123"
    assert site.visitor()["first_party_cookie"] == COOKIE


def test_browsers_without_fetch_metadata_are_known_by_their_origin(site: Site) -> None:
    told = site.tell({"adct": "click123"}, headers={"Origin": WWW, "Sec-Fetch-Site": None})
    assert told.status_code == 204
    assert site.visitor()["adct"] == "click123"
    own = site.tell({"adct": "click456"})  # by a page of the site itself, as before
    assert (own.status_code, ALLOW in own.headers) == (204, False)


def test_a_preflight_allows_the_one_request_of_the_kit(site: Site) -> None:
    answer = preflight(site, WWW)
    assert answer.status_code == 204
    assert cors(answer) == {
        ALLOW: WWW,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "POST",
        "Access-Control-Allow-Headers": "content-type",
        "Access-Control-Max-Age": "7200",
    }
    assert "Origin" in vary(answer)
    assert ("Set-Cookie" in answer.headers, answer.data) == (False, b"")


def test_a_front_end_of_another_site_gets_no_cookie_but_a_token(site: Site) -> None:
    answer = from_foreign(site, {"adct": "click123", "first_party_cookie": COOKIE, "token": True})

    assert answer.status_code == 200
    assert answer.headers[ALLOW] == FOREIGN
    assert "adroll" not in "".join(answer.headers.getlist("Set-Cookie"))
    assert answer.headers["Cache-Control"] == "no-store"
    visitor = told_by(site, answer)
    assert (visitor.adct, visitor.first_party_cookie) == ("click123", COOKIE)
    assert (visitor.ip, visitor.host, visitor.consent) == (ADDRESS, "brand.example", True)


def test_what_the_cookies_know_is_in_the_token_of_a_front_end_of_the_same_site(site: Site) -> None:
    site.get("/?adct=click123")
    answer = from_www(site, {"token": True})
    visitor = told_by(site, answer)
    assert visitor.adct == "click123"
    assert visitor.first_party_cookie == site.cookie("__adroll_fpc")
    assert visitor.host == "www.shop.example"


@pytest.mark.parametrize(
    ("settings", "body", "headers", "consent"),
    [
        ({}, {}, {"Sec-GPC": "1"}, False),
        ({}, {"consent": False}, {}, False),
        ({"consent": lambda _request: None}, {}, {}, None),
        ({"consent": lambda _request: None}, {"consent": True}, {}, True),
        ({"consent": lambda _request: False}, {"consent": True}, {}, False),
    ],
)
def test_the_token_holds_the_answer_and_without_a_yes_nothing_of_the_visitor(
    make_site: MakeSite, settings: Any, body: Any, headers: Any, consent: bool | None
) -> None:
    site = make_site(origins=[WWW, FOREIGN], **settings)
    told = {"adct": "click123", "first_party_cookie": COOKIE, "token": True, **body}
    answer = from_foreign(site, told, **headers)
    visitor = told_by(site, answer)
    known = ("click123", COOKIE, ADDRESS, "brand.example") if consent else (None,) * 4
    assert (visitor.adct, visitor.first_party_cookie, visitor.ip, visitor.host) == known
    assert visitor.consent is json.loads(answer.data).get("consent", consent) is consent


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"adct": ""}, {}, 400),
        *(({"token": token}, {}, 400) for token in (False, 1, "yes")),
        # What a form could send without a preflight, and what no page sends.
        ("{}", {"Content-Type": "text/plain"}, 415),
        *(
            ({"adct": "click123"}, {"Sec-Fetch-Site": where}, 403)
            for where in ("none", "", "same-site, cross-site", "anything")
        ),
    ],
)
def test_a_refusal_is_readable_for_the_listed_page(
    site: Site, body: Any, headers: dict[str, str], status: int
) -> None:
    answer = from_www(site, body, **headers)
    assert (answer.status_code, answer.headers[ALLOW]) == (status, WWW)


# -- everybody else ----------------------------------------------------------------------------

STRANGERS = [
    *("https://evil.example", "null", "", "*", "file://", "chrome-extension://abcdef"),
    *(f"{WWW}{more}" for more in (":8443", ".evil.example", "@evil.example", "/", "\t")),
    *("http://www.shop.example", "https://WWW.shop.example", "HTTPS://www.shop.example", f" {WWW}"),
    *("https://evilwww.shop.example", "https://evil.www.shop.example", "https://shop.example."),
    *(f"{WWW}, https://evil.example", "https://xn--shop-example.example"),
    f"https://{HOST}.evil.example",
]


def test_another_origin_is_refused_untold(site: Site) -> None:
    site.get("/?adct=of-the-victim")
    message = {"adct": "click123", "token": True}
    for origin, where in itertools.product(STRANGERS, ("same-site", "cross-site", None)):
        answer = site.tell(message, headers={"Origin": origin, "Sec-Fetch-Site": where})
        assert answer.status_code == 403, (origin, where)
        assert cors(answer) == {}
        assert "Origin" in vary(answer)
        assert b"token" not in answer.data
    assert site.visitor()["adct"] == "of-the-victim"


def test_a_preflight_of_another_origin_allows_nothing(site: Site) -> None:
    for origin in (*STRANGERS, None):
        answer = preflight(site, origin)
        assert cors(answer) == {}, origin
        assert "Origin" in vary(answer)


def test_without_the_setting_another_origin_is_refused_and_nobody_gets_a_token(
    make_site: MakeSite,
) -> None:
    site = make_site()
    answer = from_www(site, {"adct": "click123"})
    assert (answer.status_code, ALLOW in answer.headers) == (403, False)
    assert cors(preflight(site, WWW)) == {}
    # The record's cookie is closed to scripts; so is what it says.
    assert site.tell({"token": True}).status_code == 400


@pytest.mark.parametrize(
    "value",
    [
        *("*", 5, None, ["*"], ["null"], [""], [5]),
        *([f"{WWW}{more}"] for more in ("/", "/path", ":0", ":99999", "\n")),
        *([f"https://{host}"] for host in ("", "*.shop.example", "user@www.shop.example")),
        *([f"https://{host}"] for host in ("shop..example", "bücher.example")),
        *([f"{scheme}www.shop.example"] for scheme in ("", "//", "ftp://")),
    ],
)
def test_the_setting_takes_origins_alone_and_never_a_wildcard(
    make_app: AppMaker, value: object
) -> None:
    with pytest.raises(ConfigurationError, match="ADROLL_ORIGINS: takes a list of origins"):
        make_app(ADROLL_ORIGINS=value)


def test_the_setting_is_kept_as_browsers_write_an_origin(make_app: AppMaker) -> None:
    given = ["https://WWW.Shop.example:443", "http://localhost:3000", "http://[::1]:80", WWW]
    settings = make_app(ADROLL_ORIGINS=given).extensions["adroll"].settings
    assert settings.origins == (WWW, "http://localhost:3000", "http://[::1]")


# -- the kit -----------------------------------------------------------------------------------


def test_the_kits_lasting_address_is_fetched_anew_within_minutes(make_site: MakeSite) -> None:
    """With other origins it is the kit that gives tokens."""
    usual, other = make_site("usual"), make_site("other", origins=[WWW])
    answer = other.get("/_adroll/kit.js")
    assert answer.data == other.runtime.snippet.kit
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    again = other.get("/_adroll/kit.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    assert b"token" in answer.data
    for word in (b"token", b"credentials"):
        assert word not in usual.get("/_adroll/kit.js").data


# -- beside other extensions -------------------------------------------------------------------


def test_flask_cors_on_the_whole_app_adds_no_second_header(make_app: AppMaker) -> None:
    app = make_app(ADROLL_ORIGINS=[WWW], WTF_CSRF_CHECK_DEFAULT=True)
    CORS(app, origins="*", supports_credentials=True)
    CSRFProtect(app)
    client = app.test_client()

    for origin, allowed in ((WWW, [WWW]), ("https://evil.example", [])):
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-site"}
        told = client.post("/_adroll/identity", json={}, headers=headers)
        asked = client.options(
            "/_adroll/identity", headers={**headers, "Access-Control-Request-Method": "POST"}
        )
        assert told.headers.getlist(ALLOW) == asked.headers.getlist(ALLOW) == allowed
    # And the site's own are as they were.
    assert client.get("/", headers={"Origin": FOREIGN}).headers[ALLOW] == FOREIGN

"""``session["adroll"]``: a view of the visitor, and what of it is saved with a site's session."""

import copy
import pickle
from collections import UserDict
from collections.abc import Callable
from typing import Any

import pytest
from cachelib.file import FileSystemCache
from flask import Flask, Request, Response, jsonify, make_response, request, session
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin
from flask.testing import FlaskClient
from flask_session import Session  # type: ignore[import-untyped]

from adroll_flask import identify
from tests.app.conftest import forget
from tests.conftest import PAGE, AppMaker

SHOP = "http://shop.example"


class Kept(dict[str, Any], SessionMixin):
    """A session of the simplest kind: it counts as changed with every request."""


class Mapped(UserDict[str, Any], SessionMixin):
    """One that is no dict."""


class Bare(dict[str, Any]):
    """One that takes no further attributes."""

    __slots__ = ("accessed", "modified")


class OnServer(SessionInterface):
    """Sessions that a server keeps."""

    kind: Callable[..., Any] = Kept

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.saved = 0

    def open_session(self, app: Flask, request: Request) -> Any:
        opened = self.kind()
        if "session" in request.cookies:
            opened.update(self.kept)
        opened.modified = True
        return opened

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        if session.modified and session:
            self.kept, self.saved = dict(session), self.saved + 1
            response.set_cookie("session", "number")
        elif session.modified and self.kept:
            self.kept = {}
            response.delete_cookie("session")


class Pickled(SessionInterface):
    """Sessions that a server keeps as they are, with their class."""

    pickle = b""

    def open_session(self, app: Flask, request: Request) -> Any:
        return pickle.loads(self.pickle) if self.pickle else Kept()

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        self.pickle = pickle.dumps(session)


def flask_session(app: Flask) -> SessionInterface:
    """Flask-Session's, kept in files."""
    folder = f"{app.instance_path}-sessions"
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=FileSystemCache(folder))
    app.config["SESSION_PERMANENT"] = False
    Session(app)
    return app.session_interface


KINDS: dict[str, Callable[[Flask], SessionInterface]] = {
    "flask": lambda _app: SecureCookieSessionInterface(),
    "flask-session": flask_session,
    "any dict": lambda _app: OnServer(),
}


def visit(client: FlaskClient, path: str, **how: Any) -> Any:
    return client.get(path, base_url=SHOP, **how)


def add_views(app: Flask) -> Flask:
    @app.post("/cart")
    def cart() -> Response:
        session["cart"] = request.args.get("text", "mug")
        return jsonify(ok=True)

    @app.get("/seen")
    def seen() -> Response:
        return jsonify(session.get("adroll"))

    @app.get("/listed")
    def listed() -> Response:
        found = [bool(session), len(session), sorted(session), dict(session)]
        assert not set(session.keys()) ^ set(dict(session.items()))
        return jsonify(found)

    return app


def buy(client: FlaskClient, **how: Any) -> Any:
    return client.post("/cart", base_url=SHOP, **how)


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, make_app: AppMaker) -> Flask:
    app = add_views(make_app())
    # After AdRoll, as who sets sessions up in a factory's last line.
    app.session_interface = KINDS[request.param](app)
    return app


def saved(client: FlaskClient) -> dict[str, Any]:
    """All that the site has saved of its session."""
    app = client.application
    if isinstance(app.session_interface, OnServer):
        return app.session_interface.kept
    cookie = client.get_cookie("session", domain="shop.example")
    if cookie is None:
        return {}
    cache = app.config.get("SESSION_CACHELIB")
    if cache is not None:
        kept: dict[str, Any] = cache.get(f"session:{cookie.value}")
        return kept
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    content: dict[str, Any] = signer.loads(cookie.value)
    return content


def cookie_of(client: FlaskClient, name: str) -> str | None:
    cookie = client.get_cookie(name, domain="shop.example")
    return None if cookie is None else cookie.value


def test_a_stranger_s_session_is_what_it_is_without_us(shop: Flask) -> None:
    @shop.get("/three-ways")
    def three_ways() -> Response:
        return jsonify(session["adroll"], session.get("adroll", 1), "adroll" in session)

    client = shop.test_client()
    plain = visit(client, "/?adct=click123")
    assert "Vary" not in plain.headers
    ways = visit(client, "/three-ways")
    shown = ways.get_json()[0]
    assert shown["adct"] == "click123"
    assert shown["first_party_cookie"] == cookie_of(client, "__adroll_fpc")
    assert ways.get_json() == [shown, shown, True]
    assert ways.headers["Vary"] == "Cookie"
    for response in (plain, ways, visit(client, "/listed")):
        assert not [line for line in response.headers.getlist("Set-Cookie") if "session=" in line]
    assert visit(client, "/listed").get_json() == [False, 0, [], {}]
    assert client.get_cookie("session", domain="shop.example") is None
    stranger = shop.test_client()
    assert visit(stranger, "/seen").get_json() is None
    landing = visit(stranger, "/seen?adct=click456").get_json()
    assert landing["adct"] == "click456", "in the very request that brings it"


def test_what_a_site_saves_has_the_visitor_too_and_is_never_listed(shop: Flask) -> None:
    client = shop.test_client()
    visit(client, "/?adct=click123")
    buy(client)
    cookie = client.get_cookie("session", domain="shop.example")
    assert saved(client).keys() == {"cart", "adroll"}
    assert saved(client)["adroll"]["adct"] == "click123"
    assert visit(client, "/listed").get_json() == [True, 1, ["cart"], {"cart": "mug"}]
    if not isinstance(shop.session_interface, OnServer):
        assert client.get_cookie("session", domain="shop.example") == cookie, "it was only read"
    with client.session_transaction(base_url=SHOP) as kept:
        assert (list(kept), kept["adroll"]["adct"]) == (["cart"], "click123")
    visit(client, "/?adct=click456")
    assert visit(client, "/seen").get_json()["adct"] == "click456", "the record beats the copy"
    buy(client)
    assert saved(client)["adroll"]["adct"] == "click456"
    client.delete_cookie("adroll_visitor", domain="shop.example")
    client.delete_cookie("__adroll_fpc", domain="shop.example")
    assert visit(client, "/seen").get_json()["adct"] == "click456", "what the site saved holds it"


def test_the_site_s_own_key_comes_first(shop: Flask) -> None:
    @shop.get("/own")
    def own() -> Response:
        session["adroll"] = {"campaign": "spring"}
        return jsonify(session["adroll"])

    @shop.get("/without")
    def without() -> Response:
        return jsonify(session.pop("adroll"), session["adroll"]["adct"])

    client = shop.test_client()
    visit(client, "/?adct=click123")
    assert visit(client, "/own").get_json() == {"campaign": "spring"}
    assert visit(client, "/seen").get_json() == {"campaign": "spring"}
    assert saved(client) == {"adroll": {"campaign": "spring"}}
    assert visit(client, "/listed").get_json()[2] == ["adroll"]
    assert visit(client, "/without").get_json() == [{"campaign": "spring"}, "click123"]


@pytest.mark.parametrize("no", ["gpc", "forget"])
def test_a_withdrawal_forces_one_save_without_it(shop: Flask, no: str) -> None:
    shop.add_url_rule("/forget", "forget", forget)
    client = shop.test_client()
    visit(client, "/?adct=click123")
    buy(client)
    assert "adroll" in saved(client)
    told = {"path": "/", "headers": {"Sec-GPC": "1"}} if no == "gpc" else {"path": "/forget"}
    first = visit(client, **told)
    assert saved(client) == {"cart": "mug"}
    assert first.headers["Cache-Control"] == "private"
    assert visit(client, "/seen").get_json() is None
    again = visit(client, **told)
    if not isinstance(shop.session_interface, OnServer):
        assert "session=" not in str(again.headers), "once"
    buy(client, headers={"Sec-GPC": "1"})
    assert saved(client) == {"cart": "mug"}


def test_a_page_for_everybody_carries_none_and_forces_none(shop: Flask) -> None:
    @shop.get("/public")
    def public() -> Response:
        if "begin" in request.args:
            session["seen"] = 1
        response = make_response(PAGE)
        response.headers["Cache-Control"] = "public, max-age=60"
        return response

    client = shop.test_client()
    visit(client, "/?adct=click123")
    visit(client, "/public?begin")
    assert saved(client) == {"seen": 1}
    buy(client)
    assert "adroll" in saved(client)
    if not isinstance(shop.session_interface, OnServer):
        response = visit(client, "/public", headers={"Sec-GPC": "1"})
        assert "Set-Cookie" not in response.headers


def test_a_visitor_without_consent_is_neither_shown_nor_saved(shop: Flask) -> None:
    client, no = shop.test_client(), {"Sec-GPC": "1"}
    visit(client, "/?adct=click123")
    buy(client, headers=no)
    assert saved(client) == {"cart": "mug"}
    assert visit(client, "/seen", headers=no).get_json() is None


# -- the cookie of Flask's own sessions ----------------------------------------------------


def sent(response: Any) -> str:
    """The session's cookie as it is sent, name and value."""
    lines = response.headers.getlist("Set-Cookie")
    [pair] = [line.partition(";")[0] for line in lines if line.startswith("session=")]
    return str(pair)


def test_a_cookie_that_would_become_too_long_is_as_it_is_without_us(make_app: AppMaker) -> None:
    app = add_views(make_app())
    bare = add_views(Flask("bare"))
    bare.secret_key = app.secret_key
    client, counters = app.test_client(), app.extensions["adroll"].counters
    visit(client, "/?adct=click123")
    # Digits of a third power, which zlib makes nothing of.
    text = "".join(f"{number**7:x}" for number in range(1, 700))
    without = with_it = 0
    for size in range(4300, 5200, 30):
        # werkzeug warns of what is longer than 4,093 bytes: an error here.
        pair = sent(buy(client, query_string={"text": text[:size]}))
        alone = sent(buy(bare.test_client(), query_string={"text": text[:size]}))
        has_copy = "adroll" in saved(client)
        assert len(pair) - 1 <= 3_800 or not has_copy
        if not has_copy:
            assert len(pair) == len(alone)
            without += 1
        assert saved(client)["cart"] == text[:size]
        with_it += has_copy
        assert counters.get("session_mirror", "too_large") == without
    assert min(without, with_it) > 3
    assert visit(client, "/seen").get_json()["adct"] == "click123", "shown all the same"


def test_sessions_without_a_key_show_it_and_take_nothing(make_app: AppMaker) -> None:
    app = add_views(make_app(SECRET_KEY=None, ADROLL_SECRET_KEY="a key of our own"))
    client = app.test_client()
    visit(client, "/?adct=click123")
    assert visit(client, "/seen").get_json()["adct"] == "click123"
    with pytest.raises(RuntimeError, match="secret key"):
        buy(client)


@pytest.mark.parametrize("consent", [True, False])
def test_a_session_that_is_pickled_is_of_its_own_class(make_app: AppMaker, consent: bool) -> None:
    app = add_views(make_app(ADROLL_CONSENT=lambda _request: consent))
    app.session_interface = kept = Pickled()

    @app.get("/copied")
    def copied() -> Response:
        own: Any = session._get_current_object()  # type: ignore[attr-defined]
        copies = [pickle.loads(pickle.dumps(own)), copy.deepcopy(own)]
        assert {type(one) for one in copies} == {Kept}
        return jsonify([dict(one) for one in copies])

    client = app.test_client()
    for _ in range(2):
        assert visit(client, "/?adct=click123").status_code == 200
        assert buy(client).status_code == 200
        session_kept: Any = pickle.loads(kept.pickle)
        assert {type(session_kept)} == {Kept}
        assert not {name for name in vars(session_kept) if "adroll" in name}
        assert ("adroll" in session_kept) is consent
        assert visit(client, "/copied").json == [{"cart": "mug"}] * 2


def test_a_session_that_is_kept_as_it_is_has_one_view(make_app: AppMaker) -> None:
    app, kept = add_views(make_app()), Kept()
    app.session_interface = sessions = OnServer()
    sessions.kind = lambda: kept
    for _ in range(3):
        visit(app.test_client(), "/?adct=click123")
    assert type(kept).__bases__ == (Kept,)


def test_other_apps_sessions_are_none_of_ours(make_app: AppMaker) -> None:
    usual = Flask.session_interface
    mine, bare, shared = add_views(make_app()), add_views(Flask("bare")), OnServer()
    mine.session_interface = bare.session_interface = shared
    client, other = mine.test_client(), bare.test_client()
    visit(client, "/?adct=click123")
    buy(client)
    assert visit(client, "/seen").get_json()["adct"] == "click123"
    buy(other)
    assert shared.kept == {"cart": "mug"}
    assert visit(other, "/seen").get_json() is None
    usual_shop = add_views(make_app())
    visit(usual_shop.test_client(), "/?adct=click123")
    assert usual_shop.session_interface is not usual
    assert type(Flask.session_interface) is SecureCookieSessionInterface
    assert isinstance(usual_shop.session_interface, SecureCookieSessionInterface)


@pytest.mark.parametrize("kind", [Bare, Mapped])
def test_a_session_that_can_have_no_view_is_left_as_it_is(make_app: AppMaker, kind: Any) -> None:
    app = add_views(make_app(ADROLL_STRICT=False))
    app.session_interface = sessions = OnServer()
    sessions.kind = kind
    client = app.test_client()
    visit(client, "/?adct=click123")
    buy(client)
    assert sessions.kept == {"cart": "mug"}
    assert visit(client, "/seen").get_json() is None
    assert app.extensions["adroll"].counters.get("session_mirror", "unsupported") > 0


def test_consent_that_looks_into_the_session_finds_it(make_app: AppMaker) -> None:
    def consent(_request: object) -> bool:
        assert session.get("adroll") is None, "nothing is known before the answer"
        return session.get("no") is None

    app = add_views(make_app(ADROLL_CONSENT=consent))
    client = app.test_client()
    visit(client, "/?adct=click123")
    assert visit(client, "/seen").get_json()["adct"] == "click123"


def test_reports_read_nothing_of_it(shop: Flask) -> None:
    from adroll_flask import current_visitor, report_conversion

    @shop.get("/buy")
    def buy_now() -> Response:
        session["adroll"] = {"adct": "forged", "first_party_cookie": None}
        identify(user_id="7")
        status = report_conversion(order_id="1", value=1, currency="EUR").status
        return jsonify(current_visitor().adct, status)

    client = shop.test_client()
    visit(client, "/?adct=click123")
    assert visit(client, "/buy").get_json() == ["click123", "queued"]

"""What a guest's suite taught us, said once more without the guest."""

import gc
import weakref

from flask import Flask, session

from adroll_flask import AdRoll
from tests.conftest import AppMaker


def test_an_app_is_freed_with_its_last_reference() -> None:
    gc.disable()
    try:
        app = Flask(__name__)
        AdRoll(app)
        seen = weakref.ref(app)
        del app
        assert seen() is None
    finally:
        gc.enable()


def test_no_session_is_begun_that_flask_login_would_take_for_stolen(make_app: AppMaker) -> None:
    # With strong protection it would forget a user whom it remembers.
    app = make_app()
    # As Flask-Login does.
    app.login_manager = object()  # type: ignore[attr-defined]
    app.add_url_rule("/begin", "begin", lambda: str(session.setdefault("cart", "mug")))
    client = app.test_client()
    response = client.get("/?adct=click123")
    assert client.get_cookie("adroll_visitor") is not None
    assert client.get_cookie("session") is None
    assert "Vary" not in response.headers
    client.get("/begin")
    client.get("/?adct=click456")
    with client.session_transaction() as kept:
        assert kept["adroll"]["adct"] == "click456"

"""What a guest's suite taught us, said once more without the guest."""

from flask import session

from tests.conftest import AppMaker


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

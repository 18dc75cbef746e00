"""The pages of docs/explanation/, and others that need an app or a shell alone, run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flask import Flask, redirect
from flask import session as flask_session
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from adroll_flask import AdRoll, report_conversion
from adroll_flask.outbox.schema import create_tables
from adroll_flask.testing import reports
from tests.conftest import AppMaker
from tests.support.pages import ENV, SHOP, Page, Shell
from tests.support.reported_events import kept
from tests.support.visits import VISIT as BASE


def shell_of(app: Flask, folder: Path, **replace: str) -> Shell:
    """A shell whose `flask` finds an app on the same outbox as *app*'s."""
    (folder / "app.py").write_text(
        SHOP.replace("__name__", f"__name__, instance_path={app.instance_path!r}")
    )
    return Shell(folder, dict(ENV), replace)


def buy(app: Flask, order_id: str = "1001", **fields: Any) -> None:
    given = {"value": "59.90", "currency": "EUR", **fields}
    with app.test_request_context("/thanks?adct=click123", **BASE):
        report_conversion(order_id=order_id, **given)


def test_how_a_visitor_is_known(make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    user = SimpleNamespace(is_authenticated=True, email="ann@example.com", id=17)
    with Page("docs/explanation/visitor.md") as page:
        page.run(adroll=adroll, current_user=user)
    with reports(app) as reported:
        buy(app)
    assert (reported.one("purchase").user_id, reported.one("purchase").email_md5 is not None) == (
        *("17", True),
    )


def test_consent_and_privacy(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app()
    named: list[dict[str, Any]] = [
        {"email": "ann@example.com"},
        {"user_id": 4711},
        {"first_party_cookie": "46d41c62e88bb2e267c1e15314bb8837-1667065540836"},
        {},
    ]
    for number, fields in enumerate(named):
        buy(app, str(number), **fields)
    assert len(kept(app)) == 4
    with (
        shell_of(app, tmp_path) as shell,
        Page("docs/explanation/privacy.md", shell) as page,
    ):
        page.run("A consent platform's own cookie", app=app)
        page.run("AdRoll's own banner", app=app)
        page.run("Forgetting", app=app, redirect=redirect)
    assert app.config["ADROLL_CONSENT"] == "tcf"
    # Of the four the commands erased three.
    assert [event["event_attributes"]["order_id"] for event in kept(app)] == ["3"]
    shop = app.test_client()
    shop.get("/?adct=click123", **BASE)
    assert shop.get_cookie("adroll_visitor", domain="shop.test")
    assert shop.post("/privacy/forget", **BASE).status_code == 302
    assert not shop.get_cookie("adroll_visitor", domain="shop.test")
    with shop:
        shop.get("/", **BASE)
        assert "click123" not in str(flask_session.get("adroll"))


def test_one_door(make_app: AppMaker, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.sqlite'}"
    app = make_app(ADROLL_OUTBOX_URL=url)
    engine = create_engine(url)
    with engine.begin() as connection:
        create_tables(connection)
    named: dict[str, Any] = {}
    context = SimpleNamespace(configure=lambda *_given, **given: named.update(given))
    order = SimpleNamespace(id="1001", total="59.90")
    with (
        Session(engine) as session,
        app.test_request_context("/thanks?adct=click123", **BASE),
        Page("docs/explanation/outbox.md") as page,
    ):
        page.run(
            db=SimpleNamespace(session=session),
            order=order,
            context=context,
            report_conversion=report_conversion,
        )
    engine.dispose()
    assert [event["event_attributes"]["order_id"] for event in kept(app)] == ["1001"]
    assert named["include_name"]("adroll_event", "table", {}) is False
    assert named["include_name"]("orders", "table", {}) is True


def test_the_sandbox_s_rules(make_app: AppMaker, tmp_path: Path) -> None:
    # The page sets the address in the configuration of an app that is made after it.
    app = Flask("shop")

    def checkout(_path: str) -> None:
        made = make_app(
            ADROLL_ADVERTISABLE_EID="SANDBOXADVERTISABLE01X",
            ADROLL_PIXEL_EID="SANDBOXPIXEL0000000001",
            ADROLL_ACCESS_TOKEN="sandbox-token",
            ADROLL_DELIVERY="sync",
            ADROLL_LINGER=0,
            **changed(app),
        )
        buy(made)
        deliver(made)

    with Shell(tmp_path) as shell, Page("adroll_flask/sandbox/README.md", shell) as page:
        page.run("The sandbox's rules")
        page.run("In a test", app=app, client=SimpleNamespace(post=checkout))
        page.run("Faults")


def changed(app: Flask) -> dict[str, Any]:
    return {key: value for key, value in app.config.items() if key.startswith("ADROLL_")}


def deliver(app: Flask) -> None:
    with app.app_context():
        while app.extensions["adroll"].flush(5.0):
            pass


def test_commands(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app(ADROLL_STRICT=False)
    buy(app, value="a lot")
    [dead] = app.extensions["adroll"].outbox.lookups.list("dead")
    replace = {"01a20f418b2870c3a2f1d4e5b6a7c8d9": dead.id}
    with (
        shell_of(app, tmp_path, **replace) as shell,
        Page("docs/reference/commands.md", shell) as page,
    ):
        shell.type("""export EDITOR='sed -i s/"a.lot"/"59.90"/'""")
        page.run()
    assert kept(app, "waiting")[0]["conversion_value"] == "59.90"

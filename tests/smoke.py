"""What an installed wheel has to do, run from an empty folder without the checkout."""

import tempfile
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from flask import Flask

import adroll_flask
from adroll_flask import AdRoll, AdRollMiddleware, report_conversion
from adroll_flask.cli.commands import commands
from adroll_flask.sandbox import ACCESS_TOKEN, ADVERTISABLE_EID, PIXEL_EID, running
from adroll_flask.testing import reports

PAGE = "<!doctype html><html><head></head><body>Shop</body></html>"

assert "site-packages" in adroll_flask.__file__, adroll_flask.__file__
for name in ("adroll-kit.min.js", "adroll-kit-consent-origins.min.js"):
    assert (files("adroll_flask") / "static" / name).is_file(), name
assert (files("adroll_flask") / "py.typed").is_file()

# The delivery thread goes on to the end of the process, and writes into the folder.
with (
    running(port=0) as sandbox,
    tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
):
    app = Flask("shop", instance_path=str(Path(folder) / "instance"))
    app.config.update(
        SECRET_KEY="smoke",
        ADROLL_ADVERTISABLE_EID=ADVERTISABLE_EID,
        ADROLL_PIXEL_EID=PIXEL_EID,
        ADROLL_ACCESS_TOKEN=ACCESS_TOKEN,
        ADROLL_API_URL=sandbox.api_url,
    )
    adroll = AdRoll(app)

    @app.get("/")
    def index() -> str:
        return PAGE

    @app.post("/buy")
    def buy() -> str:
        receipt = report_conversion(order_id="1001", value="59.90", currency="EUR")
        return receipt.status

    client = app.test_client()
    landing = client.get("/?adct=click123")
    assert b"data-adroll" in landing.data
    start = landing.text.index('src="') + 5
    kit = client.get(landing.text[start : landing.text.index('"', start)])
    assert kit.status_code == 200
    assert client.post("/buy").text == "queued"
    assert client.post("/buy").text == "duplicate"
    with app.app_context():
        assert adroll.flush(timeout=10) == 0
    [purchase] = sandbox.purchases()
    assert "click123" in str(purchase)
    with reports(app) as reported:
        client.post("/buy")
    assert reported.one("purchase").order_id == "1001"

    runner = app.test_cli_runner()
    for command in (["--help"], ["schema"]):
        result = runner.invoke(commands, command)
        assert result.exit_code == 0, result.output
    # What makes `flask adroll check` speak of an app that does not start.
    [entry] = entry_points(group="flask.commands", name="adroll")
    assert entry.load() is commands

    wsgi = AdRollMiddleware(app.wsgi_app, secret_key="smoke", folder=folder)
    assert callable(wsgi)

print("smoke: 1 passed, 0 failed")

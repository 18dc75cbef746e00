"""A shop with a dashboard over a real outbox, for tests that press its buttons."""

import re
import time
from typing import Any

import requests
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from adroll_flask import AdRoll
from adroll_flask.delivery.transport import Response
from adroll_flask.outbox import model
from tests.conftest import ADVERTISABLE, AppMaker
from tests.support import PATIENCE, visits
from tests.support.delivery_kit import AdRoll as FakeAdRoll

WHERE = "/adroll-dashboard/"
#: A Wednesday, 15:03 UTC.
NOW = 1_795_619_000.0
DELIVERED = {"kind": "delivered"}
REFUSED = {
    "kind": "dead",
    "reason": "refused",
    "error": "http_400: currency: no such currency (E7)",
    "asked": model.Attempt(0.0, "content", 400, "http_400: currency: no such currency (E7)", False),
}


class DashboardShop:
    """A site whose visitors buy, whose clock the test sets, and whose staff look."""

    def __init__(self, make_app: AppMaker, **config: Any) -> None:
        # A server has a clock of its own, by which events are settled.
        self.now = time.time() if config.get("ADROLL_OUTBOX_URL") else NOW
        self.adroll = FakeAdRoll()
        extension = AdRoll(clock=lambda: self.now, transport=self.adroll)
        self.extension = extension
        self.app: Flask = make_app(extension, **({"ADROLL_STRICT": False} | config))
        self.may_look: Any = True
        self.may_act: Any = True
        extension.dashboard(self.app, access=lambda: self.may_look, operator=lambda: self.may_act)
        self.runtime = self.app.extensions["adroll"]
        self.client: FlaskClient = self.app.test_client()

    # -- visitors --------------------------------------------------------------------------------

    def report(self, order: str, *, gpc: bool = False, **fields: Any) -> None:
        """Let a visitor buy, and have it in the outbox."""
        visits.report(self.app, order, gpc=gpc, **fields)
        self.take_in()

    @property
    def destination(self) -> Any:
        """AdRoll as the outbox sees it."""
        return self.runtime.outbox.destination(ADVERTISABLE)

    def take_in(self) -> None:
        """Have in the outbox what was reported, whoever takes it in."""
        self.runtime.outbox.ingest.take_in(patience=PATIENCE)

    def settle(self, **ends: dict[str, Any]) -> None:
        """Let orders end: ``o1001={"kind": "delivered"}``; the others are put back."""
        visits.settle(self.app, **ends)

    def deliver(self, *orders: str) -> None:
        """Let visitors buy what reaches AdRoll then."""
        for order in orders:
            self.report(order)
        self.settle(**{f"o{order}": DELIVERED for order in orders})

    def bury(self, *orders: str, **changes: Any) -> None:
        """Let visitors buy what AdRoll refuses then."""
        for order in orders:
            self.report(order)
        self.settle(**{f"o{order}": REFUSED | changes for order in orders})

    def states(self) -> dict[str, str]:
        """The state of each event that has a key."""
        return {row.key: row.state for row in self.runtime.outbox.lookups.list() if row.key}

    # -- staff -----------------------------------------------------------------------------------

    def html(self, path: str = "", **query: str) -> str:
        """A page."""
        answer = self.client.get(WHERE + path, query_string=query)
        assert answer.status_code == 200, answer.text
        return answer.text

    def json(self, page: str = "overview", **query: str) -> dict[str, Any]:
        """A page's data."""
        answer = self.client.get(f"{WHERE}{page}.json", query_string=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.get_json()
        return found

    def open_problem(self) -> dict[str, Any]:
        """What the form of the one open problem sends."""
        [one] = self.json("problems")["open"]
        return {"problem": one["id"], "until": one["last"]}

    def token(self, path: str, **query: str) -> str:
        """What the forms of a page send along; those of all pages alike."""
        found = re.search(r'name="token" value="([^"]+)"', self.html(path, **query))
        assert found is not None, "the page has no form"
        return found[1]

    def post(self, action: str, token: str | None = None, **form: Any) -> TestResponse:
        """Press a button, as the page's own form does."""
        data = {"token": self.token("orders") if token is None else token, **form}
        headers = {"Sec-Fetch-Site": "same-origin"}
        return self.client.post(WHERE + action, data=data, headers=headers)

    def said(self, answer: TestResponse) -> str:
        """What the page says after an action."""
        assert answer.status_code == 303, answer.text
        page = self.client.get(answer.location).text
        found = re.search(r'<p class="notice (?:good|bad)" role="status">(.*?)</p>', page)
        return found[1] if found else ""

    def press(self, action: str, **form: Any) -> str:
        """Press a button; what the page says then."""
        return self.said(self.post(action, **form))

    def upload(self, text: str | bytes, **form: Any) -> TestResponse:
        """Upload a list of paid orders."""
        fields = {"token": self.token("orders"), **form}
        # As bytes: the client would keep a large body in a file that nobody closes.
        files = {"list": ("orders.csv", text)}
        sent = requests.Request("POST", "http://x", data=fields, files=files).prepare()
        return self.client.post(
            f"{WHERE}orders/compare",
            data=sent.body,
            content_type=sent.headers["Content-Type"],
            headers={"Sec-Fetch-Site": "same-origin"},
        )


def answering(status: int, body: bytes) -> Any:
    """What an AdRoll answers that always says this."""
    return lambda _orders, _dry: Response(status, {}, body)

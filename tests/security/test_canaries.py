"""The whole journey with values that can be told anywhere, and a search for them everywhere.

Exempt, by name: the outbox, that is its database and the journal before it (they hold what is to be
sent, for their owner alone), the sandbox's raw view, and the web server's own access log. Journal
and database are searched for what may never be in an outbox.
"""

import base64
import contextlib
import gc
import gzip
import hashlib
import importlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask, request

from adroll_flask import (
    AdRoll,
    AdRollError,
    current_visitor,
    forget_visitor,
    identify,
    report_conversion,
    report_event,
)
from adroll_flask.cli.commands import commands
from adroll_flask.delivery.transport import NoAnswer, Response
from adroll_flask.events.names import FIELD_NAMES
from adroll_flask.visitor.packing import unpack
from adroll_flask.visitor.tracked_request import TrackedRequest
from tests.conftest import Caplog
from tests.support import eventually
from tests.support.sites import HOST, RECORD, Clock, Site, configuration
from tests.support.sources import modules

EMAIL = "zzcanary.person@mail.example"
CANARIES = {
    "email": EMAIL,
    "email_sha256": hashlib.sha256(EMAIL.encode()).hexdigest(),
    "email_md5": hashlib.md5(EMAIL.encode()).hexdigest(),
    "address": "93.184.216.77",
    "cookie": "cafe0123cafe4567cafe89abcafecdef-1667065540836",
    "click": "clickcanary",
    "token": "accesstokencanary",
    "key": "signingkeycanary",
    "user": "usercanary",
    "device": "6D92078A-8246-4BA4-AE5B-76104861E7DC",
    "agent": "AgentCanary/1.0",
    "query": "querycanary",
    "password": "databasecanary",
}
#: Never anywhere on the disk, in no state of the outbox.
NEVER_STORED = ("email", "token", "key", "password")


def forms(value: str) -> set[str]:
    """*value* as it could be written."""
    encoded = {value, value.lower(), value.upper(), quote(value, safe="")}
    encoded |= {json.dumps(value)[1:-1], repr(value)[1:-1]}
    # Base64 at each of its three alignments, without the edges that depend on the neighbours.
    for pad in range(3):
        encoded.add(base64.b64encode(b"\0" * pad + value.encode()).decode()[4:-4])
    return encoded


def found_in(text: str, names: Any = CANARIES) -> list[str]:
    """The canaries that sing in *text*."""
    return [name for name in names if any(form in text for form in forms(CANARIES[name]))]


class Echo:
    """An AdRoll that refuses, and repeats all that it was sent while doing so."""

    def __init__(self) -> None:
        self.status = 200
        self.gone: NoAnswer | None = None
        self.sent: list[bytes] = []

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        events = gzip.decompress(body)
        if self.gone is not None:
            raise self.gone from OSError(f"{url} {headers} {events!r}")
        if self.status == 200:
            self.sent.append(events)
        echo = f"{url} {json.dumps(dict(headers))} {events.decode()}"
        said = {"message": f"cannot take {echo}", "field": echo[:80], "code": echo[-80:]}
        return Response(self.status, {"x-echo": echo}, json.dumps({"errors": [said]}).encode())


def logged(caplog: Caplog) -> list[str]:
    """Every record of ours, as any formatter or collector could show it."""
    texts = []
    for record in caplog.records:
        values = {key: repr(value) for key, value in vars(record).items() if key != "pathname"}
        texts.append(logging.Formatter("%(message)s").format(record) + str(values))
    return texts


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def shop(tmp_path: Path, echo: Echo, caplog: Caplog) -> Iterator[Site]:
    caplog.set_level(logging.DEBUG, "adroll_flask")
    clock = Clock()
    app = Flask("canaries", instance_path=str(tmp_path))
    app.config.update(
        {
            **configuration({}),
            "SECRET_KEY": CANARIES["key"],
            "ADROLL_ACCESS_TOKEN": CANARIES["token"],
        }
    )
    adroll = AdRoll(app, transport=echo, clock=clock)

    adroll.dashboard(app, access=lambda: True, operator=lambda: True)
    app.extensions["before_report_saw"] = []

    @adroll.before_report
    def before_report(event: Any) -> Any:
        app.extensions["before_report_saw"].append(event)
        if event.order_id == "hook":
            raise LookupError(f"{event!r} {event.adct} {event.ip} {EMAIL}")
        return event

    @app.get("/")
    def index() -> str:
        return "<!doctype html><title>Shop</title>"

    @app.get("/login")
    def login() -> str:
        identify(email=EMAIL, user_id=CANARIES["user"], device_id=CANARIES["device"])
        return "hello"

    @app.get("/buy/<order>")
    def buy(order: str) -> dict[str, Any]:
        fields: dict[str, Any] = {"order_id": order, "email": EMAIL, "value": "59.90"}
        fields |= {"currency": "EUR", "user_id": CANARIES["user"], "keywords": CANARIES["query"]}
        if "bad" in request.args:
            bad = request.args["bad"]
            fields[bad] = [CANARIES["query"], EMAIL] if bad == "email" else [CANARIES["query"]]
        if "value" in request.args:
            fields["value"] = request.args["value"]
        receipt = report_conversion(**fields)
        shown = f"{receipt!r} {current_visitor()!r}"
        return {"shown": shown, "status": receipt.status}

    @app.get("/token")
    def token() -> str:
        return current_visitor().token()

    @app.get("/forget")
    def forget() -> str:
        forget_visitor()
        return "forgotten"

    site = Site(app, app.extensions["adroll"], clock, tmp_path / "adroll-outbox.sqlite")
    site.browser.set_cookie("__adroll_fpc", CANARIES["cookie"], domain=HOST)
    yield site
    site.close()


def visit(site: Site, path: str, **kwargs: Any) -> Any:
    headers = {"User-Agent": CANARIES["agent"], "Referer": f"https://x/?{CANARIES['query']}"}
    return site.get(
        path, headers=headers, environ_overrides={"REMOTE_ADDR": CANARIES["address"]}, **kwargs
    )


def journey(site: Site, echo: Echo) -> None:
    """From the landing to the outbox, every way that can go wrong on it, and to AdRoll."""
    visit(site, f"/?adct={CANARIES['click']}&q={CANARIES['query']}")
    visit(site, f"/?adct=%00{CANARIES['click']}")
    site.tell({"adct": CANARIES["click"], "first_party_cookie": CANARIES["cookie"]})
    site.tell({"adct": f"\x00{CANARIES['click']}", "x": CANARIES["cookie"]})
    site.get_with(f"{RECORD}={CANARIES['click']}.x.y; __adroll_fpc={CANARIES['cookie']}x")
    visit(site, "/login")
    assert visit(site, f"/buy/1001?q={CANARIES['query']}").json["status"] == "queued"
    assert visit(site, "/buy/1001?value=77").json["status"] == "duplicate"
    assert visit(site, "/buy/hook").json["status"] == "invalid"
    for field in (
        *("value", "currency", "email", "products", "user_id", "ip", "timestamp"),
        *("page_location", "visitor"),
    ):
        visit(site, f"/buy/bad-{field}?bad={field}")
    token = visit(site, "/token").text
    with site.app.app_context():
        for text in (token, token[:-3], CANARIES["click"]):
            report_event("purchase", visitor=text, order_id="t", value="x", currency="EUR")
    deliverer = site.runtime.deliverer
    # Whoever delivers takes in, unless another thread is at it: reading waits for that one.
    assert site.runtime.outbox.queue.waiting()
    for status in (400, 401, 500, 429, 302, 413, 200):
        echo.status = status
        site.clock.now += 3600
        deliverer.drain(until=0.0)
    echo.gone = NoAnswer("read_timeout", sure=False)
    visit(site, "/buy/1002")
    assert site.runtime.outbox.queue.waiting()
    deliverer.drain(until=0.0)
    echo.gone, echo.status = None, 200
    for _ in range(4):
        site.clock.now += 3600
        deliverer.drain(until=0.0)
    visit(site, "/buy/1003")


def test_the_journey_reaches_adroll_with_its_values(shop: Site, echo: Echo) -> None:
    journey(shop, echo)

    sent = b"".join(echo.sent).decode()
    assert set(found_in(sent)) >= {"email_sha256", "address", "cookie", "click", "user", "agent"}
    assert not found_in(sent, NEVER_STORED)


def test_no_log_record_or_counter_holds_a_value(shop: Site, echo: Echo, caplog: Caplog) -> None:
    journey(shop, echo)
    visit(shop, "/forget")

    assert len(logged(caplog)) > 10
    for text in [*logged(caplog), str(shop.counts)]:
        assert not found_in(text), text


def test_record_and_token_hold_no_address_and_no_hash_of_one(shop: Site, echo: Echo) -> None:
    journey(shop, echo)
    record = shop.browser.get_cookie(RECORD, domain=HOST)
    assert record is not None
    for signed in (record.decoded_value, visit(shop, "/token").text):
        packed = base64.urlsafe_b64decode(signed.partition(".")[0] + "==")
        held = str(asdict(unpack(packed)[0]))
        assert found_in(held, ["cookie", "click"])
        assert not found_in(held, ["email", "email_sha256", "email_md5"])


def test_no_receipt_and_no_repr_holds_a_value(shop: Site, echo: Echo) -> None:
    journey(shop, echo)
    assert not found_in(visit(shop, "/buy/1004").json["shown"])
    outbox = shop.runtime.outbox
    outbox.queue.waiting()  # another thread may be at the journal
    claim = outbox.queue.claim(shop.runtime.settings.advertisable_eid or "")
    assert claim.events
    rows = [outbox.lookups.show(row.id) for row in outbox.lookups.list()]
    assert any(row is not None and row.payload for row in rows)
    environ = {"REMOTE_ADDR": CANARIES["address"], "HTTP_HOST": HOST, "REQUEST_METHOD": "GET"}
    environ["wsgi.url_scheme"] = "https"
    tracked = TrackedRequest(
        shop.runtime.visitors, {**environ, "QUERY_STRING": f"adct={CANARIES['click']}"}
    )
    visitor = tracked.visitor()
    event = shop.app.extensions["before_report_saw"][-1]
    assert visitor.adct == event.adct == CANARIES["click"]

    # msgspec's objects are none of the collector's.
    assert not found_in(repr([event, *event.products]))
    names = set()
    gc.collect()  # what another test left half made, as where its driver was missing
    for thing in gc.get_objects():
        module = type(thing).__module__
        if isinstance(module, str) and module.partition(".")[0] == "adroll_flask":
            names.add(type(thing).__name__)
            assert not found_in(repr(thing)), type(thing)
    assert names >= {"Settings", "Runtime", "Record", "Client", "Visitor", "Counters"}
    assert names >= {"Claim", "Row", "TrackedRequest", "RequestCookies"}


SENSITIVE = re.compile(
    r"adct|(first_party_)?cookie|email\w*|user_id|device_id|ip|user_agent|payload|(access_)?token"
    r"|secret_key|keys?|fields|body|headers|page_location|url|external_data"
)
#: Not a visitor's: a claim's id, and a deduplication key.
HARMLESS = {"Claim.token"}
HARMLESS |= {"NewEvent.key", "ImportedEvent.key", "Row.key", "_Kept.key", "Verdict.key"}
HARMLESS |= {"BriefRow.key", "Finding.key"}


def test_no_dataclass_shows_a_sensitive_field_by_default() -> None:
    """Nor one that lives too short for the test above."""
    shown = set()
    for name in [name for name in modules() if "__" not in name]:
        with contextlib.suppress(ImportError):  # an extra that is not installed
            for kind in vars(importlib.import_module(f"adroll_flask.{name}")).values():
                if isinstance(kind, type) and is_dataclass(kind):
                    shown |= {f"{kind.__name__}.{name}" for name in shown_by(kind)}

    assert shown <= HARMLESS


def shown_by(kind: type[Any]) -> list[str]:
    """The sensitive fields that the representation of a dataclass shows."""
    thing = object.__new__(kind)
    for field in fields(kind):
        told = CANARIES["click"] if SENSITIVE.fullmatch(field.name) else True
        object.__setattr__(thing, field.name, told)
    return re.findall(rf"(\w+)='{CANARIES['click']}", repr(thing))


#: What nearly no argument takes, each of it with an address in it.
WRONG: list[Any] = [
    *(f"{EMAIL}@", f"{EMAIL}\x00", EMAIL * 1000, [EMAIL, EMAIL], {EMAIL: EMAIL}),
    *((EMAIL, object()), [{EMAIL: EMAIL, "product_id": EMAIL * 100, "price": EMAIL}]),
]


@pytest.mark.parametrize("field", [*FIELD_NAMES, "visitor", CANARIES["query"]])
def test_no_error_of_a_wrong_argument_repeats_it(shop: Site, field: str, caplog: Caplog) -> None:
    shop.runtime.reporter.strict = lambda: True
    sound = {"order_id": "1", "value": "59.90", "currency": "EUR", "products": [{"product_id": 1}]}
    errors = []
    with shop.app.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": "8.8.8.8"}):
        for value in WRONG:
            try:
                report_conversion(**{**sound, field: value})
            except AdRollError as error:
                errors.append(said_by(error))
    assert errors
    # The name of an unknown argument is a programmer's word and is repeated.
    expected = ["query"] if field == CANARIES["query"] else []
    for text in (*errors, *logged(caplog)):
        assert found_in(text) == expected, text


def said_by(error: BaseException) -> str:
    """All that an error and its causes tell."""
    return "".join(f"{type(link)} {link} {link!r} {link.args}" for link in causes(error))


def causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def test_the_outbox_never_holds_an_address_in_clear_nor_a_secret(shop: Site, echo: Echo) -> None:
    journey(shop, echo)

    assert set(found_in(journal_text(shop))) >= {"email_sha256", "address", "cookie", "click"}
    for path in shop.outbox_file.parent.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path.name
        if path.is_file():
            stored = path.read_bytes().decode("latin-1")
            assert not found_in(stored, NEVER_STORED), path.name


def journal_text(site: Site) -> str:
    """All that this host's journal holds, whatever the file."""
    texts = []
    for path in site.runtime.outbox.folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # read to its end, and removed
            texts.append(path.read_bytes().decode("latin-1"))
    return "\n".join(texts)


def test_what_was_taken_in_leaves_the_disk_with_its_file(shop: Site, echo: Echo) -> None:
    journey(shop, echo)
    visit(shop, "/buy/last")
    assert found_in(journal_text(shop))
    outbox = shop.runtime.outbox
    outbox.close()  # as at the end of the process that wrote it

    eventually(lambda: not found_in(journal_text(shop)), wait=outbox.queue.waiting)

    assert [event for event in shop.events() if "last" in json.dumps(event)]


def test_delivered_events_keep_no_identifier(shop: Site, echo: Echo) -> None:
    visit(shop, f"/?adct={CANARIES['click']}")
    visit(shop, "/login")
    visit(shop, "/buy/1")
    shop.clock.now += 10
    assert shop.runtime.outbox.queue.waiting() == 1
    assert found_in(shop.stored())
    shop.runtime.deliverer.drain(until=0.0)
    assert echo.sent

    assert "purchase" in shop.stored()
    assert not found_in(shop.stored())


COMMANDS = [
    *("check", "check --since 1h", "explain", "go-live", "history", "worker --once", "send-test"),
    *("outbox", "outbox list", "outbox list --dead", "outbox export", "outbox find 1003"),
    *("outbox release 1003", "outbox cancel 1003", "outbox show ID", "outbox show nonsense"),
    *("outbox retry --all-dead", "outbox retry --reason invalid"),
    *("outbox drop --advertisable NOSUCH", "outbox move-from sqlite:///moved.sqlite"),
    *(f"forget --email {EMAIL}", f"forget --user-id {CANARIES['user']}"),
    f"forget --cookie {CANARIES['cookie']}",
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: " ".join(text.split()[:2]))
def test_commands_say_no_value(shop: Site, echo: Echo, command: str, caplog: Caplog) -> None:
    journey(shop, echo)
    ids = [row.id for row in shop.runtime.outbox.lookups.list(limit=100)]

    words = command.replace("ID", ids[0]).split()
    result = shop.app.test_cli_runner().invoke(commands, words)

    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "No such command" not in result.output
    assert "Usage" not in result.output
    assert result.output.strip()
    assert not found_in(result.output), result.output
    for text in logged(caplog):
        assert not found_in(text), text

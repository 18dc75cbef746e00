"""Asks AdRoll itself, and looks at the outbox's place without making anything there."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .redaction import safe_url

if TYPE_CHECKING:
    from sqlalchemy import URL

    from .answers import Answer
    from .outbox import OutboxFailed, Overview
    from .runtime import Runtime
    from .settings import Settings


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of ``flask adroll send-test``."""

    ok: bool
    meaning: str
    request: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON takes it; the token is not in it."""
        return asdict(self)

    def as_text(self) -> str:
        """The result as a person reads it; the token is not in it."""
        lines = []
        if self.request:
            lines += [
                f"POST {self.request['url']}",
                "Authorization: Token ********",
                "Content-Type: application/json",
                "Content-Encoding: gzip",
                "",
                json.dumps(self.request["body"], indent=2),
                "",
            ]
        if self.answer:
            lines.append(f"answer: {self.answer['status'] or 'none'} ({self.answer['reason']})")
            lines += [f"        {text}" for text in self.answer["errors"]]
        lines.append(self.meaning)
        return "\n".join(lines)


_MEANINGS = {
    "accepted": "AdRoll takes this event: the account, the token and the event's form are right.",
    "content": "AdRoll refuses the event's content: see its words above.",
    "too_large": "AdRoll says that one event is too large, which it is not: look for a proxy.",
    "throttled": "AdRoll asks to wait: too many requests, or it is busy. Try again later.",
    "held": "The address, the account or the token is at fault, not the event: compare "
    "ADROLL_API_URL, ADROLL_ADVERTISABLE_EID and ADROLL_ACCESS_TOKEN with what AdRoll gave you.",
    "failed_sure": "No connection to AdRoll: name resolution, firewall, proxy or TLS.",
    "unsure": "AdRoll did not answer properly; the request may have arrived. Try again later.",
}


def send_test_event(runtime: Runtime, name: str) -> Trial:
    """Send one event with ``dry_run=true`` through the real client.

    :param name: one of the thirteen.
    """
    from .client import Client
    from .context import Context
    from .errors import AdRollError
    from .events import build

    settings = runtime.settings
    if settings.missing:
        return Trial(False, f"{' and '.join(settings.missing)} not set: nothing was sent.")
    now = time.time()
    fields: dict[str, Any] = {}
    if name == "purchase":
        fields = {"order_id": "send-test", "value": "1.00", "currency": "USD"}
    context = Context(
        advertisable_eid=settings.advertisable_eid,
        pixel_eid=settings.pixel_eid,
        now=now,
        page_location="https://example.com/adroll-flask-send-test",
        # TEST-NET-3 (RFC 5737): an address that is nobody's.
        ip="203.0.113.1",
        user_agent="adroll_flask send-test",
        adct="adroll-flask-send-test",
    )
    try:
        built = build(name, fields, context, strict=True)
        answer = Client(settings, runtime.transport, clock=runtime.clock).send(
            [built.payload], dry_run=True
        )
    except AdRollError as problem:
        return Trial(False, f"Nothing was sent: {problem}")
    return _result(settings, json.loads(built.payload), answer)


def _result(settings: Settings, body: dict[str, Any], answer: Answer) -> Trial:
    return Trial(
        ok=answer.kind == "accepted",
        meaning=_MEANINGS[answer.kind],
        request={
            "url": f"{settings.api_url}?advertisable={settings.advertisable_eid}&dry_run=true",
            "body": [body],
        },
        answer={
            "status": answer.status,
            "reason": answer.reason,
            "kind": answer.kind,
            "errors": [str(hint) for hint in answer.errors],
        },
    )


# -- the outbox's place --------------------------------------------------------------------

_TROUBLES = {
    "locked": "is locked: somebody else works with it and does not end",
    "read_only": "may not be written by this user",
    "disk_full": "has no room left on its disk",
    "corrupt": "is damaged",
}


def outbox_state(runtime: Runtime) -> Literal["no file", "no tables", "ready"]:
    """What is there of the outbox; looking makes neither file nor tables.

    :raises OutboxFailed: its database cannot be worked with.
    :raises ConfigurationError: there is no outbox over such a database.
    """
    place = runtime.outbox_place
    if place is None:
        return "ready"
    if isinstance(place, Path):
        try:
            if not place.exists():
                return "no file"
            tables = _file_has_tables(place)
        except (OSError, sqlite3.Error) as problem:
            raise outbox_failure(problem) from None
    else:
        tables = _server_has_tables(place)
    return "ready" if tables else "no tables"


def _file_has_tables(path: Path) -> bool:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'adroll_meta'")
        return found.fetchone() is not None


def _server_has_tables(url: URL) -> bool:
    from sqlalchemy.exc import SQLAlchemyError

    from .outbox.engines import server_engine
    from .outbox.schema import schema_version

    # Hasty: a server that lets a report wait for longer than this does not get it.
    engine = server_engine(url, hasty=True)
    try:
        with engine.connect() as connection:
            return schema_version(connection) is not None
    except (SQLAlchemyError, OSError) as problem:
        raise outbox_failure(problem) from None
    finally:
        engine.dispose()


def outbox_failure(problem: Exception) -> OutboxFailed:
    """What a database's own error means, without the values that drivers put into theirs."""
    from .outbox import OutboxFailed
    from .outbox.engines import reason_of

    original = getattr(problem, "orig", None) or problem
    return OutboxFailed(reason_of(problem), type(original).__name__)


def outbox_trouble(runtime: Runtime, problem: OutboxFailed) -> tuple[str, str]:
    """What is wrong with the outbox's database, and the mend; never its user or password."""
    place = runtime.outbox_place
    cause = str(problem).partition(": ")[2]
    kind = f" ({cause})" if cause else ""
    if place is None:
        return (
            f"the outbox cannot be worked with: {problem}",
            "look at the outbox the app was given",
        )
    if isinstance(place, Path):
        what = _TROUBLES.get(problem.reason, "cannot be opened or worked with")
        if problem.reason == "corrupt":
            mend = "copy what you want to save: the next use moves it aside and makes a new one"
        else:
            mend = "make the file and its folder readable and writable for the app's user"
        return f"the file {place} {what}{kind}", mend
    name = safe_url(place.render_as_string(hide_password=True))
    if problem.reason == "unavailable":
        what = "does not answer, or does not let this user in"
        mend = "start it, or correct the URL: host, port, database, user and password"
    else:
        what = _TROUBLES.get(problem.reason, "cannot be worked with")
        mend = "see the database's own log; correct the URL or the user's rights there"
    return f"the database at {name} {what}{kind}", mend


def nothing_kept(runtime: Runtime) -> Overview:
    """The overview of an outbox whose file is not there yet."""
    from .outbox import Destination, Overview
    from .outbox.states import NUMBER

    spill = runtime.spill_path
    return Overview(
        counts=dict.fromkeys(NUMBER, 0),
        oldest_due=None,
        rates={},
        destination=Destination(),
        holds=(),
        spilled_bytes=spill.stat().st_size if spill.exists() else 0,
        engine="sqlite",
        schema_version=0,
    )

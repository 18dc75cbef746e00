"""What the routes of one sandbox share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flask import Response

from .event_checks import Account
from .faults import Faults
from .state import SandboxState


@dataclass(slots=True)
class Sandbox:
    """The parts of one sandbox; ``app.extensions["adroll_sandbox"]``."""

    state: SandboxState
    faults: Faults
    account: Account
    shop_url: str
    hosts: frozenset[str]
    allow_remote: bool
    strict: bool

    def close(self) -> None:
        """Let go of the file and of everybody who waits; closing twice does no harm."""
        self.state.close()
        self.faults.clear()


def json_answer(answer: Any, status: int = 200) -> Response:
    return Response(
        json.dumps(answer),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def error_answer(status: int, code: str, message: str) -> Response:
    """Return an answer in the form of the event API's errors, of no field."""
    return json_answer({"errors": [{"message": message, "code": code, "field": ""}]}, status)

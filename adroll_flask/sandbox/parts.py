"""What the routes of one sandbox share."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    hosts: frozenset[str] = field(default=frozenset())
    allow_remote: bool = False
    strict: bool = False

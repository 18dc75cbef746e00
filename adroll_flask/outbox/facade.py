"""One object in front of the parts; what a request needs of it loads no SQLAlchemy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adroll_flask.counters import Counters
from adroll_flask.errors import EventError

from .intake import SqlIntake
from .protocol import Outbox
from .wake import Bell

if TYPE_CHECKING:
    from adroll_flask.settings import Settings

    from .admin import Admin
    from .dead_letters import DeadLetters
    from .destination import DestinationState
    from .figures import Figures
    from .holds import Amend
    from .housekeeping import Housekeeping
    from .orders import Orders
    from .queue import Queue
    from .trials import Trials


def _no_changes(payload: bytes, changes: Mapping[str, Any]) -> tuple[bytes, str, float]:
    raise EventError("release", "an outbox that stands alone cannot change an event")


def open_outbox(
    settings: Settings,
    *,
    folder: str | Path,
    clock: Callable[[], float] = time.time,
    counters: Counters | None = None,
    on_forward: Callable[[], None] = lambda: None,
    amend: Amend = _no_changes,
) -> Outbox:
    """The app's outbox; opens nothing and makes nothing before its first use.

    :param folder: for the SQLite file and the journal: the instance folder.
    :param clock: seconds since the epoch; tells the time on SQLite, servers have their own.
    :param on_forward: called now and then, outside of requests, where others deliver.
    :param amend: makes the event that a release with other values says of a held one.
    :raises ConfigurationError: ``ADROLL_OUTBOX_URL`` names a database that cannot be one.
    """
    return SqlOutbox(
        settings, Path(folder).absolute(), clock, counters or Counters(), on_forward, amend
    )


class SqlOutbox(SqlIntake):
    """The outbox over a journal and an SQL database; see :class:`Outbox` for its methods."""

    def __repr__(self) -> str:
        engine = "sqlite" if isinstance(self._where, Path) else self._where.get_backend_name()
        return f"<Outbox on {engine}>"

    @property
    def bell(self) -> Bell:
        return self._bell

    @property
    def queue(self) -> Queue:
        return self._parts.queue

    @property
    def destination(self) -> DestinationState:
        return self._parts.destination

    @property
    def admin(self) -> Admin:
        return self._parts.admin

    @property
    def figures(self) -> Figures:
        return self._parts.figures

    @property
    def housekeeping(self) -> Housekeeping:
        return self._parts.housekeeping

    @property
    def orders(self) -> Orders:
        return self._parts.orders

    @property
    def trials(self) -> Trials:
        return self._parts.trials

    @property
    def dead_letters(self) -> DeadLetters:
        return self._parts.dead_letters

    def exists(self) -> bool:
        from . import old_spill

        return (
            not isinstance(self._where, Path)
            or self._where.exists()
            or self._folder.is_dir()
            or old_spill.exists(self._instance)
        )

    def close(self) -> None:
        if self._forwarder is not None:
            self._forwarder.stop()
        if self._failed[1]:
            self._tell_failures()
        self._bell.close()
        self._journal.close()
        if self._made is not None:
            self._made.database.close()

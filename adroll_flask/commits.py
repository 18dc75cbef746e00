"""What waits for the commit of a site's own transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def after_commit(session: Any, action: Callable[[], None]) -> None:
    """Run *action* once after the SQLAlchemy *session* commits, and never if it rolls back.

    :param session: a ``Session`` or ``scoped_session``.
    """
    from sqlalchemy import event

    target = session() if callable(session) else session
    pending = [action]

    def committed(_session: object) -> None:
        if pending:
            pending.pop()()

    def rolled_back(_session: object) -> None:
        pending.clear()

    event.listen(target, "after_commit", committed, once=True)
    event.listen(target, "after_rollback", rolled_back, once=True)


def is_database_error(problem: BaseException) -> bool:
    """True where SQLAlchemy raised *problem*; asked only where a session is in use."""
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(problem, SQLAlchemyError)

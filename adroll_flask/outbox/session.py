"""What waits for the commit of a site's own transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

#: Where a session's own dictionary (``Session.info``) has what waits for its commit.
_INFO: Final = "adroll_flask.after_commit"


def after_commit(session: Any, action: Callable[[], None]) -> None:
    """Run *action* once after the outermost transaction of *session* commits.

    Never if that transaction, or the savepoint in which this was called, rolls back.

    :param session: a ``Session`` or ``scoped_session``.
    """
    target: Session = session() if callable(session) else session
    waiting: _AfterCommit | None = target.info.get(_INFO)
    if waiting is None:
        waiting = target.info[_INFO] = _AfterCommit(target)
    waiting.add(target, action)


class _AfterCommit:
    """The actions of one session; they go with the transaction in which each was added.

    A long session has a listener an event and not one a report: SQLAlchemy keeps those that ran
    once for as long as the session lives.
    """

    def __init__(self, session: Session) -> None:
        from sqlalchemy import event

        self._actions: list[tuple[SessionTransaction | None, Callable[[], None]]] = []
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_transaction_end", self._ended)

    def add(self, session: Session, action: Callable[[], None]) -> None:
        self._actions.append((_innermost(session), action))

    def _committed(self, session: Session) -> None:
        """SQLAlchemy calls this for a released savepoint as well, which is no commit yet."""
        savepoint = session.get_nested_transaction()
        if savepoint is not None:
            around = savepoint.parent
            self._actions = [
                (around if transaction is savepoint else transaction, action)
                for transaction, action in self._actions
            ]
            return
        actions, self._actions = self._actions, []
        for _, action in actions:
            action()

    def _ended(self, _session: Session, transaction: SessionTransaction) -> None:
        # What is still here was not committed: it was rolled back, or the session was closed.
        if self._actions:
            self._actions = [entry for entry in self._actions if entry[0] is not transaction]


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


def is_database_error(problem: BaseException) -> bool:
    """True where SQLAlchemy raised *problem*; asked only where a session is in use."""
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(problem, SQLAlchemyError)

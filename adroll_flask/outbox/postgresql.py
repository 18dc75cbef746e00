"""A psycopg connection that does not wait for ever; imported only where psycopg is."""

from __future__ import annotations

import time
from typing import Any

import psycopg


def connect(patience: float, *arguments: Any, **keywords: Any) -> Any:
    """A connection that gives the server up after *patience* seconds in one exchange."""
    made = _PatientConnection.connect(*arguments, **keywords)
    made.patience = patience
    return made


class _PatientConnection(psycopg.Connection[Any]):
    """Gives a server up that takes bytes and does not answer.

    Neither of libpq's time-outs ends such a wait: the kernel acknowledges what a stopped server
    does not read, and ``statement_timeout`` is the server's own.
    """

    #: Seconds that one exchange may take.
    patience: float = 60.0

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Run one exchange with the server."""
        return super().wait(self._limited(gen), *args, **kwargs)

    def _limited(self, gen: Any) -> Any:
        deadline = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                # psycopg sends 0 at intervals, so that a program can be interrupted.
                while not (ready := (yield wanted)):
                    if time.monotonic() > deadline:
                        self.pgconn.finish()
                        raise psycopg.OperationalError("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value

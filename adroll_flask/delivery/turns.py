"""Each account's turn: where there are several accounts, none waits for another's request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from adroll_flask import forks
from adroll_flask.errors import let_through

if TYPE_CHECKING:
    from .pauses_and_stops import Gate

#: Seconds until the next step after one that went wrong.
TROUBLE_LASTS: Final = 2.0


class Progress(NamedTuple):
    """What one step came to.

    :param ended: events that reached their end, delivered or dead.
    :param more: the next step should follow at once.
    :param pause: seconds that nothing can be sent; ``None``: there was nothing to send.
    """

    ended: int = 0
    more: bool = False
    pause: float | None = None


@dataclass(eq=False, repr=False, slots=True)
class Turn:
    """One account's turn in this process. One thread at a time works in it, while something is due.

    :param gate: the account's.
    :param work: what is done in it; its last two arguments are those of :meth:`.Deliverer.drain`.
    """

    gate: Gate
    work: Callable[[Gate, threading.Event, float], Progress]
    #: What the last work came to, and what went wrong.
    progress: Progress = field(default_factory=Progress)
    fault: Exception | None = None
    #: The name of the fault that was logged last; empty: none since the last work that went well.
    trouble: str = ""
    #: When the next one may begin, by ``time.monotonic()``: later where nothing can be sent.
    rests_until: float = 0.0
    _thread: threading.Thread | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether its thread works at the moment."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, stop: threading.Event, until: float) -> None:
        """Do the work in a thread of its own; where none can start, in the calling thread."""

        def work() -> None:
            # Requests, and other accounts, get the interpreter often.
            with forks.sharing_gil():
                self.do(stop, until)

        name = f"adroll-account-{self.gate.destination.account}"
        self._thread = threading.Thread(target=work, name=name, daemon=True)
        try:
            with forks.block_exit_signals():
                self._thread.start()
        except RuntimeError:  # no thread to be had, or the interpreter is exiting
            self._thread = None
            self.do(stop, until)

    def do(self, stop: threading.Event, until: float) -> None:
        """Do the work in the calling thread, and note what came of it."""
        self.progress = Progress()
        self.fault = None
        try:
            self.progress = self.work(self.gate, stop, until)
            self.trouble = ""
        except Exception as error:
            let_through(error)
            self.fault = error
        pause = self.progress.pause if self.fault is None else TROUBLE_LASTS
        self.rests_until = time.monotonic() + (pause or 0.0)

    def wait(self) -> None:
        """Wait until its thread has ended."""
        if self._thread is not None:
            self._thread.join()

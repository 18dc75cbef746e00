"""An older copy in the outbox's place sends nothing that its original may have sent.

Whoever puts a backup there may not say so (``flask adroll outbox restored``). Then what waited when
it was made would be sent a second time. So housekeeping writes the time into the outbox, and the
same into a file beside this host's journal. If the outbox then has an earlier one, it is a copy.

This does not tell a copy to a host without that file (a new container), nor where the file was put
back as well, nor a copy of the last minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from adroll_flask.logs import Logger, get_logger

from . import journal, knowledge, local_files, schema, transitions
from .model import UNSENT, State
from .schema import STEP, Database, Tx

logger: Logger = get_logger("adroll_flask.outbox")

#: Beside the journal.
_FILE: Final = "adroll-outbox.note"
#: Seconds of which a database may lose what was written: a power cut, a server that takes another's
#: place; and between two notes.
_LOST: Final = 300.0
#: The error of an event that rests, by its reason.
_RESTS: Final = {
    "restored": "this outbox is a copy that was put in the place of another; the event may have"
    " been sent since. Retry it only if it was not.",
    "moved": "this event was moved to another outbox, which sends it. Do not retry it here.",
}


class OlderCopy:
    """Notices that an older copy has taken the outbox's place.

    :param database: the outbox's.
    :param folder: of this host's journal.
    :param take_in_inbox: takes in what the inbox holds.
    """

    def __init__(
        self, database: Database, folder: Path, take_in_inbox: Callable[[Tx], None]
    ) -> None:
        self._database = database
        self._path = folder / _FILE
        self._take_in_inbox = take_in_inbox
        #: The outbox's id and its last note, as this host knows them.
        self._last: tuple[str, float] | None = None

    def look(self, tx: Tx) -> None:
        """Let what waits rest where an older copy has taken the outbox's place.

        Called before anything is taken in or claimed: what is reported to the copy is sent.
        """
        id, at = _note_in(tx)
        known_id, known_at = self._known()
        if id == known_id and at < known_at - _LOST:
            self.let_rest(tx)
            logger.error(
                "AdRoll: an older copy is in the outbox's place; what waited in it is not sent "
                "until it is retried: flask adroll outbox list --dead [outbox-put-back]"
            )

    def let_rest(self, tx: Tx) -> None:
        """Let rest what waits in a copy. Of the time since its last write it knows nothing."""
        knowledge.add_gap(tx)
        self._take_in_inbox(tx)
        while let_some_rest(tx):
            pass
        self._note(tx)

    def note(self) -> None:
        """Note the time, in the outbox and on this host.

        :raises OutboxFailed: the outbox cannot be worked with.
        """

        def note(tx: Tx) -> tuple[str, float]:
            self.look(tx)
            return self._note(tx)

        known_id, _ = self._known()
        self._last = self._database.write(note)
        if known_id not in ("", self._last[0]):
            logger.warning(
                "AdRoll: this host works with another outbox than before; what waits in the former "
                "one is not sent from here [outbox-is-another]"
            )
        with suppress(OSError):  # a disk that only reads: this process alone knows it
            local_files.make_folder(self._path.parent)
        journal.write_note(self._path, self._last)

    def _note(self, tx: Tx) -> tuple[str, float]:
        id, at = _note_in(tx)
        known_id, known_at = self._known()
        # It never goes back, whatever the clock does, nor is it behind this host's.
        at = max(at, tx.now, known_at if known_id == id else 0.0)
        schema.set_meta(tx, knowledge.NOTED, repr(at))
        return id, at

    def _known(self) -> tuple[str, float]:
        if self._last is None:
            self._last = "", 0.0
            match journal.read_note(self._path):
                case [str(id), float(at)]:
                    self._last = id, at
        return self._last


def _note_in(tx: Tx) -> tuple[str, float]:
    """The outbox's id, and its note."""
    names = f"('outbox_id', '{knowledge.NOTED}')"
    notes = dict(tx.rows(f"SELECT name, value FROM adroll_meta WHERE name IN {names}"))
    return notes.get("outbox_id", ""), schema.number(notes.get(knowledge.NOTED, 0.0), tx.now)


def let_some_rest(tx: Tx, reason: str = "restored", states: Sequence[State] = UNSENT) -> int:
    """Let the next events that could be sent rest; how many there were.

    :param reason: of :data:`_RESTS`.
    """
    where = f"{schema.in_states(*states)} AND payload IS NOT NULL LIMIT {STEP}"
    ids = schema.ids_of(tx, where)
    return transitions.move(tx, "rest", ids, reason=reason, error=_RESTS[reason])

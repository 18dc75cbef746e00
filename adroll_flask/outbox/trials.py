"""The last test events, and what AdRoll answered to them: made-up ones, of no visitor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .database import Database, Tx
from .lookups import Trial

#: Trials that are kept.
MOST: Final = 20
#: Characters of AdRoll's words that are kept with each.
_WORDS: Final = 1000
_NEWEST_FIRST: Final = "ORDER BY tried_at DESC, id DESC"


@dataclass(frozen=True, slots=True)
class Trials:
    """See :class:`.lookups.TrialLookup`."""

    database: Database

    def keep(self, name: str, *, good: bool, answer: str, words: str) -> None:
        """Keep one, and no more than the newest twenty."""

        def write(tx: Tx) -> None:
            tx.execute(
                "INSERT INTO adroll_trial (tried_at, event_name, good, answer, words)"
                " VALUES (:now, :name, :good, :answer, :words)",
                now=tx.now,
                name=name[:40],
                good=int(good),
                answer=answer[:64],
                words=words[:_WORDS],
            )
            older = tx.rows(
                f"SELECT id FROM adroll_trial {_NEWEST_FIRST} LIMIT {MOST} OFFSET {MOST}"
            )
            if older:
                ids = [row[0] for row in older]
                tx.execute("DELETE FROM adroll_trial WHERE id {in_ids}", ids=ids)

        self.database.write(write)

    def newest(self, most: int = MOST) -> tuple[Trial, ...]:
        """The newest *most*, newest first."""
        rows = self.database.read(
            lambda tx: tx.rows(
                "SELECT tried_at, event_name, good, answer, words FROM adroll_trial"
                f" {_NEWEST_FIRST} LIMIT :most",
                most=most,
            )
        )
        return tuple(
            Trial(at, name, bool(good), answer, words) for at, name, good, answer, words in rows
        )

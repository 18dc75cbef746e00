"""What may become of an event: every change of a row's state, in one table.

Each transition says from which states it leads where, what it sets, and what the history counts.
:func:`move` makes the statement, and writes the history in the same transaction. Nothing else
changes the state of a row, or removes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import history
from .database import Tx
from .entries import NewEvent
from .values import (
    CANCELLED,
    CLAIMED,
    DEAD,
    DECIDED,
    DELIVERED,
    HELD,
    NAME,
    SENDING,
    WAITING,
    Claimed,
)

#: Where in the queue an event stands.
PLACE: Final = "coalesce(released_at, queued_at)"
_KEPT: Final = "settled_at = :now, due_at = :kept, reason = :reason"
_WITHOUT_VISITOR: Final = (
    "payload = NULL, error = NULL, cookie_hash = NULL, click_hash = NULL, attempt_log = NULL"
)
_EMPTY: Final = f"{_WITHOUT_VISITOR}, digest = NULL"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table.

    :param sources: states that it leads from.
    :param target: the state that it leads to; ``None``: the row goes.
    :param sets: what it sets beside the state; parameters are the caller's.
    :param counts: the outcome that the history counts; its reason is the caller's. Empty: none.
    :param leased: only under a claim of ours.
    """

    sources: tuple[int, ...]
    target: int | None
    sets: str = ""
    counts: str = ""
    leased: bool = False


_UNDER_WAY: Final = (CLAIMED, SENDING)
TABLE: Final[Mapping[str, Transition]] = {
    # -- the queue
    "claim": Transition((WAITING,), CLAIMED, "claim = :claim, due_at = :until"),
    "claim_begun": Transition((WAITING,), SENDING, "claim = :claim, due_at = :until"),
    "begin": Transition(_UNDER_WAY, SENDING, leased=True),
    "unsend": Transition(
        _UNDER_WAY,
        CLAIMED,
        "reason = CASE WHEN payload IS NULL THEN reason ELSE :reason END",
        leased=True,
    ),
    "return": Transition(
        _UNDER_WAY, WAITING, f"claim = NULL, due_at = {PLACE}, reason = :reason", leased=True
    ),
    "again": Transition(
        _UNDER_WAY, WAITING, "claim = NULL, due_at = :due, reason = :reason", leased=True
    ),
    "deliver": Transition(
        _UNDER_WAY,
        DELIVERED,
        # The reason first: MariaDB sets one column after the other. It is looked at under the row's
        # lock, so that a cancellation which commits while this waits for it counts as well.
        "reason = CASE WHEN reason = 'cancelled' THEN 'too_late' ELSE :reason END,"
        f" {_WITHOUT_VISITOR}, claim = NULL, settled_at = :now,"
        " due_at = CASE WHEN dedupe_key IS NULL THEN :keyless ELSE :kept END",
        counts="delivered",
        leased=True,
    ),
    "die": Transition(_UNDER_WAY, DEAD, f"claim = NULL, {_KEPT}", counts="dead", leased=True),
    "lapse": Transition((CLAIMED,), WAITING, f"claim = NULL, due_at = {PLACE}"),
    "lapse_unsure": Transition(
        (SENDING,),
        WAITING,
        f"claim = NULL, due_at = {PLACE}, reason = 'lapsed',"
        " unsure = unsure + 1, attempts = attempts + 1",
    ),
    "drop_unsure": Transition(
        (SENDING,),
        DEAD,
        f"claim = NULL, {_KEPT}, unsure = unsure + 1, attempts = attempts + 1",
        counts="dead",
    ),
    # -- holds
    "release": Transition(
        (HELD,),
        WAITING,
        "due_at = :now, released_at = :now, unsure = :unsure, payload = :payload, digest = :digest,"
        " occurred_at = :occurred_at",
    ),
    "release_wrong": Transition((HELD,), DEAD, f"{_KEPT}, error = :error", counts="invalid"),
    "release_rests": Transition(
        (HELD,), DEAD, f"{_KEPT}, error = :error, unsure = 1", counts="dead"
    ),
    "cancel": Transition(
        (HELD, WAITING, CLAIMED, DEAD), CANCELLED, f"{_EMPTY}, claim = NULL, {_KEPT}", "cancelled"
    ),
    "expire": Transition((HELD,), CANCELLED, f"{_EMPTY}, {_KEPT}", counts="expired"),
    # What is being sent cannot be called back; its outcome is awaited, and it is never sent again.
    "empty": Transition((SENDING,), SENDING, f"{_WITHOUT_VISITOR}, reason = :reason"),
    "end_cancelled": Transition(
        _UNDER_WAY, CANCELLED, f"{_EMPTY}, claim = NULL, {_KEPT}", "cancelled", leased=True
    ),
    "end_erased": Transition(
        _UNDER_WAY, DEAD, f"{_EMPTY}, claim = NULL, {_KEPT}", "cancelled", leased=True
    ),
    # -- people
    "fix": Transition(
        (DEAD,),
        WAITING,
        "attempts = 0, queued_at = :now, due_at = :now, settled_at = NULL, refused_at = NULL,"
        " released_at = NULL, reason = NULL, error = NULL, payload = :payload,"
        " event_name = :event_name, dedupe_key = :key, digest = :digest,"
        " identifiers = :identifiers, cookie_hash = :cookie, click_hash = :click",
    ),
    "drop": Transition((WAITING, CLAIMED), None, counts="cancelled"),
    "drop_ended": Transition((DELIVERED, DEAD, HELD, CANCELLED), None),
    "rest": Transition(
        (WAITING, CLAIMED, SENDING),
        DEAD,
        f"claim = NULL, {_KEPT}, error = :error, unsure = unsure + 1",
        counts="dead",
    ),
    # -- visitors who said no
    "erase": Transition(
        (WAITING, CLAIMED, HELD), DEAD, f"{_EMPTY}, claim = NULL, {_KEPT}", counts="cancelled"
    ),
    "erase_dead": Transition((DEAD,), DEAD, f"{_EMPTY}, {_KEPT}"),
    "erase_keyless": Transition((WAITING, CLAIMED, HELD), None, counts="cancelled"),
    "erase_keyless_dead": Transition((DEAD,), None),
    # -- time
    "remove": Transition((DELIVERED, DEAD, CANCELLED), None),
    "forget_verdict": Transition((DECIDED,), None),
}

_FACTS: Final = "id, event_name, dry_run, occurred_at, digest, identifiers"


def move(
    tx: Tx,
    name: str,
    ids: Sequence[str],
    *,
    known: Mapping[str, Claimed] | None = None,
    also: str = "",
    also_sets: str = "",
    outcome: str = "",
    why: str = "",
    **values: Any,
) -> int:
    """Let the events of *ids* make the transition *name*, as far as they are where it begins.

    :param known: what the caller knows of all of them, so that the history need not ask.
    :param also: another condition on the rows.
    :param also_sets: what is set beside what the table says.
    :param outcome: what the history counts instead of what the table says.
    :param why: the reason that the history counts, where it is not the row's ``reason``.
    :param values: parameters: ``claim``, ``kept``, ``reason`` … as the table's row asks.
    :returns: how many made it.
    """
    if not ids:
        return 0
    rule = TABLE[name]
    states = ", ".join(map(str, rule.sources))
    # The plus keeps SQLite from its index of states, in which it would read all that wait.
    where = f"id {{in_ids}} AND +state IN ({states})"
    if rule.leased:
        where += " AND claim = :claim"
    if also:
        where += f" AND {also}"
    values = {"now": tx.now, **values}
    ids, counted = list(ids), outcome or rule.counts
    why = why or values.get("reason") or ""
    entries: list[history.Happened] = []
    if counted and known is None:
        rows = tx.rows(
            f"SELECT {_FACTS} FROM adroll_event WHERE {where} {{lock}}", ids=ids, **values
        )
        ids = [row[0] for row in rows]
        entries = [history.of(event_of(row), counted, why) for row in rows]
        if not ids:
            return 0
    if rule.target is None:
        moved = tx.execute(f"DELETE FROM adroll_event WHERE {where}", ids=ids, **values)
    else:
        sets = ", ".join(filter(None, (f"state = {rule.target}", rule.sets, also_sets)))
        # On SQLite delivered rows move together, so that the pages that they leave are used again.
        verb, away = ("{moves}", "{moves_away}") if rule.target == DELIVERED else ("UPDATE", "")
        statement = f"{verb} adroll_event SET {away}{sets} WHERE {where}"
        moved = tx.execute(statement, ids=ids, **values)
        if moved < len(ids) and away:
            # A place was taken, one case in many millions: such a row is settled where it is.
            statement = statement.replace("{moves_away}", "")
            moved += tx.execute(statement, ids=ids, **values)
    if counted and known is not None:
        if moved < len(ids):
            done = "SELECT id FROM adroll_event WHERE id {in_ids} AND settled_at = :now"
            done += f" AND state = {rule.target}"
            ids = [row[0] for row in tx.rows(done, ids=ids, now=tx.now)]
        entries = [history.of(known[id], counted, why, now=tx.now) for id in ids if id in known]
    history.add(tx, entries)
    return moved


def event_of(row: Any) -> NewEvent:
    """What the history tells of the event of a row: id, name, dry run, when, digest, mask."""
    id, name, dry_run, occurred_at, digest, mask = row
    return NewEvent(id, name, "", bool(dry_run), None, b"", occurred_at, digest, mask)


def diagram() -> str:
    """The table as a state diagram for Mermaid, for the documentation."""
    names = {**NAME, DECIDED: "decided"}
    lines = ["stateDiagram-v2"]
    for name, rule in TABLE.items():
        target = "[*]" if rule.target is None else names[rule.target]
        lines += [f"    {names[source]} --> {target}: {name}" for source in rule.sources]
    return "\n".join(lines)

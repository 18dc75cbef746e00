"""What may become of an event: every change of a row's state, in one table.

Each transition says from which states it leads where, what it sets, and what the history counts.
:func:`move` makes the statement, and writes the history in the same transaction. Nothing else
changes the state of a row, or removes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import history, model, schema
from .model import LEASED, UNSENT, State
from .retention import DEAD_LETTER_KEPT
from .schema import Tx

_WITHOUT_CONTENT: Final = "payload = NULL, record_hash = NULL, attempt_log = NULL"
_WITHOUT_VISITOR: Final = f"{_WITHOUT_CONTENT}, error = NULL"
#: At its old place in the queue.
_BACK: Final = "claim = NULL, due_at = coalesce(released_at, queued_at)"
_ENDED: Final = "claim = NULL, settled_at = :now, due_at = :kept, reason = :reason"
#: Dead, and still to be sent if somebody says so.
_DIED: Final = "claim = NULL, settled_at = :now, due_at = :decided_by, reason = :reason"
_EMPTIED: Final = f"{_WITHOUT_VISITOR}, digest = NULL, {_ENDED}"
_UNSURE: Final = "unsure = unsure + 1, attempts = attempts + 1"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table.

    :param sources: states that it leads from.
    :param target: the state that it leads to; ``None``: the row goes.
    :param sets: what it sets beside the state; parameters are the caller's.
    :param counts: the outcome that the history counts; its reason is the caller's. Empty: none.
    :param leased: only under a claim of ours.
    :param over: those of *sources* in which an event is over. The history has counted such an event
        already, and does not count it again.
    """

    sources: tuple[State, ...]
    target: State | None
    sets: str = ""
    counts: str = ""
    leased: bool = False
    over: tuple[State, ...] = ()


#: As the table names them.
WAITING, CLAIMED, SENDING, DELIVERED, DEAD, HELD, CANCELLED, DECIDED = State
TABLE: Final[Mapping[str, Transition]] = {
    # -- the queue; the five ends of a claim are named as outcomes are
    "claim": Transition((WAITING,), CLAIMED, "claim = :claim, due_at = :until"),
    "claim_begun": Transition((WAITING,), SENDING, "claim = :claim, due_at = :until"),
    "begin": Transition(LEASED, SENDING, leased=True),
    "claimed": Transition(
        LEASED,
        CLAIMED,
        "reason = CASE WHEN payload IS NULL THEN reason ELSE :reason END",
        leased=True,
    ),
    "return": Transition(LEASED, WAITING, f"{_BACK}, reason = :reason", leased=True),
    "retry": Transition(
        LEASED, WAITING, "claim = NULL, due_at = :due, reason = :reason", leased=True
    ),
    "delivered": Transition(
        LEASED,
        DELIVERED,
        # What was cancelled while it was sent is noted as taken back before it comes here.
        "reason = CASE WHEN refunded_at IS NULL THEN :reason ELSE 'too_late' END,"
        f" {_WITHOUT_VISITOR}, claim = NULL, settled_at = :now,"
        " due_at = CASE WHEN dedupe_key IS NULL THEN :keyless ELSE :kept END",
        counts="delivered",
        leased=True,
    ),
    "dead": Transition(LEASED, DEAD, _DIED, "dead", leased=True),
    "lapse": Transition((CLAIMED,), WAITING, _BACK),
    "lapse_unsure": Transition((SENDING,), WAITING, f"{_BACK}, reason = 'lapsed', {_UNSURE}"),
    "drop_unsure": Transition((SENDING,), DEAD, f"{_DIED}, {_UNSURE}", "dead"),
    # -- holds
    "release": Transition(
        (HELD,),
        WAITING,
        "due_at = :now, released_at = :now, unsure = :unsure, payload = :payload, digest = :digest,"
        " occurred_at = :occurred_at",
    ),
    "release_wrong": Transition((HELD,), DEAD, f"{_DIED}, error = :error", "invalid"),
    "cancel": Transition((HELD, WAITING, CLAIMED, DEAD), CANCELLED, _EMPTIED, "cancelled"),
    "expire": Transition((HELD,), CANCELLED, _EMPTIED, "expired"),
    # What is being sent cannot be called back; its outcome is awaited, and it is never sent again.
    "empty": Transition((SENDING,), SENDING, f"{_WITHOUT_VISITOR}, reason = :reason"),
    "end_cancelled": Transition(LEASED, CANCELLED, _EMPTIED, "cancelled"),
    "end_erased": Transition(LEASED, DEAD, _EMPTIED, "cancelled"),
    # -- people
    "fix": Transition(
        (DEAD,),
        WAITING,
        # learnt_at keeps the time at which the visitor's data were learnt. It comes before
        # queued_at, since MariaDB sets the columns one after the other.
        "learnt_at = coalesce(learnt_at, queued_at), occurred_at = :occurred_at,"
        " attempts = 0, queued_at = :now, due_at = :now, settled_at = NULL, refused_at = NULL,"
        " released_at = NULL, reason = NULL, error = NULL, payload = :payload,"
        " event_name = :event_name, dedupe_key = :dedupe_key, digest = :digest,"
        f" identifiers = :identifiers | (identifiers & {model.IMPORTED})",
    ),
    "drop": Transition(
        (WAITING, CLAIMED, HELD, DEAD, CANCELLED), None, counts="cancelled", over=(DEAD, CANCELLED)
    ),
    "rest": Transition(
        (*UNSENT, HELD), DEAD, f"{_DIED}, error = :error, unsure = unsure + 1", "dead"
    ),
    # -- visitors who said no
    "erase": Transition((WAITING, CLAIMED, HELD, DEAD), DEAD, _EMPTIED, "cancelled", over=(DEAD,)),
    # -- time
    "give_up": Transition(
        (DEAD,),
        DEAD,
        f"{_WITHOUT_CONTENT}, due_at = :decided_by, reason = :reason, error = :error",
        "expired",
    ),
    "remove": Transition((DELIVERED, DEAD, CANCELLED, DECIDED), None),
}


def move(
    tx: Tx,
    name: str,
    ids: Sequence[str | int],
    *,
    by: str = "id",
    rows: Sequence[model.BriefRow] | None = None,
    also: str = "",
    also_sets: str = "",
    outcome: str = "",
    why: str = "",
    **values: Any,
) -> int:
    """Let the events of *ids* make the transition *name*, as far as they are where it begins.

    :param by: the column that *ids* are of. With another than ``id``, what is counted needs *rows*.
    :param rows: all of them, where the caller has read them.
    :param also: another condition on the rows.
    :param also_sets: what is set beside what the table says.
    :param outcome: what the history counts instead of what the table says.
    :param why: the reason that the history counts, where it is not the row's ``reason``.
    :param values: parameters: ``claim``, ``reason``, ``error`` … as the table's row asks.
    :returns: how many made it.
    """
    if not ids:
        return 0
    rule = TABLE[name]
    # The plus keeps SQLite from its index of states, in which it would read all that wait.
    where = f"{by} {{in_ids}} AND +{schema.in_states(*rule.sources)}"
    if rule.leased:
        where += " AND claim = :claim"
    if also:
        where += f" AND {also}"
    ids = list(ids)
    counted = outcome or rule.counts
    if counted and rows is None:
        locked = schema.rows(tx, f"{where} {{lock}}", ids=ids, **values)
        if not locked:
            return 0
        ids = [row.id for row in locked]
        rows = [row for row in locked if State[row.state] not in rule.over]
    if rule.target is None:
        moved = tx.execute(f"DELETE FROM adroll_event WHERE {where}", ids=ids, **values)
    else:
        sets = ", ".join(filter(None, (f"state = {rule.target}", rule.sets, also_sets)))
        # On SQLite delivered rows move together, so that the pages that they leave are used again.
        away = "{moves_away}" if rule.target == DELIVERED else ""
        statement = f"UPDATE adroll_event SET {away}{sets} WHERE {where}"
        values["kept"] = tx.kept_until
        values["decided_by"] = tx.now + DEAD_LETTER_KEPT
        moved = tx.execute(statement, ids=ids, **values)
    if counted and rows:
        why = why or values.get("reason") or ""
        history.add(tx, [history.of(row, counted, why, tx.now) for row in rows])
    return moved

"""What reasons mean to people, in the history and of dead letters: what happened, what to do, who.

The one table of them: each page says the same of the same reason.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from adroll_flask.reporting.kept_events import FIELDS, HELD, UNPAID

from .finding import texts


class Meaning(NamedTuple):
    """One reason as people read it.

    :param title: what happened, in a few words.
    :param advice: what to do; empty: there is nothing to do.
    :param who: ``developer``, ``marketer``, or empty for nobody.
    :param is_ours: the words that a dead letter has beside it are ours and not AdRoll's.
    :param can_retry: whether to send such a dead letter again may help.
    :param field: the field that is to be set before, of
        :data:`~adroll_flask.reporting.kept_events.FIELDS`; empty: none that is known.
    """

    title: str
    advice: str = ""
    who: str = ""
    is_ours: bool = True
    can_retry: bool = True
    field: str = ""


#: By outcome and reason.
MEANINGS: Final = {name: Meaning(**fields) for name, fields in texts("reasons.toml").items()}


def meaning(outcome: str, reason: str) -> Meaning:
    """What *reason* means.

    >>> meaning("invalid", "invalid:currency").title
    'The shop reported a wrong currency'
    """
    said, field = reason.replace("_", " "), reason.partition(":")[2]
    settable = field if outcome == "invalid" and field in FIELDS else ""
    kinds = [reason, *["unpaid"] * (reason in UNPAID), *["settable"] * bool(settable), "*"]
    names = [*(f"{outcome}/{kind}" for kind in kinds), "*"]
    what = MEANINGS[next(name for name in names if name in MEANINGS)]
    words = {"reason": reason or "error", "said": said or outcome, "field": field or "field"}
    words |= {"in_brackets": f" ({said})" if said else "", "held": HELD}
    title, advice = (text.format(**words) for text in (what.title, what.advice))
    return what._replace(title=title, advice=advice, field=settable)


def of_order(status: str, reason: str) -> str:
    """What *reason* means, of orders that are dead, cancelled or suppressed: what happened."""
    if status == "dead":
        return of_dead_letter(reason).title
    return meaning("expired" if reason == "hold_expired" else status, reason).title


def of_dead_letter(reason: str) -> Meaning:
    """What the *reason* of a dead letter means, which tells the outcome in the history.

    >>> of_dead_letter("too_old") == meaning("expired", "too_old")
    True
    """
    kind = reason.partition(":")[0]
    outcome = {"invalid": "invalid", "too_old": "expired"}.get(kind, "dead")
    return meaning(outcome, reason)

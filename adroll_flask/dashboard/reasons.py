"""What reasons mean to people, in the history and of dead letters: what happened, what to do, who.

The one table of them: each page says the same of the same reason.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from adroll_flask.reporting.dead_letters import FIELDS, HELD, UNPAID


class Meaning(NamedTuple):
    """One reason as people read it.

    :param title: what happened, in a few words.
    :param advice: what to do; empty: there is nothing to do.
    :param who: ``developer``, ``marketer``, or empty for nobody.
    :param is_ours: the words that a dead letter has beside it are ours and not AdRoll's.
    :param can_retry: whether to send such a dead letter again may help.
    :param field: the field that is to be set before, of
        :data:`~adroll_flask.reporting.dead_letters.FIELDS`; empty: none that is known.
    """

    title: str
    advice: str = ""
    who: str = ""
    is_ours: bool = True
    can_retry: bool = True
    field: str = ""


_MEANINGS: Final = {
    ("suppressed", "consent_refused"): Meaning(
        "The visitor said no to the consent banner",
        "Nothing may be sent. If most visitors say no, look at what the banner asks and when.",
        "marketer",
    ),
    ("suppressed", "consent_gpc"): Meaning(
        "The visitor's browser says no by itself (Global Privacy Control)",
        "Leave it. In many places it is the law's no; ADROLL_HONOR_GPC decides.",
    ),
    ("suppressed", "consent_unknown"): Meaning(
        "The visitor had not answered the consent banner yet",
        "Report at the thank-you page, not before: many answer in between. Is the banner shown on "
        "every landing page?",
        "developer",
    ),
    ("suppressed", "consent_error"): Meaning(
        "The function in ADROLL_CONSENT failed, which counts as no answer",
        "Look for “Consent counts as unknown” in the log.",
        "developer",
    ),
    ("suppressed", "consent_withdrawn"): Meaning(
        "The visitor took the consent back while the event waited"
    ),
    ("suppressed", "forgotten"): Meaning("The visitor asked to be forgotten"),
    ("suppressed", "before_report"): Meaning(
        "The site's own before_report function left it out",
        "That is its task: test orders, staff. Look at it if these are real orders.",
        "developer",
    ),
    ("suppressed", "disabled"): Meaning(
        "AdRoll is switched off", "Set ADROLL_ENABLED.", "developer"
    ),
    ("duplicate", ""): Meaning("Reported before: a reload, a double click, a retry"),
    ("duplicate", "another_value"): Meaning(
        "Reported before with another value, which stays",
        "Report an order once its value is final; a hold takes the corrected value at its release.",
        "developer",
    ),
    ("duplicate", "adopted"): Meaning("Reported before, when no account was configured yet"),
    ("cancelled", "dropped"): Meaning("Dropped by hand while it waited"),
    ("cancelled", "forgotten"): Meaning("Forgotten with its visitor while it waited"),
    ("expired", "hold_expired"): Meaning(
        "Held, and neither released nor cancelled in time",
        "Release an order when its payment comes; ADROLL_HOLD_MAX is how long a hold waits.",
        "developer",
    ),
    ("expired", "too_old"): Meaning(
        "AdRoll did not take it for too long",
        "It waited for longer than ADROLL_MAX_AGE. If AdRoll answers again, send it now: it keeps"
        " the time at which it happened.",
        "developer",
        is_ours=False,
    ),
    ("dead", "unsure"): Meaning(
        "Nobody knows whether AdRoll has it",
        "It was sent, and no certain answer came. Look for the order in AdRoll's report first: one"
        " that arrived would be counted twice.",
        "marketer",
        is_ours=False,
    ),
    ("dead", "refused"): Meaning(
        "AdRoll refused what the event says",
        "AdRoll's words name what it does not take. Correct it where the shop reports it; then set"
        " the field under Problems, or fix single events with flask adroll outbox fix, and send"
        " them again.",
        "developer",
        is_ours=False,
    ),
    ("dead", "too_large"): Meaning(
        "AdRoll refused it for its size",
        "Report fewer products with an event, or less external_data. To send it again as it is"
        " does not help.",
        "developer",
        is_ours=False,
        can_retry=False,
    ),
    ("dead", "restored"): Meaning(
        "It comes from a backup of the outbox",
        "The original outbox may have sent it. Compare your orders with AdRoll's report; send again"
        " what is missing there, and drop the rest.",
        "developer",
    ),
    ("dead", "damaged"): Meaning(
        "Its content in the database cannot be read any more",
        "Report the order again, then drop this.",
        "developer",
        can_retry=False,
    ),
    ("invalid", "invalid:before_report"): Meaning(
        "The site's own before_report function failed",
        "Correct the function (the log has where it failed), then send the events again.",
        "developer",
    ),
    ("failed", "disk_full"): Meaning(
        "The disk was full", "Make room on the disk of the journal.", "developer"
    ),
    ("failed", "full"): Meaning(
        "The outbox had reached ADROLL_OUTBOX_MAX_BYTES",
        "Find out why so much waits, or raise the bound.",
        "developer",
    ),
    ("failed", "read_only"): Meaning(
        "The journal's folder could not be written",
        "Give the app's user the right to write there.",
        "developer",
    ),
    ("failed", "no_folder"): Meaning(
        "The journal's folder could not be made",
        "Set ADROLL_JOURNAL_FOLDER to one that the app's user can write.",
        "developer",
    ),
    ("failed", "too_large"): Meaning(
        "One event was larger than a megabyte", "Leave out some of its products.", "developer"
    ),
    ("waiting", ""): Meaning("On its way: reported, and to be sent"),
    ("held", ""): Meaning(
        "Not paid yet: held until the shop releases or cancels it",
        "Release orders in the payment's webhook.",
        "developer",
    ),
}


def meaning(outcome: str, reason: str) -> Meaning:
    """What *reason* means.

    >>> meaning("invalid", "invalid:currency").title
    'The shop reported a wrong currency'
    """
    known = _MEANINGS.get((outcome, reason))
    if known is not None:
        return known
    said = reason.replace("_", " ")
    if outcome == "invalid":
        return _invalid(reason)
    if outcome == "dead":
        return Meaning(
            f"AdRoll did not take it{f' ({said})' if said else ''}",
            "Look at its words, correct what they name, and send the events again.",
            "developer",
            is_ours=False,
        )
    if outcome == "failed":
        return Meaning(
            f"The host's disk did not take it ({reason or 'error'})",
            "Look for “AdRoll event lost” in the log.",
            "developer",
        )
    if outcome == "suppressed":
        return Meaning(f"Not to be reported: {said}")
    return Meaning(said or outcome)


def _invalid(reason: str) -> Meaning:
    if reason in UNPAID:
        title = "Reported before it was paid, and it failed then"
        return Meaning(title, f"It {HELD}.", "developer", can_retry=False)
    field = reason.partition(":")[2] or "field"
    settable = field in FIELDS
    return Meaning(
        f"The shop reported a wrong {field}",
        "Correct the call in the shop. "
        + (
            "Then set the right value under Problems and send the events."
            if settable
            else "Then fix each of these with flask adroll outbox fix, or drop them."
        ),
        "developer",
        field=field if settable else "",
    )


def of_dead_letter(reason: str) -> Meaning:
    """What the *reason* of a dead letter means, which tells the outcome in the history.

    >>> of_dead_letter("too_old") == meaning("expired", "too_old")
    True
    """
    kind = reason.partition(":")[0]
    outcome = {"invalid": "invalid", "too_old": "expired"}.get(kind, "dead")
    return meaning(outcome, reason)

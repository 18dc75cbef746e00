"""One thing that is wrong, and the table of all that can be: ``findings.toml``; and what reasons
mean to people, what happened, what to do, who: ``reasons.toml``. What came of a list of paid orders
is said with them."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import asdict, dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from adroll_flask.errors import help_url
from adroll_flask.plurals import agreeing, counted
from adroll_flask.reporting.kept_events import FIELDS, HELD, UNPAID
from adroll_flask.reporting.reconciliation import Reconciliation

Severity: TypeAlias = Literal["error", "warning", "hint", "ok"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "hint", "ok")
_ABOUT: Final = ("key", "since", "events", "values", "answer")


def texts(name: str, part: str = "") -> dict[str, dict[str, Any]]:
    """A table of texts that stands beside this module; what a variant does not say its code does.

    :param name: of the file; the names in it are codes (``csp``) and variants (``csp/nonce``).
    :param part: what names begin with that are wanted, without it.
    """
    table = tomllib.loads((files("adroll_flask.findings") / name).read_text("utf-8"))
    return {
        one.removeprefix(part): {**table.get(one.partition("/")[0], {}), **table[one]}
        for one in table
        if one.startswith(part)
    }


#: What can be wrong, by name; see the head of the file.
TABLE: Final = texts("findings.toml")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth a word.

    :param code: its part of ``docs/errors.md``; empty where all is well.
    :param subject: the setting, page or part that it is about.
    :param sentence: what is wrong, as a person reads it.
    :param todo: what to do; empty: nothing.
    :param who: who has to: ``developer``, ``marketer and developer``, ``AdRoll``.
    :param command: what a developer types to see more.
    :param page: the dashboard's page that shows more.
    :param key: tells findings of one code apart: a problem's id, an event's name, a stop's reason.
    :param since: seconds since the epoch, where it is known.
    :param events: how many events it is about, and *values* their money by currency.
    :param answer: AdRoll's words, where it has them of AdRoll.
    :param is_cause: other findings come of it.
    """

    severity: Severity
    code: str
    subject: str
    sentence: str
    todo: str = ""
    who: str = ""
    command: str = ""
    page: str = ""
    key: str = ""
    since: float | None = None
    events: int = 0
    values: tuple[tuple[str, Decimal], ...] = ()
    answer: str = ""
    is_cause: bool = False

    @property
    def help_url(self) -> str:
        """The address of its explanation; empty where all is well."""
        return help_url(self.code) if self.code else ""

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON takes it."""
        values = [[currency, f"{value:f}"] for currency, value in self.values]
        return asdict(self) | {"values": values, "help_url": self.help_url}


def found(name: str, subject: str = "", /, **words: Any) -> Finding:
    """The finding *name* of the table about *subject*; its code's own, where no variant is there.

    :param subject: empty: the table's.
    :param words: *key*, *since*, *events*, *values* and *answer* of the finding, and its
        *severity* where it is not the table's; the others are what its ``{…}`` stand for, beside
        *events* as ``{number}`` and what the table itself has. ``{one|more}`` is one of the two by
        *events*.
    """
    code = name.partition("/")[0]
    entry = TABLE.get(name) or TABLE[code]
    level: Severity = words.pop("severity", None) or entry["severity"]
    about: dict[str, Any] = {name: words.pop(name) for name in _ABOUT if name in words}
    events = about.get("events", 0)
    words["number"] = f"{events:,}"
    own = {part: text for part, text in entry.items() if part not in words}

    def told(part: str) -> str:
        text = entry.get(part, "")
        for _ in range(2):
            # First the table's own: what the rules give is nobody's text to fill in.
            text = re.sub(r"\{(\w+)\}", lambda word: own.get(word[1], word[0]), text)
        return re.sub(r"\{(\w+)\}", lambda word: str(words[word[1]]), agreeing(text, events))

    about |= {part: told(part) for part in ("sentence", "todo", "who", "command", "page")}
    if about["todo"] and not about["who"]:
        about["who"] = "developer"
    about["is_cause"] = entry.get("is_cause", False)
    return Finding(level, "" if level == "ok" else code, subject or entry["subject"], **about)


def ok(subject: str, said: str) -> Finding:
    """That all is well with *subject*."""
    return found("ok", subject, said=said)


# -- what reasons mean, in the history and of dead letters: all pages say the same of one ---------


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


#: By the reason, the outcome that the history has of what is dead or cancelled.
_BECAME: Final = {"invalid": "invalid", "too_old": "expired", "hold_expired": "expired"}


def meaning(outcome: str, reason: str) -> Meaning:
    """What *reason* means.

    :param outcome: as the history has it, or an event's state.

    >>> meaning("invalid", "invalid:currency").title
    'The shop reported a wrong currency'
    >>> meaning("dead", "too_old") == meaning("expired", "too_old")
    True
    """
    outcome = _BECAME.get(reason.partition(":")[0], outcome)
    said, field = reason.replace("_", " "), reason.partition(":")[2]
    settable = field if outcome == "invalid" and field in FIELDS else ""
    kinds = [reason, *["unpaid"] * reason.startswith(UNPAID), *["settable"] * bool(settable), "*"]
    names = [*(f"{outcome}/{kind}" for kind in kinds), "*"]
    what = MEANINGS[next(name for name in names if name in MEANINGS)]
    words = {"reason": reason or "error", "said": said or outcome, "field": field or "field"}
    words |= {"in_brackets": f" ({said})" if said else "", "held": HELD}
    title, advice = (text.format(**words) for text in (what.title, what.advice))
    return what._replace(title=title, advice=advice, field=settable)


def summary(found: Reconciliation) -> list[tuple[tuple[str, str], str]]:
    """What came of a list of paid orders, in sentences, each with the orders' status and reason.

    The reason is empty where a line tells of all orders of a status; ``differing`` stands for
    those that were reported with another value.
    """
    if not found.total:
        return [(("", ""), "the list holds no orders")]
    numbers = found.counts | Counter(differing=found.differing)
    lines = []
    for status, words in texts("words.toml", "listed/").items():
        reasons = {why: n for (of, why), n in found.reasons.most_common() if of == status}
        for why, n in (reasons or {"": numbers[status]}).items():
            more = f": {meaning(status, why).title}" if reasons else ""
            if status == "missing" and found.groups:
                most = found.groups.most_common(5)
                groups = (f"{n:,} with {found.group} {it or 'empty'!r}" for it, n in most)
                more = f": {', '.join(groups)}"
            if n or status == "delivered":
                said = agreeing(words["sentence"], n)
                said = said.replace("{all}", counted(found.total, "paid order"))
                lines.append(((status, why), f"{n:,} {said}{more}"))
    if not found.has_times:
        text = "what is not in the list is not looked for: no times can be read"
        lines.append((("not_listed", ""), text))
    return lines

"""One thing that is wrong, and what reasons mean to people.

``findings.toml`` is the table of all that can be wrong; ``reasons.toml`` says of each reason what
happened, what to do and who; ``words.toml`` what came of a list of paid orders.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from adroll_flask.errors import help_for
from adroll_flask.outbox.model import GIVEN_UP, Row
from adroll_flask.plurals import agreeing, counted
from adroll_flask.reporting.kept_events import FIELDS, HELD, UNPAID
from adroll_flask.reporting.reconciliation import Order, Reconciliation
from adroll_flask.times import iso

Severity: TypeAlias = Literal["error", "warning", "hint", "ok"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "hint", "ok")
#: Words of :func:`finding_of` that are fields of the finding.
_ABOUT: Final = ("key", "shop", "since", "events", "values", "answer")


def texts(file: str, part: str = "") -> dict[str, dict[str, Any]]:
    """A table of texts, by name. A variant has the texts of its code that it has not itself.

    :param file: beside this module. The names in it are codes (``csp``) and variants
        (``csp/no-pixel``).
    :param part: only names that begin with it, and without it, such as ``way/``.
    """
    table = tomllib.loads((files("adroll_flask.findings") / file).read_text("utf-8"))
    return {
        name.removeprefix(part): {**table.get(name.partition("/")[0], {}), **table[name]}
        for name in table
        if name.startswith(part)
    }


#: What can be wrong, by name; see the head of the file.
TABLE: Final = texts("findings.toml")
#: What several texts say, by the name that stands in them.
SHARED: Final = TABLE.pop("shared")


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
    :param shop: the shop that it is about, by its hosts; empty: of all, or of the only one.
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
    shop: str = ""
    since: float | None = None
    events: int = 0
    values: tuple[tuple[str, Decimal], ...] = ()
    answer: str = ""
    is_cause: bool = False

    @property
    def help(self) -> str:
        """Where its explanation is: an address, or a command; empty where all is well."""
        return help_for(self.code) if self.code else ""

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON takes it."""
        values = [[currency, f"{value:f}"] for currency, value in self.values]
        return asdict(self) | {"values": values, "help": self.help}


def finding_of(name: str, subject: str = "", /, **words: Any) -> Finding:
    """The finding *name* of the table, about *subject*.

    :param name: a code or a variant. A variant that the table does not have is its code.
    :param subject: empty: the table's.
    :param words: *key*, *shop*, *since*, *events*, *values* and *answer* of the finding, and its
        *severity* where it is not the table's. The others are what ``{…}`` in the texts stand for.
        ``{number}`` is *events*, and ``{one|more}`` one of the two, by *events*.
    """
    code = name.partition("/")[0]
    entry = TABLE.get(name) or TABLE[code]
    severity: Severity = words.pop("severity", None) or entry["severity"]
    about: dict[str, Any] = {part: words.pop(part) for part in _ABOUT if part in words}
    events = about.get("events", 0)
    words["number"] = f"{events:,}"
    # A path in a command is copied with it, and may have spaces.
    paths = {name: word for name, word in words.items() if isinstance(word, Path)}
    quoted = words | {name: shlex.quote(str(path)) for name, path in paths.items()}
    table_texts = SHARED | entry
    for part in ("sentence", "todo", "who", "command", "page"):
        text = entry.get(part, "")
        # The table's texts have others in them, three deep. The rule's words are filled in last:
        # a brace in them is a brace.
        for _ in range(3):
            text = _filled_in(text, {key: table_texts[key] for key in table_texts.keys() - words})
        own = quoted if part in ("todo", "command") else words
        about[part] = _filled_in(agreeing(text, events), own)
    if about["todo"] and not about["who"]:
        about["who"] = "developer"
    about["is_cause"] = entry.get("is_cause", False)
    slug = "" if severity == "ok" else code
    return Finding(severity, slug, subject or entry["subject"], **about)


def _filled_in(text: str, words: Mapping[str, Any]) -> str:
    """*text* with each ``{name}`` replaced that *words* has."""
    return re.sub(r"\{(\w+)\}", lambda name: str(words.get(name[1], name[0])), text)


def ok(subject: str, text: str) -> Finding:
    """The finding that all is well with *subject*."""
    return finding_of("ok", subject, text=text)


# -- what reasons mean, in the history and of dead letters: all pages say the same of one ---------


class Meaning(NamedTuple):
    """One reason as people read it.

    :param title: what happened, in a few words.
    :param advice: what to do; empty: there is nothing to do.
    :param who: ``developer``, ``marketer``, or empty for nobody.
    :param is_ours: the words that a dead letter has beside it are ours and not AdRoll's.
    :param can_retry: whether sending such a dead letter again may help.
    :param field: the field that is to be set before that, of
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


def meaning(outcome: str, reason: str, **own: str) -> Meaning:
    """What *reason* means.

    :param outcome: as the history has it, or an event's state.
    :param own: what ``{…}`` in the texts stand for, where the table says something else.

    >>> meaning("invalid", "invalid:currency").title
    'The shop reported a wrong currency'
    >>> meaning("dead", "too_old") == meaning("expired", "too_old")
    True
    """
    code, _, field = reason.partition(":")
    # What is dead or cancelled may have another outcome in the history.
    if code == "invalid":
        outcome = "invalid"
    elif f"expired/{code}" in MEANINGS:
        outcome = "expired"
    settable = field if outcome == "invalid" and field in FIELDS else ""
    names = [f"{outcome}/{reason}"]
    if outcome == "waiting":
        names.append(f"code/{reason}")
    if reason.startswith(UNPAID):
        names.append(f"{outcome}/unpaid")
    if settable:
        names.append(f"{outcome}/settable")
    names += [f"{outcome}/*", "*"]
    what = MEANINGS[next(name for name in names if name in MEANINGS)]
    plain = reason.replace("_", " ")
    words = SHARED | {
        "reason": reason or "error",
        "words": plain or outcome,
        "field": field or "field",
        "in_brackets": f" ({plain})" if plain else "",
        "held": HELD,
        **own,
    }
    title = _filled_in(what.title, words)
    return what._replace(title=title, advice=_filled_in(what.advice, words), field=settable)


def why_of(row: Row) -> str:
    """Why an event is where it is, as people read it."""
    state = "waiting" if row.state in ("claimed", "sending") else row.state
    return in_words(state, row.why)


def in_words(outcome: str, why: str) -> str:
    """*why* with the meaning of its reason in the reason's place.

    :param why: a reason, and perhaps AdRoll's words or ours behind it.

    >>> in_words("waiting", "dns: dns")
    "The name of AdRoll's server has no address. Nothing was sent"
    >>> in_words("dead", "invalid:currency: currency: takes three letters")
    'The shop reported a wrong currency: takes three letters'
    """
    reason, *words = why.split(": ")
    # The words on a failed request begin with its reason, and those on a wrong field with its name.
    if words[:1] in ([reason], [reason.removeprefix("invalid:")]):
        words = words[1:]
    if reason in GIVEN_UP and words:  # the reason follows for which it was a dead letter
        words = [in_words("dead", ": ".join(words))]
    return ": ".join([meaning(outcome, reason).title, *words]) if why else ""


def row_of(order: Order) -> dict[str, Any]:
    """An order of a list as a CSV file has it: ``why`` in words, the time as ISO 8601 in UTC, and
    ``reason``, the reason's code, for programs."""
    reason = order.why.partition(": ")[0]
    why = in_words(order.status, order.why)
    return order._asdict() | {"why": why, "time": iso(order.time), "reason": reason}


def summary(compared: Reconciliation) -> list[tuple[tuple[str, str], str]]:
    """What came of a list of paid orders: sentences, each with the status and reason of its orders.

    The reason is empty where a sentence is about all orders of a status. ``differing`` and
    ``refunded`` stand in the place of a status for orders that were reported with another value,
    and that the shop took back.
    """
    if not compared.total:
        return [(("", ""), "the list holds no orders")]
    numbers = compared.counts | Counter(differing=compared.differing, refunded=compared.refunded)
    all_orders = counted(compared.total, "paid order")
    about = {"all": all_orders, "receiver": compared.reporter.settings.receiver}
    lines = []
    for status, words in texts("words.toml", "listed/").items():
        reasons = {why: n for (of, why), n in compared.reasons.most_common() if of == status}
        for why, number in (reasons or {"": numbers[status]}).items():
            if not number and status != "delivered":
                continue
            text = _filled_in(agreeing(words["sentence"], number), about)
            if reasons:
                text += f": {meaning(status, why).title}"
            elif status == "missing" and compared.groups:
                most = compared.groups.most_common(5)
                groups = (f"{n:,} with {compared.group} {it or 'empty'!r}" for it, n in most)
                text += f": {', '.join(groups)}"
            lines.append(((status, why), f"{number:,} {text}"))
    if not compared.has_times:
        days = counted(compared.reporter.settings.dedupe_days, "day")
        text = (
            "the list has no times that can be read: orders that it lacks are not looked for, and"
            f" one that was paid more than {days} ago cannot be told from one that is missing"
        )
        lines.append((("not_listed", ""), text))
    return lines

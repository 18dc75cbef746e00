"""``flask adroll explain``: what a message, a reason or a setting means, without the Internet.

The texts stand elsewhere: messages in docs/errors.md, of which a wheel has a copy; reasons in
``reasons.toml``; settings in the comments of :class:`~adroll_flask.settings.Settings`.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import click

from adroll_flask.delivery.client import kind_of
from adroll_flask.events.names import suggestion
from adroll_flask.findings.finding import MEANINGS, meaning
from adroll_flask.settings import Settings

from . import console

_PAGE: Final = Path(__file__).parents[2] / "docs" / "errors.md"
_COPY: Final = files("adroll_flask.cli") / "errors.md"  # it may lie in a zip
#: An entry of the page: its anchor, its title, and its lines.
_ENTRY: Final = re.compile(r'^<a id="([a-z-]+)"></a>\n### (.+)\n\n((?:- .+\n)+)', re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]+)\]\(([\w/-]+\.md)?[^)]*\)")
#: A setting: the lines of its comment, and its name.
_SETTING: Final = re.compile(r"((?:^    #: .*\n)+)^    (\w+):", re.MULTILINE)
_STATUS: Final = re.compile(r"http_([1-5][0-9]{2})(_to_everything)?")
_DEFAULT: Final = re.compile(r"\s*Default: (.*?)\.(?=\s|$)")


class Entry(NamedTuple):
    """What there is to say of a code. Each line of a message begins with Cause, Meaning or Fix."""

    title: str
    lines: Sequence[str]


def messages() -> Mapping[str, Entry]:
    """The page's entries by their codes, without its markup. A link becomes its page's name."""
    text = (_COPY if _COPY.is_file() else _PAGE).read_text("utf-8")
    plain = _LINK.sub(lambda link: f"{link[1]} (docs/{link[2]})" if link[2] else link[1], text)
    return {
        code: Entry(title, [line.removeprefix("- ") for line in body.splitlines()])
        for code, title, body in _ENTRY.findall(plain.replace("**", ""))
    }


@cache
def settings() -> Mapping[str, tuple[str, str]]:
    """What each setting is, and its default, in the markup of docstrings.

    >>> settings()["ADROLL_ENABLED"]
    ('Off: the API is there and does nothing.', '``True``')
    """
    defaults = {setting.name: setting.default for setting in fields(Settings)}
    try:
        described = _SETTING.findall(inspect.getsource(Settings))
    except OSError:  # byte code alone, as in a frozen app
        elsewhere = "What it is, docs/reference/settings.md says; this installation has no sources."
        described = [(elsewhere, name) for name in defaults]
    texts = {}
    for comment, name in described:
        text = " ".join(line.strip().removeprefix("#: ") for line in comment.splitlines())
        own_words = _DEFAULT.search(text)
        default = own_words[1] if own_words else f"``{defaults[name]!r}``"
        texts[f"ADROLL_{name.upper()}"] = (_DEFAULT.sub("", text).strip(), default)
    return texts


@console.commands.command("explain", with_appcontext=False)
@click.argument("code", required=False)
@console.AS_JSON
def explain(code: str | None) -> None:
    """Say what a message, a reason or a setting means.

    CODE is what a message ends in (event-lost), a reason that events died of (too_old), or a
    setting (ADROLL_HOSTS). Without it, all messages are listed. What is wrong here, check says.
    """
    entries = messages()
    if code is None:
        rows = [(code, entries[code].title) for code in sorted(entries)]
        listed = [{"code": code, "title": title} for code, title in rows]
        console.show(listed, console.table(("code", "meaning"), rows))
        return
    code = code.rpartition("#")[2]  # if it is an address
    entry = entries.get(code) or _of_setting(code) or _of_status(code) or _of_reason(code, entries)
    wrap = textwrap.TextWrapper(100, subsequent_indent="  ", break_on_hyphens=False)
    wrapped = [wrap.fill(console.as_typed(line)) for line in (entry.title, *entry.lines)]
    console.show({"code": code, **entry._asdict()}, "\n".join(wrapped))


def _of_setting(name: str) -> Entry | None:
    """What a setting is; ``None``: there is no such setting."""
    if name not in settings():
        return None
    text, default = settings()[name]
    plain = [line.replace("``", "`") for line in (text, f"Default: {default}.")]
    return Entry(name, plain)


def _of_status(code: str) -> Entry | None:
    """What an HTTP status of AdRoll's means (``http_401``); ``None``: *code* is none."""
    status = _STATUS.fullmatch(code)
    if status is None:
        return None
    means = meaning("answer", kind_of(int(status[1]))).title
    to_all = "AdRoll answered so to every event. " if status[2] else ""
    return Entry(f"AdRoll's answer had the HTTP status {status[1]}", [f"Meaning. {to_all}{means}"])


def _of_reason(reason: str, entries: Mapping[str, Entry]) -> Entry:
    """What a reason of the history or of a dead letter means.

    :raises click.UsageError: *reason* is none.
    """
    # A reason of several outcomes gets the first of the table, such as dead before failed.
    outcomes = {key.partition("/")[2]: key.partition("/")[0] for key in reversed(MEANINGS)}
    outcome = "invalid" if reason.startswith("invalid:") else outcomes.get(reason, "answer")
    kinds = ("", "*", "unpaid", "settable", "invalid:")
    if outcome == "answer" or reason in kinds:
        reasons = [code for code, of in outcomes.items() if of != "answer" and code not in kinds]
        near = suggestion(reason, [*entries, *reasons, *settings()])
        raise click.UsageError(f"there is no code {reason!r}{near or '; explain lists all'}")
    what = meaning(outcome, reason)
    return Entry(what.title, [f"Fix. {what.advice}"] if what.advice else [])

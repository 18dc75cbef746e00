"""One thing that ``flask adroll check`` looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from adroll_flask.errors import help_url

Level = Literal["error", "warning", "info", "ok"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    subject: str
    text: str
    #: What to do about it; empty where there is nothing to do.
    fix: str = ""
    #: The part of ``docs/errors.md`` that explains it; empty where all is well.
    slug: str = ""

    @property
    def help_url(self) -> str:
        """The address of its explanation; empty where all is well."""
        return help_url(self.slug) if self.slug else ""

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON takes it."""
        fields = asdict(self)
        fields["help_url"] = self.help_url
        del fields["slug"]
        return fields

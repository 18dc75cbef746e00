"""What a command says where it does not do what it was asked."""

from __future__ import annotations

import click


class Refusal(click.ClickException):
    """A command did nothing, or not all of it.

    :param slug: the part of ``docs/errors.md`` that explains it.
    """

    def __init__(self, message: str, *, slug: str) -> None:
        super().__init__(message)
        self.slug = slug

"""Replacing a method of one object whose class has slots."""

from collections.abc import Callable
from typing import Any

from tests.conftest import Patch


def replace_method(patch: Patch, owner: object, name: str, function: Callable[..., Any]) -> None:
    """Let *function* be called in place of *owner*'s method *name*.

    Other objects of the class keep theirs: a thread of an earlier test may still work with one.
    """
    really = getattr(type(owner), name)

    def called(self: object, *given: Any, **named: Any) -> Any:
        return function(*given, **named) if self is owner else really(self, *given, **named)

    patch.setattr(type(owner), name, called)

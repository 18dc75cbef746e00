"""What the people who run a shop look at: did every paid order reach AdRoll, and what to do if not.

Start at :mod:`.mounting`, which puts the pages into an app, and :mod:`.page`, which says what a
page is. Each page is a module that makes plain data, and a template that shows it; the same data
are the page's JSON, and its rows the CSV.
"""

from __future__ import annotations

from .mounting import mount

__all__ = ["mount"]

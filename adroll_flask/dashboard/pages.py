"""The dashboard's pages, in the navigation's order; the first is what one sees first."""

from __future__ import annotations

from typing import Final

from . import match_quality, orders, overview, problems, trial
from .page import Page

PAGES: Final[tuple[Page, ...]] = (
    overview.PAGE,
    match_quality.PAGE,
    orders.PAGE,
    problems.PAGE,
    trial.PAGE,
)

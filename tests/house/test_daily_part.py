"""What of the browsers' tests is run every day is there."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.conftest import BROWSERS, DAILY


@pytest.mark.parametrize("name", DAILY)
def test_a_name_of_the_daily_part_is_a_test_s(name: str) -> None:
    path, _, test = name.partition("::")
    assert name.startswith(BROWSERS)
    there = vars(import_module(path.removesuffix(".py").replace("/", ".")))
    assert any(one.startswith(test.partition("[")[0] or "test_") for one in there)

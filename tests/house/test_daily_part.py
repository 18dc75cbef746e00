"""What of the browsers' tests is run every day is there."""

from __future__ import annotations

import pytest

from tests.conftest import BROWSERS, DAILY
from tests.support import ROOT


@pytest.mark.parametrize("name", DAILY)
def test_a_name_of_the_daily_part_is_a_test_s(name: str) -> None:
    path, _, test = name.partition("::")
    text = (ROOT / path).read_text()
    assert name.startswith(BROWSERS)
    assert f"\ndef {test.partition('[')[0]}" in text

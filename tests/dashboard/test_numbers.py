"""Numbers as people read them, CSV, and where the marks of a plot stand."""

from __future__ import annotations

from decimal import Decimal

import pytest

from adroll_flask.dashboard.numbers import count, csv_text, decimal, money, percent, short
from adroll_flask.dashboard.plots import Series, lines, stacked
from tests.support import ROOT


def test_numbers_and_money() -> None:
    assert count(1234567) == "1,234,567"
    assert money(Decimal("1234.5"), "EUR") == "1,234.50 EUR"
    assert money(Decimal(250_000), "") == "250,000"
    assert decimal(4.25) == "4.2"
    assert [short(number) for number in (0, 1500, 20_000_000)] == ["0", "1.5k", "20M"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.00001, "0.1 %"), (0.8534, "85.3 %"), (0.99999, "99.9 %"), (1.0, "100 %")],
)
def test_only_all_is_all_and_only_nothing_is_nothing(share: float, text: str) -> None:
    assert percent(share) == text


def test_no_form_of_a_time_is_one_platforms_alone() -> None:
    """``%-d`` is glibc's: Windows' strftime raises at it, so that it is written by ourselves."""
    for path in (ROOT / "adroll_flask" / "dashboard").glob("*.py"):
        for line in path.read_text().splitlines():
            assert "strftime(" not in line or "%-" not in line or "replace" in line, path.name


def test_a_spreadsheet_runs_nothing_of_a_csv() -> None:
    text = csv_text([{"order": value} for value in ("=1+1", "@x", "+4", "-1", "1001")])
    assert text == "order\n'=1+1\n'@x\n'+4\n'-1\n1001\n"


def test_one_of_a_million_is_seen() -> None:
    plot = stacked(["a"], ["a"], [Series("x", "good", [999_999]), Series("y", "bad", [1])])
    assert plot.bars[0].parts[1].height >= 1.5


def test_bars_stand_on_each_other_and_reach_no_higher_than_the_axis() -> None:
    values = [[3, 9, 17], [8, 0, 4]]
    plot = stacked(list("abc"), list("abc"), [Series("x", "good", v) for v in values])
    top = plot.ticks[-1][1]
    assert top >= 21
    for n, bar in enumerate(plot.bars):
        bottom = 200.0
        for part in bar.parts:
            assert part.y + part.height == pytest.approx(bottom, abs=0.02)
            bottom = part.y
        expected = 200 - (values[0][n] + values[1][n]) / top * 200
        assert bottom == pytest.approx(expected, abs=0.1)
        assert bottom >= 0


def test_ticks_are_round_for_any_size() -> None:
    for size in (1, 4, 5, 7, 13, 99, 101, 960, 3777, 12_345, 10**7):
        plot = stacked(["a"], ["a"], [Series("x", "good", [size])])
        ticks = [value for _, value in plot.ticks]
        assert ticks[-1] >= size
        assert ticks[-1] <= max(4, 2.1 * size)
        assert all(value == int(value) for value in ticks), (size, ticks)


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    plot = lines(list("abcde"), list("abcde"), [Series("x", "one", [0.5, 0.5, None, 1.0, None])], 1)
    [line] = plot.lines
    assert len(line.pieces) == 1
    assert line.dots == ((70.0, 0.0),)

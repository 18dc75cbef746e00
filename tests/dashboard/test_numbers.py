"""Numbers as people read them, CSV, and where the marks of a plot stand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest
from jinja2 import Environment, PackageLoader

from adroll_flask.dashboard.numbers import count, csv_text, decimal, money, percent, short
from adroll_flask.dashboard.plots import Plot, Series
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


def drawn(*values: list[float | None], are_lines: bool = False) -> ElementTree.Element:
    """The plot of these series, whose tones are ``one``, ``two`` …"""
    series = [Series(tone, tone, of) for tone, of in zip(("one", "two"), values, strict=False)]
    names = [str(n) for n in range(len(values[0]))]
    plot = Plot(labels=names, full=names, series=series, are_lines=are_lines)
    templates = Environment(loader=PackageLoader("adroll_flask.dashboard"), autoescape=True)
    macros: Any = templates.get_template("plots.html").module
    return ElementTree.fromstring(macros.plot(plot, "plot", "A plot", "When", str, str))


def bars(plot: ElementTree.Element) -> list[list[tuple[float, float]]]:
    """Top and height of each bucket's parts."""
    return [
        [
            (float(part.get("y", "")), float(part.get("height", "")))
            for part in bucket.findall("rect")
            if part.get("class") in ("one", "two")
        ]
        for bucket in plot.iter("g")
    ]


def ticks(plot: ElementTree.Element) -> list[float]:
    [axis] = (one for one in plot.iter("svg") if one.get("class") == "plot-ticks")
    return [float(text.text or "") for text in axis]


def test_one_of_a_million_is_seen() -> None:
    [[_, (_, height)]] = bars(drawn([999_999], [1]))
    assert height >= 1.5


def test_bars_stand_on_each_other_and_reach_no_higher_than_the_axis() -> None:
    values: list[list[float | None]] = [[3, 9, 17], [8, 0, 4]]
    plot = drawn(*values)
    top = ticks(plot)[-1]
    assert top >= 21
    for n, bar in enumerate(bars(plot)):
        bottom = 200.0
        for y, height in bar:
            assert y + height == pytest.approx(bottom, abs=0.02)
            bottom = y
        expected = 200 - sum(one[n] or 0 for one in values) / top * 200
        assert bottom == pytest.approx(expected, abs=0.1)
        assert bottom >= 0


def test_ticks_are_round_for_any_size() -> None:
    for size in (1, 4, 5, 7, 13, 99, 101, 960, 3777, 12_345, 10**7):
        values = ticks(drawn([size]))
        assert values[-1] >= size
        assert values[-1] <= max(4, 2.1 * size)
        assert all(value == int(value) for value in values), (size, values)


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    plot = drawn([0.5, 0.5, None, 1.0, None], are_lines=True)
    line, dots = (path.get("d") for path in plot.iter("path"))
    assert line == "M100.0,100.0L300.0,100.0M700.0,0.0"
    assert dots == "M700.0,0.0h0"

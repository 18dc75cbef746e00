"""However many events wait, delivery holds a batch of them in memory and no more."""

from __future__ import annotations

import pytest

from benchmarks import backlog

MANY = 50_000
#: MB. The payloads alone of the many would be ten times that.
MORE = 5.0


@pytest.mark.slow
def test_memory_stays_flat_with_fifty_thousand_events_waiting_and_adroll_up_or_down() -> None:
    with backlog.server() as server, backlog.backlog_in_a_folder() as shop:
        few = backlog.peaks(shop, server, backlog.FEW)
        many = backlog.peaks(shop, server, MANY)
        assert MANY * shop.payload_bytes > 10 * MORE * 1e6
    assert few.keys() == many.keys()
    assert {way.partition(",")[0] for way in few} == {"up", "refused", "503"}
    for way, most in many.items():
        assert most < few[way] + MORE, f"{way}: {few[way]:.1f} MB, then {most:.1f}"

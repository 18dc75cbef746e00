"""AdRoll is back: how long until the first event is there; ``benchmarks/recovery.py`` in short."""

import itertools

import pytest

from adroll_flask.sandbox import running
from benchmarks.recovery import FAULTS, REAL, delays, questions, real_run


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "length",
    [
        pytest.param(90.0, id="90 s"),
        pytest.param(600.0, id="10 min", marks=pytest.mark.slow),
        pytest.param(3600.0, id="1 h", marks=pytest.mark.slow),
    ],
)
def test_the_first_event_follows_within_half_a_minute(length: float, fault: str) -> None:
    found = delays(length, fault, outages=4 if length < 100 else 1)
    assert found[-1] <= 30.1
    assert found[len(found) // 2] <= 20


@pytest.mark.parametrize("workers", [1, 6])
def test_however_many_workers_there_are_one_of_them_asks_now_and_then(workers: int) -> None:
    asked = questions(1800.0, "http_503", workers=workers)
    gaps = [after - before for before, after in itertools.pairwise(asked)]
    assert max(gaps) <= 30.1
    assert min(gaps[5:]) >= 15.0, "no more often than one would"
    assert workers > 1 or min(gaps[5:]) < 18.0 < 27.0 < max(gaps), "spread over half of the pause"


#: Of the faults on real sockets, one with all other tests.
DAILY = "503"


@pytest.mark.parametrize(
    "name", [name if name == DAILY else pytest.param(name, marks=pytest.mark.slow) for name in REAL]
)
def test_an_order_of_an_outage_arrives_in_earnest(name: str) -> None:
    with running() as sandbox:
        assert real_run(sandbox, REAL[name], 3.0) < 30.0

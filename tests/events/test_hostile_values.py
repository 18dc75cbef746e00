"""What a long text of a visitor's costs: each is held against its bound before it is read.

Counted in instructions by valgrind, which are the same on a busy machine.
"""

from contextlib import closing
from pathlib import Path

import pytest

from adroll_flask.events.names import FIELD_NAMES, PRODUCT_FIELDS
from benchmarks.instructions import CountedProcess, missing
from tests.support import lacking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL, LARGE = 20_000, 80_000
FIELDS = (
    *(name for name in FIELD_NAMES if name not in ("product_map", "external_data", "products")),
    *(f"products.{name}" for name in PRODUCT_FIELDS),
)
#: Instructions, of all kinds together: a text may be copied, hashed or compared, at most.
ALLOWED = 5_000_000


def test_a_text_beyond_its_bound_costs_what_its_bound_costs(tmp_path: Path) -> None:
    if why := missing():
        lacking(why)
    dear = {}
    program = CountedProcess(tmp_path, "tests.support.hostile", f"{SMALL}", f"{LARGE}")

    def cost(field: str, size: int) -> float:
        program.do(field=field, size=size)
        return program.counted().own

    with closing(program):
        cost("order_id", SMALL)  # with what is loaded and made once
        for field in FIELDS:
            small, large = (cost(field, size) for size in (SMALL, LARGE))
            if large - small > ALLOWED:
                dear[field] = f"{small:,} and {large:,}"
    assert not dear

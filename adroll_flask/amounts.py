"""Arithmetic with amounts, to the last digit.

An app may choose the precision, the rounding and the traps of its decimals, for one thread or for
all. Python's operators, ``sum``, ``abs`` and ``round`` go by them, and what is not exact would be
cut off or raise. So amounts are added, subtracted and divided in a context of our own.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from functools import reduce
from typing import Final

#: It has more digits than any sum of amounts.
EXACT: Final = Context(prec=40, rounding=ROUND_HALF_UP, traps=[InvalidOperation])


def added(amounts: Iterable[Decimal]) -> Decimal:
    """The sum of *amounts*.

    >>> added([Decimal("0.10"), Decimal("12345678.90")])
    Decimal('12345679.00')
    """
    return reduce(EXACT.add, amounts, Decimal())

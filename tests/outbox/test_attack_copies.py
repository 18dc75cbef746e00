"""An outbox that came back from a copy sends nothing by itself: no row, no entry, no release."""

from pathlib import Path

import pytest

from adroll_flask.outbox.journal import turn
from tests.support.shops import Shop

pytestmark = pytest.mark.patient


def test_a_copy_whose_journal_is_read_is_not_said_to_rest(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    shop.report("order:1")

    with turn(shop.folder / "adroll-journal"):  # as a worker that was left running
        said = shop.adroll("outbox", "restored", check=False)

    assert "another process reads the journal; stop it first" in said
    assert shop.adroll("outbox", "restored").startswith("1 event ")

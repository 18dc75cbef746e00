"""What is damaged in the journal is kept aside and said, wherever in a file it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from adroll_flask.sandbox import running
from tests.support.shops import Shop, orders


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage_the_last_entry(path: Path, before: bytes, place: float) -> bytes:
    """Flip a bit of what *path* has more than *before*, a part of the way through it."""
    now = path.read_bytes()
    begin = len(before)
    # All but the newline, without which an entry was never acknowledged.
    at = begin + int(place * (len(now.rstrip()) - 1 - begin))
    damaged = now[:at] + bytes([now[at] ^ 1]) + now[at + 1 :]
    path.write_bytes(damaged)
    return damaged[begin:].rstrip()


@pytest.mark.parametrize(
    "place",
    [
        0.0,
        *(pytest.param(place, marks=pytest.mark.slow) for place in (0.005, 0.01, 0.05, 0.5, 1.0)),
    ],
)
def test_a_damaged_last_entry_is_kept_aside_and_logged(place: float, tmp_path: Path) -> None:
    with running(strict=True) as sandbox:
        shop = Shop(tmp_path / "shop").at(sandbox)
        with shop.but(delivery="thread", access_token=None).reporting() as reporter:
            reporter.report("order:1")
            before = files_of(shop.folder)
            reporter.report("order:2")
            ((path, was),) = [
                (path, was) for path, was in before.items() if path.read_bytes() != was
            ]
        entry = damage_the_last_entry(path, was, place)

        said = shop.adroll("worker", "--once")

        assert orders(sandbox) == ["1"]
        assert "damaged" in said
        end = entry[len(entry) // 2 :]
        assert any(end in content for content in files_of(shop.folder).values())

"""The form in which a deduplication key is kept."""

from __future__ import annotations

import pytest

from adroll_flask.events.privacy import HASHED, kept_key

SECRET = b"a key of the site"


@pytest.mark.parametrize(
    "key", ["1001", "2024-10/1001", "Bestellung 7", "A@12", "@shop", "caf\u00e9-7", "50%40"]
)
def test_an_order_s_id_stays_readable(key: str) -> None:
    assert kept_key(key, SECRET) == key


def test_two_ways_to_write_a_character_are_one_key() -> None:
    assert kept_key("caf\u00e9-7", SECRET) == kept_key("cafe\u0301-7", SECRET)


@pytest.mark.parametrize(
    "key",
    [
        "ann@example.com",
        "trial:ann@example.com",
        "trial ann@example.com 7",
        "ann@intranet",
        "trial%3Aann%40example.com",
        "ann%2540example.com",
        "ann\uff20example.com",
        "J\u00f6rg@example.com",
    ],
)
def test_an_address_is_kept_as_a_hash_that_only_the_site_can_make(key: str) -> None:
    kept = kept_key(key, SECRET)
    assert kept.startswith(HASHED)
    assert "example" not in kept
    assert kept == kept_key(key, SECRET)
    assert kept != kept_key(key, b"another site's")
    assert kept != kept_key(key, None)
    assert kept_key(kept, SECRET) == kept


def test_an_address_with_an_accent_is_one_in_both_ways_to_write_it() -> None:
    assert kept_key("Jo\u0308rg@example.com", SECRET) == kept_key("J\u00f6rg@example.com", SECRET)

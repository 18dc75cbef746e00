"""The kit's files: small, built from their sources, and as the README says."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "static"
LIMITS = {
    "adroll-kit.min.js": 1000,
    "adroll-kit-consent.min.js": 2200,
    "adroll-kit-origins.min.js": 1100,
    "adroll-kit-consent-origins.min.js": 2300,
}


def gzipped(name: str) -> int:
    return len(gzip.compress((STATIC / name).read_bytes(), compresslevel=9, mtime=0))


def sha256(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", LIMITS)
def test_a_built_file_stays_below_its_limit(name: str) -> None:
    assert gzipped(name) <= LIMITS[name]


@pytest.mark.parametrize("name", LIMITS)
def test_a_built_file_belongs_to_its_sources(name: str) -> None:
    built = json.loads((STATIC / "built.json").read_text())[name]
    changed = [source for source, digest in built["sources"].items() if sha256(source) != digest]
    assert changed == [], "run `make kit`"
    assert sha256(name) == built["sha256"], "a built file is not edited by hand: run `make kit`"


@pytest.mark.parametrize("name", LIMITS)
def test_a_built_file_is_plain_ascii_and_reveals_nothing_to_a_page(name: str) -> None:
    text = (STATIC / name).read_bytes().decode("ascii")
    # Nothing that writes to the console, evaluates text or asks another host.
    assert re.findall(r"console|\beval\b|Function\(|innerHTML|https?:|//", text) == []


def test_the_readmes_first_sentence_states_the_sizes() -> None:
    first = (STATIC / "README.md").read_text().split("\n\n")[1].split(". ")[0]
    sizes = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) bytes", first)]
    # zlib and its descendants differ by a few bytes.
    assert sizes == [pytest.approx(gzipped(name), abs=10) for name in LIMITS]


def test_the_readme_lists_every_setting_of_the_tag() -> None:
    sources = "".join(
        (STATIC / name).read_text() for name in ("adroll-kit.js", "adroll-kit-consent.js")
    )
    read = set(re.findall(r"settings\.(\w+)", sources))
    assert set(re.findall(r"`data-(\w+)`", (STATIC / "README.md").read_text())) == read

"""Placement judged by an HTML parser: our script is in the tree once, live, and else as before.

Lexbor parses as a browser does that runs scripts. It takes what stands before a `<!` at a page's
very end into that comment, so such pages are not judged.

The documents come from packages, pinned by version and hash:

- html5lib's tree-construction tests (MIT), in its source distribution on PyPI.
- 258 pages as the web served them in 2014, in npm's `htmlparser-benchmark`.
- 30 pages of news sites as served since, in `newspaper4k`'s source distribution on PyPI.

They are fetched by the registries' clients at the first use and kept in the user's cache.
"""

import functools
import hashlib
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from html5lib._inputstream import HTMLBinaryInputStream
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from adroll_flask.page.placement import HOLD_LIMIT
from tests.page.test_placement import SNIPPET, place, streamed
from tests.support import lacking

pytestmark = pytest.mark.patient

DEAD = {"template", "svg", "math", "select", "frameset", "noscript", "iframe", "title", "textarea"}


@dataclass(frozen=True)
class Package:
    registry: str
    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.name}-{self.version}.{'tgz' if self.registry == 'npm' else 'tar.gz'}"

    def fetch(self, into: Path) -> None:
        if self.registry == "npm":
            command = ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
            command += ["--pack-destination", str(into)]
        else:
            wanted = into / "requirements.txt"
            wanted.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
            # html5lib's setup.py imports pkg_resources, which later versions have no more.
            builder = into / "builder.txt"
            builder.write_text("setuptools<81\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--no-binary", self.name, "-r", str(wanted), "-d", str(into)]
            command += ["--build-constraint", str(builder)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)


HTML5LIB = Package(
    "PyPI", "html5lib", "1.1", "b2e5b40261e20f354d198eae92afc10d750afb487ed5e50f9c4eaf07c184146f"
)
BENCHMARK_PAGES = Package(
    "npm",
    "htmlparser-benchmark",
    "1.1.3",
    "677aa1b5ea0aa8d7b84501151abd51ef1c5e63d7853395ef24756e2f2b3ea2ce",
)
NEWS_PAGES = Package(
    "PyPI",
    "newspaper4k",
    "0.9.6",
    "a3f2f0e017dddb6f1019ee77aaa8980e13e6ecea0b949abc7167aae4770d2d0e",
)


@functools.cache
def archive(package: Package) -> Path:
    """Where *package* lies on this machine; skips the test where it cannot be had, fails in CI."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "adroll-flask-tests"
    kept = cache / package.file
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            try:
                package.fetch(Path(folder))
            except (OSError, subprocess.SubprocessError) as error:
                lacking(f"{package.file} is not to be had from {package.registry}: {error}")
            cache.mkdir(parents=True, exist_ok=True)
            made = cache / f"{package.file}.{os.getpid()}"
            made.write_bytes((Path(folder) / package.file).read_bytes())
            made.replace(kept)
    found = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert found == package.sha256, f"{kept} is not the {package.name} that the tests know"
    return kept


def _files(package: Package, pattern: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive(package)) as packed:
        for member in packed:
            if member.isfile() and re.search(pattern, member.name):
                file = packed.extractfile(member)
                assert file is not None
                yield member.name.rsplit("/", 1)[-1], file.read()


def tree_construction() -> list[tuple[str, bytes]]:
    """html5lib's documents: name and bytes; those for fragment parsing as documents too."""
    found = []
    for name, text in _files(HTML5LIB, r"testdata/tree-construction/.*\.dat$"):
        for number, test in enumerate(re.split(rb"(?:\A|\n\n)(?=#data\n)", text)):
            match = re.match(rb"#data\n(.*?)\n?#errors", test, re.DOTALL)
            if match:
                found.append((f"{name}:{number}", match[1]))
    return found


def real_pages() -> list[tuple[str, bytes]]:
    """Pages of the web: name and bytes."""
    pages = [
        *_files(BENCHMARK_PAGES, r"/files/.*\.html$"),
        *_files(NEWS_PAGES, r"tests/data/html/.*\.html$"),
    ]
    return [(name, page) for name, page in pages if page]


# -- the judges ----------------------------------------------------------------------------------


def charset_of(page: bytes) -> str:
    """What a browser decodes the page by: html5lib's word. Lexbor's own search for a declaration
    takes the quote of ``<p =">`` for a value's, which reaches into what follows."""
    return str(HTMLBinaryInputStream(page, useChardet=False).charEncoding[0].name)


def lexbor(page: bytes) -> LexborHTMLParser:
    text = page.decode(charset_of(page), "replace").removeprefix("\ufeff")
    return LexborHTMLParser(text, scripting=True)


def fault(before: bytes, after: bytes) -> str | None:
    """What is wrong with a page that got the snippet."""
    if before.endswith(b"<!"):
        return None
    tree = lexbor(after)
    scripts = tree.css('script[data-adroll][data-adv="ours"]')
    if len(scripts) != 1:
        return f"{len(scripts)} scripts"
    ancestor = scripts[0].parent
    while ancestor is not None:
        if ancestor.tag in DEAD:
            return f"dead in a <{ancestor.tag}>"
        ancestor = ancestor.parent
    scripts[0].decompose()
    if charset_of(after) != charset_of(before):
        return "another charset"
    return None if tree.html == lexbor(before).html else "another tree"


def stream(page: bytes, cuts: Iterable[int], charset: str | None) -> tuple[bytes, str]:
    edges = [0, *sorted(cuts), len(page)]
    return streamed([page[begin:end] for begin, end in pairwise(edges)], charset)


def judge(documents: list[tuple[str, bytes]]) -> Counter[str]:
    """What becomes of documents, none of which may be broken."""
    outcomes: Counter[str] = Counter()
    chance = random.Random(20)
    for name, page in documents:
        for charset in (None, "utf-8"):
            placed, outcome = whole = place(page, SNIPPET, charset=charset)
            for pieces in (1, 5, 40):
                cuts = [chance.randint(0, len(page)) for _ in range(pieces)]
                in_stream = stream(page, cuts, charset)
                if in_stream != whole:
                    assert placed.find(SNIPPET) >= HOLD_LIMIT, name
                    assert fault(page, in_stream[0]) is None, name
        outcomes[outcome] += 1
        if outcome == "injected":
            assert fault(page, placed) is None, name
        else:
            assert placed is page
    return outcomes


def test_html5libs_documents_keep_their_trees() -> None:
    documents = tree_construction()
    assert len(documents) > 1700
    # The rest have no tag of a document that counts: 880 begin with content, 3 end in a comment.
    assert judge(documents) == {"injected": 821, "fragment": 880, "unfinished": 3}


def test_real_pages_keep_their_trees() -> None:
    pages = real_pages()
    assert len(pages) == 288
    # Not served: an RSS feed, and a redirect that consists of scripts and a meta.
    assert judge(pages) == {"injected": 286, "fragment": 2}


TAGS = [
    "html", "head", "body", "title", "script", "style", "textarea", "noscript", "noframes",
    "template", "iframe", "xmp", "plaintext", "svg", "math", "select", "table", "col", "td",
    "frameset", "frame", "header", "p", "br", "div", "b", "a", "image", "input type=hidden", "link",
    "base", "meta", "basefont", "bgsound",
]  # fmt: skip
ATTRIBUTES = ["", " a", " a='>'", ' b="</head>"', ' c=d"e', " =", ' ="', "/", " f = '", "\n\tg=h/"]
ODDS = [
    "<!doctype html>", '<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01 Transitional//EN">',
    '<!doctype html PUBLIC "a>b">', "<!doctype", "<!--", "-->", "--!>", "<!-->", "<!--->",
    "<!-- x -->", "<!--[if IE]>", "<![endif]-->", "<![CDATA[", "]]>", "<?xml version='1.0'?>", "<?",
    "</>", "</ x>", "<!x>", "<!", "<", "</", "&#32;", "&#x0d;", "&#9", "&nbsp;", "&Tab;", "&amp",
    "&#0;", " ", "\n", "\r\n", "\f", "\0", "x", "'", '"', "=", "/", ">", "-", "é",
    "<meta charset=utf-8>", '<meta charset="windows-1252">', "<script src=x></script>",
    "<meta http-equiv='Content-Type' content='text/html; charset=iso-8859-1'>", "<title>a</title>",
]  # fmt: skip


def _tag(name: str, attributes: str, closing: bool, upper: bool) -> str:
    name = name.upper() if upper else name
    return f"</{name.split()[0]}{attributes}>" if closing else f"<{name}{attributes}>"


tags = st.builds(
    _tag, st.sampled_from(TAGS), st.sampled_from(ATTRIBUTES), st.booleans(), st.booleans()
)
soup = st.tuples(
    st.sampled_from(["", "<!doctype html>", "<html>", "<html><head>", "\ufeff<html>"]),
    st.lists(st.one_of(tags, st.sampled_from(ODDS)), max_size=20),
).map(lambda parts: (parts[0] + "".join(parts[1])).encode())


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(page=soup, charset=st.sampled_from([None, "utf-8"]), data=st.data())
@example(page=b"<!doctype html><!-- x", charset=None, data=None)
@example(page=b"<html><input type=hidden><meta charset=a><frameset>", charset=None, data=None)
@example(page=b"<html>x<!--[if IE]><iframe>y<meta charset=utf-8>", charset=None, data=None)
@example(page=b"<html><head><template><col><title></template></head>", charset=None, data=None)
@example(page=b"<html><template><b a='</template>'></b></template></html>", charset=None, data=None)
@example(page=b"<html><template></style a='></template><p>'>", charset=None, data=None)
@example(page=b'<html><p =">x<meta charset="windows-1252">\xc3', charset=None, data=None)
def test_soup_keeps_its_tree(page: bytes, charset: str | None, data: st.DataObject | None) -> None:
    whole = place(page, SNIPPET, charset=charset)
    cuts = data.draw(st.lists(st.integers(0, len(page)), max_size=8)) if data else range(len(page))
    assert stream(page, cuts, charset) == whole
    placed, outcome = whole
    if outcome == "injected":
        assert fault(page, placed) is None
    else:
        assert placed is page

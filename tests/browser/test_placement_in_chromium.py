"""Placement judged by the browser itself: every seventh page and every fourth document of html5lib.

A policy keeps the pages' own scripts from running, which leaves parsing as it is with scripts on.
"""

from __future__ import annotations

import base64

import pytest
from playwright.sync_api import BrowserContext, Route

from adroll_flask.page.placement import place
from tests.support.corpora import real_pages, tree_construction

SNIPPET = b'<script async src="/_adroll/kit.js" data-adroll data-adv="ours"></script>'

COMPARE = """async ([type, pairs]) => {
  const dump = (node) => [...node.childNodes].map((child) =>
    child.nodeType == 1
      ? ["<", child.namespaceURI, child.localName,
         ...[...child.attributes].map((a) => a.name + "=" + JSON.stringify(a.value)),
         child.localName == "template" && child.content ? "[" + dump(child.content) + "]" : "",
         dump(child), ">"].join(" ")
      : child.nodeType == 10
        ? ["<!", child.name, child.publicId, child.systemId, ">"].join(" ")
        : child.nodeType + JSON.stringify(child.data)
  ).join("\\n");
  const load = (text) => new Promise((done) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const frame = document.createElement("iframe");
    frame.onload = () => done(frame);
    frame.src = URL.createObjectURL(new Blob([bytes], {type}));
    document.body.append(frame);
  });
  const faults = [];
  for (const pair of pairs) {
    const frames = await Promise.all(pair.map(load));
    const [before, after] = frames.map((frame) => frame.contentDocument);
    const ours = [...after.querySelectorAll("script[data-adroll][data-adv=ours]")];
    for (const script of ours) script.remove();
    before.normalize();
    after.normalize();
    faults.push([
      ours.length != 1 && ours.length + " scripts",
      before.compatMode != after.compatMode && "another mode",
      before.characterSet != after.characterSet && "another charset",
      dump(before) != dump(after) && "another tree",
    ].filter(Boolean).join(", "));
    for (const frame of frames) frame.remove();
  }
  return faults;
}"""


def faults(context: BrowserContext, pages: list[tuple[str, bytes]], kind: str) -> dict[str, str]:
    def answer(route: Route) -> None:
        policy = "default-src 'none'; frame-src blob:"
        headers = {"Content-Type": "text/html", "Content-Security-Policy": policy}
        if route.request.url == "http://shop.test/":
            route.fulfill(body="<!doctype html><body>", headers=headers)
        else:
            route.abort()

    placed = {name: place(page, SNIPPET) for name, page in pages}
    served = [(name, page) for name, page in pages if placed[name][1] == "injected"]
    view = context.new_page()
    view.route("**/*", answer)
    view.goto("http://shop.test/")
    found: dict[str, str] = {}
    for begin in range(0, len(served), 50):
        part = served[begin : begin + 50]
        pairs = [
            [base64.b64encode(text).decode() for text in (page, placed[name][0])]
            for name, page in part
        ]
        for (name, _), fault in zip(part, view.evaluate(COMPARE, [kind, pairs]), strict=True):
            if fault:
                found[name] = fault
    assert len(served) > len(pages) // 3
    return found


#: A part of them each day, more with the proofs.
PARTS = pytest.mark.parametrize("part", [4, pytest.param(1, marks=pytest.mark.slow)])


@PARTS
def test_real_pages_are_as_before_in_chromium(context: BrowserContext, part: int) -> None:
    assert faults(context, real_pages()[:: 7 * part], "text/html") == {}


@PARTS
def test_html5libs_documents_are_as_before_in_chromium(context: BrowserContext, part: int) -> None:
    # Chromium drops NUL before it builds the tree; the standard has it end the head (13.2.6.4.4).
    documents = [one for one in tree_construction() if b"\0" not in one[1]]
    assert faults(context, documents[:: 4 * part], "text/html;charset=utf-8") == {}

"""A small site for the kit's tests: static pages, a pixel, and an identity endpoint that records.

It knows nothing of the package, so that what the kit does is seen apart from what the server
makes of it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page
from werkzeug.wrappers import Request, Response

from tests.support import PATIENCE, ROOT
from tests.support.serving import serving

STATIC = ROOT / "static"
#: The IAB's own consent platform for the GPP, as modules that pages import from ``/gpp/``.
GPP = ROOT / "docs" / "node_modules" / "@iabgpp" / "cmpapi" / "lib" / "mjs"
#: What the pixel answers.
COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"
#: What the server sets.
SERVER_COOKIE = "00000000000000000000000000000001-1700000000000"
#: Milliseconds that the kit waits for the pixel, in tests in which it gives up.
WAIT = 250
#: Where the kit tells, and the name of what it keeps in the tab.
IDENTITY = "/_adroll/identity"
KEPT = f"sessionStorage['{IDENTITY}']"
#: Where the ad leads to.
LANDING = "/?adct=click123"

#: What AdRoll's script does as far as a page can see: takes the queue over, keeps a cookie that it
#: finds or makes one of its own for the page's host, answers get_cookie, notes what is tracked.
PIXEL = """
(() => {
  const options = new URL(document.currentScript.src).searchParams;
  const queue = window.adroll;
  const found = /__adroll_fpc=([^;]+)/.exec(document.cookie);
  const value = options.get("value") || (found ? found[1] : "COOKIE");
  if (!options.has("cookieless"))
    document.cookie =
      `__adroll_fpc=${value};path=/;domain=${location.hostname};max-age=31536000;samesite=lax`;
  window.seen = { runs: ((window.seen || {}).runs || 0) + 1, tracked: [], adv: adroll_adv_id,
                  pix: adroll_pix_id, version: adroll_version };
  window.adroll = {
    get_cookie: (callback) => setTimeout(callback, +options.get("after") || 0, value),
    track: (name) => seen.tracked.push(name),
    setProperties() {}, identify() {}, identify_email() {},
  };
  if (options.has("silent")) window.adroll.get_cookie = () => {};
  for (const [name, values] of queue || []) window.adroll[name](...values);
})();
""".replace("COOKIE", COOKIE)

#: A loader as sites have it: AdRoll's, of old (without get_cookie) or of today.
LOADER = """<script>
adroll_adv_id = "SITEADV"; adroll_pix_id = "SITEPIX"; adroll_version = "2.0";
(function (w, d, e, i) {
  w.__adroll_loaded = true; w.adroll = w.adroll || []; w.adroll.f = %s;
  for (i = 0; i < w.adroll.f.length; i++)
    w.adroll[w.adroll.f[i]] = w.adroll[w.adroll.f[i]] || (function (n) {
      return function () { w.adroll.push([n, arguments]); };
    })(w.adroll.f[i]);
  e = d.createElement("script"); e.async = 1; e.src = "%s"; d.head.appendChild(e);
})(window, document);
adroll.track("pageView");
</script>"""
OLD_METHODS = '["setProperties", "identify", "track"]'
METHODS = '["setProperties", "identify", "track", "identify_email", "get_cookie"]'


#: A consent platform as far as the TCF's interface goes: it tells what the test decides.
CMP = """
(() => {
  const listeners = [];
  let last = null;
  window.__tcfapi = (command, version, callback) => {
    if (command != "addEventListener" || version != 2) throw new Error("unexpected " + command);
    listeners.push(callback);
    if (last) callback(last, true);
  };
  window.decide = (tc) => {
    last = tc;
    listeners.forEach((callback) => callback(tc, true));
  };
})();
"""
GPC = "Object.defineProperty(navigator, 'globalPrivacyControl', {value: true})"


def set_cookies(context: BrowserContext, *domains: str) -> None:
    """``__adroll_fpc`` for domains (with a dot) and hosts alone (without)."""
    for domain in domains:
        cookie: Any = {"name": "__adroll_fpc", "domain": domain, "path": "/"}
        context.add_cookies([cookie | {"value": SERVER_COOKIE}])


class KitSite:
    """One running site; every host name leads to it."""

    def __init__(self) -> None:
        #: Path to body (and headers) of the site's pages.
        self.pages: dict[str, tuple[str, Mapping[str, str]]] = {}
        #: The bodies told to the identity endpoint, in order.
        self.told: list[Any] = []
        self.answered = 0
        #: Scripts of the pixel that were asked for.
        self.pixels: list[str] = []
        #: What the identity endpoint answers: a status, or an object for a 200.
        self.answer: int | dict[str, Any] = 204
        self.set_cookie: str | None = None
        #: Seconds that an answer takes, unless the test lets it go before.
        self.delay = 0.0
        self.let_go = threading.Event()
        self.port = 0

    def url(self, path: str = "/", host: str = "shop.test") -> str:
        return f"http://{host}:{self.port}{path}"

    def pixel_url(self, **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return self.url(f"/j/ADV/roundtrip.js?{query}", "adroll.example")

    def tag(
        self,
        *,
        pixel: str = "load",
        wait: int = 5000,
        nonce: str = "",
        identity: str = IDENTITY,
        origins: bool = False,
        **data: str,
    ) -> str:
        """The tag as the server writes it."""
        data |= {"pixel": pixel, "identity": identity, "wait": str(wait)}
        data |= {"adv": "ADV", "pix": "PIX"}
        if pixel == "load":
            data.setdefault("src", self.pixel_url())
        attributes = "".join(f' data-{name}="{escape(value)}"' for name, value in data.items())
        own = f'<script nonce="{nonce}"' if nonce else "<script"
        build = "adroll-kit" + "-consent" * ("consent" in data) + "-origins" * origins
        return f'{own} async src="/{build}.min.js" data-adroll{attributes}></script>'

    def serve(self, head: str, path: str = "/", body: str = "", **headers: str) -> None:
        """Serve a page with *head* in its head."""
        html = f"<!doctype html><html><head><title>Shop</title>{head}</head><body>{body}</body>"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = (html, named)

    def open(
        self, page: Any, head: str, path: str = "/", host: str = "shop.test", **headers: str
    ) -> None:
        """Serve a page with *head* in its head, and go there; a query may come with its path."""
        self.serve(head, urlsplit(path).path, **headers)
        page.goto(self.url(path, host))

    def serve_frames(self, *frames: tuple[str, str], path: str = "/all") -> str:
        """Serve a page of frames, each of (head, query), and return its URL.

        Frames share the tab's storage and cookies, and nothing else; a page each would be slow.
        """
        body = ""
        for number, (head, query) in enumerate(frames):
            self.serve(head, f"{path}/{number}")
            body += f'<iframe src="{path}/{number}{escape(query)}"></iframe>'
        self.serve("", path, body)
        return self.url(path)

    def wait_told(self, page: Page, count: int) -> list[Any]:
        """What was told, once it is *count* bodies; a moment longer, so that more would be seen.

        The page has the answers by then, unless they are slow by a test's own wish.
        """
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and (
            len(self.told) < count or (self.answered < len(self.told) and not self.delay)
        ):
            page.wait_for_timeout(20)
        if self.told and not self.delay:
            # An answer later than the others': the browser has had those before.
            page.evaluate("() => fetch('/answered').then(() => 0, () => 0)")
        page.wait_for_timeout(80)
        return self.told

    def after_wait(self, page: Page, wait: int = WAIT, *, count: int = 0) -> list[Any]:
        """What was told when the kit has given up waiting: *count* bodies, or more."""
        self.wait_told(page, count)
        page.wait_for_timeout(wait + 300)
        return self.told

    # -- the server ----------------------------------------------------------------------

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        answer = self._told(request) if request.method == "POST" else self._asked(request)
        return answer(environ, start_response)

    def _asked(self, request: Request) -> Response:
        path = request.path
        if path.endswith("roundtrip.js"):
            self.pixels.append(request.full_path)
            self.let_go.wait(request.args.get("slow", 0.0, float))
            status = request.args.get("status", 200, int)
            return Response(PIXEL, status, mimetype="text/javascript")
        if path.endswith(".min.js"):
            return Response((STATIC / path[1:]).read_text(), mimetype="text/javascript")
        if path.startswith("/gpp/"):
            module = (GPP / path.removeprefix("/gpp/")).read_text()
            return Response(module, mimetype="text/javascript")
        if path in self.pages:
            html, headers = self.pages[path]
            return Response(html, headers=headers, mimetype="text/html")
        return Response(status=204 if path in ("/favicon.ico", "/answered") else 404)

    def _told(self, request: Request) -> Response:
        body = request.get_data()
        self.told.append(json.loads(body))
        answer = self.answer
        self.let_go.wait(self.delay)
        if isinstance(answer, int):
            response = Response(status=answer)
        else:
            response = Response(json.dumps(answer), mimetype="application/json")
        response.headers["Cache-Control"] = "no-store"
        if self.set_cookie:
            host = request.host.partition(":")[0]
            response.set_cookie("__adroll_fpc", self.set_cookie, domain=host)
        response.call_on_close(self._count)
        return response

    def _count(self) -> None:
        self.answered += 1

    @contextmanager
    def running(self) -> Iterator[KitSite]:
        with serving(self) as self.port:
            yield self
            self.let_go.set()

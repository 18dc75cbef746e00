"""The kit's file, and the one tag that loads it: the same for every visitor, a nonce excepted."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from html import escape, unescape
from importlib.resources import files
from pathlib import Path

from werkzeug.wrappers import Response

from adroll_flask.accounts import Account
from adroll_flask.host_names import host_of
from adroll_flask.settings import Settings
from adroll_flask.visitor.tracked_request import TrackedRequest

_NONCE = re.compile(r"[A-Za-z0-9+/_=-]{1,256}\Z")
#: The name of the kit's file below our prefix.
_FILE = re.compile(r"kit(?:\.([0-9a-f]{8,64}))?\.js\Z")


def static_file(name: str) -> bytes:
    """A file of the kit, from the installed package or the checkout.

    :raises FileNotFoundError: the package was built without its ``static`` folder.
    """
    packaged = files("adroll_flask") / "static" / name
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).resolve().parents[2] / "static" / name).read_bytes()


class Snippet:
    """The kit's script and the tag that loads it; one per app.

    :param settings: the app's.
    """

    def __init__(self, settings: Settings) -> None:
        consent = "" if settings.consent is None else "-consent"
        origins = "-origins" if settings.origins else ""
        build = f"adroll-kit{consent}{origins}.min.js"
        #: The kit's bytes.
        self.kit: bytes = static_file(build)
        #: The part of the kit's URL that changes with its bytes.
        self.hash: str = sha256(self.kit).hexdigest()[:16]
        self._settings = settings
        # Where an app is mounted is the server's word, and the host the browser's: few are kept.
        self._tag_at = lru_cache(64)(self._make_at)

    def tag(self, tracked: TrackedRequest, nonce: str | None = None) -> bytes:
        """The tag for the app and the host that were asked.

        :param nonce: the response's Content-Security-Policy nonce; one of another form than
            CSP allows is left out.
        """
        settings = self._settings
        # Only ADROLL_HOSTS and ADROLL_ACCOUNTS ask for the host.
        host = tracked.hostname if settings.hosts or settings.accounts else ""
        tag = self._tag_at(tracked.script_root, host)
        if nonce is not None and _NONCE.match(nonce):
            return tag.replace(b"<script ", f'<script nonce="{nonce}" '.encode(), 1)
        return tag

    def lasting_tag(self, base: str) -> str:
        """The tag to paste into pages that this app does not serve: its address of the kit stays.

        :param base: where the app is, as browsers reach it: ``https://api.shop.example``.
        """
        account = self._settings.account_of(host_of(base))
        return self._make(base.rstrip("/"), "kit.js", self._settings.pixel, account).decode()

    def file(self, tracked: TrackedRequest, name: str) -> Response | None:
        """The answer with the kit's file; ``None``: *name* is not the file's.

        Any hash is served, for pages that a cache kept from before an update. Without a hash it is
        the address that a pasted tag names: it lives short.
        """
        match = _FILE.match(name)
        if match is None:
            return None
        age = "31536000, immutable" if match[1] == self.hash else "300"
        headers = {"Cache-Control": f"public, max-age={age}", "X-Content-Type-Options": "nosniff"}
        response = Response(self.kit, headers=headers, mimetype="text/javascript")
        if self._settings.origins:
            # Pages of other origins may be isolated (Cross-Origin-Embedder-Policy).
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.set_etag(self.hash)
        response.make_conditional(tracked.environ)
        return response

    def _make_at(self, root: str, host: str) -> bytes:
        settings = self._settings
        # Where nothing is real the pixel would report real page views.
        pixel = settings.pixel if settings.is_real(host) else "none"
        return self._make(root, f"kit.{self.hash}.js", pixel, settings.account_of(host))

    def _make(self, root: str, file: str, pixel: str, account: Account) -> bytes:
        base = escape(root + self._settings.url_prefix)
        attributes = _attributes(self._settings, pixel, account)
        return (
            f'<script async src="{base}/{file}" data-adroll'
            f' data-identity="{base}/identity"{attributes}></script>'
        ).encode("ascii", "xmlcharrefreplace")


def _attributes(settings: Settings, pixel: str, account: Account) -> str:
    pairs = {"pixel": pixel, "wait": str(settings.kit_wait)}
    if account.advertisable_eid and account.pixel_eid:
        pairs |= {"adv": account.advertisable_eid, "pix": account.pixel_eid}
        if pixel == "load":
            pairs["src"] = settings.pixel_url.replace(
                "{advertisable_eid}", account.advertisable_eid
            )
    if settings.consent is not None:
        pairs["consent"] = settings.consent if isinstance(settings.consent, str) else "ask"
        if (settings.tcf_vendor, settings.tcf_purposes) != (130, (1, 7)):
            purposes = ",".join(map(str, settings.tcf_purposes))
            pairs["tcf"] = f"{settings.tcf_vendor}:{purposes}"
    if not settings.honor_gpc:
        pairs["gpc"] = "0"
    return "".join(f' data-{name}="{escape(value)}"' for name, value in sorted(pairs.items()))


# -- as a page has it ------------------------------------------------------------------------------

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"<script\b[^>]*\sdata-adroll(?=[\s=>/])[^>]*>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r'\s([\w-]+)="([^"]*)"')


def tags_in(html: str) -> list[dict[str, str]]:
    """The attributes of each of our tags in a page.

    >>> tags_in('<script src="/a&amp;b/kit.js" data-adroll data-wait="1"></script>')
    [{'data-wait': '1', 'src': '/a&b/kit.js'}]
    """
    tags = _TAG.findall(_COMMENT.sub("", html))
    return [
        {name: unescape(value) for name, value in reversed(_ATTRIBUTE.findall(tag))} for tag in tags
    ]

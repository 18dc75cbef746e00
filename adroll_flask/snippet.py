"""The bytes of the one tag that we add to a page: the same for every visitor, a nonce excepted."""

from __future__ import annotations

import re
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Settings

_NONCE = re.compile(r"[A-Za-z0-9+/_=-]{1,256}\Z")


def static_file(name: str) -> bytes:
    """A file of the kit, from the installed package or the checkout.

    :raises FileNotFoundError: the package was built without its ``static`` folder.
    """
    packaged = files("adroll_flask") / "static" / name
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).resolve().parent.parent / "static" / name).read_bytes()


class Snippet:
    """The kit's script and the tag that loads it; one per app.

    :param settings: the app's.
    """

    def __init__(self, settings: Settings) -> None:
        build = "adroll-kit.min.js" if settings.consent is None else "adroll-kit-consent.min.js"
        #: The kit's bytes.
        self.kit = static_file(build)
        #: The part of the kit's URL that changes with its bytes.
        self.hash = sha256(self.kit).hexdigest()[:16]
        self._prefix = settings.url_prefix
        self._attributes = _attributes(settings)
        self._made: dict[str, bytes] = {}

    def tag(self, script_root: str = "", nonce: str | None = None) -> bytes:
        """The tag for an app that is mounted at *script_root*.

        :param nonce: the response's Content-Security-Policy nonce; one of another form than
            CSP allows is left out.
        """
        made = self._made.get(script_root)
        if made is None:
            made = self._make(script_root)
            # Where an app is mounted is the server's word; a hostile mount table is bounded.
            if len(self._made) < 64:
                self._made[script_root] = made
        if nonce is not None and _NONCE.match(nonce):
            return made.replace(b"<script ", f'<script nonce="{nonce}" '.encode(), 1)
        return made

    def _make(self, script_root: str) -> bytes:
        base = escape(script_root + self._prefix)
        return (
            f'<script async src="{base}/kit.{self.hash}.js" data-adroll'
            f' data-identity="{base}/identity"{self._attributes}></script>'
        ).encode("ascii", "xmlcharrefreplace")


def _attributes(settings: Settings) -> str:
    pairs = {"pixel": settings.pixel, "wait": str(settings.kit_wait)}
    if settings.advertisable_eid and settings.pixel_eid:
        pairs |= {"adv": settings.advertisable_eid, "pix": settings.pixel_eid}
        if settings.pixel == "load":
            pairs["src"] = settings.pixel_url.replace(
                "{advertisable_eid}", settings.advertisable_eid
            )
    if settings.consent is not None:
        pairs["consent"] = "tcf" if settings.consent == "tcf" else "ask"
        if (settings.tcf_vendor, settings.tcf_purposes) != (130, (1, 7)):
            purposes = ",".join(map(str, settings.tcf_purposes))
            pairs["tcf"] = f"{settings.tcf_vendor}:{purposes}"
    if not settings.honor_gpc:
        pairs["gpc"] = "0"
    return "".join(f' data-{name}="{escape(value)}"' for name, value in sorted(pairs.items()))

"""The bytes of the one tag that we add to a page: the same for every visitor, a nonce excepted."""

from __future__ import annotations

import re
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path

from adroll_flask.host_names import host_of
from adroll_flask.settings import Account, Settings
from adroll_flask.visitor.tracked_request import TrackedRequest

_NONCE = re.compile(r"[A-Za-z0-9+/_=-]{1,256}\Z")


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
        self._prefix = settings.url_prefix
        self._settings = settings
        self._made: dict[tuple[str, bool, str | None], bytes] = {}

    def tag(self, tracked: TrackedRequest, nonce: str | None = None) -> bytes:
        """The tag for the app and the host that were asked.

        :param nonce: the response's Content-Security-Policy nonce; one of another form than
            CSP allows is left out.
        """
        settings = self._settings
        # Only ADROLL_HOSTS and ADROLL_ACCOUNTS ask for the host.
        host = tracked.hostname if settings.hosts or settings.accounts else ""
        root, real = tracked.script_root, settings.is_real(host)
        account = settings.account_of(host)
        made = self._made.get((root, real, account.advertisable_eid))
        if made is None:
            # Where nothing is real the pixel would report real page views.
            attributes = _attributes(settings, settings.pixel if real else "none", account)
            made = self._make(root, f"kit.{self.hash}.js", attributes)
            # Where an app is mounted is the server's word; a hostile mount table is bounded.
            if len(self._made) < 64:
                self._made[root, real, account.advertisable_eid] = made
        if nonce is not None and _NONCE.match(nonce):
            return made.replace(b"<script ", f'<script nonce="{nonce}" '.encode(), 1)
        return made

    def lasting_tag(self, base: str) -> str:
        """The tag to paste into pages that this app does not serve: its address of the kit stays.

        :param base: where the app is, as browsers reach it: ``https://api.shop.example``.
        """
        settings = self._settings
        attributes = _attributes(settings, settings.pixel, settings.account_of(host_of(base)))
        return self._make(base.rstrip("/"), "kit.js", attributes).decode("ascii")

    def _make(self, root: str, file: str, attributes: str) -> bytes:
        base = escape(root + self._prefix)
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
        pairs["consent"] = "tcf" if settings.consent == "tcf" else "ask"
        if (settings.tcf_vendor, settings.tcf_purposes) != (130, (1, 7)):
            purposes = ",".join(map(str, settings.tcf_purposes))
            pairs["tcf"] = f"{settings.tcf_vendor}:{purposes}"
    if not settings.honor_gpc:
        pairs["gpc"] = "0"
    return "".join(f' data-{name}="{escape(value)}"' for name, value in sorted(pairs.items()))

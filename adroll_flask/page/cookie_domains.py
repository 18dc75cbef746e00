"""Which ``Domain`` a cookie gets on which host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adroll_flask.hosts import has_domain

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_MEMO = 256


class Domains:
    """The cookies' domains of one app.

    :param setting: ``ADROLL_COOKIE_DOMAIN``: ``None``, ``"auto"`` or a domain name.

    >>> Domains("auto").of_record("www.shop.co.uk")
    'shop.co.uk'
    """

    def __init__(self, setting: str | None) -> None:
        self._setting = setting
        self._memo: dict[str, str | None] = {}
        self._suffixes: PublicSuffixList | None = None

    def of_page(self, hostname: str) -> str | None:
        """The domain of ``__adroll_fpc``: the page's host, as the pixel writes it."""
        return hostname if has_domain(hostname) else None

    def of_record(self, hostname: str) -> str | None:
        """The domain of ``adroll_visitor`` on *hostname*; ``None``: a host-only cookie."""
        setting = self._setting
        if setting is None or not has_domain(hostname):
            return self.of_page(hostname)
        if setting == "auto":
            if hostname not in self._memo:
                if len(self._memo) >= _MEMO:
                    self._memo.clear()
                self._memo[hostname] = self._registrable(hostname)
            return self._memo[hostname]
        # On a host outside the configured domain a browser would refuse the cookie.
        covered = hostname == setting or hostname.endswith(f".{setting}")
        return setting if covered else hostname

    def _registrable(self, hostname: str) -> str | None:
        if self._suffixes is None:
            # Loaded on first use: reading the list takes some 20 ms.
            from publicsuffixlist import PublicSuffixList

            self._suffixes = PublicSuffixList()
        # A host that is a public suffix itself keeps its cookie to itself.
        found = self._suffixes.privatesuffix(hostname)
        return str(found) if found else None

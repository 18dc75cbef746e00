"""Which ``Domain`` a cookie gets on which host."""

from __future__ import annotations

from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from adroll_flask.errors import ConfigurationError
from adroll_flask.hosts import has_domain

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


class Domains:
    """The cookies' domains of one app.

    :param setting: ``ADROLL_COOKIE_DOMAIN``: ``None``, ``"auto"`` or a domain name.
    :raises ConfigurationError: ``"auto"`` without the list of public suffixes.

    >>> Domains("auto").of_record("www.shop.co.uk")
    'shop.co.uk'
    """

    def __init__(self, setting: str | None) -> None:
        if setting == "auto" and find_spec("publicsuffixlist") is None:
            raise ConfigurationError(
                "ADROLL_COOKIE_DOMAIN",
                "'auto' needs the list of public suffixes: pip install 'adroll-flask[domains]'",
                slug="cookie-domain",
            )
        self._setting = setting
        # Whoever asks names the host: what is kept of hosts is bounded.
        self._registrable = lru_cache(256)(self._look_up)

    def of_page(self, hostname: str) -> str | None:
        """The domain of ``__adroll_fpc``: the page's host, as the pixel writes it."""
        return hostname if has_domain(hostname) else None

    def of_record(self, hostname: str) -> str | None:
        """The domain of ``adroll_visitor`` on *hostname*; ``None``: a host-only cookie."""
        setting = self._setting
        if setting is None or not has_domain(hostname):
            return self.of_page(hostname)
        if setting == "auto":
            return self._registrable(hostname)
        # On a host outside the configured domain a browser would refuse the cookie.
        covered = hostname == setting or hostname.endswith(f".{setting}")
        return setting if covered else hostname

    def _look_up(self, hostname: str) -> str | None:
        # A host that is a public suffix itself keeps its cookie to itself.
        found = self._suffixes.privatesuffix(hostname)
        return str(found) if found else None

    @cached_property
    def _suffixes(self) -> PublicSuffixList:
        # On first use: reading the list takes some 20 ms.
        from publicsuffixlist import PublicSuffixList

        return PublicSuffixList()

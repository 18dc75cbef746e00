"""What a Content-Security-Policy has to allow, and whether a page's does: kit and pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from adroll_flask.redaction import safe_url

from .finding import Finding

if TYPE_CHECKING:
    from adroll_flask.settings import Settings


def pixel_hosts(settings: Settings) -> dict[str, tuple[str, ...]]:
    """What AdRoll's pixel needs of a Content-Security-Policy, by directive.

    The script comes from one host of AdRoll's, and loads from and talks to another (s2s-api.md,
    "The pixel"). Of a pixel somewhere else, as in the sandbox, all is at one host.
    """
    if settings.pixel == "none":
        return {}
    pixel = safe_url(settings.pixel_url).partition("://")
    host = f"{pixel[0]}://{pixel[2].partition('/')[0]}"
    more = "https://d.adroll.com" if host == "https://s.adroll.com" else host
    return {
        "script-src": tuple(dict.fromkeys((host, more))),
        "connect-src": (more,),
        "img-src": (more,),
    }


def policy_needed(settings: Settings) -> Iterator[Finding]:
    """What a policy of this site has to allow."""
    if settings.csp_nonce is not None:
        yield Finding("ok", "ADROLL_CSP_NONCE", "the tag carries the response's nonce")
        return
    ours = "script-src 'self'; connect-src 'self'"
    text = f"a Content-Security-Policy has to allow our part: {ours}"
    pixels = "; ".join(" ".join((name, *hosts)) for name, hosts in pixel_hosts(settings).items())
    if pixels:
        text += f"; and AdRoll's pixel: {pixels}"
    yield Finding(
        "info", "CSP", text, "or set ADROLL_CSP_NONCE and allow 'strict-dynamic'", slug="csp"
    )


def policy_findings(
    subject: str, policies: str, url: str, nonce: str, settings: Settings
) -> Iterator[Finding]:
    """What is wrong with the policies of one page; several are all in force (CSP 3, section 8.1).

    :param policies: the ``Content-Security-Policy`` header.
    :param url: the page's.
    :param nonce: of our tag.
    """
    for policy in policies.split(","):
        parts = [directive.split() for directive in policy.split(";")]
        directives = {part[0].lower(): part[1:] for part in reversed(parts) if part}
        default = directives.get("default-src")
        scripts = directives.get("script-src-elem", directives.get("script-src", default))
        connect = directives.get("connect-src", default)
        yield from _kit(subject, scripts, url, nonce)
        if connect is not None and not _allows(connect, url, url):
            yield Finding(
                "error",
                subject,
                "its Content-Security-Policy does not let the kit reach the identity endpoint",
                "add 'self' to connect-src",
                slug="csp",
            )
        images = directives.get("img-src", default)
        sources = {"script-src": scripts, "connect-src": connect, "img-src": images}
        yield from _pixel(subject, sources, url, settings)


def _kit(subject: str, scripts: list[str] | None, url: str, nonce: str) -> Iterator[Finding]:
    if scripts is None or f"'nonce-{nonce}'" in scripts:
        return
    if "'strict-dynamic'" in scripts:
        why = "strict-dynamic, and the tag has no nonce"
        why = why if not nonce else "strict-dynamic, and another nonce than the tag"
        yield Finding(
            "error",
            subject,
            f"its Content-Security-Policy has {why}",
            "set ADROLL_CSP_NONCE to what gives the policy its nonce",
            slug="csp",
        )
    elif not _allows(scripts, url, url):
        yield Finding(
            "error",
            subject,
            "its Content-Security-Policy does not allow the kit",
            "add 'self' to script-src, or set ADROLL_CSP_NONCE",
            slug="csp",
        )


def _pixel(
    subject: str, sources: dict[str, list[str] | None], url: str, settings: Settings
) -> Iterator[Finding]:
    """AdRoll's hosts; a warning, since the server reports without the pixel as well."""
    lacking = []
    for directive, hosts in pixel_hosts(settings).items():
        allowed = sources[directive]
        # A script that the kit may load may load others; hosts then count for nothing.
        if allowed is None or (directive == "script-src" and "'strict-dynamic'" in allowed):
            continue
        missing = [host for host in hosts if not _allows(allowed, host, url)]
        if missing:
            lacking.append(f"{' '.join(missing)} to {directive}")
    if lacking:
        yield Finding(
            "warning",
            subject,
            "its Content-Security-Policy blocks AdRoll's pixel or a part of it",
            f"add {', '.join(lacking)}",
            slug="csp",
        )


def _allows(sources: list[str], target: str, page: str) -> bool:
    """True where *sources* let a page load *target* (CSP 3, section 6.7.2.8, without paths)."""
    parts, own = urlsplit(target), urlsplit(page)
    for source in map(str.lower, sources):
        if source == "'self'":
            if (parts.scheme, parts.netloc) == (own.scheme, own.netloc):
                return True
            continue
        scheme, colon, rest = source.partition(":")
        if source == "*" or (colon and not rest and scheme == parts.scheme):
            return True
        host = source.removeprefix(f"{parts.scheme}://").partition("/")[0]
        if host == parts.netloc or (host.startswith("*.") and parts.netloc.endswith(host[1:])):
            return True
    return False

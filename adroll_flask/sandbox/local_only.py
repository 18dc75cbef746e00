"""Who may talk to the sandbox. It believes what it is told, so it is for the own machine only."""

from __future__ import annotations

import ipaddress
import os

#: Named settings that open what is closed; each also a keyword and a command line option.
ALLOW_REMOTE = "ADROLL_SANDBOX_ALLOW_REMOTE"
ALLOW_PRODUCTION = "ADROLL_SANDBOX_ALLOW_PRODUCTION"

# Names under which deployments say what they are, and hosts that run nothing but deployments.
_STAGES = ("FLASK_ENV", "APP_ENV", "ENV", "ENVIRONMENT", "PYTHON_ENV", "DEPLOY_ENV", "STAGE")
_PRODUCTION = ("production", "prod")
_PLATFORMS = ("DYNO", "K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME", "WEBSITE_INSTANCE_ID")
# RFC 6761: names that never leave the machine or are kept for tests.
_LOCAL_SUFFIXES = (".localhost", ".test", ".example")


class Unsafe(RuntimeError):
    """The sandbox was asked to run where it should not; the text names the setting."""


def check_binding(host: str, *, allow_remote: bool) -> None:
    """Refuse to bind an address that other machines reach.

    :raises Unsafe: unless ``allow_remote``.
    """
    if is_loopback(host) or allow_remote:
        return
    raise Unsafe(
        f"the sandbox listens on loopback only; to open it to others, set {ALLOW_REMOTE}=1 "
        "or pass --allow-remote"
    )


def check_stage(*, allow_production: bool) -> None:
    """Refuse to run where the environment says that this is production.

    :raises Unsafe: unless ``allow_production`` or ``ADROLL_SANDBOX_ALLOW_PRODUCTION=1``.
    """
    if allow_production or os.environ.get(ALLOW_PRODUCTION) == "1":
        return
    signs = [name for name in _STAGES if os.environ.get(name, "").lower() in _PRODUCTION]
    signs += [name for name in _PLATFORMS if os.environ.get(name)]
    if signs:
        raise Unsafe(
            f"{signs[0]} says that this is production, where events would vanish in the sandbox; "
            f"if that is meant, set {ALLOW_PRODUCTION}=1 or pass --allow-production"
        )


def is_loopback(host: str) -> bool:
    """Say whether an address or name means this machine alone."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_local_name(host: str, others: frozenset[str]) -> bool:
    """Say whether a host name belongs to this machine or to tests, or is one of ``others``."""
    host = host.lower().rstrip(".")
    return is_loopback(host) or host.endswith(_LOCAL_SUFFIXES) or host in others


def is_own_page(fetch_site: str | None) -> bool:
    """Say whether a request comes from a page of the sandbox or from a program, and not from
    another site's page that is open in the same browser.

    :param fetch_site: its ``Sec-Fetch-Site``, which browsers send and programs do not.
    """
    return fetch_site in (None, "none", "same-origin")

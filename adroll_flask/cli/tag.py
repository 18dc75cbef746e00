"""``flask adroll tag``: the tag to paste into pages that another server delivers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from adroll_flask.runtime import Runtime


def tag_of(config: Mapping[str, Any], runtime: Runtime, base: str | None) -> str:
    """The tag for an app that browsers reach at *base*.

    :param config: the app's, which may say where it is.
    :raises click.UsageError: neither does, or *base* is no http or https URL.
    """
    if base is None:
        base = _configured(config)
    try:
        parts = urlsplit(base)
    except ValueError:
        parts = urlsplit("")
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        raise click.UsageError("--base takes a URL such as https://api.shop.example")
    if not runtime.settings.origins:
        raise click.UsageError(
            "set ADROLL_ORIGINS to the origins of the pages that get the tag: "
            "the identity endpoint answers these alone"
        )
    return runtime.snippet.lasting_tag(base)


def _configured(config: Mapping[str, Any]) -> str:
    name = config.get("SERVER_NAME")
    if not name:
        raise click.UsageError("give --base https://api.shop.example, or set SERVER_NAME")
    root = str(config.get("APPLICATION_ROOT") or "/").rstrip("/")
    return f"{config.get('PREFERRED_URL_SCHEME') or 'http'}://{name}{root}"

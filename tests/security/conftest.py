"""Sites for the tests of this folder, behind the extension and behind each middleware."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.sites import (
    Clock,
    MakeSite,
    Site,
    asgi_site,
    configuration,
    flask_site,
    wsgi_site,
)


def _making(build: Callable[..., Site], tmp_path: Path) -> Iterator[MakeSite]:
    with ExitStack() as stack:

        def make(folder: str = "instance", **config: Any) -> Site:
            where = tmp_path / folder
            where.mkdir(exist_ok=True)
            site = build(where, Clock(), configuration(config))
            stack.callback(site.close)
            return site

        yield make


@pytest.fixture
def make_flask_site(tmp_path: Path) -> Iterator[MakeSite]:
    yield from _making(flask_site, tmp_path)


@pytest.fixture(params=[flask_site, wsgi_site, asgi_site], ids=["flask", "wsgi", "asgi"])
def make_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeSite]:
    """Makes the same site behind the extension and behind each middleware."""
    yield from _making(request.param, tmp_path)


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site()

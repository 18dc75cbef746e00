"""Sites for the tests of this folder, behind the extension and behind the middleware."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.sites import Clock, MakeSite, Site, configuration, flask_site, wsgi_site


@pytest.fixture
def make_flask_site(tmp_path: Path) -> Iterator[MakeSite]:
    made: list[Site] = []

    def make(folder: str = "instance", **config: Any) -> Site:
        where = tmp_path / folder
        where.mkdir(exist_ok=True)
        site = flask_site(where, Clock(), configuration(config))
        made.append(site)
        return site

    yield make
    for site in made:
        site.close()


@pytest.fixture(params=["flask", "wsgi"])
def make_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeSite]:
    """Makes the same site behind the extension and behind the middleware."""
    made: list[Site] = []
    build = {"flask": flask_site, "wsgi": wsgi_site}[request.param]

    def make(folder: str = "instance", **config: Any) -> Site:
        where = tmp_path / folder
        where.mkdir(exist_ok=True)
        site = build(where, Clock(), configuration(config))
        made.append(site)
        return site

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site()

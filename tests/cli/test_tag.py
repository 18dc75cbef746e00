"""``flask adroll tag``: the tag for pages that another server delivers."""

from __future__ import annotations

import pytest
from flask import Flask

from adroll_flask.cli.commands import commands
from tests.conftest import AppMaker

WWW = "https://www.shop.example"


def tag(app: Flask, *arguments: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(commands, ["tag", *arguments])
    return result.exit_code, result.output.strip()


def test_the_tag_names_the_apps_own_address(make_app: AppMaker) -> None:
    app = make_app(ADROLL_ORIGINS=[WWW])
    code, text = tag(app, "--base", "https://api.shop.example/v1/")
    assert code == 0
    assert text.startswith('<script async src="https://api.shop.example/v1/_adroll/kit.js" ')
    assert ' data-identity="https://api.shop.example/v1/_adroll/identity"' in text
    assert ' data-src="https://s.adroll.com/j/' in text
    assert text.endswith("></script>")


def test_the_tag_takes_the_address_from_the_configuration(make_app: AppMaker) -> None:
    app = make_app(
        ADROLL_ORIGINS=[WWW],
        SERVER_NAME="api.shop.example",
        PREFERRED_URL_SCHEME="https",
        APPLICATION_ROOT="/v1",
    )
    assert 'src="https://api.shop.example/v1/_adroll/kit.js"' in tag(app)[1]


@pytest.mark.parametrize("base", ["api.shop.example", "ftp://a", "https://", "https://a/?b", "//a"])
def test_an_address_that_no_page_could_load_is_refused(make_app: AppMaker, base: str) -> None:
    code, text = tag(make_app(ADROLL_ORIGINS=[WWW]), "--base", base)
    assert code == 2
    assert "takes a URL such as https://api.shop.example" in text


def test_without_an_address_or_an_origin_the_command_says_what_is_missing(
    make_app: AppMaker,
) -> None:
    code, text = tag(make_app(ADROLL_ORIGINS=[WWW]))
    assert (code, "give --base https://api.shop.example, or set SERVER_NAME" in text) == (2, True)
    code, text = tag(make_app(), "--base", "https://api.shop.example")
    assert (code, "set ADROLL_ORIGINS" in text) == (2, True)


def test_the_pasted_tag_and_the_kits_address_agree(make_app: AppMaker) -> None:
    app = make_app(ADROLL_ORIGINS=[WWW], ADROLL_URL_PREFIX="/ads/own")
    _, text = tag(app, "--base", "https://api.shop.example")
    path = text.split('src="https://api.shop.example')[1].split('"')[0]
    assert app.test_client().get(path).status_code == 200

"""Which Domain a cookie gets on which host."""

import sys

import pytest

from adroll_flask import ConfigurationError
from adroll_flask.page.cookies import page_domain, record_domain
from adroll_flask.settings import Settings
from tests.conftest import AppMaker, Patch


@pytest.mark.parametrize(
    ("host", "page", "auto"),
    [
        ("shop.test", "shop.test", "shop.test"),
        ("www.shop.test", "www.shop.test", "shop.test"),
        ("pay.shop.test", "pay.shop.test", "shop.test"),
        ("www.shop.co.uk", "www.shop.co.uk", "shop.co.uk"),
        ("a.b.shop.com.au", "a.b.shop.com.au", "shop.com.au"),
        ("mine.github.io", "mine.github.io", "mine.github.io"),
        # A public suffix itself: nothing to share with anybody.
        ("co.uk", "co.uk", None),
        ("localhost", None, None),
        ("shop.localhost", None, None),
        ("intranet", None, None),
        ("www.shop.test.", None, None),
        ("127.0.0.1", None, None),
        ("2001:db8::1", None, None),
        ("", None, None),
    ],
)
def test_domains(host: str, page: str | None, auto: str | None) -> None:
    assert page_domain(host) == page
    assert record_domain(host, Settings()) is None
    assert record_domain(host, Settings(cookie_domain="auto")) == auto


def test_a_configured_domain_holds_on_its_hosts_only() -> None:
    settings = Settings(cookie_domain="shop.test")
    assert record_domain("www.shop.test", settings) == "shop.test"
    assert record_domain("shop.test", settings) == "shop.test"
    assert record_domain("other.test", settings) is None
    assert record_domain("notshop.test", settings) is None
    assert record_domain("127.0.0.1", settings) is None


def test_auto_without_its_extra_is_told(make_app: AppMaker, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    with pytest.raises(ConfigurationError, match=r"adroll-flask\[domains\]") as raised:
        make_app(ADROLL_COOKIE_DOMAIN="auto")
    assert raised.value.key == "ADROLL_COOKIE_DOMAIN"
    client = make_app(ADROLL_COOKIE_DOMAIN="shop.test").test_client()
    page = client.get("/?adct=click123", base_url="https://www.shop.test")
    assert "Domain=shop.test" in page.headers["Set-Cookie"]

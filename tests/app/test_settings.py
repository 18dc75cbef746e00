"""Configuration: read once, checked once; a wrong value is named, never shown."""

import traceback
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from adroll_flask import AdRoll, ConfigurationError, sandbox
from tests.conftest import AppMaker

EID = "ADVERTISABLE0000000001"


def settings_of(**config: Any) -> Any:
    """The settings of an app that has that configuration and no other."""
    app = Flask("shop")
    app.config.update(config)
    AdRoll(app)
    return app.extensions["adroll"].settings


def test_every_setting_is_checked() -> None:
    for field in fields(settings_of()):
        key = f"ADROLL_{field.name.upper()}"
        with pytest.raises(ConfigurationError, match=f"^{key}: "):
            settings_of(**{key: object()})


SECRET = "s3cret-value"
TOKEN = {"access_token": SECRET}
FRENCH = {"advertisable_eid": "FRENCHADVERTISABLE0001", "pixel_eid": "FRENCHPIXEL00000000001"}
MULLER = "müller.example"

WRONG: list[tuple[str, Any, str]] = [
    ("ADROLL_ADVERTISABLE_EID", 12345678, "quote it"),
    ("ADROLL_ADVERTISABLE_EID", "lower-case", "upper-case letters"),
    ("ADROLL_PIXEL_EID", ["x"], "list"),
    ("ADROLL_ACCESS_TOKEN", f"{SECRET}\n", "spaces"),
    ("ADROLL_ACCESS_TOKEN", [SECRET], "list"),
    ("ADROLL_SECRET_KEY", [SECRET, None], "newest first"),
    ("ADROLL_PIXEL", SECRET, "one of 'load', 'present', 'none'"),
    ("ADROLL_OUTBOX_URL", f"://shop:{SECRET}@db/x", "SQLAlchemy"),
    ("ADROLL_SECRET_KEY", 123, "quote it"),
    ("ADROLL_SECRET_KEY", ["ok", ""], "empty"),
    *(("ADROLL_ENABLED", wrong, "True or False") for wrong in ("yes", "1", "true", 1, 0)),
    *((f"ADROLL_{key}", 1, "True or False") for key in ("STRICT", "DRY_RUN", "HONOR_GPC")),
    ("ADROLL_COOKIE_SECURE", "true", "True or False"),
    ("ADROLL_ACCOUNTS", 5, "takes accounts by host"),
    ("ADROLL_ACCOUNTS", [], "takes accounts by host"),
    ("ADROLL_ACCOUNTS", {"https://shop.fr": FRENCH}, "a text of another form"),
    ("ADROLL_ACCOUNTS", {"shop.fr": {**FRENCH, "token": SECRET}}, "another thing for 'shop.fr'"),
    ("ADROLL_ACCOUNTS", {"a.fr": {**FRENCH, "access_token": 1}}, "'a.fr' another: access_token: "),
    ("ADROLL_ACCOUNTS", {"a.fr": {"advertisable_eid": EID}}, "one without both ids for 'a.fr'"),
    ("ADROLL_ACCOUNTS", {"a.fr": FRENCH, "b.fr": FRENCH | TOKEN}, "one pixel and one token"),
    ("ADROLL_ACCOUNTS", {MULLER: FRENCH}, "xn--"),
    ("ADROLL_HOSTS", [MULLER], "xn--"),
    *(
        ("ADROLL_HOSTS", wrong, "takes a list of host names")
        for wrong in (5, None, [5], "*", ["*.shop.example"], ["www.shop.example:443"], ["a/b"])
    ),
    *(("ADROLL_HOSTS", [wrong], "takes a list of host names") for wrong in ("https://a.test", "")),
    *(("ADROLL_COOKIE_DOMAIN", no, "domain name") for no in (MULLER, "http://a.b", "localhost")),
    ("ADROLL_COOKIE_NAME", "a name", "cookie's name"),
    *(("ADROLL_COOKIE_NAME", taken, "AdRoll's own") for taken in ("__adroll_fpc", "__ar_v4")),
    *(("ADROLL_COOKIE_NAME", no, "'__Host-'") for no in ("__Host-shop", "__HOST-shop")),
    *(("ADROLL_TIME_ZONE", no, "IANA name") for no in ("Mars/Olympus", "../etc/passwd")),
    ("ADROLL_SANDBOX", "sandbox:5001", "address such as"),
    *(("ADROLL_SANDBOX", wrong, "the sandbox's port") for wrong in (0, 1, -1, 1.5, 65_536)),
    *(
        ("ADROLL_API_URL", f"http://{host}/api", "clear")
        for host in (f"{SECRET}.example", "srv.adroll.com", "10.0.0.7", "localhost.example")
    ),
    ("ADROLL_API_URL", "ftp://srv.adroll.com", "https"),
    *(("ADROLL_API_URL", f"https://srv.adroll{bad}.com/", "https") for bad in (" ", "\n", "é")),
    ("ADROLL_API_URL", f"https://user:{SECRET}@srv.adroll.com/api", "password"),
    *(("ADROLL_URL_PREFIX", wrong, "leading slash") for wrong in ("adroll", "/adroll/")),
    ("ADROLL_CSP_NONCE", SECRET, "callable"),
    ("ADROLL_CACHED_PATHS", 5, "list"),
    ("ADROLL_OUTBOX_URL", "outbox.sqlite", "SQLAlchemy"),
    ("ADROLL_OUTBOX_URL", f"nonsense://{SECRET}@db/shop", "PostgreSQL, MariaDB or MySQL"),
    ("ADROLL_OUTBOX_URL", f"postgres://{SECRET}@db/shop", "'postgresql"),
    ("ADROLL_OUTBOX_MAX_BYTES", -1, "at least 0"),
    ("ADROLL_OUTBOX_MAX_BYTES", True, "bytes"),
    *((f"ADROLL_{key}", "off", "one of") for key in ("OUTBOX_SYNC", "DELIVERY", "ON_UNSURE")),
    *((f"ADROLL_{key}", 0, "at least 1") for key in ("MAX_AGE", "DEDUPE_DAYS", "HOLD_MAX")),
    ("ADROLL_MAX_AGE", 1.5, "whole number"),
    ("ADROLL_CONSENT", "cmp", "'tcf', 'gpp'"),
    ("ADROLL_CONSENT", True, "a value of type bool"),
    ("ADROLL_EMAIL", ["sha1"], "any of"),
    ("ADROLL_TCF_PURPOSES", [0], "purpose"),
    ("ADROLL_KIT_WAIT", -5, "milliseconds"),
]


@pytest.mark.parametrize(("key", "value", "says"), WRONG)
def test_a_wrong_value_is_named_with_what_the_key_takes(key: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_of(**{key: value})
    text = str(caught.value)
    assert text.startswith(f"{key}: ")
    assert says in text
    assert "takes" in text
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.key == key


def test_http_is_taken_for_this_machine_only() -> None:
    for url in ("http://127.0.0.1:5001/api", "http://localhost/api", "http://[::1]:5001/api"):
        assert settings_of(ADROLL_API_URL=url).api_url == url


def test_none_stands_for_the_default_of_optional_keys() -> None:
    accounts = {"shop.fr": FRENCH | {"access_token": ""}, "shop.de": FRENCH}
    given = {"ADROLL_ACCESS_TOKEN": None, "ADROLL_COOKIE_DOMAIN": None, "ADROLL_ACCOUNTS": accounts}
    settings = settings_of(**given)
    assert settings.access_token is settings.cookie_domain is None
    assert settings.account_of("shop.fr").access_token is None, "an empty one is none"


@pytest.mark.parametrize(("new", "old"), [("new", ["old", "older"]), (None, None)])
def test_the_apps_keys_come_newest_first(make_app: AppMaker, new: Any, old: Any) -> None:
    app = make_app(AdRoll(), SECRET_KEY=new, SECRET_KEY_FALLBACKS=old)
    assert app.extensions["adroll"].signing_keys() == ((new, *old) if new else ())


def test_the_sandbox_is_here_or_at_an_address_and_has_its_own_account() -> None:
    for word, place in (
        ("True", "http://127.0.0.1:5001"),  # as Flask reads FLASK_ADROLL_SANDBOX=True
        (True, "http://127.0.0.1:5001"),
        (5002, "http://127.0.0.1:5002"),
        ("http://sandbox:5001/", "http://sandbox:5001"),
    ):
        given = {"ADROLL_SANDBOX": word, "ADROLL_ACCESS_TOKEN": "of-the-real-account"}
        settings = settings_of(**given)
        account = (settings.advertisable_eid, settings.pixel_eid, settings.access_token)
        assert account == (sandbox.ADVERTISABLE_EID, sandbox.PIXEL_EID, sandbox.ACCESS_TOKEN)
        assert settings.api_url == f"{place}/api"
        assert settings.pixel_url == f"{place}/j/{{advertisable_eid}}/roundtrip.js"
    browsers = "http://127.0.0.1:5001/j/{advertisable_eid}/roundtrip.js"
    settings = settings_of(
        ADROLL_SANDBOX="http://sandbox:5001/",
        ADROLL_PIXEL_URL=browsers,
        ADROLL_ACCOUNTS={"shop.fr": {"advertisable_eid": EID, "pixel_eid": EID}},
    )
    assert settings.pixel_url == browsers
    assert settings.account_of("shop.fr").access_token == sandbox.ACCESS_TOKEN


def test_a_time_zone_is_for_dates() -> None:
    zone = settings_of(ADROLL_TIME_ZONE="Europe/Berlin").time_zone
    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(hours=2)
    assert settings_of().time_zone is UTC

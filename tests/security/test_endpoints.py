"""What comes in from outside: the identity endpoint, cookies, headers, records and tokens."""

import gc
import hashlib
import json
import logging
import re
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from flask import request
from itsdangerous import TimestampSigner
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import create_environ, run_wsgi_app

import adroll_flask
from adroll_flask import TokenForgedError, Visitor
from adroll_flask.visitor.packing import pack
from adroll_flask.visitor.record import Record
from tests.conftest import Caplog
from tests.support.sites import ADDRESS, HOST, RECORD, MakeSite, Site

CANARY = "c4n4ry"


COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"


OTHER = "0123456789abcdef0123456789abcdef-1667065540999"


CLICK = {"adct": f"click-{CANARY}"}


def deep(levels: int) -> str:
    return '{"adct":' + "[" * levels + f'"{CANARY}"' + "]" * levels + "}"


# -- the identity endpoint -------------------------------------------------------------------


#: Senders that are not the site's own page, by what the refusal is counted as.
SENDERS: dict[str, list[dict[str, str | None]]] = {
    "cross_site": [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://blog.shop.example"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "cross-site", "Origin": f"https://{HOST}"},
    ],
    "cross_origin": [
        {"Sec-Fetch-Site": None, "Origin": origin}
        for origin in (
            *("https://evil.example", f"https://{HOST}.evil.example", f"https://evil{HOST}"),
            *(f"https://{HOST}@evil.example", f"https://{HOST}:8443", "null", HOST),
            "https://[broken",
        )
    ],
    "no_origin": [
        {"Sec-Fetch-Site": None},
        {"Sec-Fetch-Site": None, "Origin": ""},
        {"Sec-Fetch-Site": None, "Referer": f"https://{HOST}/"},
    ],
}


def test_other_sites_are_refused(site: Site) -> None:
    for why, senders in SENDERS.items():
        for headers in senders:
            assert_refused(site, 403, why, CLICK, headers=headers)


#: Of a form, of a request that no preflight precedes, and nearly ours.
TYPES = (
    *(None, "", "text/plain", "text/plain; charset=application/json", "application/json2"),
    *("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *("application/jsonp", "text/json, application/json"),
)


def test_types_that_a_form_or_simple_request_can_have_fail(site: Site) -> None:
    for kind in TYPES:
        assert_refused(site, 415, "content_type", CLICK, headers={"Content-Type": kind})


DEEPEST = "[" * 2000


#: What is no message, by what the refusal is counted as.
MALFORMED: dict[str, list[str | bytes]] = {
    "json": [
        *("", "{", "[]", f'"{CANARY}"', "null", "17", "NaN", DEEPEST),
        *(b'{"adct": "\xff\xfe"}', '\ufeff{"adct": "x"}', '{"adct": "x"}'.encode("utf-16")),
    ],
    "keys": [f'{{"adct": "{CANARY}", "visitor": "{CANARY}"}}'],
    "adct": [
        *(f'{{"adct": ["{CANARY}"]}}', f'{{"adct": {{"{CANARY}": 1}}}}', deep(20)),
        f'{{"adct": "{CANARY}\\r\\nSet-Cookie: a=b"}}',
        *(f'{{"adct": "{CANARY}\\u{odd}"}}' for odd in ("0000", "d800", "00e9")),
        *('{"adct": ""}', f'{{"adct": "{CANARY * 50}"}}'),
    ],
    "first_party_cookie": [
        f'{{"first_party_cookie": "{value}"}}'
        for value in (
            *(f"{CANARY} {CANARY}", f"{COOKIE}; Domain=example", f"{COOKIE}\\n"),
            f"<script src=x>{CANARY}</script>",
        )
    ],
    "consent": [f'{{"consent": {value}}}' for value in (f'"{CANARY}"', "1", '"true"')],
}


def test_malformed_messages_are_never_repeated(site: Site) -> None:
    # Brackets go down to the limit of recursion. What earlier tests left would be collected there,
    # and its finalizers would fail.
    gc.collect()
    for why, bodies in MALFORMED.items():
        for body in bodies:
            assert_refused(site, 400, why, body)


def test_long_messages_are_refused_and_a_length_that_lies_reads_no_more(site: Site) -> None:
    for size in (2049, 100_000):
        assert_refused(site, 413, "too_large", '{"adct": "x"}' + " " * size)
    for length, status, why in (
        (str(10**30), 413, "too_large"),
        *((length, 400, "length") for length in ("-1", "1_0")),
        *((digits, 400, "length") for digits in ("\xb2", "\xb2" * 12)),  # which int() does not take
        ("", 400, "json"),
    ):
        assert_refused(site, status, why, CLICK, environ_overrides={"CONTENT_LENGTH": length})


def test_a_message_in_chunks_is_bounded_too(site: Site) -> None:
    chunked = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}

    assert_refused(site, 413, "too_large", '{"adct": "x"}' + " " * 3000, environ_overrides=chunked)
    assert site.tell(CLICK, environ_overrides=chunked).status_code == 204


def test_a_message_that_the_site_reads_too_is_read_and_bounded(
    make_flask_site: MakeSite,
) -> None:
    site, reads = make_flask_site(consent=lambda one: one.get_json() == CLICK), iter([True, False])
    site.app.before_request(lambda: request.get_json() and None if next(reads, True) else None)

    for _ in "before us", "after us":
        assert site.tell(CLICK).get_json() == {"consent": True}
    assert_refused(site, 413, "too_large", '{"adct": "x"}' + " " * 3000)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_post_is_answered_and_no_preflight(site: Site, method: str) -> None:
    answer = site.browser.open(
        "/_adroll/identity",
        method=method,
        base_url=f"https://{HOST}",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )

    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
    assert "Set-Cookie" not in answer.headers
    assert answer.status_code in ((200, 204, 404, 405) if method == "OPTIONS" else (404, 405))


def test_a_message_sets_nobodys_identity_but_the_callers(site: Site) -> None:
    site.get("/?adct=mine")
    victim = site.browser
    before = site.visitor()

    site.browser = site.new_browser()
    site.tell({"adct": "theirs", "first_party_cookie": OTHER})
    site.browser = victim

    assert site.visitor() == before


def test_a_click_id_that_a_newer_one_replaced_does_not_come_back_from_a_page(site: Site) -> None:
    site.get("/?adct=older")
    site.get("/?adct=newer")

    told = site.tell({"adct": "older"})

    assert told.status_code == 204
    assert site.visitor()["adct"] == "newer"


def assert_refused(site: Site, status: int, why: str, body: Any, **kwargs: Any) -> None:
    before = dict(site.counts)

    answer = site.tell(body, **kwargs)

    assert answer.status_code == status
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
    assert CANARY not in answer.text + str(answer.headers)
    assert set(json.loads(answer.data)) == {"error"}
    changed = {name for name, count in site.counts.items() if count != before.get(name)}
    assert changed == {f"identity_refused:{why}"}


# -- what a page and its headers may hold ----------------------------------------------------


def test_nothing_of_a_visitor_reaches_the_page_or_the_script(site: Site) -> None:
    plain = site.get("/").data
    site.browser.set_cookie("__adroll_fpc", COOKIE, domain=HOST)

    page = site.get(
        f"/?adct={CANARY}&x={CANARY}", headers={"User-Agent": CANARY, "Referer": CANARY}
    )
    script = re.search(rb'src="([^"]+)"', page.data)

    assert b"data-adroll" in page.data
    assert page.data == plain
    assert script is not None
    kit = site.get(script[1].decode() + f"?adct={CANARY}")
    assert kit.status_code == 200
    assert CANARY.encode() not in kit.data
    assert "Set-Cookie" not in kit.headers
    assert "Vary" not in kit.headers


@pytest.mark.parametrize(
    "query",
    [
        *("adct=x%0d%0aSet-Cookie:%20evil=1", "adct=x%0aX-Evil:%201", "adct=%00"),
        *("adct=x%3B%20Domain%3Devil.example", "adct=x,y;z%22", "adct=%f0%28%8c%28"),
        *("adct=" + "x" * 241, "adct=" + "&adct=" * 20_000, "adct=%", "adct=%zz&adct[]=1"),
    ],
)
def test_no_click_id_makes_a_header_or_another_cookie(site: Site, query: str) -> None:
    answer = site.get(f"/?{query}")

    names = [header.partition("=")[0] for header in answer.headers.getlist("Set-Cookie")]
    assert answer.status_code == 200
    assert set(names) <= {RECORD, "__adroll_fpc", "session"}
    assert "X-Evil" not in answer.headers
    for header in answer.headers.getlist("Set-Cookie"):
        assert "evil" not in header
        assert "\n" not in header


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example\r\nX-Evil: 1", "evil.example; Domain=example", 'evil"example', "ev il"),
        *("", "é.example", "x" * 5000, "[::1", "shop.example:99999999"),
    ],
)
def test_no_host_header_makes_a_header_or_breaks_a_page(site: Site, host: str) -> None:
    # Some of these are too much for Werkzeug's own client.
    environ = create_environ("/?adct=click1")
    _, status, headers = run_wsgi_app(site.app, {**environ, "HTTP_HOST": host}, buffered=True)

    assert status[:3] in ("200", "400")
    for header in headers.getlist("Set-Cookie"):
        assert "evil" not in header.lower() or ";" not in host
        assert "\r" not in header
        assert "\n" not in header


def test_a_bomb_of_cookies_costs_little_and_breaks_nothing(site: Site) -> None:
    signed = site.get("/?adct=click1").headers["Set-Cookie"].partition(";")[0]
    bombs = [
        "; ".join([f"{RECORD}=" + "A" * 900 + f".{n}" for n in range(2000)]),
        "; ".join([f"__adroll_fpc={'b' * 31}{n}-1" for n in range(20_000)]),
        "; ".join([f"junk{n}={n}" for n in range(50_000)]),
        f"{RECORD}=" + "A" * 1_000_000,
        "__adroll_fpc=" + "%25" * 300_000,
        RECORD * 50_000,
        ";" * 500_000 + f"{RECORD}=x",
        signed.replace("=", " \t" * 100_000 + "="),
    ]

    for bomb in bombs:
        started = time.process_time()
        answer = site.get_with(bomb)
        assert answer.status_code == 200
        assert time.process_time() - started < 1.0
        assert len(str(answer.headers)) < 4000


# -- records and tokens ----------------------------------------------------------------------


def seen_with(site: Site, record: str) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(site.get_with(f"{RECORD}={record}", "/who").data)
    return seen


def test_a_record_that_was_changed_anywhere_is_ignored_and_counted(site: Site) -> None:
    site.get("/?adct=mine")
    record = site.cookie(RECORD)
    assert record is not None
    assert seen_with(site, record)["adct"] == "mine"
    changed = [
        record[:at] + ("A" if record[at] != "A" else "B") + record[at + 1 :]
        # Two bits of the last character are no signature's.
        for at in range(0, len(record) - 1, 7)
    ]

    for forged in [*changed, record[:-1], record + "A", record.upper(), "." + record, record * 2]:
        assert seen_with(site, forged)["adct"] is None, forged

    assert site.counts["record_ignored:forged"] == len(changed) + 5


def test_an_old_record_is_expired_and_not_forged(site: Site) -> None:
    site.get("/?adct=mine")
    record = str(site.cookie(RECORD))
    assert seen_with(site, record)["adct"] == "mine"  # and it is remembered

    site.clock.now += 366 * 86_400

    assert seen_with(site, record)["adct"] is None
    assert site.counts["record_ignored:expired"] == 1
    assert "record_ignored:forged" not in site.counts


def test_a_record_and_a_token_cannot_stand_in_for_each_other(site: Site) -> None:
    site.get("/?adct=mine")
    record = str(site.cookie(RECORD))
    records = site.runtime.visitors
    token = Visitor(adct="mine", consent=True, _make=records._token_of).token()

    assert records.read_token(token).visitor.adct == "mine"
    with pytest.raises(TokenForgedError):
        records.read_token(record)
    assert seen_with(site, token)["adct"] is None
    assert site.counts["record_ignored:forged"] == 1


@pytest.mark.parametrize(
    ("salt", "digest", "derivation"),
    [
        # The key is Flask's SECRET_KEY: whoever gets Flask to sign a text must gain no record.
        *((salt, "sha256", "hmac") for salt in ("itsdangerous.Signer", "cookie-session")),
        *(("adroll_flask.record", digest, "hmac") for digest in ("sha1", "md5")),
        *(("adroll_flask.record", "sha256", derivation) for derivation in ("none", "concat")),
    ],
)
def test_a_weaker_algorithm_is_refused(site: Site, salt: str, digest: str, derivation: str) -> None:
    body = urlsafe_b64encode(pack(Record(adct="forged"))).rstrip(b"=")

    def signed(salt: str, digest: str, derivation: str) -> str:
        method = getattr(hashlib, digest)
        how: dict[str, Any] = {"digest_method": method, "key_derivation": derivation}
        signer = TimestampSigner("a key of this shop", salt=salt, **how)
        signer.get_timestamp = lambda: int(site.clock.now)  # type: ignore[method-assign]
        return signer.sign(body).decode()

    ours = signed("adroll_flask.record", "sha256", "hmac")
    assert seen_with(site, ours)["adct"] == "forged", "the test signs as we do"
    assert seen_with(site, signed(salt, digest, derivation))["adct"] is None


def test_keys_rotate_and_lose_nobody_and_a_retired_key_opens_nothing(make_site: MakeSite) -> None:
    old = make_site("old", secret_key="old")
    old.get("/?adct=mine")
    record = str(old.cookie(RECORD))
    token = Visitor(adct="mine", _make=old.runtime.visitors._token_of).token()

    rotating = make_site("rotating", secret_key=["new", "old"])
    assert seen_with(rotating, record)["adct"] == "mine"
    assert rotating.runtime.visitors.read_token(token).visitor.adct == "mine"
    answer = rotating.get_with(f"{RECORD}={record}", "/?adct=later")
    renewed = re.findall(f"^{RECORD}=([^;]+)", answer.headers["Set-Cookie"])[0]

    rotated = make_site("rotated", secret_key="new")
    assert seen_with(rotated, renewed)["adct"] == "later"
    assert seen_with(rotated, record)["adct"] is None
    with pytest.raises(TokenForgedError):
        rotated.runtime.visitors.read_token(token)


def test_nothing_in_the_package_unpickles_or_evaluates() -> None:
    # Python's own serialisers run what they read; signing would be the only thing in between.
    # An import speaks with the processes that it forked over pipes that nobody else has.
    unsafe = re.compile(r"\b(pickle|marshal|shelve|dill|yaml\.load)\b|(?<![\w.])(eval|exec)\(")
    package = Path(adroll_flask.__file__).parent

    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if unsafe.search(re.sub(r"#.*|\"\"\".*?\"\"\"", "", path.read_text("utf-8"), flags=re.S))
    ]

    assert found == ["cli/import_command.py"]


# -- the visitor's address is what the server says, and nobody else can say it --------------------


FORGED = "203.0.113.66"


HEADERS = (
    "X-Forwarded-For X-Real-IP Forwarded True-Client-IP CF-Connecting-IP X-Client-IP"
    " X-Cluster-Client-IP Client-IP Via"
)


def reported_from(site: Site, headers: dict[str, str] | None = None, **environ: Any) -> str | None:
    """The address in the event that a purchase with these headers makes."""
    before = len(site.events())
    site.get("/buy?order=" + str(before), headers=headers, environ_overrides=environ)
    (event,) = site.events()[before:] or [{}]
    return event.get("ip")


def test_no_header_of_a_visitor_changes_the_address(site: Site) -> None:
    site.get("/?adct=click1")
    for header in HEADERS.split():
        value = f"for={FORGED}" if header == "Forwarded" else FORGED
        assert reported_from(site, {header: value}) == ADDRESS, header
        assert site.visitor()["ip"] == ADDRESS
    assert FORGED not in json.dumps(site.events())


@pytest.mark.parametrize(
    ("address", "chain", "sender"),
    [
        ("8.8.4.4", "", "visitor"),
        ("10.0.0.5", "", "private"),
        (None, "", "none"),
        ("8.8.4.4", "8.8.4.4", "visitor"),
        ("8.8.4.4", "192.0.2.1", "proxy"),
        ("10.0.0.5", "10.0.0.5", "visitor"),  # in the proxy's own network
        ("10.0.0.5", "8.8.4.4, 10.0.0.5", "private"),
    ],
)
def test_check_is_told_whose_address_the_site_sees(
    site: Site, address: str | None, chain: str, sender: str
) -> None:
    headers = {"X-AdRoll-Check": "1"} | ({"X-Forwarded-For": chain} if chain else {})
    answer = site.tell(CLICK, headers=headers, environ_overrides={"REMOTE_ADDR": address})
    assert answer.headers["X-AdRoll-Sender"] == sender


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (f"{FORGED}, {FORGED}, 8.8.4.4", "8.8.4.4"),
        ("2001:4860:4860::8888", "2001:4860:4860::8888"),
        ("[2001:4860:4860::8888]:4711", "2001:4860:4860::8888"),
        ("::ffff:8.8.4.4", "8.8.4.4"),
    ],
)
def test_behind_proxy_fix_the_trusted_address_counts(site: Site, chain: str, expected: str) -> None:
    site.app = ProxyFix(site.app, x_for=1)
    site.get("/?adct=click1")

    assert reported_from(site, {"X-Forwarded-For": chain}, REMOTE_ADDR="10.0.0.1") == expected


@pytest.mark.parametrize(
    "given", ["10.1.2.3", "127.0.0.1", "192.168.7.7", "::1", "fd00::7", "::ffff:10.0.0.1"]
)
def test_a_private_address_is_told_once_unnamed(site: Site, given: str, caplog: Caplog) -> None:
    site.get("/?adct=click1")

    with caplog.at_level(logging.DEBUG, "adroll_flask"):
        first, second = (
            site.get(f"/buy?order={n}", environ_overrides={"REMOTE_ADDR": given}).get_json()
            for n in range(2)
        )

    # It most likely means a missing ProxyFix; the sale counts all the same.
    assert first["status"] == second["status"] == "queued"
    assert site.counts.get("address_private", 0) >= 2
    warnings = [r.getMessage() for r in caplog.records if "ProxyFix" in r.getMessage()]
    assert len(warnings) == 1
    assert given not in caplog.text


def test_the_host_of_a_forged_forwarded_host_is_not_the_pages(site: Site) -> None:
    site.get("/?adct=click1")

    site.get("/buy", headers={"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"})

    (event,) = site.events()
    assert event["page_location"].startswith(f"https://{HOST}/buy")

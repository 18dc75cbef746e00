"""What a request says of its page: host, URL, click id, from a WSGI environ alone."""

from typing import Any
from urllib.parse import quote

import pytest

from adroll_flask.counters import Counters
from adroll_flask.settings import Settings
from adroll_flask.visitor.tracked_request import TrackedRequest
from adroll_flask.visitor.visitors import Visitors


def tracked(**environ: Any) -> TrackedRequest:
    settings, counters = Settings(), Counters()

    def clock() -> float:
        return 1_790_000_000.0

    visitors = Visitors(settings, counters, keys=("secret",), clock=clock)
    base = {
        "REQUEST_METHOD": "GET",
        "wsgi.url_scheme": "https",
        "SERVER_NAME": "internal",
        "SERVER_PORT": "8000",
    }
    return TrackedRequest(visitors, base | {k.replace("__", "."): v for k, v in environ.items()})


@pytest.mark.parametrize(
    ("header", "host", "hostname"),
    [
        ("shop.example", "shop.example", "shop.example"),
        ("Shop.EXAMPLE", "shop.example", "shop.example"),
        ("shop.example:8443", "shop.example:8443", "shop.example"),
        ("shop.example:443", "shop.example", "shop.example"),
        ("xn--grnzeug-n2a.example", "xn--grnzeug-n2a.example", "xn--grnzeug-n2a.example"),
        ("shop.example.", "shop.example.", "shop.example."),
        ("127.0.0.1:5000", "127.0.0.1:5000", "127.0.0.1"),
        ("[2001:DB8::1]", "[2001:db8::1]", "2001:db8::1"),
        ("[::1]:5000", "[::1]:5000", "::1"),
        # A malformed one is none.
        *((no, "", "") for no in ("", "user@shop.example", "shop_1.example", "größe.example")),
        *((no, "", "") for no in ("a" * 254, " shop.example", "shop.example\n")),
        *((no, "", "") for no in ("shop.example, evil.example", "shop.example/path")),
        *((f"shop.example:{port}", "", "") for port in ("", "0", "http", "123456")),
        *((no, "", "") for no in ("shop..example", ".example", "example..")),
        *((no, "", "") for no in (f"{'a' * 64}.example", "[::1", "[shop.example]", "::1")),
    ],
)
def test_the_host_is_the_browsers_but_for_the_port(header: str, host: str, hostname: str) -> None:
    request = tracked(HTTP_HOST=header, PATH_INFO="/thanks")
    assert (request.host, request.hostname) == (host, hostname)
    assert request.page_url == (f"https://{host}/thanks" if host else None)


@pytest.mark.parametrize(
    ("name", "port", "host"),
    [
        ("internal", "8000", "internal:8000"),
        ("internal", "443", "internal"),
        ("/run/shop.sock", "", ""),
    ],
)
def test_without_a_host_header_the_server_names_itself(name: str, port: str, host: str) -> None:
    assert tracked(SERVER_NAME=name, SERVER_PORT=port).host == host


@pytest.mark.parametrize(
    ("root", "path", "query", "rest"),
    [
        ("", "/", "", "/"),
        ("", "", "", "/"),
        ("/shop", "/thanks", "adct=a%2Bb", "/shop/thanks?adct=a%2Bb"),
        ("/shop/", "/", "", "/shop/"),
        # By a forged X-Forwarded-Prefix: two slashes would make a host of it.
        ("//evil.example", "/", "", "/evil.example/"),
        ("/", "/thanks", "", "/thanks"),
        ("", "/gr\xc3\xb6\xc3\x9fe", "q=\xc3\xb6", "/gr%C3%B6%C3%9Fe?q=%C3%B6"),
        ("", "/\xff<script>", "", "/%FF%3Cscript%3E"),
        ("", "/50%", "a b", "/50%25?a%20b"),
    ],
)
def test_the_url_is_encoded_as_by_browsers(root: str, path: str, query: str, rest: str) -> None:
    request = tracked(
        HTTP_HOST="shop.example", SCRIPT_NAME=root, PATH_INFO=path, QUERY_STRING=query
    )
    assert request.page_url == f"https://shop.example{rest}"


def test_each_character_of_a_path_is_encoded_as_browsers_do() -> None:
    for code in range(256):
        for path in (f"/{chr(code)}", f"/a{chr(code)}b\n"):
            encoded = quote(path.encode("latin-1"), safe="/!$&'()*+,;=:@~")
            assert tracked(PATH_INFO=path).path == encoded

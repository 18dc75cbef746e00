"""What each status, header and body means."""

import json

import pytest

from adroll_flask.delivery.client import Answer, answer_from
from adroll_flask.delivery.transport import Response

NOW = 1_700_000_000.0


def answer(status: int, body: object = None, truncated: bool = False, **headers: str) -> Answer:
    content = (
        b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer_from(Response(status, names, content, truncated), now=NOW)


KINDS = {
    "accepted": (200, 201, 204),
    "denied": (301, 302, 304, 308, 401, 402, 403, 404, 405, 409, 415),
    "content": (400, 422),
    "too_large": (413,),
    "throttled": (429, 503),
    "unsure": (100, 408, 500, 501, 502, 504, 520, 599, 999),
}


@pytest.mark.parametrize(
    ("status", "kind"), [(status, kind) for kind, many in KINDS.items() for status in many]
)
def test_the_status_alone_decides(status: int, kind: str) -> None:
    said = answer(status, retry_after="7")
    assert (said.kind, said.retry_after) == (kind, 7.0 if kind == "throttled" else None)
    assert said.reason == ("http_status" if status == 999 else f"http_{status}")
    assert answer(status, b"<html>not JSON</html>").kind == kind
    assert answer(status, {"errors": [{"message": "no"}]}).kind == kind


def test_a_success_that_breaks_off_is_unsure_and_a_refusal_that_breaks_off_is_a_refusal() -> None:
    assert answer(200, b'{"resul', truncated=True) == Answer("unsure", "truncated", 200)
    assert answer(400, b'{"err', truncated=True).kind == "content"


#: NOW is Tue, 14 Nov 2023 22:13:20 GMT.
RETRY_AFTER = {
    7.0: ("7", " 7 "),
    1.5: ("1.5",),
    0.0: ("0", "Tue, 14 Nov 2023 22:00:00 GMT"),
    40.0: (
        "Tue, 14 Nov 2023 22:14:00 GMT",
        "Tuesday, 14-Nov-23 22:14:00 GMT",
        "Tue Nov 14 22:14:00 2023",
    ),
    3600.0: ("86400", "9" * 60, "Wed, 14 Nov 2063 22:14:00 GMT"),
    None: ("-3", "soon", "inf", "", "Tue, 99 Foo 2023 99:99:99 GMT"),
}


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_read(status: int) -> None:
    for seconds, texts in RETRY_AFTER.items():
        for text in texts:
            assert answer(status, retry_after=text).retry_after == seconds, text
    assert answer(status).retry_after is None
    # Our clock is an hour wrong; what counts is the sender's.
    until, said = "Tue, 14 Nov 2023 23:14:00 GMT", "Tue, 14 Nov 2023 23:13:30 GMT"
    assert answer(status, retry_after=until, date=said).retry_after == 30.0


ODD = [b"", b"null", b"[", b'"text"', b"<html>", b"\xff\xfe", b"[" * 60_000, b"9" * 60_000]
ODD += [b'{"errors": %s}' % errors for errors in (b"3", b"null", b"[]", b"[null]", b'["\xff"]')]


@pytest.mark.parametrize("body", ODD)
def test_bodies_of_any_kind_are_survived(body: bytes) -> None:
    assert answer(400, body) == Answer("content", "http_400", 400)


def test_words_are_taken_from_several_shapes() -> None:
    assert answer(400, {"errors": [{"message": "bad", "code": 7}]}).words == "http_400: bad (7)"
    assert answer(400, [{"field": "ip", "message": "bad"}]).words == "http_400: ip: bad"
    assert answer(400, [{"code": "E7"}]).words == "http_400: E7"
    assert answer(400, [{"field": "ip", "message": "bad", "code": "E7"}, "no"]).words == (
        "http_400: ip: bad (E7); no"
    )
    assert answer(400, b"<html>").words == "http_400"
    assert answer(400, b'{"errors": [NaN, Infinity]}').kind == "content"


def test_words_are_bounded() -> None:
    body = {"errors": [{"message": "bad " * 2_500, "field": "ip"}] * 500}
    said = answer(400, body)
    assert len(said.errors) == 20
    assert len(said.words) == 300

"""What is ASGI's own: messages, startup and shutdown, WebSockets, what is awaited, and frameworks.

What both middlewares do alike, test_without_flask.py asks of both.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

import adroll_flask
from adroll_flask.asgi import ASGIApp
from adroll_flask.testing import reports
from tests.app.conftest import Wrap
from tests.conftest import PAGE, Caplog
from tests.support import eventually
from tests.support.asgi import strict
from tests.support.visits import ORDER

POSTED = [(b"sec-fetch-site", b"same-origin"), (b"content-type", b"application/json")]
BUYER = ("203.0.113.7", 0)
HTML = [(b"content-type", b"text/html; charset=utf-8")]
HTTP: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "scheme": "http",
    "client": BUYER,
    "headers": [(b"host", b"shop.test")],
}


def start(headers: Iterable[tuple[bytes, bytes]] = HTML, status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [*headers]}


def part(body: str, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body.encode(), "more_body": more}


def saying(*messages: dict[str, Any]) -> ASGIApp:
    """An app that answers with *messages*."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def calling(function: Callable[[Any], object]) -> ASGIApp:
    """An app that answers with what *function* makes of the scope."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await saying(start([]), part(str(function(scope))))(scope, _receive, send)

    return app


def asked(app: ASGIApp, *told: dict[str, Any], **scope: Any) -> list[Any]:
    """What *app* sends where it is told those messages."""
    sent: list[Any] = []
    telling = iter([*told, *[{"type": "http.disconnect"}] * 3])

    async def receive() -> Any:
        return next(telling)

    async def send(message: Any) -> None:
        sent.append(message)

    async def serve() -> None:  # what is awaited may be no coroutine
        await app(HTTP | scope, receive, send)

    asyncio.run(serve())
    return sent


def body_of(sent: list[Any]) -> str:
    return b"".join(message.get("body", b"") for message in sent).decode()


# -- responses -----------------------------------------------------------------------------


def test_of_two_around_one_app_the_inner_one_counts(asgi_wrap: Wrap) -> None:
    page = saying(start(), part(PAGE))
    refusing = asgi_wrap(page, consent=lambda _: False)
    for inner, names in (
        (asgi_wrap(page), [b"__adroll_fpc", b"adroll_visitor"]),
        (refusing, []),
    ):
        sent = asked(asgi_wrap(inner))
        headers = sent[0]["headers"]
        cookies = [value.partition(b"=")[0] for name, value in headers if name == b"set-cookie"]
        assert sorted(cookies) == names
        assert body_of(sent).count("data-adroll") == 1


def test_headers_of_a_page_wait_for_its_first_part_and_no_others(asgi_wrap: Wrap) -> None:
    sent: list[Any] = []
    seen: list[int] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        kind = scope["path"].removeprefix("/").encode()
        await send(start([(b"content-type", kind)] if kind else []))
        seen.append(len(sent))
        await send(part(PAGE[:60], more=True))
        seen.append(len(sent))
        await send(part(PAGE[60:]))

    async def collect(message: Any) -> None:
        sent.append(message)

    for kind, counts in (("text/html", [0, 2]), ("text/event-stream", [1, 2]), ("", [1, 2])):
        sent.clear()
        seen.clear()
        asyncio.run(asgi_wrap(app)(HTTP | {"path": f"/{kind}"}, None, collect))
        assert seen == counts
        assert body_of(sent).count("data-adroll") == (kind == "text/html")


@pytest.mark.parametrize("more", [False, True], ids=["whole", "as_starlettes_middleware_sends"])
def test_a_whole_page_keeps_a_length_that_is_right(asgi_wrap: Wrap, more: bool) -> None:
    headers = [*HTML, (b"content-length", str(len(PAGE)).encode()), (b"etag", b'"a"')]
    rest = [part("")] if more else []
    sent = asked(strict(asgi_wrap(saying(start(headers), part(PAGE, more=more), *rest))))
    told = dict(sent[0]["headers"])
    assert int(told[b"content-length"]) == len(body_of(sent)) > len(PAGE)
    assert told[b"etag"] == b'W/"a"'


def test_a_streamed_page_has_no_length_and_loses_no_byte(asgi_wrap: Wrap) -> None:
    headers = [*HTML, (b"content-length", str(len(PAGE)).encode())]
    parts = [part(PAGE[at : at + 7], more=True) for at in range(0, len(PAGE), 7)]
    sent = asked(strict(asgi_wrap(saying(start(headers), *parts, part("")))))
    assert b"content-length" not in dict(sent[0]["headers"])
    page = body_of(sent)
    tag = page[page.index("<script async") : page.index("</script>") + 9]
    assert page.replace(tag, "") == PAGE


@pytest.mark.parametrize(
    "file",
    [
        {"type": "http.response.pathsend", "path": "/var/www/page.html"},
        {"type": "http.response.zerocopysend", "file": 3, "more_body": False},
    ],
)
def test_a_file_that_the_server_reads_is_left_alone(asgi_wrap: Wrap, file: dict[str, Any]) -> None:
    headers = [*HTML, (b"content-length", b"7"), (b"etag", b'"a"')]
    middleware = asgi_wrap(saying(start(headers), file))
    first, second = asked(middleware)
    assert second == file
    assert dict(first["headers"]).items() >= dict(headers).items()
    assert middleware.runtime.counters.get("page_untouched", "passthrough") == 1


def test_what_the_app_says_beside_its_response_passes(asgi_wrap: Wrap) -> None:
    hint = {"type": "http.response.early_hint", "links": []}
    trailers = {"type": "http.response.trailers", "headers": []}
    begin = start() | {"trailers": True}
    sent = asked(asgi_wrap(saying(hint, begin, part(PAGE), trailers)))
    assert [sent[0], sent[-1]] == [hint, trailers]
    assert sent[1]["trailers"]
    assert "data-adroll" in body_of(sent)


def test_a_page_that_ends_from_a_file_loses_no_byte(asgi_wrap: Wrap) -> None:
    first = PAGE[:20]
    rest = {"type": "http.response.zerocopysend", "file": 3}
    app = asgi_wrap(saying(start(), part(first, more=True), rest))

    sent = asked(app, extensions={"http.response.zerocopysend": {}})

    assert body_of(sent) == first
    assert sent[-1]["type"] == rest["type"]


def test_headers_that_can_be_read_once_all_leave(asgi_wrap: Wrap) -> None:
    headers = [(b"x-first", b"1"), (b"content-type", b"application/json"), (b"x-last", b"2")]

    def once() -> Any:
        return iter(headers)

    app = asgi_wrap(saying({**start(), "headers": once()}, part("{}")))

    assert {*headers} <= {*asked(app)[0]["headers"]}


def test_a_task_that_outlives_its_request_reports_for_nobody(
    asgi_wrap: Wrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that consumes what many requests leave to it has the context of the first."""
    monkeypatch.setattr("adroll_flask.request_state._TASKS_LAST", 0.05)
    seen: list[str | None] = []

    async def consume(orders: asyncio.Queue[str]) -> None:
        while True:
            await orders.get()
            seen.append(adroll_flask.current_visitor().adct)
            orders.task_done()

    tasks: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if not tasks:
            orders: asyncio.Queue[str] = asyncio.Queue()
            tasks.extend([orders, asyncio.create_task(consume(orders))])
        await tasks[0].put("1001")
        await tasks[0].join()
        await saying(start([]), part("ok"))(_scope, _receive, send)

    application = asgi_wrap(app, strict=False)

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(_message: Any) -> None: ...

    async def visit(click: bytes) -> None:
        await application({**HTTP, "query_string": b"adct=" + click}, receive, send)

    async def two_visitors() -> None:
        await visit(b"ann")
        await asyncio.sleep(0.1)
        await visit(b"ben")
        tasks[1].cancel()

    asyncio.run(two_visitors())

    assert seen == ["ann", None]


def test_a_no_reaches_what_an_open_socket_reports_after_it(
    asgi_wrap: Wrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_700_000_000.0]
    application = asgi_wrap(
        saying(start(), part(PAGE)), clock=lambda: now[0], delivery="worker", strict=False
    )
    [page] = [one for one in asked(application, query_string=b"adct=ann") if "status" in one]
    cookies = [value for name, value in page["headers"] if name == b"set-cookie"]
    jar = (b"cookie", b"; ".join(cookie.split(b";")[0] for cookie in cookies))
    headers = [*HTTP["headers"], jar]
    said: list[Any] = []

    async def socket(_scope: Any, _receive: Any, _send: Any) -> None:
        now[0] += 5
        no = b'{"consent": false}'
        posted = await asyncio.to_thread(
            asked,
            application,
            {"type": "http.request", "body": no},
            method="POST",
            path="/_adroll/identity",
            headers=[*headers, *POSTED],
        )
        said.append(posted[0]["status"])
        now[0] += 5
        said.append(adroll_flask.report_conversion(**ORDER).id)

    application._app = socket
    asked(application, type="websocket", headers=headers)

    status, id = said
    outbox = application.runtime.outbox
    outbox.ingest.take_in_all()
    assert status == 204
    assert outbox.lookups.show(id).reason == "forgotten"


def test_an_app_that_fails_amid_its_page_raises_as_without_us(asgi_wrap: Wrap) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(start())
        raise LookupError

    with pytest.raises(LookupError):
        asked(asgi_wrap(app))
    assert asked(asgi_wrap(saying(start()))) == [start()]


def test_middleware_around_ours_sees_what_the_app_s_router_found(asgi_wrap: Wrap) -> None:
    seen: list[Any] = []

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = "/orders/{id}"
        await saying(start(), part(PAGE))(scope, receive, send)

    app = asgi_wrap(routed)

    async def measuring(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        seen.append(scope.get("route"))

    asked(measuring)
    assert seen == ["/orders/{id}"]


def test_a_path_that_no_text_encodes_is_served(asgi_wrap: Wrap) -> None:
    app = asgi_wrap(saying(start(), part(PAGE)))
    assert "data-adroll" in body_of(asked(app, path="/\udcff/\udcff", root_path="/\udcff"))


# -- requests ------------------------------------------------------------------------------


def test_cookies_may_come_one_by_one_and_no_header_passes_for_another(asgi_wrap: Wrap) -> None:
    cookie = b"46d41c62e88bb2e267c1e15314bb8837-1667065540836"
    fields = [(b"cookie", b"a=1"), (b"cookie", b"__adroll_fpc=" + cookie), (b"sec_gpc", b"1")]
    look = calling(lambda _scope: adroll_flask.current_visitor().first_party_cookie)
    assert body_of(asked(asgi_wrap(look), headers=fields)) == cookie.decode()


@pytest.mark.parametrize(("path", "root"), [("/shop/é", "/shop"), ("/é", "/shop"), ("/é", "")])
def test_a_page_has_the_address_that_the_browser_asked_for(
    asgi_wrap: Wrap, path: str, root: str
) -> None:
    """Servers differ in whether the path has the root in front."""
    middleware = asgi_wrap(calling(lambda _scope: adroll_flask.report_conversion(**ORDER)))
    with reports(middleware) as reported:
        asked(middleware, path=path, root_path=root, scheme="https", query_string=b"adct=c1")
    location = reported.one("purchase").page_location
    assert location == f"https://shop.test{root}/%C3%A9?adct=c1"


JSON = [(b"content-type", b"application/json"), (b"sec-fetch-site", b"same-origin")]
IDENTITY: dict[str, Any] = {"method": "POST", "path": "/_adroll/identity", "headers": JSON}


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (['{"adct": ', '"c1"}'], 204),
        (["x" * 1500] * 100, 413),
        (["{"], 400),
    ],
)
def test_our_endpoint_reads_no_more_than_it_takes(
    asgi_wrap: Wrap, told: list[str], status: int
) -> None:
    parts: list[dict[str, Any]] = [
        {"type": "http.request", "body": text.encode(), "more_body": number < len(told)}
        for number, text in enumerate(told, 1)
    ]
    unread = {"type": "http.request", "body": b"never read", "more_body": True}
    middleware = asgi_wrap(saying())
    assert asked(strict(middleware), *parts, unread, **IDENTITY)[0]["status"] == status


def test_who_leaves_our_endpoint_is_not_answered(asgi_wrap: Wrap) -> None:
    first = {"type": "http.request", "body": b"{", "more_body": True}
    assert asked(asgi_wrap(saying()), first, **IDENTITY) == []


# -- what is awaited, and what is not ------------------------------------------------------------


def test_consent_may_be_awaited(asgi_wrap: Wrap, caplog: Caplog) -> None:
    async def consent(request: Any) -> bool:
        await asyncio.sleep(0)
        if request.args["says"] == "fails":
            raise LookupError
        return bool(request.args["says"] == "yes")

    look = calling(lambda _scope: adroll_flask.current_visitor().consent)
    middleware = asgi_wrap(look, consent=consent, strict=False)
    for says, expected in (("yes", "True"), ("no", "False"), ("fails", "None")):
        assert body_of(asked(middleware, query_string=f"says={says}".encode())) == expected
    assert middleware.runtime.counters.get("consent_error", "raised") == 1
    assert "LookupError" in caplog.text


async def who(_scope: Any) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "way_out"),
    [
        ({"identity": who}, r'identity: .*scope\["user"\]'),
        ({"before_report": [who]}, r'before_report: .*scope\["user"\]'),
        ({"csp_nonce": who}, r'csp_nonce: .*scope\["user"\]'),
        ({"delivery": "sync"}, r"delivery: .*middleware\.flush"),
    ],
)
def test_what_would_have_to_be_awaited_is_refused(
    asgi_wrap: Wrap, wrong: dict[str, Any], way_out: str
) -> None:
    with pytest.raises(adroll_flask.ConfigurationError, match=way_out):
        asgi_wrap(saying(), **wrong)


def test_who_is_logged_in_is_asked_of_the_scope_at_the_report(asgi_wrap: Wrap) -> None:
    def buy(scope: Any) -> str:
        scope["user"] = "ann"
        return scope["adroll.report"]("purchase", **ORDER).status  # type: ignore[no-any-return]

    middleware = asgi_wrap(calling(buy), identity=lambda scope: {"user_id": scope["user"]})
    with reports(middleware) as reported:
        assert body_of(asked(middleware, query_string=b"adct=c1")) == "queued"
    assert reported.one("purchase").user_id == "ann"


@pytest.mark.parametrize("name", ["identity", "before_report"])
def test_what_a_plain_function_gives_to_await_is_told_once(
    asgi_wrap: Wrap, caplog: Caplog, name: str
) -> None:
    """A coroutine that nobody awaits would be a warning, which fails here."""
    buy = calling(lambda scope: scope["adroll.report"]("purchase", **ORDER).reason)
    production = asgi_wrap(buy, strict=False, **{name: lambda it: who(it)})
    for _ in range(2):
        asked(production, query_string=b"adct=c1")
    [message] = [message for message in caplog.messages if f"{name}: has to return" in message]
    assert "or None, and nothing to await" in message

    strict = asgi_wrap(buy, strict=True, **{name: lambda it: who(it)})
    with pytest.raises(adroll_flask.EventError, match=f"^{name}: .* nothing to await"):
        asked(strict, query_string=b"adct=c1")


def test_the_nonce_is_what_the_app_has_put_into_the_scope(asgi_wrap: Wrap) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["nonce"] = "abc123"
        await saying(start(), part(PAGE))(scope, receive, send)

    middleware = asgi_wrap(app, csp_nonce=lambda scope: scope["nonce"])
    assert '<script nonce="abc123" ' in body_of(asked(middleware))


def test_it_runs_under_trio(asgi_wrap: Wrap) -> None:
    trio = pytest.importorskip("trio")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, adroll_flask.current_visitor)
            await trio.sleep(0)
        status = adroll_flask.report_conversion(**ORDER).status
        await saying(start(), part(PAGE + status))(scope, receive, send)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with reports(middleware := asgi_wrap(app)) as reported:
        trio.run(middleware, HTTP | {"query_string": b"adct=c1"}, None, send)
    assert body_of(sent).endswith("queued")
    assert "data-adroll" in body_of(sent)
    assert reported.one("purchase").adct == "c1"


def test_forty_requests_wait_beside_each_other_and_beside_slow_clients_of_ours(
    asgi_wrap: Wrap,
) -> None:
    waiting = 0

    async def serve() -> list[str]:
        all_wait = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal waiting
            waiting += 1
            if waiting == 40:
                all_wait.set()
            await all_wait.wait()
            await calling(lambda _scope: adroll_flask.report_conversion(**ORDER).status)(
                scope, receive, send
            )

        middleware = asgi_wrap(app)

        async def ask(number: int) -> str:
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            await middleware(HTTP | {"query_string": b"adct=c%d" % number}, None, send)
            return body_of(sent)

        slow = asyncio.create_task(middleware(HTTP | IDENTITY, asyncio.Event().wait, None))
        answers = await asyncio.gather(*map(ask, range(40)))
        slow.cancel()
        return answers

    answers = asyncio.run(serve())
    assert sorted(answers) == [*["duplicate"] * 39, "queued"]


# -- startup and shutdown ------------------------------------------------------------------------


def test_delivery_lives_from_startup_to_shutdown_as_often_as_a_server_does(
    asgi_wrap: Wrap,
) -> None:
    alive: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            alive.append(middleware.runtime.thread.alive)
            adroll_flask.report_conversion(**ORDER, **AT)
            await send({"type": f"lifespan.{step}.complete"})

    middleware = asgi_wrap(app)
    for _ in range(2):
        steps: Any = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        asked(middleware, *steps, type="lifespan")
        assert not middleware.runtime.thread.alive
    assert alive == [True] * 4
    assert len(middleware.runtime.outbox.lookups.list("waiting")) == 1


AT: dict[str, Any] = {"ip": BUYER[0], "page_location": "https://shop.test/", "adct": "c1"}


def test_an_app_without_a_lifespan_says_so_and_is_served(asgi_wrap: Wrap) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("only http")
        await saying(start(), part(PAGE))(scope, receive, send)

    middleware = asgi_wrap(app)
    with pytest.raises(ValueError, match="only http"):
        asked(middleware, {"type": "lifespan.startup"}, type="lifespan")
    assert "data-adroll" in body_of(asked(middleware))
    eventually(lambda: middleware.runtime.thread.alive)


# -- frameworks ------------------------------------------------------------------------------------


def fastapi_shop(**settings: Any) -> Any:
    pytest.importorskip("fastapi")
    import fastapi
    from fastapi.responses import HTMLResponse

    app = fastapi.FastAPI()

    def report(order: str) -> str:
        return adroll_flask.report_conversion(**{**ORDER, "order_id": order}).status

    @app.get("/", response_class=HTMLResponse)
    async def home() -> str:
        return PAGE

    @app.post("/async")
    async def in_async() -> str:
        return report("async")

    @app.post("/thread")
    def in_thread() -> str:
        return report("thread")

    @app.post("/dependency")
    async def in_dependency(status: str = fastapi.Depends(lambda: report("dependency"))) -> str:
        return status

    @app.post("/background")
    async def in_background(tasks: fastapi.BackgroundTasks) -> str:
        tasks.add_task(report, "background")
        return "queued"

    @app.websocket("/socket")
    async def in_socket(socket: fastapi.WebSocket) -> None:
        await socket.accept()
        await socket.send_text(report("socket"))
        await socket.close()

    @app.middleware("http")
    async def another(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        return await call_next(request)

    app.add_middleware(adroll_flask.AdRollASGIMiddleware, **settings)
    return app


def test_fastapi_reports_from_wherever_its_code_runs(tmp_path: Any) -> None:
    """With the middleware as FastAPI has it, and the client with which its pages test."""
    app = fastapi_shop(sandbox=True, secret_key="k" * 32, folder=str(tmp_path), strict=True)
    from fastapi.testclient import TestClient

    places = ("async", "thread", "dependency", "background")
    with reports(app) as reported, TestClient(app, client=BUYER) as client:
        assert client.get("/?adct=click123").text.count("data-adroll") == 1
        assert [client.post(f"/{place}").json() for place in places] == ["queued"] * 4
        with client.websocket_connect("/socket") as socket:
            assert socket.receive_text() == "queued"
    assert {event.order_id: event.adct for event in reported} == dict.fromkeys(
        (*places, "socket"), "click123"
    )

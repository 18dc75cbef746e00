"""A shop on Django that knows nothing of Flask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tests.conftest import PAGE

WSGI = Callable[..., Iterable[bytes]]
ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}


def django() -> WSGI:
    """Its WSGI handler. ``/buy`` reports by the environ, ``/order`` and ``/checkout`` by a call."""
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.dispatch import Signal
    from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
    from django.urls import path

    from adroll_flask import current_visitor, report_conversion

    order_placed = Signal()

    def index(request: HttpRequest) -> HttpResponse:
        return HttpResponse(PAGE)

    def text(text: str) -> HttpResponse:
        return HttpResponse(text, content_type="text/plain")

    def buy(request: HttpRequest) -> HttpResponse:
        return text(request.environ["adroll.report"]("purchase", **ORDER).status)

    def order(request: HttpRequest) -> HttpResponse:
        return text(report_conversion(**ORDER).status)

    def report(sender: object, placed: list[str], **_: object) -> None:
        placed.append(report_conversion(**ORDER).status)

    order_placed.connect(report, weak=False)

    def checkout(request: HttpRequest) -> HttpResponse:
        placed: list[str] = []
        order_placed.send(None, placed=placed)
        return text(placed[0])

    def export(request: HttpRequest) -> StreamingHttpResponse:
        def lines() -> Iterable[str]:
            yield "first "
            yield report_conversion(**ORDER).status

        return StreamingHttpResponse(lines(), content_type="text/plain")

    def who(request: HttpRequest) -> HttpResponse:
        return text(current_visitor().adct or "nobody")

    views = {"buy": buy, "order": order, "checkout": checkout, "export": export, "who": who}
    if not settings.configured:
        urls = [path("", index), *(path(name, view) for name, view in views.items())]
        settings.configure(
            SECRET_KEY="x",
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=type("urls", (), {"urlpatterns": urls}),
            MIDDLEWARE=["django.middleware.http.ConditionalGetMiddleware"],
        )
        django.setup()
    return WSGIHandler()  # type: ignore[no-any-return]

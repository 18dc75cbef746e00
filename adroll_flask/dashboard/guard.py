"""Who may look and who may act; and that an action comes from our own page.

An action is a POST that its browser says is of the same origin (Fetch Metadata, else ``Origin``),
with a token that we signed for this browser: the token holds what the browser's cookie holds.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from flask import Request, abort
from werkzeug.wrappers import Response

from adroll_flask.errors import nothing_to_await
from adroll_flask.host_names import why_foreign
from adroll_flask.runtime import Runtime
from adroll_flask.visitor.signing import Signer

#: The cookie that ties a token to a browser; it says nothing else.
COOKIE: Final = "adroll_dashboard"
#: Seconds for which a page's buttons work.
_TOKEN_LIFE: Final = 12 * 3600.0
#: Seconds for which an address can say what an action did.
_SAID_LIFE: Final = 300.0


@dataclass(eq=False, repr=False)
class Guard:
    """Says who may look at one mounted dashboard, and who may act.

    :param access: asked at each request, in the request; true lets in. A response that it returns
        (a redirect to the login) is sent instead of the page.
    :param operator: the same for actions; ``None``: nobody acts.
    """

    runtime: Runtime
    access: Callable[[], Any]
    operator: Callable[[], Any] | None = None

    def check_access(self) -> Response | None:
        """``None`` for somebody who may look; else the response of *access*, or an error."""
        answer = self.access()
        if isinstance(answer, Response):
            return answer
        if not _is_yes(answer, "access"):
            abort(403, "the function given as access= says no")
        return None

    def is_operator(self) -> bool:
        """Whether this person may act."""
        answer = self.operator() if self.operator is not None else False
        return not isinstance(answer, Response) and _is_yes(answer, "operator")

    def check_origin(self, request: Request, largest: int) -> None:
        """Raise an error unless a POST comes from our own page.

        The size is checked by the header before the form is read: nothing longer is read.

        :param largest: bytes that its body may have.
        """
        if why_foreign(request.environ, request.host):
            abort(403, "this did not come from the dashboard's own page")
        size = request.content_length
        if size is None:
            abort(411, "a body takes a Content-Length here")
        if size > largest:
            abort(413, f"this takes at most {largest // 1024:,} KiB; flask adroll takes any size")
        cookie = request.cookies.get(COOKIE, "")
        held = self._read("act", request.form.get("token", ""), _TOKEN_LIFE)
        if not cookie or held is None or not hmac.compare_digest(held, cookie.encode()):
            abort(403, "this page has been open too long, or cookies are off; load it again")

    def token(self, cookie: str) -> str:
        """What forms send along as ``token``, for a browser with this *cookie*."""
        return self._signer("act").sign(cookie.encode())

    @staticmethod
    def cookie(request: Request) -> tuple[str, bool]:
        """The browser's cookie, and whether it is new."""
        there = request.cookies.get(COOKIE, "")
        if len(there) == 32 and there.isalnum():
            return there, False
        return secrets.token_hex(16), True

    def seal(self, text: str, good: bool) -> str:
        """*text*, signed, for the address of the page that says it: nobody else can write one."""
        return self._signer("said").sign(f"{'+' if good else '-'}{text[:500]}".encode())

    def unseal(self, sealed: str) -> tuple[str, bool] | None:
        """The text and *good* that :meth:`seal` took; ``None``: it is not ours, or too old."""
        held = self._read("said", sealed, _SAID_LIFE)
        return None if held is None else (held[1:].decode(), held[:1] == b"+")

    def _read(self, purpose: str, text: str, life: float) -> bytes | None:
        try:
            return self._signer(purpose).unsign(text, life)[0]
        except ValueError:  # too old, or not ours
            return None

    def _signer(self, purpose: str) -> Signer:
        return Signer(self._keys, f"dashboard-{purpose}", clock=self.runtime.clock)

    @cached_property
    def _keys(self) -> Sequence[str | bytes]:
        # Read late, as apps set SECRET_KEY late. Without it this process makes a key for itself.
        return self.runtime.signing_keys() or (secrets.token_bytes(32),)


def _is_yes(answer: object, what: str) -> bool:
    """Whether the site's function says yes. A method that was not called, or a coroutine, does not.

    To Python both are true: ``lambda: current_user.is_staff`` would let in everybody where
    ``is_staff`` is a method.
    """
    # By isinstance and not by type: Flask's and Werkzeug's proxies stand for what they hold.
    if answer is not None and not isinstance(answer, bool | int):
        abort(
            403,
            f"the function given as {what}= has to return True or False{nothing_to_await(answer)};"
            f" it gave a {type(answer).__name__}",
        )
    return bool(answer)

"""One request and what we know of its visitor, worked out only when somebody asks.

No proxy's header is believed here. The address is the server's ``REMOTE_ADDR``, which ProxyFix
makes the visitor's.
"""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from typing import Literal, TypeAlias
from urllib.parse import quote
from wsgiref.types import WSGIEnvironment

from adroll_flask.forks import made_once
from adroll_flask.host_names import NAME, host_of, is_loopback
from adroll_flask.logs import logger

from .click_in_url import click_id_in
from .consent import Decision, decide
from .identifiers import (
    MAX_USER_AGENT,
    accept_user_agent,
    is_public_ip,
    new_first_party_cookie,
    normalise_ip,
)
from .record import Record, new_record_id
from .request_cookies import RequestCookies, record_cookie
from .tokens import Visitor
from .visitors import Visitors

#: Whose address a request has, as far as that can be told:
#:
#: - ``none``: the server gives no address, as over a Unix socket.
#: - ``local``: a private or loopback address asks for a page of ``localhost``: a developer's.
#: - ``private``: such an address asks for a page of any other host: a proxy's.
#: - ``proxy``: a public address, and there is an ``X-Forwarded-For`` that does not have it.
#: - ``visitor``: any other.
Sender: TypeAlias = Literal["none", "local", "private", "proxy", "visitor"]

#: How private, shared, loopback and link-local addresses begin, and some public ones, too.
_PERHAPS_PRIVATE = ("10.", "127.", "169.254.", "172.", "192.168.", "100.", "::", "f")
_HOST = re.compile(rf"(?:{NAME}|\[[a-f0-9]*:[a-f0-9.:]{{1,44}}\])(?::[1-9][0-9]{{0,4}})?\Z")
#: Characters of a host, of which no name has as many.
_LONGEST_HOST = 300
#: Where Dash's script asks for what a callback gives.
_DASH_CALLBACK = "/_dash-update-component"
#: ``Sec-Fetch-Dest`` of a page, as opposed to a fragment or a script's call.
_DOCUMENTS = ("document", "iframe", "frame")
#: Headers of htmx, Turbo and the libraries of old by which a script asks for a part of a page, or
#: for a page of which it takes a part.
_FRAGMENT_HEADERS = ("HTTP_HX_REQUEST", "HTTP_TURBO_FRAME", "HTTP_X_PJAX")


class TrackedRequest:
    """One request's visitor, from a WSGI environ.

    Making one costs a few assignments; cookies are read, signatures checked and consent asked
    when first needed.
    """

    #: A view looked at the visitor: its page depends on the cookie.
    viewed: bool = False
    #: ``forget_visitor()`` was called: the visitor counts as unknown, the cookies are taken back.
    forgotten: bool = False
    #: The response takes the cookies back, and what waits of the visitor is yet to be erased.
    withdrawn: bool = False
    #: The id of a record that this request made; the browser does not have it yet.
    new_record_id: str | None = None
    #: Another extension or middleware of ours works within the app, and decides what the response
    #: takes.
    is_served_within: bool = False
    #: A template has the snippet already.
    snippet_given: bool = False
    #: The record that the response carries, if any.
    written: Record | None = None
    #: The response was looked at, and gets its cookies once no code of the site's sees it any more.
    awaits_cookies: bool = False
    #: The response sets or deletes cookies of ours.
    carries_cookies: bool = False
    #: A page was prepared for a visitor who said no: what their session keeps has to go, too.
    refused: bool = False

    def __init__(self, visitors: Visitors, environ: WSGIEnvironment) -> None:
        self.visitors: Visitors = visitors
        self.environ: WSGIEnvironment = environ
        #: Epoch seconds: what is known of the visitor was known then.
        self.began_at: float = visitors.clock()
        # As they were: a dispatcher within the app moves a part of the path from one to the other.
        self._script_name: str = environ.get("SCRIPT_NAME", "")
        self._path_info: str = environ.get("PATH_INFO", "")

    # -- the request ---------------------------------------------------------------------

    @property
    def method(self) -> str:
        return str(self.environ["REQUEST_METHOD"])

    @property
    def is_document(self) -> bool:
        """False where the request asks for a fragment, or for data."""
        return self.is_navigation and not self.is_for_library

    @property
    def is_for_library(self) -> bool:
        """True where htmx or its like asks. It puts the answer into a page that has our script."""
        if not self.environ.keys().isdisjoint(_FRAGMENT_HEADERS):
            return True
        # "XMLHttpRequest" of a library. In an app's own browser (Android's WebView) each request
        # says the app's name, which has a dot: "com.instagram.android".
        return "." not in self.environ.get("HTTP_X_REQUESTED_WITH", ".")

    @property
    def is_navigation(self) -> bool:
        """True where the browser goes to this address, in its window or in a frame.

        It is False for a picture, a script or a script's call: anybody can have an address loaded
        by all who look at a page, as a picture in a review. An old browser, or one over plain HTTP,
        does not say what it loads. Then ``Accept`` tells: for a picture it does not name HTML.
        """
        environ = self.environ
        dest = environ.get("HTTP_SEC_FETCH_DEST")
        if dest == "empty":
            # A service worker passes a navigation on. No script can ask in this mode by itself.
            return environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        if dest is not None:
            return dest in _DOCUMENTS
        accept = environ.get("HTTP_ACCEPT", "*/*").strip()
        return accept in ("", "*/*") or "text/html" in accept.lower()

    @property
    def is_fetched_ahead(self) -> bool:
        """True for a page that may never be shown: speculation rules or a link had it fetched.

        Anybody can write such a link into a review. Once it is shown, the kit tells its click.
        """
        return "HTTP_SEC_PURPOSE" in self.environ

    @made_once
    def host(self) -> str:
        """The page's host, with a port that is not the scheme's own; empty: it is malformed."""
        environ = self.environ
        host = environ.get("HTTP_HOST")
        if host is None:  # as over HTTP/1.0: the server's own name
            host = f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
        # Cut before it is looked up, as below.
        return _host_of(host[:_LONGEST_HOST], ":443" if _is_secure(environ) else ":80")

    @property
    def hostname(self) -> str:
        """The page's host without its port."""
        return host_of(f"//{self.host}")

    @property
    def script_root(self) -> str:
        """Where the app is mounted, percent-encoded, without a trailing slash.

        It begins with one slash: it may be what anybody sent (``X-Forwarded-Prefix``), and behind
        two a browser reads a host, from which a page would load its script.
        """
        root = _encoded(self._script_name).strip("/") if self._script_name else ""
        return f"/{root}" if root else ""

    @property
    def path(self) -> str:
        """The path that the browser asked for, percent-encoded."""
        path = _encoded(self._path_info or "/")
        return self.script_root + path if self._script_name else path

    @property
    def page_url(self) -> str | None:
        """The full URL of the page that the visitor sees: of a Dash callback, its script's page.

        ``None``: the client's host is malformed.
        """
        host = self.host
        if not host:
            return None
        environ = self.environ
        origin = f"https://{host}" if _is_secure(environ) else f"http://{host}"
        if self._path_info.endswith(_DASH_CALLBACK):
            referrer: str = environ.get("HTTP_REFERER", "")
            if referrer.startswith(f"{origin}/"):
                return referrer
        query = environ.get("QUERY_STRING", "")
        url = origin + self.path
        return f"{url}?{_encoded(query, _QUERY_SAFE)}" if query else url

    @made_once
    def ip(self) -> str | None:
        """The client's address as the server (or ProxyFix) gives it."""
        address = self.environ.get("REMOTE_ADDR")
        if not address:
            return None
        try:
            return normalise_ip(address)
        except ValueError:
            self.visitors.counters.add("address_ignored", "malformed")
            return None

    @property
    def sender(self) -> Sender:
        """Whose address :attr:`ip` is, as far as one request can tell."""
        ip = self.ip
        if ip is None:
            return "none"
        if ip.startswith(_PERHAPS_PRIVATE) and not is_public_ip(ip):
            # A developer's browser comes from the same machine and means no proxy.
            if is_loopback(self.hostname):
                return "local"
            if self.visitors.counters.add("address_private"):
                logger.warning(
                    "AdRoll: visitors come from a private or loopback address, the proxy's; "
                    "wrap the app in werkzeug's ProxyFix (uvicorn: --proxy-headers) [proxy-address]"
                )
            return "private"
        # ProxyFix takes the address out of the header and leaves the header as it was.
        chain = self.environ.get("HTTP_X_FORWARDED_FOR")
        return "proxy" if chain and self.environ["REMOTE_ADDR"] not in chain else "visitor"

    @property
    def sender_note(self) -> str | None:
        """:attr:`sender` as an order keeps it.

        ``None``: a visitor's; or a ``proxy`` where the site has no secret key.

        A ``proxy`` has eight digits of a keyed hash of its address, by which orders through one
        proxy are found. Four more are of ``X-Forwarded-For``: they tell two visitors apart, and do
        not tell who they are.
        """
        sender = self.sender
        if sender != "proxy":
            return None if sender == "visitor" else sender
        key = self.visitors.dedupe_secret
        if key is None:
            return None
        note: str = sender
        for name, digits in (("REMOTE_ADDR", 8), ("HTTP_X_FORWARDED_FOR", 4)):
            text = self.environ[name].encode("utf-8", "replace")
            note += f":{hmac.digest(key, text, 'sha256').hex()[:digits]}"
        return note

    @property
    def user_agent(self) -> str | None:
        """The browser's own text, without controls and within its bound."""
        # Cut before it is looked up: what is remembered has a bound.
        return _user_agent_of(self.environ.get("HTTP_USER_AGENT", "")[:MAX_USER_AGENT])

    @property
    def sets_secure_cookies(self) -> bool:
        """Our cookies are ``Secure`` in the response."""
        setting = self.visitors.settings.cookie_secure
        return _is_secure(self.environ) if setting is None else setting

    # -- the visitor ---------------------------------------------------------------------

    @property
    def record_cookie(self) -> str:
        """The name of the record's cookie here."""
        return record_cookie(self.visitors.settings, secure=self.sets_secure_cookies)

    @made_once
    def seen(self) -> RequestCookies:
        """What the request's cookies say."""
        header = self.environ.get("HTTP_COOKIE", "")
        return self.visitors.read(header, secure=self.sets_secure_cookies)

    @made_once
    def adct(self) -> str | None:
        """The click id of the request's URL, where it counts (:mod:`.click_in_url`)."""
        query = self.environ.get("QUERY_STRING", "")
        if "adct=" not in query or self.method != "GET":
            return None
        counters = self.visitors.counters
        is_shown = self.is_navigation and not self.is_fetched_ahead
        return click_id_in(query, counters, is_navigation=is_shown)

    @made_once
    def decision(self) -> Decision:
        """May this visitor be tracked?"""
        record = self.seen.record
        return decide(self.visitors, self.environ, record.consent if record else None)

    @made_once
    def record(self) -> Record:
        """The visitor's record with what this request adds: the browser's cookie, a click."""
        seen = self.seen
        record = seen.record
        if record is None:
            self.new_record_id = new_record_id()
            record = Record(record_id=self.new_record_id)
        if seen.cookie is not None:  # the browser's own, which beats it
            record = record.with_cookie(seen.cookie, "browser")
        adct = self.adct
        return record if adct is None else record.with_adct(adct, self.visitors.clock(), "url")

    @property
    def record_id(self) -> str | None:
        """The id of the visitor's record, as the browser has it or as this request made it."""
        record = self.seen.record
        return self.new_record_id if record is None else record.record_id

    @made_once
    def new_cookie(self) -> str:
        """A first-party cookie for a visitor who has none; the same one all through a request."""
        return new_first_party_cookie(self.visitors.clock())

    @property
    def may_generate(self) -> bool:
        """True where this response could give a visitor without cookies a first-party cookie."""
        return self.method == "GET" and self.is_document and self.visitors.can_sign

    def visitor(self) -> Visitor:
        """The visitor as views see it; unknown without consent."""
        decision = self.decision
        record = self.record if decision.granted and not self.forgotten else Record()
        return self.visitor_of(record, decision.granted)

    def visitor_of(self, record: Record, consent: bool | None) -> Visitor:
        """The visitor of *record*, with what else this request tells."""
        return self.visitors.visitor(
            record,
            consent=consent,
            ip=self.ip,
            host=self.host or None,
            user_agent=self.user_agent,
        )

    def reported_record(self, *, assume_cookie: bool = False) -> Record:
        """The record for an event of a visitor who consents.

        It has a cookie also where only this very response sets one.

        :param assume_cookie: it has one anyway, as if a page view before had set it.
        """
        record = self.record
        is_known = record.adct is not None or record.first_party_cookie is not None
        if is_known or not (self.may_generate or assume_cookie):
            return record
        return record.with_cookie(self.new_cookie, "server")

    @property
    def refusal(self) -> str:
        """Why nothing may be reported of the visitor; empty: it may."""
        return "forgotten" if self.forgotten else self.decision.refusal

    def refusal_by_now(self, visitor: Visitor) -> str:
        """Why nothing may be reported of *visitor*, whatever their token says.

        It is so where the record's id shows that they are this request's visitor, who says no here.
        Empty: they are somebody else, or do not say no.
        """
        is_own = visitor.record_id is not None and visitor.record_id == self.record_id
        says_no = self.forgotten or self.decision.granted is False
        return self.refusal if is_own and says_no else ""


#: RFC 3986, section 3.3; as in ``werkzeug.sansio.utils.get_current_url``, which however gives an
#: IRI and puts U+FFFD in the place of bytes that are not UTF-8.
_PATH_SAFE = "/!$&'()*+,;=:@~"
#: In a query, percent-encoding is the browser's own, and stays.
_QUERY_SAFE = _PATH_SAFE + "?%"


#: Characters that :func:`_encoded` leaves as they are, whichever of the two it encodes.
_AS_IT_IS = re.compile(r"[A-Za-z0-9_.~/!$&'()*+,;=:@-]*\Z")


#: Many visitors have the same browser, and all of them ask for few hosts: of each 256 are
#: remembered.
_user_agent_of = lru_cache(256)(accept_user_agent)


def _is_secure(environ: WSGIEnvironment) -> bool:
    """The browser asked over HTTPS."""
    return environ.get("wsgi.url_scheme") == "https"


@lru_cache(256)
def _host_of(header: str, own_port: str) -> str:
    host = header.lower()
    return host.removesuffix(own_port) if _HOST.match(host) else ""


def _encoded(text: str, safe: str = _PATH_SAFE) -> str:
    if _AS_IT_IS.match(text):  # as nearly all are, told in a tenth of the time
        return text
    # WSGI hands bytes over decoded to Latin-1 (PEP 3333); browsers ask in percent-encoded UTF-8.
    return quote(text.encode("latin-1", "replace"), safe=safe)

"""One request and what we know of its visitor, worked out only when somebody asks."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote
from wsgiref.types import WSGIEnvironment

from werkzeug.exceptions import SecurityError
from werkzeug.wsgi import get_host

from adroll_flask.forks import made_once
from adroll_flask.host_names import is_loopback
from adroll_flask.logs import logger

from .consent import Decision, decide
from .identifiers import accept_adct, is_public_ip, new_first_party_cookie, normalise_ip
from .record import Record, RequestCookies, Visitor, Visitors

#: How private, loopback and link-local addresses begin: a look before the exact question.
_PERHAPS_PRIVATE = ("10.", "127.", "169.254.", "172.", "192.168.", "100.", "::", "f")
_ADCT = re.compile(r"(?:^|&)adct=([^&]*)")
#: What Werkzeug takes from 3.1.8 on, bounded (RFC 1035, section 2.3.4); before, it took anything.
#: No cookie can be written for a host with a label that is empty, or longer than that allows.
_HOST = re.compile(
    r"((?=[^:]{1,253}(?::|\Z))[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*\.?|\[[a-f0-9]*:[a-f0-9.:]{1,44}\])"
    r"(:[1-9][0-9]{0,4})?\Z"
)
#: ``Sec-Fetch-Dest`` of a page, as opposed to a fragment or a script's call.
_DOCUMENTS = ("document", "iframe", "frame")
#: Headers of htmx, Turbo and the libraries of old by which a script asks for a fragment.
_FRAGMENT_HEADERS = ("HTTP_HX_REQUEST", "HTTP_TURBO_FRAME", "HTTP_X_PJAX", "HTTP_X_REQUESTED_WITH")


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
    #: A template has the snippet already.
    snippet_given: bool = False
    #: The record that the response carries, if any.
    written: Record | None = None
    #: Nothing that comes after us may change the response.
    is_last: bool = True
    #: The response sets or deletes cookies of ours.
    carries_cookies: bool = False
    #: The visitor of a page refused, and what else is kept has to go, too; ``None``: no response
    #: was prepared.
    refused: bool | None = None

    def __init__(self, visitors: Visitors, environ: WSGIEnvironment) -> None:
        self.visitors: Visitors = visitors
        self.environ: WSGIEnvironment = environ
        # A dispatcher within the app moves what it has used from one to the other.
        self._script_name: str = environ.get("SCRIPT_NAME", "")
        self._path_info: str = environ.get("PATH_INFO", "")

    # -- the request ---------------------------------------------------------------------

    @property
    def method(self) -> str:
        return str(self.environ["REQUEST_METHOD"])

    @property
    def is_document(self) -> bool:
        """False where the request asks for a fragment, or for data."""
        environ = self.environ
        dest = environ.get("HTTP_SEC_FETCH_DEST")
        if dest is not None and dest not in _DOCUMENTS:
            return False
        return environ.keys().isdisjoint(_FRAGMENT_HEADERS)

    @made_once
    def host(self) -> str:
        """The page's host, with a port that is not the scheme's own; empty: it is malformed."""
        try:
            host = get_host(self.environ).lower()
        except SecurityError:  # Werkzeug 3.1.7, at a malformed one
            return ""
        return host if _HOST.match(host) else ""

    @property
    def hostname(self) -> str:
        """The page's host without its port."""
        host = self.host
        if host.startswith("["):
            return host[1 : host.index("]")]
        return host.partition(":")[0]

    @property
    def is_secure(self) -> bool:
        return self.environ.get("wsgi.url_scheme") == "https"

    @property
    def script_root(self) -> str:
        """Where the app is mounted, percent-encoded, without a trailing slash."""
        root = self._script_name
        return _encoded(root).rstrip("/") if root else ""

    @property
    def path(self) -> str:
        """The path that the browser asked for, percent-encoded."""
        return self.script_root + _encoded(self._path_info or "/")

    @property
    def url(self) -> str | None:
        """The full URL, or ``None`` where the client's host is malformed."""
        host = self.host
        if not host:
            return None
        scheme = "https" if self.is_secure else "http"
        query = self.environ.get("QUERY_STRING", "")
        url = f"{scheme}://{host}{self.path}"
        return f"{url}?{_encoded(query, _QUERY_SAFE)}" if query else url

    @made_once
    def ip(self) -> str | None:
        """The client's address as the server (or ProxyFix) gives it."""
        address = self.environ.get("REMOTE_ADDR")
        if not address:
            return None
        try:
            ip = normalise_ip(address)
        except ValueError:
            self.visitors.counters.add("address_ignored", "malformed")
            return None
        if ip.startswith(_PERHAPS_PRIVATE) and not is_public_ip(ip):
            # A developer's browser comes from the same machine and means no proxy.
            near = is_loopback(self.hostname)
            if not near and self.visitors.counters.add("address_private"):
                logger.warning(
                    "AdRoll: visitors come from a private or loopback address, the proxy's; "
                    "wrap the app in werkzeug's ProxyFix [proxy-address]"
                )
        return ip

    @property
    def user_agent(self) -> str | None:
        return self.environ.get("HTTP_USER_AGENT") or None

    # -- the visitor ---------------------------------------------------------------------

    @made_once
    def seen(self) -> RequestCookies:
        """What the request's cookies say."""
        return self.visitors.read(self.environ.get("HTTP_COOKIE", ""))

    @made_once
    def adct(self) -> str | None:
        """The first click id in the URL of a GET that can be taken.

        A plus sign stays one: a click id has no spaces, and AdRoll may not escape it.
        """
        query = self.environ.get("QUERY_STRING", "")
        if "adct=" not in query or self.method != "GET":
            return None
        given = [accept_adct(unquote(one, errors="replace")) for one in _ADCT.findall(query) if one]
        adct = next(filter(None, given), None)
        if given and adct is None:
            self.visitors.counters.add("adct_ignored", "malformed")
        return adct

    @made_once
    def decision(self) -> Decision:
        """May this visitor be tracked?"""
        record = self.seen.record
        return self.decide(record.consent if record else None)

    def decide(self, recorded: bool | None) -> Decision:
        """The decision with *recorded* as what the browser told us."""
        return decide(self.visitors, self.environ, recorded)

    @made_once
    def record(self) -> Record:
        """The visitor's record with what this request adds: the browser's cookie, a click."""
        record, adct = self.seen.merged, self.adct
        return record if adct is None else record.with_adct(adct, self.visitors.clock(), "url")

    @made_once
    def new_cookie(self) -> str:
        """A first-party cookie for a visitor who has none; the same one all through a request."""
        return new_first_party_cookie(self.visitors.clock())

    @property
    def may_generate(self) -> bool:
        """True where a visitor without cookies could get one with this response."""
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
        """The record for an event of a visitor who consents: with a cookie that this very response
        may set.

        :param assume_cookie: a page view before would have set one.
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
        """Why nothing may be reported of *visitor*, whatever their token says: this request's
        browser is their own, as far as cookies tell, and says no; empty: it does not."""
        record = self.seen.merged
        is_own = (record.adct is not None and record.adct == visitor.adct) or (
            record.first_party_cookie is not None
            and record.first_party_cookie == visitor.first_party_cookie
        )
        says_no = is_own and (self.forgotten or self.decision.granted is False)
        return self.refusal if says_no else ""


#: RFC 3986, section 3.3; as in ``werkzeug.sansio.utils.get_current_url``, which however gives an
#: IRI and puts U+FFFD in the place of bytes that are not UTF-8.
_PATH_SAFE = "/!$&'()*+,;=:@~"
#: What a query has of percent-encoding is the browser's.
_QUERY_SAFE = _PATH_SAFE + "?%"


#: Characters that :func:`_encoded` leaves as they are, whichever of the two it encodes.
_AS_IT_IS = re.compile(r"[A-Za-z0-9_.~/!$&'()*+,;=:@-]*\Z")


def _encoded(text: str, safe: str = _PATH_SAFE) -> str:
    if _AS_IT_IS.match(text):  # as nearly all are, told in a tenth of the time
        return text
    # WSGI hands bytes over decoded to Latin-1 (PEP 3333); browsers ask in percent-encoded UTF-8.
    return quote(text.encode("latin-1", "replace"), safe=safe)

"""One request and what we know of its visitor, worked out only when somebody asks."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from .consent import Decision, decide
from .hosts import is_loopback
from .identifiers import accept_adct, is_public_ip, new_first_party_cookie, normalise_ip
from .record import Record
from .visitor import Records, Seen, Visitor

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .counters import Counters
    from .settings import Settings

_LOG = logging.getLogger("adroll_flask")

#: How private, loopback and link-local addresses begin: a look before the exact question.
_PERHAPS_PRIVATE = ("10.", "127.", "169.254.", "172.", "192.168.", "100.", "::", "f")
_ADCT = re.compile(r"(?:^|&)adct=([^&]*)")
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}(:[0-9]{1,5})?\Z|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?\Z")
#: ``Sec-Fetch-Dest`` of a page, as opposed to a fragment or a script's call.
_DOCUMENTS = ("document", "iframe", "frame")
#: Headers of htmx, Turbo and the libraries of old by which a script asks for a fragment.
_FRAGMENT_HEADERS = ("HTTP_HX_REQUEST", "HTTP_TURBO_FRAME", "HTTP_X_PJAX", "HTTP_X_REQUESTED_WITH")


def adct_of(query: str) -> tuple[str | None, bool]:
    """The click id in a query string, and whether there was one that cannot be taken.

    A plus sign stays one: a click id has no spaces, and AdRoll may not escape it.
    """
    malformed = False
    for match in _ADCT.finditer(query):
        adct = accept_adct(unquote(match[1], errors="replace"))
        if adct is not None:
            return adct, False
        malformed = malformed or bool(match[1])
    return None, malformed


class Site:
    """What all exchanges of an app share.

    :param request_of: turns an environ into what ``ADROLL_CONSENT``'s callable takes.
    """

    def __init__(
        self,
        settings: Settings,
        records: Records,
        counters: Counters,
        clock: Callable[[], float],
        request_of: Callable[[WSGIEnvironment], object],
    ) -> None:
        self.settings = settings
        self.records = records
        self.counters = counters
        self.clock = clock
        self.request_of = request_of
        #: A visitor without cookies counts as one whose page view gave them (tests of a site).
        self.generous = False
        self._said: set[str] = set()

    def once(self, what: str) -> bool:
        """True at the first call with *what*: for warnings that are worth one line."""
        if what in self._said:
            return False
        self._said.add(what)
        return True


class Exchange:
    """One request's visitor, from a WSGI environ.

    Making one costs a few assignments; cookies are read, signatures checked and consent asked
    when first needed.
    """

    __slots__ = (
        "_adct",
        "_candidate",
        "_decision",
        "_ip",
        "_record",
        "_seen",
        "environ",
        "forgotten",
        "site",
        "snippet_given",
        "viewed",
    )

    def __init__(self, site: Site, environ: WSGIEnvironment) -> None:
        self.site = site
        self.environ = environ
        #: A view looked at the visitor: its page depends on the cookie.
        self.viewed = False
        #: ``forget_visitor()`` was called.
        self.forgotten = False
        #: A template has the snippet already.
        self.snippet_given = False
        self._seen: Seen | None = None
        self._decision: Decision | None = None
        self._adct: str | bool | None = False
        self._candidate: str | None = None
        self._ip: str | bool | None = False
        self._record: Record | None = None

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

    @property
    def host(self) -> str:
        """The page's host with its port, or an empty text where the client's is malformed."""
        environ = self.environ
        host = environ.get("HTTP_HOST")
        if not host:
            host = environ.get("SERVER_NAME", "")
            port = environ.get("SERVER_PORT", "")
            if port and port not in ("80", "443"):
                host = f"{host}:{port}"
        return host.lower() if _HOST.match(host) else ""

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
        root = self.environ.get("SCRIPT_NAME", "")
        return _encoded(root).rstrip("/") if root else ""

    @property
    def path(self) -> str:
        """The path that the browser asked for, percent-encoded."""
        environ = self.environ
        return self.script_root + _encoded(environ.get("PATH_INFO", "") or "/")

    @property
    def url(self) -> str | None:
        """The full URL, or ``None`` where the client's host is malformed."""
        host = self.host
        if not host:
            return None
        scheme = "https" if self.is_secure else "http"
        default = ":443" if scheme == "https" else ":80"
        query = self.environ.get("QUERY_STRING", "")
        url = f"{scheme}://{host.removesuffix(default)}{self.path}"
        if not query:
            return url
        return f"{url}?{query if _PLAIN.match(query) else quote(query, safe=_QUERY_SAFE)}"

    @property
    def ip(self) -> str | None:
        """The client's address as the server (or ProxyFix) gives it."""
        ip = self._ip
        if ip is False:
            ip = self._ip = self._read_ip()
        return ip  # type: ignore[return-value]

    def _read_ip(self) -> str | None:
        address = self.environ.get("REMOTE_ADDR")
        if not address:
            return None
        try:
            ip = normalise_ip(address)
        except ValueError:
            self.site.counters.add("address_ignored", "malformed")
            return None
        if ip.startswith(_PERHAPS_PRIVATE) and not is_public_ip(ip):
            self.site.counters.add("address_private")
            # A developer's browser comes from the same machine and means no proxy.
            if not is_loopback(self.hostname) and self.site.once("address_private"):
                _LOG.warning(
                    "AdRoll: visitors come from a private or loopback address, the proxy's; "
                    "wrap the app in werkzeug's ProxyFix"
                )
        return ip

    @property
    def user_agent(self) -> str | None:
        return self.environ.get("HTTP_USER_AGENT") or None

    # -- the visitor ---------------------------------------------------------------------

    @property
    def seen(self) -> Seen:
        """What the request's cookies say."""
        seen = self._seen
        if seen is None:
            seen = self._seen = self.site.records.read(self.environ.get("HTTP_COOKIE", ""))
        return seen

    @property
    def adct(self) -> str | None:
        """The click id in the URL of a GET."""
        adct = self._adct
        if adct is False:
            adct = None
            query = self.environ.get("QUERY_STRING", "")
            if "adct=" in query and self.method == "GET":
                adct, malformed = adct_of(query)
                if malformed:
                    self.site.counters.add("adct_ignored", "malformed")
            self._adct = adct
        return adct  # type: ignore[return-value]

    @property
    def decision(self) -> Decision:
        """May this visitor be tracked?"""
        decision = self._decision
        if decision is None:
            record = self.seen.record
            decision = self.decide(record.consent if record else None)
            self._decision = decision
        return decision

    def decide(self, recorded: bool | None) -> Decision:
        """The decision with *recorded* as what the browser told us."""
        consent = self.site.settings.consent
        return decide(
            self.site.settings,
            gpc=self.environ.get("HTTP_SEC_GPC") == "1",
            cookies=self._cookies,
            request=self.site.request_of(self.environ) if callable(consent) else None,
            recorded=recorded,
            counters=self.site.counters,
        )

    def _cookies(self) -> dict[str, str]:
        from werkzeug.http import parse_cookie

        return dict(parse_cookie(self.environ.get("HTTP_COOKIE", "")).items())

    @property
    def record(self) -> Record:
        """The visitor's record with what this request adds: the browser's cookie, a click."""
        record = self._record
        if record is None:
            record = self.seen.merged
            if self.adct is not None:
                record = record.with_adct(self.adct, self.site.clock(), "url")
            self._record = record
        return record

    def candidate(self) -> str:
        """A first-party cookie for a visitor who has none; the same one all through a request."""
        if self._candidate is None:
            self._candidate = new_first_party_cookie(self.site.clock())
        return self._candidate

    @property
    def may_generate(self) -> bool:
        """True where a visitor without cookies could get one with this response."""
        return self.method == "GET" and self.is_document and self.site.records.can_sign

    def visitor(self) -> Visitor:
        """The visitor as views see it; unknown without consent."""
        decision = self.decision
        record = self.record if decision.granted and not self.forgotten else Record()
        return self.site.records.visitor(
            record,
            ip=self.ip,
            host=self.host or None,
            consent=True if decision.granted else decision.answer,
        )

    def reported_record(self, *, known: bool = False) -> Record:
        """The record for an event of a visitor who consents: with a cookie that this very response
        may set.

        :param known: the event has an identifier of another kind, from which a cookie's value can
            be derived.
        """
        record = self.record
        if (
            record.adct is None
            and record.first_party_cookie is None
            and (self.may_generate or (self.site.generous and not known))
        ):
            return record.with_cookie(self.candidate(), "server")
        return record

    def forget(self) -> None:
        """Treat the visitor as unknown from here on and take the cookies back."""
        self.forgotten = True
        self._record = Record()


_QUERY_SAFE = "!$&'()*+,;=:@/?%~-._"


#: Nothing in it needs encoding in a path or a query: a look instead of urllib's walk.
_PLAIN = re.compile(r"[A-Za-z0-9/!$&'()*+,;=:@~._-]*\Z")


def _encoded(path: str) -> str:
    if _PLAIN.match(path):
        return path
    # WSGI hands paths over decoded to Latin-1 (PEP 3333); browsers ask in percent-encoded UTF-8.
    return quote(path.encode("latin-1", "replace"), safe="/!$&'()*+,;=:@~-._")

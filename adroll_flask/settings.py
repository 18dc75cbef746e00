"""The extension's configuration: read once, checked once, then frozen.

Every ``#:`` comment below is the reference of one ``ADROLL_*`` key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import ConfigurationError
from .setting_forms import CHECKS

DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """One app's configuration, made by :meth:`from_mapping`.

    Attributes are the keys in lower case without ``ADROLL_``: ``ADROLL_MAX_AGE`` is ``max_age``.
    Its ``repr`` names no value, since some are secrets.
    """

    #: The advertisable's public id, upper-case letters and digits, from AdRoll's dashboard.
    advertisable_eid: str | None = None
    #: The pixel's public id, upper-case letters and digits, from AdRoll's dashboard.
    pixel_eid: str | None = None
    #: The Server Access Token that an AdRoll account manager issues: a text, or a callable that
    #: returns one (asked before each request to AdRoll, so that it may rotate).
    access_token: str | Callable[[], str] | None = field(default=None, repr=False)
    #: Signs the visitor's record and tokens; a list rotates, newest first.
    #: Default: the app's ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.
    secret_key: tuple[str | bytes, ...] = field(default=(), repr=False)
    #: Off: the API is there and does nothing.
    enabled: bool = True
    #: Programmer errors raise instead of becoming dead letters. ``None``: while the app is in
    #: debug or testing mode, looked up at each call.
    strict: bool | None = None
    #: AdRoll validates events and forgets them.
    dry_run: bool = False
    #: The event API's address. Plain http is refused except to this machine.
    api_url: str = "https://srv.adroll.com/api"
    #: ``"load"``: the kit loads the pixel; ``"present"``: the site has it already;
    #: ``"none"``: there is no pixel.
    pixel: str = "load"
    #: Where the pixel's script is; ``{advertisable_eid}`` is filled in.
    pixel_url: str = "https://s.adroll.com/j/{advertisable_eid}/roundtrip.js"
    #: Put the snippet into HTML responses.
    inject: bool = True
    #: The path below which our endpoints live.
    url_prefix: str = "/_adroll"
    #: A callable that returns the response's Content-Security-Policy nonce (Flask-Talisman's
    #: ``csp_nonce`` for example). The WSGI middleware's callable takes the environ.
    csp_nonce: Callable[..., str | None] | None = None
    #: Path patterns (``fnmatch``) that a CDN caches whatever the headers say.
    cached_paths: tuple[str, ...] = ()
    #: The ``Domain`` of ``adroll_visitor``: a domain name, or ``"auto"`` for the registrable
    #: domain by the public suffix list. Default: the page's host.
    cookie_domain: str | None = None
    #: ``Secure`` on our cookies. ``None``: as the request came in.
    cookie_secure: bool | None = None
    #: Where events wait: any SQLAlchemy URL. Default: a SQLite file in the instance folder.
    outbox_url: str | None = field(default=None, repr=False)
    #: Bytes of waiting events beyond which a report fails, loudly. 0: no bound.
    outbox_max_bytes: int = 1 << 30
    #: ``"normal"``: a power cut may cost the last moment, a process kill nothing;
    #: ``"full"``: neither, at the price of a disk flush a report. SQLite only.
    outbox_sync: str = "normal"
    #: ``"thread"``: delivered in this process; ``"worker"``: by ``flask adroll worker`` or
    #: Celery; ``"sync"``: before the report returns, for scripts.
    delivery: str = "thread"
    #: Seconds that a report may wait for company before its batch is sent.
    linger: float = 1.0
    #: Seconds of unheld time after which an event that AdRoll never took is dead.
    max_age: int = 7 * DAY
    #: Days during which the same deduplication key is reported once.
    dedupe_days: int = 90
    #: What happens to an event whose request was lost on its way: ``"retry"`` or ``"drop"``.
    on_unsure: str = "retry"
    #: Requests a second to AdRoll, over all workers together. ``None``: no limit of ours.
    max_requests_per_second: float | None = None
    #: ``None``: granted unless Global Privacy Control says no; ``"tcf"``: the TC string in the
    #: consent cookie; or a callable that takes the request and returns True, False or None
    #: (not yet asked).
    consent: str | Callable[[Any], bool | None] | None = None
    #: The cookie in which the consent platform keeps the TC string.
    tcf_cookie: str = "euconsent-v2"
    #: The vendor in the IAB's Global Vendor List whose consent is asked: NextRoll is 130.
    tcf_vendor: int = 130
    #: The TCF purposes needed: 1 (store and access), 7 (measure advertising performance).
    tcf_purposes: tuple[int, ...] = (1, 7)
    #: ``Sec-GPC: 1`` is a no.
    honor_gpc: bool = True
    #: Which forms of an e-mail address leave the server: any of sha256, md5, plain.
    email: tuple[str, ...] = ("sha256",)
    #: Milliseconds that the kit waits for the pixel's answer.
    kit_wait: int = 3000
    #: Seconds for which a visitor token is taken.
    token_max_age: int = 90 * DAY

    def __repr__(self) -> str:
        return f"<Settings {'on' if self.enabled else 'off'}>"

    @property
    def sendable(self) -> bool:
        """True where nothing that AdRoll needs for a request is missing."""
        return bool(self.advertisable_eid and self.pixel_eid and self.access_token)

    @property
    def missing(self) -> tuple[str, ...]:
        """The keys that sending needs and that are not set."""
        needed = ("advertisable_eid", "pixel_eid", "access_token")
        return tuple(f"ADROLL_{name.upper()}" for name in needed if not getattr(self, name))

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check every ``ADROLL_*`` key of *config*.

        :param config: a mapping such as ``app.config``; other keys are ignored.
        :raises ConfigurationError: a value is wrong, or an ``ADROLL_*`` key is unknown; it names
            all that are.

        >>> Settings.from_mapping({"ADROLL_PIXEL": "none"}).pixel
        'none'
        """
        known = {f"ADROLL_{f.name.upper()}": f.name for f in fields(cls)}
        values: dict[str, Any] = {}
        faults: list[ConfigurationError] = []
        for key, value in config.items():
            if not isinstance(key, str) or not key.startswith("ADROLL_"):
                continue
            name = known.get(key)
            if name is None:
                faults.append(ConfigurationError(key, _suggest(key, known)))
                continue
            try:
                checked = CHECKS[name](key, value)
            except ConfigurationError as fault:
                faults.append(fault)
                continue
            if checked is not None:
                values[name] = checked
        if faults:
            first, *others = faults
            raise ConfigurationError(first.key, first.problem, others=others)
        return cls(**values)


def _suggest(key: str, known: Mapping[str, str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, known, 1)
    return f"there is no such setting; did you mean {near[0]}?" if near else "no such setting"


def app_keys(config: Mapping[str, Any]) -> tuple[str | bytes, ...]:
    """The app's own keys, newest first: ``SECRET_KEY``, then ``SECRET_KEY_FALLBACKS``."""
    keys = [config.get("SECRET_KEY"), *(config.get("SECRET_KEY_FALLBACKS") or ())]
    return tuple(key for key in keys if isinstance(key, str | bytes) and key)

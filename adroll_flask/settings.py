"""The extension's configuration: read once, checked once, then frozen.

Every ``#:`` comment below is the reference of one ``ADROLL_*`` key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from .errors import ConfigurationError
from .host_names import in_ascii, is_listed
from .setting_checks import checks

DAY = 86_400
#: The longest life that a token may be given, seconds: it holds AdRoll's cookie, which lives no
#: longer.
LONGEST_TOKEN_LIFE = 365 * DAY
#: What the sandbox knows: the package and the sandbox do not import each other.
SANDBOX_ACCOUNT: Mapping[str, str] = {
    "advertisable_eid": "SANDBOXADVERTISABLE01X",
    "pixel_eid": "SANDBOXPIXEL0000000001",
    "access_token": "sandbox-token",
}
#: Where it listens, unless told otherwise.
_SANDBOX_ADDRESS = "http://127.0.0.1:5001"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where events go: an advertisable, its pixel, and the token with which they are sent."""

    advertisable_eid: str | None = None
    pixel_eid: str | None = None
    access_token: str | Callable[[], str] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """One app's configuration, made by :meth:`from_mapping`.

    Attributes are the keys in lower case without ``ADROLL_``: ``ADROLL_MAX_AGE`` is ``max_age``.
    Its ``repr`` names no value, since some are secrets.
    """

    #: The advertisable's public id, upper-case letters and digits, from AdRoll's dashboard.
    #: Default: none; sending needs it.
    advertisable_eid: str | None = None
    #: The pixel's public id, upper-case letters and digits, from AdRoll's dashboard.
    #: Default: none; sending needs it.
    pixel_eid: str | None = None
    #: The Server Access Token that an AdRoll account manager issues: a text, or a callable that
    #: returns one (asked before each request to AdRoll, so that it may rotate).
    #: Default: none; sending needs it.
    access_token: str | Callable[[], str] | None = field(default=None, repr=False)
    #: Further accounts by host: ``{"shop.fr": {"advertisable_eid": …, "pixel_eid": …,
    #: "access_token": …}}``; ``".shop.fr"`` is that domain and all below it. An event's account is
    #: that of its page's host (of the request, the token or ``page_location``), and the one above
    #: where the host is not here. Default: none.
    accounts: Mapping[str, Account] = field(default_factory=dict, repr=False)
    #: Signs the visitor's record and tokens; a list rotates, newest first.
    #: Default: the app's ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.
    secret_key: tuple[str | bytes, ...] = field(default=(), repr=False)
    #: Off: the API is there and does nothing.
    enabled: bool = True
    #: On: account, token and addresses are those of the sandbox on this machine
    #: (``flask adroll sandbox``), whatever the accounts' own settings say; a number is the port of
    #: one that was started with ``--port``, a text its address, such as ``"http://sandbox:5001"``
    #: in a compose file (then browsers need ``ADROLL_PIXEL_URL`` as they reach it). Refused in
    #: production.
    sandbox: bool | str = False
    #: Programmer errors raise instead of becoming dead letters.
    #: Default: while the app is in debug or testing mode, looked up at each call.
    strict: bool | None = None
    #: AdRoll validates events and forgets them.
    dry_run: bool = False
    #: Print each event as it is reported, and what became of it, on standard error; no visitor's
    #: values.
    debug: bool = False
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
    #: Front ends on other origins (``"https://www.shop.example"``) that may load the kit and post
    #: identity. Exactly these: no wildcard.
    origins: tuple[str, ...] = ()
    #: The hosts that are real, without ports; ``".shop.example"`` is that domain and all below it.
    #: Events of pages and requests elsewhere (staging, a copied database) go out as dry runs, and
    #: pages there load no pixel. Empty: all are real.
    hosts: tuple[str, ...] = ()
    #: The cookie that holds the visitor's record, for two shops on one host.
    cookie_name: str = "adroll_visitor"
    #: The ``Domain`` of ``adroll_visitor``: a domain name, or ``"auto"`` for the registrable
    #: domain by the public suffix list (the extra ``domains``). Default: the page's host.
    cookie_domain: str | None = None
    #: ``Secure`` on our cookies. Default: as the request came in.
    cookie_secure: bool | None = None
    #: ``"always"``: ``session["adroll"]`` shows click id and cookie to views from the first visit
    #: on; ``"join"``: only in sessions that the site has anyway. With Flask's own sessions neither
    #: begins one; ``"always"`` begins one of another kind, or beside a callable ``consent``.
    session: str = "always"
    #: Where events wait: any SQLAlchemy URL. Default: a SQLite file in the instance folder.
    outbox_url: str | None = field(default=None, repr=False)
    #: Bytes that wait, in the journal and in the outbox, beyond which a report fails, loudly.
    #: 0: no bound.
    outbox_max_bytes: int = 1 << 30
    #: ``"normal"``: a power cut may cost the last moment, a process kill nothing;
    #: ``"full"``: neither, at the price of a disk flush a report.
    outbox_sync: str = "normal"
    #: ``"journal"``: a report returns once the host's journal has it; ``"database"``: once the
    #: outbox's database has it, for hosts whose disk does not outlive them. The latter waits
    #: 250 ms at most, then the journal takes the event.
    outbox_commit: str = "journal"
    #: The folder of this host's journal; a relative path is relative to the instance folder.
    #: Default: ``adroll-journal`` in the instance folder.
    journal_folder: str | None = None
    #: ``"thread"``: delivered in this process; ``"worker"``: by ``flask adroll worker`` or
    #: Celery; ``"sync"``: before the report returns, for scripts.
    delivery: str = "thread"
    #: Seconds that a report may wait for company before its batch is sent.
    linger: float = 1.0
    #: Seconds from AdRoll's first answer that did not take an event until it is dead.
    max_age: int = 7 * DAY
    #: Days during which the same deduplication key is reported once.
    dedupe_days: int = 90
    #: Seconds after which a held conversion that nobody released is dropped.
    hold_max: int = 7 * DAY
    #: What happens to an event whose request was lost on its way: ``"retry"`` or ``"drop"``.
    on_unsure: str = "retry"
    #: Keep a keyed hash of a suppressed order's id with the reason for 13 months, nothing of the
    #: visitor, so that ``flask adroll reconcile`` tells "no consent" from "never reported".
    remember_suppressed: bool = True
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
    email: tuple[str, ...] = ("sha256", "md5")
    #: Names of parameters that mean a person, as patterns (``fnmatch``, in any case): they are left
    #: out of the page's URL before it is kept or sent. ``adct`` always stays.
    private_parameters: tuple[str, ...] = (
        *("*email*", "*phone*", "name", "first*name", "last*name", "*token*", "*password*"),
    )
    #: Milliseconds that the kit waits for the pixel's answer. After half of them it tells the click
    #: id.
    kit_wait: int = 3000
    #: Seconds for which a visitor token is taken that has no ``max_age`` of its own.
    token_max_age: int = 90 * DAY
    #: The zone of days, weeks and months in the dashboard and in ``flask adroll history``: an IANA
    #: name such as ``"Europe/Berlin"``. Default: ``'UTC'``.
    time_zone: tzinfo = UTC

    def __repr__(self) -> str:
        return f"<Settings {'on' if self.enabled else 'off'}>"

    @property
    def missing(self) -> tuple[str, ...]:
        """The keys that sending needs and that are not set; none where each host has its own."""
        needed = ("advertisable_eid", "pixel_eid", "access_token")
        missing = tuple(f"ADROLL_{name.upper()}" for name in needed if not getattr(self, name))
        return () if self.accounts and len(missing) == len(needed) else missing

    @cached_property
    def account(self) -> Account:
        """The account of every host that has none of its own."""
        return Account(
            advertisable_eid=self.advertisable_eid,
            pixel_eid=self.pixel_eid,
            access_token=self.access_token,
        )

    @property
    def served_accounts(self) -> dict[str, Account]:
        """All accounts that this process serves, by advertisable EID."""
        accounts = (self.account, *self.accounts.values())
        return {one.advertisable_eid: one for one in accounts if one.advertisable_eid}

    def serves(self, eid: str) -> bool:
        """Whether events of the account *eid*, or of none yet, are this process's to send.

        Where no account is set, all are: whose they are is not known here.
        """
        served = self.served_accounts
        return not served or eid in ("", *served)

    def account_of(self, host: str) -> Account:
        """The account of the events of pages at *host*, a name without its port.

        An unknown host (an empty text) has the one that is there for all.
        """
        if not (host and self.accounts):
            return self.account
        host = in_ascii(host)
        above = (account for name, account in self.accounts.items() if is_listed(host, (name,)))
        return self.accounts.get(host) or next(above, self.account)

    @property
    def withdrawals_kept(self) -> int:
        """Seconds for which a visitor's no is known: as long as a token may come back."""
        return max(self.token_max_age, LONGEST_TOKEN_LIFE)

    def is_real(self, host: str) -> bool:
        """False where ``ADROLL_HOSTS`` says that nothing real happens at *host*.

        An unknown host (an empty text) is nowhere else.
        """
        return not (host and self.hosts) or is_listed(host, self.hosts)

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check every ``ADROLL_*`` key of *config*.

        :param config: a mapping such as ``app.config``; other keys are ignored.
        :raises ConfigurationError: a value is wrong, or an ``ADROLL_*`` key is unknown; it names
            all that are.

        >>> Settings.from_mapping({"ADROLL_PIXEL": "none"}).pixel
        'none'
        """
        names = {f"ADROLL_{name.upper()}": name for name in checks()}
        given = {key: config[key] for key in config if str(key).startswith("ADROLL_")}
        return cls._checked(given, names, "setting", names)

    @classmethod
    def from_arguments(cls, given: Mapping[str, Any], others: Iterable[str]) -> Settings:
        """The settings of a call's arguments, which are told of as they were typed.

        :param given: the settings in lower case without ``ADROLL_``.
        :param others: what the call takes beside them.
        :raises ConfigurationError: as of :meth:`from_mapping`.
        """
        names = {name: name for name in checks()}
        return cls._checked(given, names, "argument", (*names, *others))

    @classmethod
    def _checked(
        cls, given: Mapping[str, Any], names: Mapping[str, str], what: str, near: Iterable[str]
    ) -> Settings:
        values: dict[str, Any] = {}
        faults: list[ConfigurationError] = []
        for key, value in given.items():
            try:
                if key not in names:
                    bare = {one.upper().removeprefix("ADROLL_"): one for one in near}
                    meant = get_close_matches(key.upper().removeprefix("ADROLL_"), bare, 1)
                    ask = f"; did you mean {bare[meant[0]]}?" if meant else ""
                    text = f"there is no such {what}{ask}"
                    raise ConfigurationError(key, text, slug="setting-unknown")
                checked = checks()[names[key]](key, value)
                if checked is not None:
                    values[names[key]] = checked
            except ConfigurationError as fault:
                faults.append(fault)
        if "enabled" not in values and environment_says("ENABLED") is False:
            values["enabled"] = False
        accounts = {host: Account(**one) for host, one in values.pop("accounts", {}).items()}
        if values.get("sandbox"):
            address = _SANDBOX_ADDRESS if values["sandbox"] is True else values["sandbox"]
            addresses = {
                "api_url": f"{address}/api",
                "pixel_url": f"{address}/j/{{advertisable_eid}}/roundtrip.js",
            }
            values, accounts = {**addresses, **values, **SANDBOX_ACCOUNT}, {}
        settings = cls(**values, accounts=accounts)
        served = settings.served_accounts
        all_of_them = (settings.account, *accounts.values())
        if any(one.advertisable_eid and served[one.advertisable_eid] != one for one in all_of_them):
            key = next(key for key, name in names.items() if name == "accounts")
            text = "takes one pixel and one token for an advertisable"
            faults.append(ConfigurationError(key, text))
        if faults:
            first, *more = faults
            raise ConfigurationError(first.key, first.problem, others=more, slug=first.slug)
        return settings


def environment_says(name: str) -> bool | None:
    """What ``FLASK_ADROLL_<name>`` or ``ADROLL_<name>`` of the environment says, if anything."""
    for prefix in ("FLASK_ADROLL_", "ADROLL_"):
        said = os.environ.get(prefix + name, "").lower()
        if said in ("true", "1", "false", "0"):
            return said in ("true", "1")
    return None


def app_keys(config: Mapping[str, Any]) -> tuple[str | bytes, ...]:
    """The app's own keys, newest first: ``SECRET_KEY``, then ``SECRET_KEY_FALLBACKS``."""
    keys = [config.get("SECRET_KEY"), *(config.get("SECRET_KEY_FALLBACKS") or ())]
    return tuple(key for key in keys if isinstance(key, str | bytes) and key)

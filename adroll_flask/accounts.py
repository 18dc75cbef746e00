"""The accounts of an app, and which of them an event belongs to: its page's host decides.

That is the host of ``page_location``; else, with ``visitor=``, the host that the visitor has; else
the request's. Reports ask :meth:`AccountsOfHosts.account_of` with it. An event without a host
belongs to the account that is set for all hosts.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

from . import host_names

#: How the sandbox's EIDs begin.
_SANDBOX_BEGIN = "SANDBOX"


@dataclass(frozen=True, slots=True)
class Account:
    """Where events go: an advertisable, its pixel, and the token with which they are sent."""

    advertisable_eid: str | None = None
    pixel_eid: str | None = None
    access_token: str | Callable[[], str] | None = field(default=None, repr=False)

    def in_sandbox(self) -> Account:
        """The account that stands in for this one in the sandbox.

        It has EIDs of its own: nothing in the sandbox is ever taken for what AdRoll has.
        """
        eid = self.advertisable_eid
        if eid in (None, SANDBOX_ACCOUNT.advertisable_eid):
            return SANDBOX_ACCOUNT
        if not is_of_sandbox(eid):
            eid = _SANDBOX_BEGIN + b32encode(sha256(eid.encode()).digest()).decode()[:15]
        pixel = _SANDBOX_BEGIN + "PIXEL" + eid.removeprefix(_SANDBOX_BEGIN)[:10]
        return Account(eid, pixel, SANDBOX_ACCOUNT.access_token)


#: The sandbox has the same texts: it and the package do not import each other.
SANDBOX_ACCOUNT = Account("SANDBOXADVERTISABLE01X", "SANDBOXPIXEL0000000001", "sandbox-token")


def is_of_sandbox(eid: str) -> bool:
    """Whether *eid* is the advertisable EID of an account of the sandbox."""
    return eid.startswith(_SANDBOX_BEGIN)


class AccountsOfHosts:
    """What follows from the settings for accounts; :class:`.settings.Settings` has the values."""

    advertisable_eid: str | None
    pixel_eid: str | None
    access_token: str | Callable[[], str] | None
    accounts: Mapping[str, Account]
    hosts: tuple[str, ...]
    sandbox: bool | str

    @cached_property
    def account(self) -> Account:
        """The account of every host that has none of its own."""
        return Account(self.advertisable_eid, self.pixel_eid, self.access_token)

    @cached_property
    def served_accounts(self) -> dict[str, Account]:
        """All accounts that this process serves, by advertisable EID."""
        accounts = (self.account, *self.accounts.values())
        return {own.advertisable_eid: own for own in accounts if own.advertisable_eid}

    def serves(self, eid: str) -> bool:
        """Whether this process sends the events of the account *eid* (empty: of none yet).

        Where no account is set, it sends all.
        """
        return eid == "" or not self.served_accounts or eid in self.served_accounts

    @cached_property
    def shops(self) -> dict[str, tuple[str, ...]]:
        """The hosts of each account that this process serves, by advertisable EID.

        The account that is set for all other hosts has none.
        """
        shops: dict[str, tuple[str, ...]] = dict.fromkeys(self.served_accounts, ())
        for host, account in self.accounts.items():
            eid = account.advertisable_eid
            if eid is not None and eid != self.advertisable_eid:
                shops[eid] = (*shops[eid], host)
        return shops

    @cached_property
    def shop_names(self) -> dict[str, str]:
        """What people call the shop of each account, by advertisable EID: its hosts. Empty where
        there is one account."""
        if len(self.shops) < 2:
            return {}
        rest = [host for host in self.hosts if self.account_of(host) == self.account]
        default = ", ".join(rest) or "other hosts"
        return {eid: ", ".join(hosts) or default for eid, hosts in self.shops.items()}

    def shop_of(self, host: str) -> str | None:
        """The advertisable EID of the shop at *host*; ``None``: it is no host of a shop.

        :param host: a name that :attr:`shop_names` has, too.
        """
        eids = {name: eid for eid, name in self.shop_names.items()}
        bare = host.lstrip(".")
        if host not in eids and host_names.is_listed(bare, (*self.accounts, *self.hosts)):
            return self.account_of(bare).advertisable_eid or ""
        return eids.get(host)

    def setting_of(self, eid: str, name: str) -> str:
        """How the setting *name* of an account is written: ``ADROLL_ACCESS_TOKEN``, or
        ``ADROLL_ACCOUNTS["shop.fr"]["access_token"]``."""
        hosts = self.shops.get(eid, ())
        return f'ADROLL_ACCOUNTS["{hosts[0]}"]["{name}"]' if hosts else f"ADROLL_{name.upper()}"

    @property
    def receiver(self) -> str:
        """Who receives what is reported, in words: AdRoll, or the sandbox in its place."""
        return "the sandbox" if self.sandbox else "AdRoll"

    def other_side(self, eid: str) -> str:
        """Who has the events of the account *eid*, where that is not :attr:`receiver`.

        ``"sandbox"`` or ``"adroll"``; empty: :attr:`receiver` has them. An account that is served
        here is never on the other side, nor is one that is not set.
        """
        is_elsewhere = is_of_sandbox(eid) != bool(self.sandbox)
        if not is_elsewhere or eid in ("", *self.served_accounts):
            return ""
        return "adroll" if self.sandbox else "sandbox"

    def account_of(self, host: str) -> Account:
        """The account that events of pages at *host* belong to.

        :param host: a name without its port; empty: it is not known.
        """
        if not self.accounts:
            return self.account
        own = self.accounts.get(host_names.in_ascii(host))
        domains = [name for name in self.accounts if host_names.is_listed(host, (name,))]
        longest = max(domains, key=len, default="")
        return own or self.accounts.get(longest, self.account)

"""``python -m adroll_flask.sandbox``: run the sandbox until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from .event_checks import Account
from .local_only import Unsafe
from .serving import serve

_PORT = 5001
_TAKEN = (
    "port {0} is taken, perhaps by another sandbox: end it, or choose another port with --port {1}"
    " and tell the shop (ADROLL_SANDBOX={1})"
)


def main(
    arguments: Sequence[str] | None = None,
    *,
    prog: str = "python -m adroll_flask.sandbox",
    site_says: Callable[[], str] = str,
) -> int:
    """Run the sandbox and return the exit status.

    :param prog: the command that was given, for the help.
    :param site_says: returns the address at which the site looks for the sandbox, or an empty text.
        It is asked where the environment does not say it.
    """
    environ = os.environ
    address = environ.get("FLASK_ADROLL_SANDBOX") or environ.get("ADROLL_SANDBOX") or site_says()
    parser = argparse.ArgumentParser(prog=prog, description="AdRoll on a laptop.")
    account = Account()
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    add(
        "--port",
        type=_port,
        default=_port_in(address),
        help="port to bind (default: %(default)s)",
    )
    add(
        "--state",
        metavar="FILE",
        help="write what arrives to this file, and begin with what it has",
    )
    add(
        "--keep",
        type=int,
        default=5000,
        help="how many events are held in full, the newest (default: %(default)s)",
    )
    add(
        "--shop", default="http://127.0.0.1:5000/", help="where the ad leads (default: %(default)s)"
    )
    add("--host-name", action="append", default=[], help="another name it answers to; repeatable")
    add("--advertisable", default=account.advertisable_eid, help="the account's advertisable EID")
    add("--pixel", default=account.pixel_eid, help="the account's pixel EID")
    add("--token", default=account.access_token, help="the account's access token")
    add(
        "--strict",
        action="store_true",
        help="refuse what AdRoll's own samples do beside its documentation, instead of warning",
    )
    add("--allow-remote", action="store_true", help="also bind beyond loopback")
    add("--allow-production", action="store_true", help="also run in production")
    add("--quiet", action="store_true", help="do not say where it is, nor what was sent")
    add("--verbose", action="store_true", help="print each request, without its query")
    options = parser.parse_args(arguments)
    try:
        totals = serve(
            options.host,
            options.port,
            quiet=not options.verbose,
            announce=None if options.quiet else _announce,
            account=Account(options.advertisable, options.pixel, options.token),
            keep=options.keep,
            state_file=options.state,
            shop_url=options.shop,
            hosts=frozenset(options.host_name),
            strict=options.strict,
            allow_remote=options.allow_remote,
            allow_production=options.allow_production,
        )
    except (Unsafe, OSError, ValueError) as exc:
        taken = isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE
        print(
            f"sandbox: {_TAKEN.format(options.port, options.port + 1) if taken else exc}",
            file=sys.stderr,
        )
        return 1
    if not options.quiet:
        print(f"Ended: {totals['accepted']} of {totals['events']} events accepted.", flush=True)
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError("takes 0 to 65535")
    return int(text)


def _port_in(address: str) -> int:
    """Return the port in an address such as ``http://sandbox:5201``, which may be a port alone."""
    try:
        return urlsplit(address if "//" in address else f"//:{address}").port or _PORT
    except ValueError:
        # Not a port, such as "True".
        return _PORT


def _announce(url: str) -> None:
    # Flushed: whoever sends the output to a file or through a pipe follows it there.
    for line in (f"Watch  {url}/", f"Ad     {url}/ad", f"API    {url}/api", "Ctrl-C ends it."):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

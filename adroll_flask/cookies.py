"""Which of the visitor's cookies a response carries: ours, and its working copy for the pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from werkzeug.http import dump_cookie

from .caching import Look, is_shared_cacheable, keep_private
from .visitor import COOKIE_LIFE, FIRST_PARTY_COOKIE, RECORD_COOKIE

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

    from .domains import Domains
    from .exchange import Exchange
    from .record import Record


def update_cookies(
    exchange: Exchange, headers: Headers, look: Look, domains: Domains, *, html: bool
) -> Record | None:
    """Write the visitor's cookies where something changed and the response may carry them.

    :param html: the response is an HTML page.
    :returns: the record that was written, for the session's mirror.
    """
    clicked = exchange.adct is not None
    if not (html or clicked or exchange.forgotten):
        return None
    decision = exchange.decision
    seen = exchange.seen
    if not decision.granted or exchange.forgotten:
        taken_back = decision.answer is False or exchange.forgotten
        if seen.any and taken_back and not is_shared_cacheable(exchange, look):
            delete_cookies(exchange, headers, domains)
        return None
    now = exchange.site.clock()
    if not clicked and (seen.settled(now) or not exchange.is_document):
        # A fragment's or a picture's answer (an error page is HTML, too) may cross with what the
        # kit tells at the same moment, and would undo it. The next page is soon enough.
        return None
    if not exchange.site.records.can_sign or is_shared_cacheable(exchange, look):
        return None
    record = exchange.record
    if record.first_party_cookie is None and html and exchange.may_generate:
        record = record.with_cookie(exchange.candidate(), "server")
    if record.adct is None and record.first_party_cookie is None:
        return None
    if seen.settled(now) and seen.record is not None and record.same_as(seen.record):
        return None
    write_cookies(exchange, headers, domains, record)
    return record


def write_cookies(exchange: Exchange, headers: Headers, domains: Domains, record: Record) -> None:
    """Set ``adroll_visitor`` and its working copy for the pixel, for a year."""
    settings = exchange.site.settings
    secure = exchange.is_secure if settings.cookie_secure is None else settings.cookie_secure
    hostname = exchange.hostname
    headers.add(
        "Set-Cookie",
        dump_cookie(
            RECORD_COOKIE,
            exchange.site.records.sign(record),
            max_age=COOKIE_LIFE,
            domain=domains.of_record(hostname),
            secure=secure,
            httponly=True,
            samesite="Lax",
        ),
    )
    if record.first_party_cookie is not None:
        headers.add(
            "Set-Cookie",
            dump_cookie(
                FIRST_PARTY_COOKIE,
                record.first_party_cookie,
                max_age=COOKIE_LIFE,
                # The pixel writes domain=<hostname>: the same cookie, not a second one.
                domain=domains.of_page(hostname),
                secure=secure,
                samesite="Lax",
            ),
        )
    keep_private(headers)


def delete_cookies(exchange: Exchange, headers: Headers, domains: Domains) -> None:
    """Take both cookies back, the host-only and the domain cookie of each name."""
    hostname = exchange.hostname
    page = domains.of_page(hostname)
    wanted = [(RECORD_COOKIE, None), (FIRST_PARTY_COOKIE, None), (FIRST_PARTY_COOKIE, page)]
    wanted += [(RECORD_COOKIE, page), (RECORD_COOKIE, domains.of_record(hostname))]
    for name, domain in dict.fromkeys(wanted):
        headers.add("Set-Cookie", dump_cookie(name, "", max_age=0, expires=0, domain=domain))
    keep_private(headers)

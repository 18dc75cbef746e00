"""The shop's last days, played through its own AdRoll: events that can be looked up.

What :mod:`.past` makes are sums. Here orders are reported and delivered one by one, with
``AdRoll(clock=…)`` and a sandbox of the same clock that fails as told: it refuses some, is away for
a while, and loses an answer. So each has its attempts, its dead letters and its holds as a real one
has (docs/how-to/testing.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flask import Flask

from adroll_flask import (
    AdRoll,
    Visitor,
    cancel_conversion,
    release_conversion,
    report_conversion,
    report_event,
)
from adroll_flask.sandbox import Account, RunningSandbox, running

from . import cart, catalogue, past
from .store import Order, current_store

if TYPE_CHECKING:
    from adroll_flask.runtime import Runtime

#: Hours that are played.
HOURS: Final = 30
_DAY: Final = 86_400.0
_REFUSED: Final = (
    ("conversion_value", "must be a positive number", "invalid_value"),
    ("event_attributes.products", "product_id is longer than 100 characters", "too_long"),
)


class _Clock:
    """The time that is played."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class _Step(NamedTuple):
    """One thing that happens."""

    at: float
    kind: str
    number: int = 0


def add_to(shop: Flask, now: float | None = None) -> None:
    """Give *shop* its past, unless its outbox has one.

    :param now: the past's end, seconds since the epoch; default: this moment.
    """
    now = time.time() if now is None else now
    runtime: Runtime = shop.extensions["adroll"]
    place = runtime.outbox.place
    if not isinstance(place, Path):
        raise ValueError("only an outbox in a SQLite file can be given a past")
    runtime.outbox.database.create_tables()
    runtime.outbox.close()
    if past.write(place, shop.extensions["store"], now, until=HOURS):
        play(shop, now)


def play(shop: Flask, now: float) -> int:
    """Play the last weeks' lost orders and the last hours' every event; how many there were.

    :param shop: whose outbox and keys are used; it has not begun to serve.
    """
    clock = _Clock(now)
    account = Account(
        *(shop.config[f"ADROLL_{key}"] for key in ("ADVERTISABLE_EID", "PIXEL_EID", "ACCESS_TOKEN"))
    )
    log = logging.getLogger("adroll_flask")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    stage = Flask("demo_app", instance_path=shop.instance_path)
    stage.config.update(shop.config, ADROLL_DELIVERY="worker", ADROLL_STRICT=False)
    stage.extensions["store"] = shop.extensions["store"]
    try:
        with running(clock=clock, account=account) as sandbox, stage.app_context():
            stage.config["ADROLL_API_URL"] = sandbox.api_url
            AdRoll(clock=clock).init_app(stage)
            runtime: Runtime = stage.extensions["adroll"]
            events_to_come = sorted([*_lost(now), *_last_hours(now)])
            clock.now = events_to_come[0].at
            for one in events_to_come:
                clock.now = max(clock.now, one.at)
                _happen(one, clock, sandbox)
                clock.now += 1.5
                runtime.deliverer.drain()
            clock.now = now
            runtime.deliverer.drain()
            runtime.outbox.close()
        return len(events_to_come)
    finally:
        log.setLevel(level)


def _lost(now: float) -> Iterator[_Step]:
    """Orders of the last weeks that AdRoll did not take."""
    random = Random(11)  # noqa: S311 - figures for a demo
    for place in range(26):  # a new version of the shop left out the currency's code
        yield _Step(now - 41.5 * _DAY + place * 4300 + random.random() * 900, "invalid", place)
    for place in range(22):
        yield _Step(now - (80 - place * 3.6 + random.random()) * _DAY, "refused", 100 + place)


def _last_hours(now: float) -> Iterator[_Step]:
    begin = int(now // 3600) - HOURS
    number = 0
    for hour in range(begin, int(now // 3600) + 1):
        random = Random(hour)  # noqa: S311 - figures for a demo
        left = min(3600.0, now - hour * 3600) - 5
        mean = past.trade(hour, now / _DAY - hour / 24) * left / 3600
        for name, ratio in past.PER_ORDER.items():
            for _ in range(past.poisson(random, mean * ratio)):
                number += 1
                yield _Step(hour * 3600 + random.random() * left, name, number)
    yield _Step(now - 20.0 * 3600, "away")
    yield _Step(now - 19.3 * 3600, "back")
    yield _Step(now - 8.0 * 3600, "lose")
    for place, hours in enumerate((26.0, 21.0, 6.5, 3.0)):
        yield _Step(now - hours * 3600, "hold", place)
    yield _Step(now - 5.0 * 3600, "release", 0)
    yield _Step(now - 4.0 * 3600, "cancel", 1)
    yield _Step(now - 7.5 * 3600, "refused", 200)
    yield _Step(now - 2.2 * 3600, "refused", 201)


def _happen(one: _Step, clock: _Clock, sandbox: RunningSandbox) -> None:
    random = Random(one.number * 7919 + len(one.kind))  # noqa: S311 - figures for a demo
    order = f"{10_000 + one.number}"
    match one.kind:
        case "away":
            sandbox.fault(status=503)
        case "back":
            sandbox.clear_faults()
        case "lose":
            sandbox.fault(reset="after", times=1)
        case "hold":
            _buy(f"INV-{410 + one.number}", random, clock.now, hold=True)
        case "release":
            release_conversion(f"INV-{410 + one.number}")
            _place(f"INV-{410 + one.number}", clock.now)
        case "cancel":
            cancel_conversion(f"INV-{410 + one.number}")
        case "invalid":
            _buy(f"8{order}", random, clock.now, currency="EURO")
        case "refused":
            field, words, code = _REFUSED[0 if one.number < 112 else 1]
            told = {"message": words, "code": code, "field": f"[0].{field}"}
            sandbox.fault(order_id=f"9{order}", status=422, body={"errors": [told]})
            _buy(f"9{order}", random, clock.now)
        case "purchase":
            _buy(order, random, clock.now)
            if random.random() < 0.018:
                _buy(order, Random(one.number * 7919 + len(one.kind)), clock.now)  # noqa: S311
        case name:
            values: dict[str, Any] = {}
            report: Any = report_event
            if name == "addToCart":
                product = random.choice(catalogue.PRODUCTS)
                values = {"value": product.price, "currency": catalogue.CURRENCY}
            elif name == "productSearch":
                values = {"keywords": random.choice(["mug", "bowl", "gift", "vase"])}
            report(name, visitor=_visitor(random, clock.now), **_known(random), **values)


def _buy(order: str, random: Random, now: float, **given: Any) -> None:
    visitor = _visitor(random, now)
    known = _known(random) or {"email": f"buyer{random.randrange(10**6)}@mail.example"}
    line = _line(order)
    values = {
        "value": line.total,
        "currency": catalogue.CURRENCY,
        "products": [line.for_adroll()],
    }
    report_conversion(order_id=order, visitor=visitor, **{**known, **values, **given})
    if "hold" not in given:
        _place(order, now)


def _place(order: str, now: float) -> None:
    """Keep a paid order as the shop does."""
    current_store().keep([Order(order, f"buyer{order}@mail.example", (_line(order),), now)])


def _line(order: str) -> cart.Line:
    """What is bought with the order of that number."""
    return past.sale(Random(order))  # noqa: S311 - figures for a demo


def _visitor(random: Random, now: float) -> Visitor:
    has_cookie = random.random() < past.cookies(0)
    clicked = not has_cookie or random.random() < past.CLICKED
    cookie = f"{random.getrandbits(128):032x}-{int(now * 1000) - random.randrange(10**9)}"
    return Visitor(
        adct=f"{random.getrandbits(96):024x}" if clicked else None,
        adct_at=now - 600 if clicked else None,
        adct_source="url" if clicked else None,
        first_party_cookie=cookie if has_cookie else None,
        first_party_cookie_source="pixel",
        ip=f"203.0.113.{random.randrange(1, 255)}",
        host="shop.example",
        consent=random.random() > 0.2,
        user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    )


def _known(random: Random) -> dict[str, str]:
    """What is known of a customer who is logged in."""
    if random.random() > 0.45:
        return {}
    number = random.randrange(4000)
    return {"user_id": f"customer-{number}", "email": f"customer{number}@mail.example"}

"""The one next step that would let AdRoll recognise most of the visitors it does not now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from adroll_flask._version import DOCS_URL

if TYPE_CHECKING:
    from adroll_flask.settings import Settings


class NextStep(NamedTuple):
    """What to do.

    :param title: one sentence.
    :param why: what it brings, with the share that is missing.
    :param code: what a developer writes; empty: nothing.
    :param recipe: the title of the documentation's part that tells more, and *link* its address.
    :param gain: the share of events that would carry more, from 0 to 1, at the most.
    """

    title: str
    why: str
    who: str
    code: str
    recipe: str
    link: str
    gain: float


_IDENTITY: Final = """@adroll.identity
def who():
    if current_user.is_authenticated:
        return {"email": current_user.email, "user_id": current_user.id}"""
_EMAIL: Final = "report_conversion(order_id=order.id, ..., email=order.email)"
#: A gain below this is not worth a step.
_LITTLE: Final = 0.1
#: A share of user ids above which the site tells them already.
_SOME: Final = 0.05


def next_step(shares: Mapping[str, float | None], settings: Settings) -> NextStep:
    """The step that adds an identifier to most events.

    :param shares: of events that carry each identifier that this site can send.
    """
    email = max(shares.get(name) or 0.0 for name in ("email", "email_sha256", "email_md5"))
    cookie, user = shares.get("first_party_cookie") or 0.0, shares.get("user_id") or 0.0
    steps = [
        NextStep(
            "Give the buyer's e-mail address with each order",
            "It is known at the checkout. AdRoll gets its hashes, and recognises the buyer on"
            " devices where neither cookie nor click is.",
            "developer",
            _EMAIL,
            "What AdRoll knows a visitor by",
            f"{DOCS_URL}explanation/visitor.html#what-adroll-knows-a-visitor-by",
            1 - email,
        ),
        NextStep(
            "Let AdRoll's pixel set its cookie on every page"
            if settings.pixel != "none"
            else "Let the kit load AdRoll's pixel",
            "The first-party cookie ties an order to the ads that the visitor saw. Where it is"
            " missing, the pixel was blocked (Content-Security-Policy, a consent banner that came"
            " late), or the page has no snippet.",
            "developer",
            "flask adroll check --url https://your.shop/"
            if settings.pixel != "none"
            else 'ADROLL_PIXEL = "load"',
            "When a Content-Security-Policy stops the kit or the pixel",
            f"{DOCS_URL}errors.html#a-content-security-policy-stops-the-kit-or-the-pixel",
            1 - cookie,
        ),
        NextStep(
            "Say who is logged in",
            "The user id stays the same over devices and years, and adds the address of customers"
            " to events that have no form.",
            "developer",
            _IDENTITY,
            "Accounts and staff: who it is",
            f"{DOCS_URL}how-to/flask-login.html#who-it-is",
            # Not everybody has an account, and where some have user ids the site says who is there.
            0.5 if user < _SOME else 0.0,
        ),
    ]
    best = max(steps, key=lambda step: step.gain)
    if best.gain < _LITTLE:
        return NextStep(
            "Nothing: nearly every event carries what this site can know",
            "What is missing is of visitors who block cookies or never said who they are.",
            *("", "", "", ""),
            best.gain,
        )
    return best

"""Signing of what the browser or a payment provider keeps for us.

Two purposes, two keys: a visitor's record (the cookie) and a visitor's token cannot stand in for
each other. Expired is not forged: the caller is told which.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from hashlib import sha256

from itsdangerous import BadData, encoding
from itsdangerous import Signer as TextSigner

#: What :meth:`Signer.sign` writes; base64 decoders skip other characters silently.
_TEXT = re.compile(r"[A-Za-z0-9_.-]+\Z")
#: Seconds by which another host's clock may be ahead; itsdangerous would grant none, and a visitor
#: who meets two hosts within a moment would lose the record.
_AHEAD = 3600


class Forged(Exception):
    """Not signed with any of our keys for this purpose, or changed."""


class Expired(Exception):
    """Signed by us, but longer ago than is taken."""


class Signer:
    """Signs bytes for one purpose.

    :param keys: newest first, as ``ADROLL_SECRET_KEY`` is written; at least one.
    :param purpose: part of the key, so that a text signed for one purpose fails for another.
    :param clock: returns epoch seconds.

    >>> signer = Signer(["secret"], "record", clock=lambda: 1_700_000_000)
    >>> signer.unsign(signer.sign(b"hello"), max_age=60)
    (b'hello', 1700000000.0)
    """

    def __init__(
        self, keys: Sequence[str | bytes], purpose: str, *, clock: Callable[[], float]
    ) -> None:
        # itsdangerous signs with the last key of a list and verifies with all of them.
        # It would derive each key anew for each text; ours are derived already.
        self._signer = TextSigner(
            [_derived(key, purpose) for key in reversed(keys)],
            key_derivation="none",
            digest_method=sha256,
        )
        self._clock = clock

    def sign(self, payload: bytes) -> str:
        """*payload* as URL-safe text with the present time and a signature."""
        # The form of itsdangerous' TimestampSigner, whose clock tests cannot set, and which makes a
        # datetime of what is compared as a number.
        now = encoding.base64_encode(encoding.int_to_bytes(int(self._clock())))
        return self._signer.sign(encoding.base64_encode(payload) + b"." + now).decode("ascii")

    def unsign(self, text: str, max_age: float) -> tuple[bytes, float]:
        """The payload of *text* and when it was signed (epoch seconds).

        :param max_age: seconds for which a signature is taken.
        :raises Forged: the signature is not ours.
        :raises Expired: it is, but older than *max_age*, or of a time that is yet to come.
        """
        if not _TEXT.match(text):
            raise Forged
        try:
            body, _, stamp = self._signer.unsign(text).rpartition(b".")
            payload = encoding.base64_decode(body)
            when = float(encoding.bytes_to_int(encoding.base64_decode(stamp)))
        except BadData:
            raise Forged from None
        if not -_AHEAD <= int(self._clock()) - when <= max_age:
            raise Expired
        return payload, when


def derive_key(keys: Sequence[str | bytes], purpose: str) -> bytes | None:
    """A key for HMACs of *purpose*, from the oldest key, so that it outlives a rotation.

    ``None`` where the site has no key.
    """
    return _derived(keys[-1], purpose) if keys else None


def _derived(key: str | bytes, purpose: str) -> bytes:
    secret = key.encode() if isinstance(key, str) else key
    return hmac.digest(secret, f"adroll_flask.{purpose}".encode(), "sha256")

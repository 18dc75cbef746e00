"""Texts that only this site can have made: bytes with a time and a signature, for one purpose.

In the form of itsdangerous' TimestampSigner: base64url of bytes, time and HMAC-SHA256, with dots.

A visitor's record (the cookie) and a visitor's token have a key each and cannot stand in for each
other. Expired is not forged: the caller is told which.
"""

from __future__ import annotations

import hmac
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence

from adroll_flask import errors


class Signer:
    """Signs bytes for one purpose.

    :param keys: newest first, as ``ADROLL_SECRET_KEY`` is written.
    :param purpose: part of the key, so that a text signed for one purpose fails for another.
    :param clock: returns epoch seconds.

    >>> signer = Signer(["secret"], "record", clock=lambda: 1_700_000_000)
    >>> signer.unsign(signer.sign(b"hello"), max_age=60)
    (b'hello', 1700000000.0)
    """

    def __init__(
        self, keys: Sequence[str | bytes], purpose: str, *, clock: Callable[[], float]
    ) -> None:
        # Each has its key already. To sign a text is to copy one and give the copy the text.
        self._hmacs = [hmac.new(derived_key(key, purpose), digestmod="sha256") for key in keys]
        self._clock = clock

    @property
    def _existing_hmacs(self) -> list[hmac.HMAC]:
        if not self._hmacs:
            raise errors.ConfigurationError(
                "ADROLL_SECRET_KEY", "set it (or SECRET_KEY) to make and take visitor tokens"
            )
        return self._hmacs

    def sign(self, payload: bytes) -> str:
        """*payload* as URL-safe text with the present time and a signature.

        :raises ConfigurationError: there is no key.
        """
        now = int(self._clock())
        stamp = now.to_bytes((now.bit_length() + 7) // 8)
        signed = _base64(payload) + b"." + _base64(stamp)
        return f"{signed.decode()}.{_signature(self._existing_hmacs[0], signed).decode()}"

    def unsign(self, text: str, max_age: float) -> tuple[bytes, float]:
        """The payload of *text* and when it was signed (epoch seconds).

        A time that is yet to come counts as now: another host's clock may be ahead, and this one's
        may have been put right. The signature says that the text is ours.

        :param max_age: seconds for which a signature is taken.
        :raises TokenForgedError: the signature is not ours.
        :raises TokenExpiredError: it is, but older than *max_age*.
        :raises ConfigurationError: there is no key.
        """
        signed, _, signature = text.encode("utf-8", "replace").rpartition(b".")
        for keyed in self._existing_hmacs:
            # The texts are compared: several texts would be the same signature once decoded.
            if hmac.compare_digest(_signature(keyed, signed), signature):
                break
        else:
            raise errors.TokenForgedError
        payload, _, stamp = signed.partition(b".")
        when = float(int.from_bytes(_bytes(stamp)))
        now = float(int(self._clock()))
        if now - when > max_age:
            raise errors.TokenExpiredError
        return _bytes(payload), min(when, now)


def derived_key(key: str | bytes, purpose: str) -> bytes:
    """The key for one purpose, made of a secret key."""
    secret = key.encode() if isinstance(key, str) else key
    return hmac.digest(secret, f"adroll_flask.{purpose}".encode(), "sha256")


def _signature(keyed: hmac.HMAC, signed: bytes) -> bytes:
    code = keyed.copy()
    code.update(signed)
    return _base64(code.digest())


# The base64 of URLs has two other characters (RFC 4648, section 5).
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def _base64(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL)


def _bytes(text: bytes) -> bytes:
    return a2b_base64(text.translate(_FROM_URL) + b"==")  # more than is needed does no harm

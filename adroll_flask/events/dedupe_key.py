"""The forms in which a deduplication key is kept and looked for."""

from __future__ import annotations

import hmac
import re
import unicodedata

#: How a key begins that is kept as a hash.
HASHED = "hmac-sha256:"
#: A person's address in a text: ``trial:ann@example.com``, as it is or as a URL has it, which one
#: within another has encoded twice.
ADDRESS = re.compile(r"[^\s@](?:@|\uff20|%(?:25)*40)[^\s@]*[^\W\d]", re.IGNORECASE)


def kept_key(key: str, secret: bytes | None) -> str:
    """*key* as the outbox keeps it; whoever looks for a key looks for this.

    Two ways to write one character are one order (NFC). A key with an e-mail address in it is
    kept as a hash, since keys outlive what else is known of a visitor; other keys stay readable,
    because people look for their orders.

    :param secret: the site's own (``Records.dedupe_secret``): without it nobody could tell whose
        address a hash is by trying addresses.

    >>> kept_key("2024-1001", b"secret")
    '2024-1001'
    """
    if key.isascii():
        if "@" not in key and "%" not in key:
            return key
    else:
        key = unicodedata.normalize("NFC", key)
    if not ADDRESS.search(key):
        return key
    text = key.encode("utf-8", "surrogatepass")
    return HASHED + hmac.digest(secret or b"adroll_flask", text, "sha256").hex()


def suppressed_key(name: str, key: str, secret: bytes | None) -> str:
    """The hash by which it is known why the order *key* was not reported as an event *name*.

    :param secret: as for :func:`kept_key`.
    """
    text = f"{name}\0{unicodedata.normalize('NFC', key)}".encode("utf-8", "surrogatepass")
    return hmac.digest(secret or b"adroll_flask", text, "sha256").hex()[:32]

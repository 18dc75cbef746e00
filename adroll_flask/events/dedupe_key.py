"""How an order's deduplication key is kept: as it is, or as a hash.

Which key an event has is told by :mod:`.build`: ``deduplication_key``, else ``order_id``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from typing import Final

from adroll_flask.outbox.model import KEY_LENGTH

from .page_location import ADDRESS

#: How a key begins that is kept as a keyed hash, since an address is in it.
HASHED: Final = "hmac-sha256:"
#: Most keys: ASCII without spaces, "@" and "%". They are kept as they are.
_PLAIN_KEY: Final = re.compile(rf"[!-$&-?A-~]{{1,{KEY_LENGTH}}}")


def kept_key(key: str, secret: bytes | None) -> str:
    """*key* as the outbox keeps it. Who looks for a key looks for this form.

    Two ways to write one character make the same key (NFC). Most keys stay readable, because people
    look for their orders. Two kinds are kept as a hash:

    - a key with an e-mail address in it, since keys are kept longer than anything else about a
      visitor;
    - a key that is too long, is not printable or ends in a space: PostgreSQL takes no NUL in a
      text, no engine takes half a surrogate pair, and for MariaDB and MySQL a text is the same with
      spaces behind it.

    :param secret: the site's own (``Visitors.dedupe_secret``). Who does not have it cannot try
        addresses to learn whose hash it is.

    >>> kept_key("2024-1001", b"secret")
    '2024-1001'
    """
    if _PLAIN_KEY.fullmatch(key):
        return key
    key = unicodedata.normalize("NFC", key)
    has_address = ADDRESS.search(key)
    is_kept = len(key) <= KEY_LENGTH and key.isprintable() and not key.endswith(" ")
    if is_kept and not has_address:
        return key
    text = key.encode("utf-8", "surrogatepass")
    if has_address:
        return HASHED + hmac.digest(secret or b"adroll_flask", text, "sha256").hex()
    return "sha256:" + hashlib.sha256(text).hexdigest()


def suppressed_key(name: str, key: str, secret: bytes | None) -> str:
    """The hash under which the outbox keeps why the order *key* was not reported.

    It begins with the :func:`secret_tag`: so it tells whether the app still has the key.

    :param name: the event's.
    :param secret: as for :func:`kept_key`.
    """
    text = f"{name}\0{unicodedata.normalize('NFC', key)}".encode("utf-8", "surrogatepass")
    digest = hmac.digest(secret or b"adroll_flask", text, "sha256").hex()
    return (secret_tag(secret) + digest)[:32]


def secret_tag(secret: bytes | None) -> str:
    """Four digits that tell one secret from another, and do not tell the secret."""
    return hashlib.sha256(secret or b"adroll_flask").hexdigest()[:4]

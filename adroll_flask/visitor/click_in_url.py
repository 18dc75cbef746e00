"""When a click id in a URL counts: in the address of a page that a browser goes to, by a GET.

No picture, script or fetch brings one (:attr:`.TrackedRequest.is_navigation`): anybody can have an
address loaded by all who look at a page. What form it has to have is told by
:func:`.identifiers.accept_adct`, and what becomes of an older one by :meth:`.Record.with_adct`.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from adroll_flask.counters import Counters

from .identifiers import accept_adct

_ADCT = re.compile(r"(?:^|&)adct=([^&]+)")


def click_id_in(query: str, counters: Counters, *, is_navigation: bool) -> str | None:
    """The first click id that can be taken in the *query* of a GET.

    A plus sign is kept and not read as a space: a click id has no spaces, and AdRoll may have
    written the sign as it is.
    """
    if not is_navigation:
        counters.add("adct_ignored", "no_navigation")
        return None
    texts = [unquote(text, errors="replace") for text in _ADCT.findall(query)]
    accepted = [accept_adct(text) for text in texts]
    adct = next(filter(None, accepted), None)
    if accepted and adct is None:
        counters.add("adct_ignored", "malformed")
    return adct

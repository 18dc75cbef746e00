"""What a TC string of the IAB's Transparency and Consent Framework says about one vendor.

The format is "Transparency and Consent String with Global Vendor & CMP List Formats", version 2.3
(https://github.com/InteractiveAdvertisingBureau/GDPR-Transparency-and-Consent-Framework). The
libraries on PyPI (``iab-tcf``, last released in 2022, and its fork of 2024) read past the end of a
cut string and take the missing bits for consent, so this module reads strictly instead.

Imported where ``ADROLL_CONSENT = "tcf"`` is asked for the first time.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Sequence

#: A browser keeps no cookie beyond 4,096 bytes; a header of split cookies is not a TC string.
LIMIT = 8192

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+\Z")
_FORMAT = 2
# "Post 30 September 2023 a TC String created with a policy version set to smaller than 4 will be
# deemed invalid."
_OLDEST_POLICY = 4
_DISCLOSED_VENDORS = 1
_REQUIRE_CONSENT = 1


class _Bits:
    """Big-endian bits of one segment, read in order; reading past the end is an error."""

    def __init__(self, segment: str) -> None:
        if not _SEGMENT.match(segment):
            raise ValueError("not a TC string: characters that base64url has not")
        # Encoders fill up to 6, 8 or 24 bits and write no "=": "A", six zeros, fills up for all.
        filled = urlsafe_b64decode(segment + "A" * (-len(segment) % 4))
        #: Zeros and ones.
        self._bits = f"{int.from_bytes(filled):0{8 * len(filled)}b}"[: 6 * len(segment)]
        self._at = 0

    def skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._bits):
            raise ValueError("not a TC string: it ends too early")

    def number(self, count: int) -> int:
        """The next *count* bits as a number."""
        first = self._at
        self.skip(count)
        return int(self._bits[first : self._at], 2)

    def vendor(self, vendor: int) -> bool:
        """Read a vendor section, bit field or ranges; True if it has *vendor*."""
        most = self.number(16)
        if self.number(1):
            return self.ranges(vendor, most)
        if vendor > most:
            self.skip(most)
            return False
        self.skip(vendor - 1)
        bit = self.number(1)
        self.skip(most - vendor)
        return bool(bit)

    def ranges(self, vendor: int, most: int = 0xFFFF) -> bool:
        """Read counted ranges of vendors; True if one has *vendor*."""
        has_vendor = False
        for _ in range(self.number(12)):
            is_range = self.number(1)
            first = self.number(16)
            last = self.number(16) if is_range else first
            if not 1 <= first <= last <= most:
                raise ValueError("not a TC string: a range of vendors that cannot be")
            has_vendor = has_vendor or first <= vendor <= last
        return has_vendor


def consents(tc_string: str, *, vendor: int, purposes: Sequence[int]) -> bool:
    """True if *tc_string* gives *vendor* consent for each of *purposes*.

    Only consent counts, not legitimate interest. A publisher's restriction of one of the purposes
    for this vendor is a no, save for "requires consent"; so is a list of disclosed vendors
    without this one. Where Purpose 1 was not asked for (``PurposeOneTreatment``), its bit is 0,
    and that is a no as well.

    :param tc_string: the value of the consent platform's cookie.
    :param vendor: an id of the Global Vendor List, 1 to 65,535; NextRoll is 130.
    :param purposes: TCF purposes, 1 to 24 each; at least one.
    :raises ValueError: the text is no valid TC string of format 2 and policy 4 or later, or is
        longer than 8,192 characters. The message does not repeat it.

    >>> consents("CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA", vendor=130, purposes=[1, 7])
    True
    """
    if len(tc_string) > LIMIT:
        raise ValueError("not a TC string: it is too long")
    core, *others = tc_string.split(".", 4)
    granted = _core(_Bits(core), vendor, purposes)
    disclosed = [bits for bits in map(_Bits, others) if bits.number(3) == _DISCLOSED_VENDORS]
    # The segment is mandatory since TCF 2.3; a platform may still hand out strings from before.
    shown = [bits.vendor(vendor) for bits in disclosed]
    return granted and bool(purposes) and all(shown)


def _core(bits: _Bits, vendor: int, purposes: Sequence[int]) -> bool:
    if bits.number(6) != _FORMAT:
        raise ValueError("not a TC string of format 2")
    # Created, LastUpdated, CmpId, CmpVersion, ConsentScreen, ConsentLanguage, VendorListVersion.
    bits.skip(36 + 36 + 12 + 12 + 6 + 12 + 12)
    if bits.number(6) < _OLDEST_POLICY:
        raise ValueError("a TC string of a policy before TCF 2.2, which is no longer valid")
    if not bits.number(1):
        # "When a Vendor encounters a TC String with IsServiceSpecific=0 then it is considered
        # invalid."
        raise ValueError("a TC string of global scope, which is no longer valid")
    bits.skip(1 + 12)  # UseNonStandardTexts, SpecialFeatureOptIns
    allowed = bits.number(24)
    granted = all(allowed >> (24 - purpose) & 1 for purpose in purposes)
    bits.skip(24 + 1 + 12)  # PurposesLITransparency, PurposeOneTreatment, PublisherCC
    granted &= bits.vendor(vendor)
    bits.vendor(vendor)  # legitimate interest
    for _ in range(bits.number(12)):
        purpose = bits.number(6)
        restriction = bits.number(2)
        is_of_vendor = bits.ranges(vendor)
        if is_of_vendor and purpose in purposes and restriction != _REQUIRE_CONSENT:
            granted = False
    return granted

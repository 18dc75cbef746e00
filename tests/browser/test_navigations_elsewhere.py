"""What brings a click once more, in Firefox and WebKitGTK: the same functions, with other pages."""

import pytest

from tests.browser import test_navigations
from tests.browser.test_navigations import shop
from tests.support.engines import context, page

__all__ = ["context", "page", "shop"]

pytestmark = pytest.mark.slow

#: What one engine does otherwise, and why.
DIFFERS = {
    ("webkit", "test_what_is_shown_as_a_plug_in_brings_no_click"): (
        "it loads an object as a frame, whose landing counts"
    ),
}

_TESTS = vars(test_navigations)
_OF_CHROMIUM = ("test_twelve", "test_what_chromium_alone")
globals().update(
    {
        name: _TESTS[name]
        for name in _TESTS
        if name.startswith("test_") and not name.startswith(_OF_CHROMIUM)
    }
)

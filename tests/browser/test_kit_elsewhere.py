"""The kit's tests once more, in Firefox and WebKitGTK: the same functions, with other pages."""

import pytest

from tests.browser import test_kit, test_kit_consent, test_kit_gpp, test_kit_lifecycle
from tests.support.engines import EngineContext, context, page

__all__ = ["context", "page"]

pytestmark = pytest.mark.slow

#: Tests of one browser alone, and why.
CHROMIUMS_OWN = {
    "test_the_next_page_tells_what_was_not_taken_and_not_what_was_refused": "reads the console",
    "test_trusted_types_are_survived": "others have no Trusted Types, or say it otherwise",
    "test_a_prerendered_page_starts_shown": "others do not prerender",
}
#: What one engine does otherwise, and why.
DIFFERS = {
    ("webkit", "test_the_stub_takes_all_five_methods_until_the_script_comes"): (
        "its driver answers when the page has loaded, and then the stub has gone"
    ),
    ("webkit", "test_who_leaves_a_hanging_pixel_keeps_the_click_id"): (
        "it says nothing to who leaves before the load event: what there is was told before"
    ),
}


@pytest.fixture
def caching_context(context: EngineContext) -> EngineContext:
    """They keep pages for back and forward as they are."""
    return context


_MODULES = (test_kit, test_kit_consent, test_kit_gpp, test_kit_lifecycle)
_TESTS = {name: test for module in _MODULES for name, test in vars(module).items()}
globals().update(
    {
        name: test
        for name, test in _TESTS.items()
        if name.startswith("test_") and name not in CHROMIUMS_OWN
    }
)

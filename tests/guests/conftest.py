"""The guests' browser is the one of the browser tests."""

from tests.support.browsing import *  # noqa: F403 - pytest finds fixtures by their names here

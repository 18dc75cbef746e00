"""A mark for tests that fork."""

import pytest

#: For a test that forks a process that has threads, as preloading servers do. Python warns of it
#: (3.15 before it forks, where a warning that is an error comes in its place).
forks_amid_threads = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)

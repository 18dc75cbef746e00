"""The version and its documentation's place, apart so that the build reads them without Flask.

Who publishes the documentation elsewhere builds with ``DOCS_BASE_URL`` set (see ``setup.py``).
"""

__version__ = "0.1.0"

#: The documentation's address, with a slash at its end.
DOCS_URL = "https://adroll-flask.readthedocs.io/en/stable/"

#: Whether that address answers; the release says so. Until then a message ends in the command that
#: explains it without the Internet.
DOCS_ARE_PUBLISHED: bool = False

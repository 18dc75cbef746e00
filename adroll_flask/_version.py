"""The version and its documentation's place, apart so that the build reads them without Flask.

Who publishes the documentation elsewhere builds with ``DOCS_BASE_URL`` set (see ``setup.py``).
"""

__version__ = "0.1.0"

#: The documentation's address, with a slash at its end.
DOCS_URL = "https://adroll-flask.readthedocs.io/en/stable/"

"""``python -m adroll_flask``: every command of ``flask adroll``, for sites without Flask."""

from __future__ import annotations

from adroll_flask.cli.commands import main

if __name__ == "__main__":
    main()

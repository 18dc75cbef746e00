"""What is wrong, since when, how much, what to do and who: once.

``findings.toml`` is the table of all that can be. Start at :mod:`.rules`, which says what is open
now: the dashboard, the metrics and ``flask adroll check`` are views of it. :mod:`.app_check`
looks over an app's settings, keys and endpoints, and :mod:`.page_check` fetches a page as a browser
does.
"""

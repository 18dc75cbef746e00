"""What is wrong with a site, each thing with its fix: ``flask adroll check`` and the dashboard.

Start at :mod:`.app`, which looks over settings, keys, outbox and endpoints; :mod:`.page` fetches a
page as a browser does.
"""

"""What a response takes of ours: cookies, caching headers and the one tag of the snippet.

Start at :mod:`.response`, which decides from status and headers; :mod:`.placement` finds the
place in the bytes, :mod:`.snippet` makes the tag and serves the kit's file. :mod:`.cookies` says
which responses carry cookies of ours, by what :mod:`.shared_caches` reads in the headers.
"""

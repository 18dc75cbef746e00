"""``flask adroll``: each command translates options into a call.

Start reading at :mod:`.commands`.
"""

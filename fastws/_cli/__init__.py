"""``python -m fastws``.

``arguments`` is the command line, ``main`` what is done with it, ``pipe`` and ``terminal`` the two
places where lines come from and messages go to, ``editor`` the line being typed, and ``indent`` how
JSON is shown.
"""

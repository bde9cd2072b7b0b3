"""``python -m fastws URL``: a client for people and for pipes. ``--help`` explains it."""

from __future__ import annotations

import sys

from ._cli.main import main

if __name__ == "__main__":
    sys.exit(main())

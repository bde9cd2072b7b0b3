"""The modules under test: the compiled ones, or their twins where those are what runs."""

from __future__ import annotations

import importlib
from typing import Any

from fastws._impl import COMPILED

codec: Any = importlib.import_module("fastws._codec" if COMPILED else "fastws._pure.codec")
head: Any = importlib.import_module("fastws._head" if COMPILED else "fastws._pure.head")

"""What is said of a configuration that cannot be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(Exception):
    """A configuration that cannot be used. The text is one line that names the key."""


def suggest(wrong: str, known: Iterable[str]) -> str:
    """The end of a message: which of the known names may have been meant."""
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""

"""One fragment of a message that is received as it comes."""

from __future__ import annotations

import dataclasses

__all__ = ["Fragment"]


@dataclasses.dataclass(frozen=True, slots=True)
class Fragment:
    """``data``: ``str`` of a text, a code point that is cut being left to the next one; ``final``:
    of its message.
    """

    data: str | bytes
    final: bool

"""One fragment of a message that is received as it comes."""

from __future__ import annotations

import dataclasses

__all__ = ["Fragment"]


@dataclasses.dataclass(frozen=True, slots=True)
class Fragment:
    """``data`` of a text may begin and end inside a code point; ``final``: of its message."""

    data: bytes
    text: bool
    final: bool

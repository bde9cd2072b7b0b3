"""Deltas between byte strings, as clients of the Centrifuge protocol take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._impl import COMPILED

__all__ = ["MAX_SIZE", "create_delta"]

if TYPE_CHECKING or COMPILED:
    from . import _fossil as _implementation
else:
    from ._pure import fossil as _implementation

MAX_SIZE = _implementation.MAX_SIZE
"""Bytes that either string may have for a delta to be made."""


def create_delta(base: bytes, target: bytes) -> bytes | None:
    """What makes ``target`` out of ``base``, in the delta format of Fossil.

    None when it would not be smaller than ``target``, or one of them has over `MAX_SIZE` bytes.
    Between UTF-8 strings, a delta is UTF-8 too: no character is cut. The work is proportional to
    the lengths, whatever is in them. For the format see fossil-scm.org, "Delta Encoding".
    """
    return _implementation.create_delta(base, target)

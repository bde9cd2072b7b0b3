"""Letting go of the room of large dictionaries.

A dict does not get smaller when entries are deleted, only when others are added later.
"""

from __future__ import annotations

from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

# Entries from which the room is worth anything: about a megabyte.
_LARGE = 16384


class Room:
    """How large one dictionary has been, as seen about once a second."""

    __slots__ = ("_peak",)

    def __init__(self) -> None:
        self._peak = 0

    def refit(self, table: dict[_K, _V]) -> dict[_K, _V]:
        """The dictionary, or a copy in its place if that is for less than a quarter of what it was.

        The copy takes about a millisecond for each 50,000 entries.
        """
        size = len(table)
        if size > self._peak:
            self._peak = size
        elif size * 4 < self._peak and self._peak > _LARGE:
            self._peak = size
            return dict(table)
        return table

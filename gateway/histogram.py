"""How values spread, as Prometheus wants to know it."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

# Seconds, from what a call that waits for nothing takes to the longest time-out.
BOUNDS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Histogram:
    """How many values were up to each of some bounds. Adding one is a search among a few."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0  # of all values

    def add(self, value: float) -> None:
        self._counts[bisect_left(BOUNDS, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Pairs of a bound and the number of values up to it, the last for all."""
        bounds = [*map(str, BOUNDS), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))

"""Keeping the garbage collector from walking over what clients hold.

All of it is freed by its reference counts. A full collection visits it nevertheless: over a second
for a million subscriptions, in which nobody is served.
"""

from __future__ import annotations

import gc

# What has been added before it is set apart: a collection of so much takes some ten milliseconds.
_STEP = 20_000


class Collector:
    """Sets what there is apart from the collector as it grows.

    Set apart, things are freed as before, but not reference cycles: those few that a library leaves
    stay until most clients have gone.
    """

    def __init__(self) -> None:
        self._apart = 0

    def tick(self, held: int) -> None:
        """Called about once a second with the number of connections and subscriptions."""
        if held > self._apart + _STEP:
            gc.collect(1)  # the young ones: what is garbage now is not to stay
            gc.freeze()
            self._apart = held
        elif held * 4 < self._apart:
            self.close()

    def close(self) -> None:
        """Give back to the collector what was set apart."""
        if self._apart:
            gc.unfreeze()
            self._apart = 0

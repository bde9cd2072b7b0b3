"""Times the gateway's heartbeat: `python -m bench.sweep` prints one line of JSON.

The table is driven through simulated time in its steady state: every client is alive, is pinged
every 25 s and answers at once; what the callbacks would send is not part of it.
"""

import json
import time
from statistics import median
from typing import Any, cast

import numpy as np

from gateway.heartbeat import Heartbeat
from gateway.server import SWEEP_PERIOD
from gateway.session import Session

SLOTS = 100_000
INTERVAL, TIMEOUT = 25.0, 8.0


class _Slot:
    """As much of a session as the heartbeat looks at."""

    __slots__ = ("slot",)

    def __init__(self, slot: int) -> None:
        self.slot = slot


def main() -> None:
    """Measures and prints."""
    last_seen = np.zeros(SLOTS)
    pinged = 0

    def on_ping(sessions: list[Session]) -> None:
        nonlocal pinged
        pinged += len(sessions)

    def on_dead(session: Session, reason: Any) -> None:
        raise AssertionError("nobody is silent here")

    heartbeat = Heartbeat(
        last_seen,
        interval=INTERVAL,
        timeout=TIMEOUT,
        stale_delay=10.0,
        on_ping=on_ping,
        on_dead=on_dead,
    )
    for slot in range(SLOTS):
        session = cast(Session, _Slot(slot))
        heartbeat.open(session, 0.0)
        heartbeat.begin(session, 0.0)
    now, times, nothing_due = 0.0, [], []
    while now < 3 * INTERVAL:
        last_seen[:] = now
        before = time.perf_counter()
        heartbeat.sweep(now)
        if now > INTERVAL:
            times.append(time.perf_counter() - before)
        before = time.perf_counter()
        heartbeat.sweep(now)
        nothing_due.append(time.perf_counter() - before)
        now += SWEEP_PERIOD
    assert pinged > SLOTS
    result = {
        "slots": SLOTS,
        "sweeps": len(times),
        "median_ms": median(times) * 1e3,
        "p99_ms": sorted(times)[len(times) * 99 // 100] * 1e3,
        "idle_ms": median(nothing_due) * 1e3,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""What the process did in the last ten minutes, one row a second, so that a chart is never empty.

The rows are in one array of fixed size. Counters are read once a second; how much waits for clients
is counted a slice of the connections at a time, so that no turn of the loop gets longer with their
number.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import TYPE_CHECKING

import numpy as np
import structlog

from gateway.process import memory

if TYPE_CHECKING:
    from gateway.node import Node

log = structlog.get_logger("gateway.admin")

# What a row has. Times are Unix seconds, queues and memory bytes, CPU a share of one core, and lag
# the longest that a timer was late, in seconds.
COLUMNS = (
    "time",
    "connections",
    "clients",
    "users",
    "channels",
    "subscriptions",
    "received",  # per second: frames from clients
    "sent",  # per second: replies, and events handed to subscribers
    "publications",  # per second
    "queued",
    "cpu",
    "memory",
    "lag",
)
KEPT = 600  # rows
PERIOD = 1.0  # seconds between them

# Seconds between looks at how late we are. A stall that is shorter may go unseen.
_PULSE = 0.05
# Connections whose queues are looked at in one turn: about 0.2 ms of work.
_SLICE = 2000
_SLOWEST = 10


class Recorder:
    """Keeps the rows of a node. `run` for as long as they are wanted."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rows = np.zeros((KEPT, len(COLUMNS)))
        self.count = 0  # rows written so far: the number of the newest
        self.slowest: list[tuple[int, str]] = []  # bytes that wait, and for which client
        self._queued = 0
        self._slot = 0  # where the look at the queues goes on
        self._sum = 0
        self._heap: list[tuple[int, str]] = []
        self._lag = 0.0
        self._counted = self._counts()
        self._at = node.clock()
        self._cpu = time.process_time()

    def _counts(self) -> tuple[int, int, int]:
        counters = self._node.counters
        sent = counters.replies + self._node.hub.deliveries
        return counters.frames_in, sent, counters.publications

    async def run(self) -> None:
        """Keep rows until cancelled."""
        begun = time.perf_counter()
        due = begun + PERIOD
        while True:
            await asyncio.sleep(_PULSE)
            now = time.perf_counter()
            self._lag = max(self._lag, now - begun - _PULSE)
            try:
                self.look()
                if now >= due:
                    # After a stall not at once again: a rate over a moment says nothing.
                    due = max(due, now - PERIOD / 2) + PERIOD
                    self.sample()
            except Exception:  # charts are no reason to stop
                log.exception("recorder failed")
            begun = time.perf_counter()

    def look(self) -> None:
        """Add up what waits for the next slice of connections."""
        heartbeat = self._node.heartbeat
        sessions = heartbeat.sessions if heartbeat is not None else []
        for session in sessions[self._slot : self._slot + _SLICE]:
            if session is None:
                continue
            waiting = getattr(session.transport, "buffered_amount", 0)
            if waiting:
                self._sum += waiting
                heapq.heappush(self._heap, (waiting, session.id))
                if len(self._heap) > _SLOWEST:
                    heapq.heappop(self._heap)
        self._slot += _SLICE
        if self._slot >= len(sessions):
            self._queued, self.slowest = self._sum, sorted(self._heap, reverse=True)
            self._slot, self._sum, self._heap = 0, 0, []

    def sample(self) -> None:
        """Write a row for the time since the last one."""
        node = self._node
        now, counts, cpu = node.clock(), self._counts(), time.process_time()
        passed = max(now - self._at, 1e-3)
        rates = [(new - old) / passed for new, old in zip(counts, self._counted, strict=True)]
        self._rows[self.count % KEPT] = (
            node.wall(),
            node.counters.connections,
            len(node.clients),
            node.clients.num_users,
            len(node.hub.channels),
            node.hub.subscriptions,
            *rates,
            self._queued,
            (cpu - self._cpu) / passed,
            memory(),
            max(self._lag, 0.0),
        )
        self.count += 1
        self._at, self._counted, self._cpu, self._lag = now, counts, cpu, 0.0

    def since(self, number: int) -> list[list[float]]:
        """The rows after this one that are kept, the oldest first."""
        first = max(number, self.count - KEPT, 0)
        if first >= self.count:
            return []
        indices = np.arange(first, self.count) % KEPT
        rows: list[list[float]] = np.round(self._rows[indices], 6).tolist()
        return rows

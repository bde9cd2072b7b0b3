"""Pings, missing pongs, clients that never introduce themselves, and those whose time is over.

One sweep does it for all of them.

A connection is a row in a few numpy arrays. A sweep compares one array with the clock and then
looks only at the rows that are due; no connection has a timer, a task or an object for it. The
transport writes when it last read something into an array of its own (`last_seen`), which the sweep
only reads.

Times are seconds of `time.monotonic`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.codes import NO_PONG, STALE, Disconnect
from gateway.session import Session

# What a row waits for when its time comes.
_NEW = 0  # the connect command of the client
_IDLE = 1  # the time for a ping
_PINGED = 2  # a sign of life after the ping

_NEVER = np.inf
_FIRST_ROWS = 1024


class Heartbeat:
    """The table of connections, and the sweep over it.

    ``last_seen``: float64 by slot, when bytes of that connection were last read. ``interval``:
    seconds between pings; the first is sent at a random point of its second half, so that clients
    who came together after a restart do not stay together. ``timeout``: seconds a client has to
    show life after a ping. ``stale_delay``: seconds a client has to connect. Zero for the interval
    or the delay turns it off. ``on_ping`` gets the sessions that are due, ``on_dead`` one that is
    given up and why, ``on_expired`` one whose time set with `expire_at` has come.
    """

    def __init__(
        self,
        last_seen: NDArray[np.float64],
        *,
        interval: float,
        timeout: float,
        stale_delay: float,
        on_ping: Callable[[list[Session]], None],
        on_dead: Callable[[Session, Disconnect], None],
        on_expired: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.interval = interval
        self.timeout = timeout
        self.stale_delay = stale_delay
        self.sessions: list[Session | None] = []  # by slot, as the arrays
        self._last_seen = last_seen
        self._on_ping = on_ping
        self._on_dead = on_dead
        self._on_expired = on_expired
        self._expires = np.full(_FIRST_ROWS, _NEVER)
        self._due = np.full(_FIRST_ROWS, _NEVER)
        self._pinged_at = np.zeros(_FIRST_ROWS)
        self._opened_at = np.zeros(_FIRST_ROWS)
        self._phase = np.zeros(_FIRST_ROWS, np.uint8)

    def open(self, session: Session, now: float) -> None:
        """A connection has come: it has ``stale_delay`` to connect."""
        slot = session.slot
        missing = slot + 1 - len(self.sessions)
        if missing > 0:
            self.sessions.extend([None] * missing)
            self._reserve(slot + 1)
        self.sessions[slot] = session
        self._opened_at[slot] = now
        self._phase[slot] = _NEW
        self._due[slot] = now + self.stale_delay if self.stale_delay else _NEVER
        self._expires[slot] = _NEVER

    def begin(self, session: Session, now: float) -> None:
        """The client has connected: ping it from now on."""
        slot = session.slot
        self._phase[slot] = _IDLE
        first = now + self.interval * random.uniform(0.5, 1.0)
        self._due[slot] = first if self.interval else _NEVER

    def close(self, session: Session) -> None:
        """The connection is gone, and its slot may be given to another."""
        self.sessions[session.slot] = None
        self._due[session.slot] = _NEVER
        self._expires[session.slot] = _NEVER

    def expire_at(self, session: Session, when: float | None) -> None:
        """Call ``on_expired`` once at this time, or never; an earlier call is forgotten."""
        self._expires[session.slot] = _NEVER if when is None else when

    def times_of(self, session: Session) -> tuple[float, float]:
        """When its connection opened, and when something was last read from it."""
        return float(self._opened_at[session.slot]), float(self._last_seen[session.slot])

    def sweep_expired(self, now: float) -> None:
        """Report sessions whose time has come. Tokens last long: once a second is enough."""
        rows = len(self.sessions)
        expired = np.flatnonzero(self._expires[:rows] <= now)
        self._expires[expired] = _NEVER
        for slot in expired.tolist():
            session = self.sessions[slot]
            if session is not None:
                self._on_expired(session)

    def sweep(self, now: float) -> None:
        """Do what is due. Costs a comparison for each row, and work only for rows that are due."""
        rows = len(self.sessions)
        due = np.flatnonzero(self._due[:rows] <= now)
        if not due.size:
            return
        phase = self._phase[due]
        idle = due[phase == _IDLE]
        pinged = due[phase == _PINGED]
        alive = self._last_seen[pinged] > self._pinged_at[pinged]
        silent = pinged[~alive]
        stale = due[phase == _NEW]

        answered = pinged[alive]
        self._phase[answered] = _IDLE
        self._due[answered] = self._pinged_at[answered] + self.interval
        self._phase[idle] = _PINGED
        self._pinged_at[idle] = now
        self._due[idle] = now + self.timeout
        self._due[silent] = _NEVER
        self._due[stale] = _NEVER

        # The callbacks come last: one that closes connections may change the table.
        sessions = self.sessions
        if idle.size:
            self._on_ping([session for slot in idle.tolist() if (session := sessions[slot])])
        for slots, disconnect in ((silent, NO_PONG), (stale, STALE)):
            for slot in slots.tolist():
                session = sessions[slot]
                if session is not None:
                    self._on_dead(session, disconnect)

    def _reserve(self, rows: int) -> None:
        have = len(self._due)
        if rows <= have:
            return
        more = max(rows, 2 * have) - have
        self._due = np.concatenate((self._due, np.full(more, _NEVER)))
        self._expires = np.concatenate((self._expires, np.full(more, _NEVER)))
        self._pinged_at = np.concatenate((self._pinged_at, np.zeros(more)))
        self._opened_at = np.concatenate((self._opened_at, np.zeros(more)))
        self._phase = np.concatenate((self._phase, np.zeros(more, np.uint8)))

"""How much one client, one user, one address and all together may ask of the process.

A limit of 0 is none, and costs nothing. Rates are token buckets that hold one second's worth: a
client may send that much at once, and then as it is refilled.
"""

from __future__ import annotations

from collections import Counter

import structlog

from gateway.config import Client
from gateway.log import Seldom
from gateway.session import Session

seldom = Seldom(structlog.get_logger("gateway.limits"))

Refusal = tuple[int, str]  # HTTP status and the limit's name


class Bucket:
    """Tokens for a rate per second."""

    __slots__ = ("_at", "_level")

    def __init__(self, rate: float, now: float) -> None:
        self._level = rate
        self._at = now

    def take(self, rate: float, now: float) -> bool:
        """Whether there was one left."""
        self._level = min(rate, self._level + (now - self._at) * rate)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def is_full(self, now: float) -> bool:
        """Whether it is as good as new: a second has passed."""
        return now - self._at >= 1


class Limits:
    """The limits of a configuration, and how far they are used up."""

    def __init__(self, settings: Client) -> None:
        self.reached: Counter[str] = Counter()  # by the last part of the limit's key
        self._by_address: Counter[str] = Counter()
        self._by_user: dict[str, Bucket] = {}
        self.reload(settings)

    def reload(self, settings: Client) -> None:
        """Take other limits; what is open stays, and is counted from here on.

        Addresses of connections that came while they were not counted are not known.
        """
        self._connections = settings.connection_limit
        self._rate = settings.connection_rate_limit
        self._per_address = settings.ip_connection_limit
        self._commands = settings.command_rate_limit
        self._user_commands = settings.user_command_rate_limit
        self.user_connections = settings.user_connection_limit
        self.counts_addresses = self._per_address > 0
        self.counts_commands = self._commands > 0 or self._user_commands > 0
        self._accepted = Bucket(self._rate, 0.0)

    def reach(self, limit: str, **about: object) -> None:
        """Count, and log now and then, that something was refused, or cut, by a limit."""
        self.reached[limit] += 1
        seldom.info("limit reached", limit, limit=limit, **about)

    # -- connections

    def check_connection(self, address: str, connections: int, now: float) -> Refusal | None:
        """Why a connection cannot be taken, when ``connections`` are open already."""
        refusal: Refusal | None = None
        if self._connections and connections >= self._connections:
            refusal = (503, "connection_limit")
        elif self._per_address and self._by_address[address] >= self._per_address:
            refusal = (429, "ip_connection_limit")
        elif self._rate and not self._accepted.take(self._rate, now):
            refusal = (503, "connection_rate_limit")
        if refusal is not None:
            self.reach(refusal[1], address=address)
        return refusal

    def opened(self, address: str) -> None:
        """A connection from this address is open."""
        self._by_address[address] += 1

    def closed(self, address: str) -> None:
        """It is not any more."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    # -- users and commands

    def check_user(self, connections: int) -> bool:
        """Whether a user with so many connections may have one more."""
        if self.user_connections and connections >= self.user_connections:
            self.reach("user_connection_limit")
            return False
        return True

    def take_command(self, session: Session, now: float) -> bool:
        """Whether a client may have one more command done now."""
        if self._commands:
            bucket = session.bucket
            if bucket is None:
                bucket = session.bucket = Bucket(self._commands, now)
            if not bucket.take(self._commands, now):
                self.reach("command_rate_limit", client=session.id)
                return False
        if self._user_commands and session.user:
            shared = self._by_user.get(session.user)
            if shared is None:
                shared = self._by_user[session.user] = Bucket(self._user_commands, now)
            if not shared.take(self._user_commands, now):
                self.reach("user_command_rate_limit", client=session.id)
                return False
        return True

    def tick(self, now: float) -> None:
        """Forget users who have been quiet. Called about once a second."""
        quiet = [user for user, bucket in self._by_user.items() if bucket.is_full(now)]
        for user in quiet:
            del self._by_user[user]

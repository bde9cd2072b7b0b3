"""What waits for a client that reads more slowly than is published, where a channel bounds it.

Nothing here is looked at for those who read fast enough: the transport finds out who does not, and
only they are taken out of their audience until they have caught up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from gateway.config import ChannelOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.session import Subscription


class LagPolicy(Struct, frozen=True):
    """What is left out for a slow reader: the oldest, or all but the newest of each key.

    ``size`` is the number of publications that wait at most; ``key`` the tag that has the key.
    """

    drops: Literal["drop_oldest", "latest"]
    size: int
    key: str


def lag_policy(options: ChannelOptions) -> LagPolicy | None:
    """What the options of a channel say of it; None where slow readers are closed."""
    if options.slow_reader == "close":
        return None
    return LagPolicy(options.slow_reader, options.slow_reader_queue, options.slow_reader_key)


class Lag:
    """The publications that wait for one subscriber, as frames that others may wait for too."""

    __slots__ = ("_frames", "_number", "_policy", "subscription")

    def __init__(self, subscription: Subscription, policy: LagPolicy) -> None:
        self.subscription = subscription
        self._policy = policy
        self._frames: dict[str | int, bytes] = {}  # oldest first
        self._number = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: bytes, tags: Mapping[str, str] | None) -> bool:
        """Let one more wait. True when another does not any more, because of it."""
        frames, policy = self._frames, self._policy
        key: str | int
        if policy.drops == "latest":
            key = tags.get(policy.key, "") if tags else ""
        else:
            key = self._number
            self._number += 1
        dropped = frames.pop(key, None) is not None
        frames[key] = frame  # behind all others: what is told last was last
        if len(frames) > policy.size:
            del frames[next(iter(frames))]
            dropped = True
        return dropped

    def first(self) -> bytes | None:
        """The one that is to go next."""
        return next(iter(self._frames.values()), None)

    def pop(self) -> None:
        """It has gone."""
        del self._frames[next(iter(self._frames))]

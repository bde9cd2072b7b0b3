"""Tokens that are no longer good before their time, and users who may not come in.

Kept in memory of this process, each entry with its own end. With several nodes they will be spread
through the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

# An entry without an end of its own is kept this long, in seconds.
DEFAULT_TTL = 30 * 86400.0


class TokenMark(Struct, frozen=True, gc=False):
    """By what a token that was believed can be revoked."""

    token_id: str = ""  # claim jti
    issued_at: float | None = None


class Revocations:
    """What was revoked and blocked. ``clock`` gives Unix time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tokens: dict[str, float] = {}  # jti -> end
        # (user, channel; "" for connection tokens) -> (issued before, end)
        self._issued: dict[tuple[str, str], tuple[float, float]] = {}
        self._blocked: dict[str, float] = {}  # user -> end

    def __len__(self) -> int:
        return len(self._tokens) + len(self._issued) + len(self._blocked)

    def revoke_token(self, jti: str, expire_at: float = 0) -> None:
        """Refuse a token by its claim ``jti`` until ``expire_at`` (Unix time; 0: 30 days)."""
        self._tokens[jti] = self._end(expire_at)

    def invalidate_user_tokens(
        self, user: str, issued_before: float = 0, channel: str = "", expire_at: float = 0
    ) -> None:
        """Refuse a user's tokens issued before a time (0: now), or without a time of issue.

        With ``channel`` it is subscription tokens for that channel, else connection tokens.
        """
        entry = (issued_before or self._clock(), self._end(expire_at))
        self._issued[user, channel] = entry

    def block(self, user: str, expire_at: float = 0) -> None:
        """Keep a user out."""
        self._blocked[user] = self._end(expire_at)

    def unblock(self, user: str) -> None:
        """Let a user in again. Not being blocked is no error."""
        self._blocked.pop(user, None)

    def is_revoked(self, jti: str, user: str, issued_at: float | None, channel: str = "") -> bool:
        """Whether a token with these claims has been revoked."""
        if jti and self._tokens and self._tokens.get(jti, 0) > self._clock():
            return True
        if not self._issued:
            return False
        before, end = self._issued.get((user, channel), (0.0, 0.0))
        return end > self._clock() and (issued_at is None or issued_at < before)

    def is_blocked(self, user: str) -> bool:
        """Whether a user may not come in."""
        return bool(self._blocked) and self._blocked.get(user, 0) > self._clock()

    def expire(self) -> None:
        """Forget what has ended. Called now and then."""
        now = self._clock()
        for ends in (self._tokens, self._blocked):
            for key in [key for key, end in ends.items() if end <= now]:
                del ends[key]
        for pair in [pair for pair, (_, end) in self._issued.items() if end <= now]:
            del self._issued[pair]

    def _end(self, expire_at: float) -> float:
        return expire_at or self._clock() + DEFAULT_TTL

"""The codes that clients see: errors in replies and reasons of a disconnect.

Numbers and texts are Centrifugo's, so that its client SDKs decide rightly what to retry and
when to reconnect. A disconnect code is also the WebSocket close code: 3000-3499 mean "reconnect",
3500-3999 mean "do not".
"""

from __future__ import annotations

import msgspec

# A close frame has room for this many bytes of reason (RFC 6455 5.5.1).
MAX_REASON = 123


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ``error`` of a reply. After a ``temporary`` one the same command may succeed later."""

    code: int
    message: str = ""
    temporary: bool = False


INTERNAL = Error(100, "internal server error", temporary=True)
UNAUTHORIZED = Error(101, "unauthorized")
UNKNOWN_CHANNEL = Error(102, "unknown channel")
PERMISSION_DENIED = Error(103, "permission denied")
METHOD_NOT_FOUND = Error(104, "method not found")
ALREADY_SUBSCRIBED = Error(105, "already subscribed")
LIMIT_EXCEEDED = Error(106, "limit exceeded")
BAD_REQUEST = Error(107, "bad request")
NOT_AVAILABLE = Error(108, "not available")
TOKEN_EXPIRED = Error(109, "token expired")
EXPIRED = Error(110, "expired")
TOO_MANY_REQUESTS = Error(111, "too many requests", temporary=True)
UNRECOVERABLE_POSITION = Error(112, "unrecoverable position")


class Disconnect(msgspec.Struct, frozen=True):
    """Why the gateway closes a client connection: the close code and the reason that go out."""

    code: int
    reason: str = ""

    @property
    def can_be_sent(self) -> bool:
        """Whether it fits in a close frame, with a code that is ours to use (RFC 6455 7.4.2)."""
        try:
            return 3000 <= self.code <= 4999 and len(self.reason.encode()) <= MAX_REASON
        except UnicodeEncodeError:  # half of a surrogate pair
            return False

    @property
    def reconnect(self) -> bool:
        """Whether a client should come back: custom codes (4000-4999) split as ours do."""
        return self.code % 1000 < 500


CONNECTION_CLOSED = Disconnect(3000, "connection closed")
SHUTDOWN = Disconnect(3001, "shutdown")
SERVER_ERROR = Disconnect(3004, "internal server error")
CONNECTION_EXPIRED = Disconnect(3005, "connection expired")
SUBSCRIPTION_EXPIRED = Disconnect(3006, "subscription expired")
SLOW = Disconnect(3008, "slow")
INSUFFICIENT_STATE = Disconnect(3010, "insufficient state")
FORCE_RECONNECT = Disconnect(3011, "force reconnect")
NO_PONG = Disconnect(3012, "no pong")
TOO_MANY_COMMANDS = Disconnect(3013, "too many requests")
INVALID_TOKEN = Disconnect(3500, "invalid token")
INVALID_REQUEST = Disconnect(3501, "bad request")
STALE = Disconnect(3502, "stale")
FORCE_NO_RECONNECT = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT = Disconnect(3504, "connection limit")
CHANNEL_LIMIT = Disconnect(3505, "channel limit")
NOT_PERMITTED = Disconnect(3507, "permission denied")
NOBODY_LISTENS = Disconnect(3508, "not available")


class Unsubscribe(msgspec.Struct, frozen=True):
    """Why the gateway takes a client out of a channel. From 2500 on it should subscribe again."""

    code: int
    reason: str


UNSUBSCRIBED_BY_SERVER = Unsubscribe(2000, "server unsubscribe")
POSITION_LOST = Unsubscribe(2500, "insufficient state")
SUBSCRIPTION_ENDED = Unsubscribe(2501, "subscription expired")


class Refused(Exception):
    """A command that is answered with an error; the connection goes on."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.code} {error.message}")
        self.error = error


class Disconnected(Exception):
    """A command after which the connection is closed. ``detail`` is for the log only."""

    def __init__(self, disconnect: Disconnect, detail: str = "") -> None:
        super().__init__(f"{disconnect.code} {disconnect.reason}: {detail}")
        self.disconnect = disconnect
        self.detail = detail

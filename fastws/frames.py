"""Opcodes, close codes and the pair that a close frame carries (RFC 6455 5.2, 7.4)."""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

__all__ = ["Close", "CloseCode", "Opcode", "State"]


class Opcode(enum.IntEnum):
    """Frame opcodes (RFC 6455 5.2)."""

    CONT = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class State(enum.IntEnum):
    """Where a connection is in its life; the names and values of ``websockets``."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class CloseCode(enum.IntEnum):
    """Close codes of the IANA registry (RFC 6455 7.4.1, 11.7)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


OK_CLOSE_CODES: Final = frozenset(
    (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD)
)


@dataclasses.dataclass(frozen=True, slots=True)
class Close:
    """What a close frame said.

    ``code`` is 1005 when the frame had no body; ``reason`` is at most 123 bytes of UTF-8.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        if 3000 <= self.code < 4000:
            name = "registered"
        elif 4000 <= self.code < 5000:
            name = "private use"
        else:
            try:
                name = CloseCode(self.code).name.lower().replace("_", " ")
            except ValueError:
                name = "unknown"
        text = f"{self.code} ({name})"
        return f"{text} {self.reason}" if self.reason else text

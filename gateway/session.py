"""One client of the gateway."""

from __future__ import annotations

from asyncio import Task
from collections import deque
from typing import TYPE_CHECKING

from gateway.model import ClientInfo

if TYPE_CHECKING:
    from gateway.hub import Channel
    from gateway.transports.base import Endpoint, Transport


class Session:
    """State of one client, from its transport's opening to its end.

    There are tens of thousands of them, so a session owns nothing that it may not need: channels
    are shared objects in a tuple, the inbox exists only while a command waits.
    """

    __slots__ = ("channels", "ended", "endpoint", "inbox", "info", "slot", "task", "transport")

    transport: Transport  # both are set by `Node.open`
    slot: int  # row in the heartbeat's table

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.info: ClientInfo | None = None  # None until the client has connected
        self.channels: tuple[Channel, ...] = ()
        self.ended = False  # the node has said goodbye; the transport may still be closing
        self.task: Task[None] | None = None  # a command that waits for something
        self.inbox: deque[str | bytes] | None = None  # frames that came meanwhile

    @property
    def id(self) -> str:
        """The client id, for logs; empty until the client has connected."""
        return self.info.client if self.info is not None else ""

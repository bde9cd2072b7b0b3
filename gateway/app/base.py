"""What the gateway asks of an application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.app.events import (
    ConnectEvent,
    ConnectReply,
    DisconnectEvent,
    MessageEvent,
    PublishEvent,
    PublishReply,
    RefreshEvent,
    RefreshReply,
    RpcEvent,
    RpcReply,
    SubRefreshEvent,
    SubRefreshReply,
    SubscribeEvent,
    SubscribeReply,
)
from gateway.codes import NOT_AVAILABLE, Refused

if TYPE_CHECKING:
    from gateway.node import Node

Headers = Mapping[str, str] | None


class App:
    """Base of applications: override what is to be decided, the rest is decided without it.

    A handler returns a reply, or raises `Refused` with an error for the client, `Disconnected` to
    close it, or `OSError` when it cannot say now (error 100, temporary; in a renewal another
    minute). What it refuses to renew has ended. Each call has a task of its own. ``headers`` are
    those of the client that ``http_headers`` and ``emulated_headers`` list.
    """

    node: Node  # for publishing and the like; set before `start`
    disconnect_rate = 0  # clients told of per second when many go at once; 0: no limit
    http_headers: tuple[str, ...] = ()  # of the opening request, that handlers get
    # Likewise of the connect command, where the request has none of that name. In lower case.
    emulated_headers: tuple[str, ...] = ()

    async def start(self) -> None:
        """The gateway starts; clients come later."""

    async def close(self) -> None:
        """The gateway has stopped."""

    def handles(self, event: str) -> bool:
        """Whether the application is to be asked: "connect", "subscribe" and so on."""
        return getattr(type(self), event) is not getattr(App, event)

    def behind(self, proxy: str) -> App:
        """Who is asked where a namespace names a proxy. An application in the process is all."""
        return self

    async def connect(self, event: ConnectEvent, headers: Headers) -> ConnectReply | None:
        """Who the client is. None: as if nobody had been asked."""
        raise Refused(NOT_AVAILABLE)

    async def refresh(self, event: RefreshEvent, headers: Headers) -> RefreshReply:
        raise Refused(NOT_AVAILABLE)

    async def subscribe(self, event: SubscribeEvent, headers: Headers) -> SubscribeReply:
        raise Refused(NOT_AVAILABLE)

    async def sub_refresh(self, event: SubRefreshEvent, headers: Headers) -> SubRefreshReply:
        raise Refused(NOT_AVAILABLE)

    async def publish(self, event: PublishEvent, headers: Headers) -> PublishReply:
        raise Refused(NOT_AVAILABLE)

    async def disconnect(self, event: DisconnectEvent, headers: Headers) -> None:
        """A client is gone. Best effort, see `gateway.app.farewells`."""

    async def rpc(self, event: RpcEvent, headers: Headers) -> RpcReply:
        raise Refused(NOT_AVAILABLE)

    async def message(self, event: MessageEvent, headers: Headers) -> None:
        """A client has sent something. It is told of no error; the next command waits for this."""


class NoApp(App):
    """There is nobody behind the gateway."""

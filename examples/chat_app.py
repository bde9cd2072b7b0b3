"""A chat whose rules are in Python, inside the gateway.

    fastws-gateway serve --config examples/chat_app.toml --app examples.chat_app:Chat

Clients connect without a token and say their name: ``{"connect": {"data": {"name": "ann"}}}``. They
may enter rooms (``room:…``), say something of at most 500 characters, and ask who is there.
"""

from __future__ import annotations

import time

import msgspec

from gateway.app import (
    App,
    ConnectEvent,
    ConnectReply,
    Disconnect,
    Disconnected,
    Error,
    PublishEvent,
    PublishReply,
    Refused,
    RpcEvent,
    RpcReply,
    SubscribeEvent,
    SubscribeReply,
)
from gateway.app.base import Headers

TOO_LONG = Error(1001, "a message has at most 500 characters")
NO_SUCH_ROOM = Error(1002, "there is no such room")
ROOMS = {"room:lobby", "room:kitchen"}


class Hello(msgspec.Struct):
    """What a client sends to connect."""

    name: str


class Said(msgspec.Struct):
    """What a client publishes; the time is ours."""

    text: str
    at: float = 0.0


class Who(msgspec.Struct):
    """What a client asks."""

    room: str


class Chat(App):
    """The rules."""

    async def connect(self, event: ConnectEvent, headers: Headers) -> ConnectReply:
        try:
            name = msgspec.json.decode(event.data or b"{}", type=Hello).name.strip()
        except msgspec.DecodeError:
            name = ""
        if not name:
            raise Disconnected(Disconnect(4500, "say your name"))
        return ConnectReply(user=name, info=_raw({"name": name}), channels=["room:lobby"])

    async def subscribe(self, event: SubscribeEvent, headers: Headers) -> SubscribeReply:
        if event.channel not in ROOMS:
            raise Refused(NO_SUCH_ROOM)
        return SubscribeReply()

    async def publish(self, event: PublishEvent, headers: Headers) -> PublishReply:
        try:
            said = msgspec.json.decode(event.data, type=Said)
        except msgspec.DecodeError:
            raise Refused(Error(107, "bad request")) from None
        if len(said.text) > 500:
            raise Refused(TOO_LONG)
        said.at = time.time()
        return PublishReply(data=_raw(said))

    async def rpc(self, event: RpcEvent, headers: Headers) -> RpcReply:
        if event.method != "who":
            raise Refused(Error(104, "method not found"))
        room = msgspec.json.decode(event.data or b'{"room":"room:lobby"}', type=Who).room
        present = await self.node.presence(room)
        return RpcReply(data=_raw(sorted({info.user for info in present.values()})))


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))

"""What an application is asked and what it answers; on the wire of webhooks by these names.

Payloads are raw JSON (`msgspec.Raw`): ``msgspec.json.decode(event.data)`` makes objects of them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.auth.tokens import Override, SubscribeOptions

UnixTime = Annotated[int, Meta(ge=0, le=2**53)]


class Event(Struct, kw_only=True):
    """Which client it is about."""

    client: str
    address: str = ""  # IP address that it comes from
    transport: str = "websocket"
    protocol: str = "json"
    encoding: str = "json"
    user: str = ""
    meta: Raw | UnsetType = UNSET  # what the token, or the reply to connect, had for the backend


class ConnectEvent(Event, kw_only=True):
    """A client without a token wants to come in.

    ``data`` is what it sent along, ``channels`` are those that it was put into the last time.
    """

    data: Raw | UnsetType = UNSET
    name: str = ""
    version: str = ""
    channels: list[str] = []


class ConnectSubscription(SubscribeOptions, frozen=True, kw_only=True):
    """A channel that a client is put into.

    With ``cache_recover`` it is told of the newest publication, where recovery is on and in cache
    mode.
    """

    expire_at: UnixTime = 0
    cache_recover: bool = False


class ConnectReply(Struct, kw_only=True):
    """Who the client is, as a connection token would say it. ``data`` is told to the client."""

    user: str = ""
    expire_at: UnixTime = 0
    info: Raw | UnsetType = UNSET
    b64info: str = ""
    data: Raw | UnsetType = UNSET
    b64data: str = ""
    channels: list[str] = []
    subs: dict[str, ConnectSubscription] = {}  # go before ``channels``
    meta: Raw | UnsetType = UNSET


class RefreshEvent(Event, kw_only=True):
    """The time of a client is over."""


class SubRefreshReply(Struct, kw_only=True):
    """Whether a subscription goes on, and until when (Unix time; 0: for ever)."""

    expired: bool = False
    expire_at: UnixTime = 0
    info: Raw | UnsetType = UNSET
    b64info: str = ""


class RefreshReply(SubRefreshReply, kw_only=True):
    """Whether a client goes on, and until when: without a later ``expire_at`` it does not."""

    meta: Raw | UnsetType = UNSET


class SubscribeEvent(Event, kw_only=True):
    """A client wants to subscribe."""

    channel: str
    data: Raw | UnsetType = UNSET


class SubscribeReply(Struct, kw_only=True):
    """It may, on these terms, as a subscription token would say it."""

    info: Raw | UnsetType = UNSET
    b64info: str = ""
    data: Raw | UnsetType = UNSET
    b64data: str = ""
    expire_at: UnixTime = 0
    override: Override | None = None


class SubRefreshEvent(Event, kw_only=True):
    """The time of a subscription is over."""

    channel: str


class PublishEvent(Event, kw_only=True):
    """A client wants to publish."""

    channel: str
    data: Raw


class PublishReply(Struct, kw_only=True):
    """It may; ``data`` is published in place of what the client sent, if it is there.

    The rest is as in `gateway.node.Node.publish` and `gateway.engines.Once`.
    """

    data: Raw | UnsetType = UNSET
    b64data: str = ""
    skip_history: bool = False
    tags: dict[str, str] = {}
    idempotency_key: str = ""
    delta: bool = False
    version: Annotated[int, Meta(ge=0)] = 0
    version_epoch: str = ""


class DisconnectEvent(Event, kw_only=True):
    """A client that had connected is gone. Nothing is expected in answer."""

    code: int  # close code: ours, or the client's
    reason: str = ""  # ours, empty if the client has left
    time: int = 0  # when, in Unix seconds: this may come late


class RpcEvent(Event, kw_only=True):
    """A client asks something."""

    method: str = ""
    data: Raw | UnsetType = UNSET


class MessageEvent(Event, kw_only=True):
    """A client sends something, by ``send``, and expects no answer."""

    data: Raw | UnsetType = UNSET


class RpcReply(Struct, kw_only=True):
    """The answer."""

    data: Raw | UnsetType = UNSET
    b64data: str = ""

"""Requests and results of the API, by the names on the wire. The OpenAPI description is of these.

What is empty or zero is left out of results. Unknown fields of requests are ignored, so that newer
clients work.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.auth.tokens import Override
from gateway.codes import Error
from gateway.model import ClientInfo, Offset, Publication

UnixTime = Annotated[int, Meta(ge=0, le=2**53, description="Unix time in seconds; 0: none.")]
_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_Version = Annotated[int, Meta(ge=0)]


class Position(Struct):
    """A place in a channel's history."""

    offset: Offset = 0
    epoch: str = ""


# -- messages


class PublishRequest(Struct):
    """Publish `data` (or `b64data`, JSON in base64) in a channel."""

    channel: str = ""
    data: Raw | UnsetType = UNSET
    b64data: str = ""
    skip_history: bool = False
    tags: dict[str, str] | None = None
    idempotency_key: str = ""
    version: _Version = 0
    version_epoch: str = ""
    delta: bool = False


class PublishResult(Struct, omit_defaults=True):
    """Where the publication is in the channel's history, if it keeps one."""

    offset: int = 0
    epoch: str = ""


class BroadcastRequest(Struct):
    """Publish the same in several channels."""

    channels: list[str] = []
    data: Raw | UnsetType = UNSET
    b64data: str = ""
    skip_history: bool = False
    tags: dict[str, str] | None = None
    idempotency_key: str = ""
    version: _Version = 0
    version_epoch: str = ""
    delta: bool = False


class PublishResponse(Struct, omit_defaults=True):
    """The outcome in one of the channels."""

    error: Error | None = None
    result: PublishResult | None = None


class BroadcastResult(Struct):
    """The outcomes, in the order of the channels."""

    responses: list[PublishResponse]


class HistoryRequest(Struct):
    """Read a channel's history: up to `limit` publications (-1: all) from `since` on."""

    channel: str = ""
    limit: _Int32 = 0
    since: Position | None = None
    reverse: bool = False


class HistoryResult(Struct):
    """Publications, and the newest position."""

    publications: list[Publication]
    epoch: str
    offset: int


class ChannelRequest(Struct):
    """A channel."""

    channel: str = ""


class Done(Struct):
    """There is nothing to tell."""


# -- who is where


class PresenceResult(Struct):
    """Clients in the channel by their ids."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Struct):
    """How many are in the channel."""

    num_clients: int
    num_users: int


class ChannelsRequest(Struct):
    """Channels with subscribers, by a pattern in which `*` stands for anything; empty: all."""

    pattern: str = ""


class ChannelInfo(Struct):
    """How many are subscribed here."""

    num_clients: int


class ChannelsResult(Struct):
    """Channels by name."""

    channels: dict[str, ChannelInfo]


class ConnectionsRequest(Struct):
    """Connections of a user; without one, all."""

    user: str = ""


class ChannelContext(Struct):
    """Where a subscription comes from: 1 connection token, 2 application on connect, 3 subscription
    token, 4 application, 5 user-limited channel, 6 allowed to clients, 7 dev mode, 9 personal
    channel, 10 this API.
    """

    source: int


class TokenInfo(Struct, omit_defaults=True):
    """The token that the connection came with."""

    uid: str = ""
    issued_at: int = 0


class ConnectionState(Struct, omit_defaults=True):
    """What belongs to a connection."""

    channels: dict[str, ChannelContext] = {}
    connection_token: TokenInfo | None = None
    meta: Raw | UnsetType = UNSET


class ConnectionInfo(Struct):
    """A connection."""

    transport: str
    protocol: str
    user: str
    state: ConnectionState


class ConnectionsResult(Struct):
    """Connections by client id."""

    connections: dict[str, ConnectionInfo]


class InfoRequest(Struct):
    """Nothing."""


class NodeInfo(Struct):
    """A gateway process. `uptime` is in seconds."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int


class InfoResult(Struct):
    """The processes."""

    nodes: list[NodeInfo]


# -- what is done to clients: to all of a user, or to one by its id. Sessions are
# Centrifugo's, of transports that are not here.


class SubscribeRequest(Struct):
    """Put a user's connections into a channel."""

    channel: str = ""
    user: str = ""
    client: str = ""
    session: str = ""
    expire_at: UnixTime = 0
    info: Raw | UnsetType = UNSET
    b64info: str = ""
    data: Raw | UnsetType = UNSET
    b64data: str = ""
    recover_since: Position | None = None
    override: Override | None = None


class UnsubscribeRequest(Struct):
    """Take a user's connections out of a channel; without one, out of all."""

    channel: str = ""
    user: str = ""
    client: str = ""
    session: str = ""


class DisconnectCode(Struct):
    """A close code from 3000 to 4999 and its reason."""

    code: int
    reason: str = ""


class DisconnectRequest(Struct):
    """Close a user's connections, except those in `whitelist`; with 3503 or the given code."""

    user: str = ""
    client: str = ""
    session: str = ""
    whitelist: list[str] = []
    disconnect: DisconnectCode | None = None


class RefreshRequest(Struct):
    """Give a user's connections another end, or end them (`expired`)."""

    user: str = ""
    client: str = ""
    session: str = ""
    expired: bool = False
    expire_at: UnixTime = 0
    info: Raw | UnsetType = UNSET


class BlockUserRequest(Struct):
    """Close a user's connections and keep the user out."""

    user: str = ""
    expire_at: UnixTime = 0


class UserRequest(Struct):
    """A user."""

    user: str = ""


class RevokeTokenRequest(Struct):
    """Refuse a token by its claim `jti`, and close connections that came with it."""

    uid: str = ""
    expire_at: UnixTime = 0


class InvalidateUserTokensRequest(Struct):
    """Refuse a user's tokens issued before a time, or before now."""

    user: str = ""
    channel: str = ""
    issued_before: UnixTime = 0
    expire_at: UnixTime = 0


class RpcRequest(Struct):
    """Call the application behind the gateway."""

    method: str = ""
    params: Raw | UnsetType = UNSET


class RpcResult(Struct):
    """What it answered."""

    data: Raw

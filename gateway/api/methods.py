"""The methods of the API. Each checks its request and calls an operation of the node."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, get_type_hints

from msgspec import UNSET, Raw, UnsetType

from gateway import __version__, codes
from gateway.api.messages import (
    BlockUserRequest,
    BroadcastRequest,
    BroadcastResult,
    ChannelContext,
    ChannelInfo,
    ChannelRequest,
    ChannelsRequest,
    ChannelsResult,
    ConnectionInfo,
    ConnectionsRequest,
    ConnectionsResult,
    ConnectionState,
    DisconnectRequest,
    Done,
    HistoryRequest,
    HistoryResult,
    InfoRequest,
    InfoResult,
    InvalidateUserTokensRequest,
    NodeInfo,
    Position,
    PresenceResult,
    PresenceStatsResult,
    PublishRequest,
    PublishResponse,
    PublishResult,
    RefreshRequest,
    RevokeTokenRequest,
    RpcRequest,
    RpcResult,
    SubscribeRequest,
    TokenInfo,
    UnsubscribeRequest,
    UserRequest,
)
from gateway.auth.tokens import one_line, payload
from gateway.channels.grants import Source, grant
from gateway.codes import Disconnect, Refused
from gateway.engines import HistoryQuery, Once
from gateway.model import StreamPosition
from gateway.node import Node
from gateway.session import Session


class Api:
    """All methods, as coroutines from a request to a result. They raise `Refused` or `OSError`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # -- messages

    async def publish(self, request: PublishRequest) -> PublishResult:
        _require(request.channel)
        return await self._publish(request, request.channel)

    async def broadcast(self, request: BroadcastRequest) -> BroadcastResult:
        _require(*request.channels)
        _require(request.channels)
        responses = []
        for channel in request.channels:
            try:
                response = PublishResponse(result=await self._publish(request, channel))
            except Refused as refusal:
                response = PublishResponse(error=refusal.error)
            responses.append(response)
        return BroadcastResult(responses)

    async def _publish(
        self, request: PublishRequest | BroadcastRequest, channel: str
    ) -> PublishResult:
        data = request.data
        if request.b64data:
            data = _payload(UNSET, request.b64data)
        elif isinstance(data, Raw):
            data = one_line(data)  # null is something to publish
        if isinstance(data, UnsetType):
            raise Refused(codes.BAD_REQUEST)
        once = None
        if request.idempotency_key or request.version:
            once = Once(request.idempotency_key, request.version, request.version_epoch)
        place = await self._node.publish(
            channel,
            data,
            tags=request.tags,
            skip_history=request.skip_history,
            once=once,
            delta=request.delta,
        )
        return PublishResult(place.offset, place.epoch)

    async def history(self, request: HistoryRequest) -> HistoryResult:
        _require(request.channel)
        query = HistoryQuery(request.limit, _position(request.since), request.reverse)
        publications, top = await self._node.history(request.channel, query)
        return HistoryResult(publications, top.epoch, top.offset)

    async def history_remove(self, request: ChannelRequest) -> Done:
        _require(request.channel)
        await self._node.history_remove(request.channel)
        return Done()

    async def rpc(self, request: RpcRequest) -> RpcResult:
        raise Refused(codes.METHOD_NOT_FOUND)  # no application behind us yet

    # -- who is where

    async def presence(self, request: ChannelRequest) -> PresenceResult:
        _require(request.channel)
        return PresenceResult(await self._node.presence(request.channel))

    async def presence_stats(self, request: ChannelRequest) -> PresenceStatsResult:
        _require(request.channel)
        stats = await self._node.presence_stats(request.channel)
        return PresenceStatsResult(stats.num_clients, stats.num_users)

    async def channels(self, request: ChannelsRequest) -> ChannelsResult:
        matches = re.compile(fnmatch.translate(request.pattern or "*")).match
        return ChannelsResult(
            {
                name: ChannelInfo(channel.num_subscribers)
                for name, channel in self._node.hub.channels.items()
                if channel.num_subscribers and matches(name)
            }
        )

    async def connections(self, request: ConnectionsRequest) -> ConnectionsResult:
        clients = self._node.clients
        found = clients.of_user(request.user) if request.user else clients
        return ConnectionsResult({session.id: connection_info(session) for session in found})

    async def info(self, request: InfoRequest) -> InfoResult:
        node = self._node
        here = NodeInfo(
            uid=node.uid,
            name=node.config.http_server.address,
            version=__version__,
            num_clients=len(node.clients),
            num_users=node.clients.num_users,
            num_subs=node.hub.subscriptions,
            num_channels=len(node.hub.channels),
            uptime=int(node.clock() - node.started_at),
        )
        return InfoResult([here])

    # -- what is done to clients

    def _clients(
        self, request: SubscribeRequest | UnsubscribeRequest | DisconnectRequest | RefreshRequest
    ) -> Collection[Session]:
        """Whom a request is about. Nobody in particular would be everybody: that is refused."""
        if request.session:
            raise Refused(codes.NOT_AVAILABLE)
        _require(request.user or request.client)
        return self._node.clients.select(request.user, request.client)

    async def subscribe(self, request: SubscribeRequest) -> Done:
        _require(request.channel)
        clients = self._clients(request)
        options = self._node.rules.find(request.channel)
        terms = grant(options, Source.SERVER_API, request.override)
        terms.info = _payload(request.info, request.b64info)
        terms.data = _payload(request.data, request.b64data)
        terms.expire_at = request.expire_at
        since = _position(request.recover_since)
        await self._node.administration.subscribe(clients, request.channel, terms, since)
        return Done()

    async def unsubscribe(self, request: UnsubscribeRequest) -> Done:
        clients = self._clients(request)
        why = codes.UNSUBSCRIBED_BY_SERVER
        self._node.administration.unsubscribe(clients, request.channel, why)
        return Done()

    async def disconnect(self, request: DisconnectRequest) -> Done:
        clients = self._clients(request)
        why = codes.FORCE_NO_RECONNECT
        if request.disconnect is not None:
            why = Disconnect(request.disconnect.code, request.disconnect.reason)
            if not why.can_be_sent:
                raise Refused(codes.BAD_REQUEST)
        spared = frozenset(request.whitelist)
        await self._node.disconnect_all([each for each in clients if each.id not in spared], why)
        return Done()

    async def refresh(self, request: RefreshRequest) -> Done:
        clients = self._clients(request)
        if request.expired:
            await self._node.disconnect_all(clients, codes.CONNECTION_EXPIRED)
        else:
            info = _payload(request.info)
            await self._node.administration.refresh(clients, request.expire_at, info)
        return Done()

    async def block_user(self, request: BlockUserRequest) -> Done:
        _require(request.user)
        await self._node.administration.block_user(request.user, request.expire_at)
        return Done()

    async def unblock_user(self, request: UserRequest) -> Done:
        _require(request.user)
        self._node.revocations.unblock(request.user)
        return Done()

    async def revoke_token(self, request: RevokeTokenRequest) -> Done:
        _require(request.uid)
        await self._node.administration.revoke_token(request.uid, request.expire_at)
        return Done()

    async def invalidate_user_tokens(self, request: InvalidateUserTokensRequest) -> Done:
        _require(request.user)
        await self._node.administration.invalidate_user_tokens(
            request.user, request.issued_before, request.channel, request.expire_at
        )
        return Done()


# The methods by name, with the types of their requests and results.
METHODS: dict[str, tuple[type[Any], type[Any]]] = {
    name: (hints["request"], hints["return"])
    for name, method in vars(Api).items()
    if not name.startswith("_") and (hints := get_type_hints(method))
}

# Those of Centrifugo's map and shared poll channels, which there are not here.
NOT_AVAILABLE = frozenset(
    (
        "map_publish",
        "map_remove",
        "map_read_state",
        "map_read_stream",
        "map_stats",
        "map_clear",
        "shared_poll_publish",
    )
)


def bind(api: Api) -> dict[str, Callable[[Any], Awaitable[Any]]]:
    """The methods of one API, by name."""
    return {name: getattr(api, name) for name in METHODS}


def _require(*values: object) -> None:
    if not all(values):
        raise Refused(codes.BAD_REQUEST)


def _payload(raw: Raw | UnsetType, b64: str = "") -> Raw | UnsetType:
    try:
        return payload(raw, b64)
    except ValueError:
        raise Refused(codes.BAD_REQUEST) from None


def _position(since: Position | None) -> StreamPosition | None:
    return StreamPosition(since.offset, since.epoch) if since is not None else None


def connection_info(session: Session) -> ConnectionInfo:
    """What is told of a connection."""
    channels = {
        each.channel.name: ChannelContext(each.terms.source) for each in session.subscriptions
    }
    state = ConnectionState(channels)
    known = session.credentials
    if known is not None:
        state.meta = known.meta
        if known.token_id or known.issued_at:
            state.connection_token = TokenInfo(known.token_id, int(known.issued_at or 0))
    return ConnectionInfo("websocket", "json", session.user, state)

"""One client of the gateway, and its subscriptions."""

from __future__ import annotations

from asyncio import Task
from collections import deque
from typing import TYPE_CHECKING

from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.ids import new_id
from gateway.model import ClientInfo

if TYPE_CHECKING:
    from gateway.channels.grants import Grant
    from gateway.hub import Channel
    from gateway.limits import Bucket
    from gateway.transports.base import Endpoint, Transport


class Credentials(Struct, frozen=True):
    """What a token, or the application, said of its client that others do not see."""

    token_id: str = ""  # claim jti
    issued_at: float | None = None
    meta: Raw | UnsetType = UNSET
    by_app: bool = False  # it was the application


class Subscription(Struct, eq=False):
    """A session in a channel. Its ``terms`` may be shared with others, and do not change."""

    session: Session
    channel: Channel
    terms: Grant
    info: ClientInfo  # as it is seen in the channel
    server_side: bool = False  # the client did not ask for it
    positioned: bool = False
    expire_at: float = 0.0  # Unix time; 0 for never


def subscription_on(
    terms: Grant, session: Session, channel: Channel, server_side: bool
) -> Subscription:
    """A subscription of a client that has connected."""
    assert session.info is not None, "the client has connected"
    return Subscription(
        session,
        channel,
        terms,
        with_channel_info(session.info, terms.info),
        server_side,
        terms.positioning or terms.recovery,
        terms.expire_at,
    )


def with_channel_info(info: ClientInfo, chan_info: Raw | UnsetType) -> ClientInfo:
    """A client as it is seen in one channel."""
    if isinstance(chan_info, UnsetType):
        return info
    return ClientInfo(info.client, info.user, info.conn_info, chan_info)


class Session:
    """State of one client, from its transport's opening to its end.

    There are tens of thousands of them, so a session owns nothing that it may not need: channels
    are shared objects, subscriptions are in a tuple, the inbox exists only while a command waits.
    """

    __slots__ = (
        "address",
        "bucket",
        "client",
        "credentials",
        "ended",
        "endpoint",
        "expire_at",
        "headers",
        "inbox",
        "info",
        "slot",
        "subscriptions",
        "task",
        "token",
        "transport",
    )

    transport: Transport  # both are set by `Node.open`
    slot: int  # row in the heartbeat's table

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.client = ""  # its id, once somebody has asked
        self.info: ClientInfo | None = None  # None until the client has connected
        self.token = ""  # from the opening request, until the client has connected
        self.headers: dict[str, str] | None = None  # from there too, for the application
        self.address = ""  # IP address that the client comes from
        self.bucket: Bucket | None = None  # where commands are
        self.credentials: Credentials | None = None
        self.expire_at = 0.0  # Unix time; 0 for never
        self.subscriptions: tuple[Subscription, ...] = ()
        self.ended = False  # the node has said goodbye; the transport may still be closing
        self.task: Task[None] | None = None  # a command that waits for something
        self.inbox: deque[str | bytes] | None = None  # frames that came meanwhile

    @property
    def id(self) -> str:
        """The client id, also of one that has not connected; made when first asked for."""
        if not self.client:
            self.client = new_id()
        return self.client

    @property
    def user(self) -> str:
        """The user id; empty for anonymous clients, and until the client has connected."""
        return self.info.user if self.info is not None else ""

    def find(self, channel: Channel | None) -> Subscription | None:
        """The subscription to a channel, if there is one."""
        for subscription in self.subscriptions:
            if subscription.channel is channel:
                return subscription
        return None

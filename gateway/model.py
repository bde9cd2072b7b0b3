"""What flows through the gateway, whatever the protocol of the client and the engine behind it.

Field names are those of the Centrifuge protocol, which writes these objects out as they are.
Payloads stay raw JSON: the gateway checks that they are valid, and never builds objects of them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.channels.filters import FilterNode

Offset = Annotated[int, Meta(ge=0)]


class ClientInfo(Struct, frozen=True, gc=False, omit_defaults=True):
    """Who a client is, as other clients see it in presence, join, leave and publications."""

    client: str  # unique for each connection, made by the gateway
    user: str  # empty for an anonymous client
    conn_info: Raw | UnsetType = UNSET  # attached when the client connected
    chan_info: Raw | UnsetType = UNSET  # attached when it subscribed


class Publication(Struct, gc=False, omit_defaults=True):
    """A message in a channel."""

    data: Raw
    info: ClientInfo | None = None  # the publisher, when it is a client
    offset: int = 0  # place in the channel's history, from 1; 0 without history
    tags: dict[str, str] | None = None
    # On its way to a node's hub: it may be sent as a delta. In a push: the data is a delta.
    delta: bool = False


class StreamPosition(Struct, frozen=True, gc=False):
    """The newest place of a channel's history. ``epoch`` changes when offsets start anew."""

    offset: Offset = 0
    epoch: str = ""


class PresenceStats(Struct, frozen=True, gc=False):
    """How many are in a channel; a user with three tabs counts as one user and three clients."""

    num_clients: int
    num_users: int


class SubscribeRequest(Struct, gc=False):
    """What a client asks for when it subscribes."""

    channel: str = ""
    token: str = ""
    recover: bool = False  # what was published since `offset` and `epoch`
    epoch: str = ""
    offset: Offset = 0
    data: Raw | UnsetType = UNSET
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    tf: FilterNode | None = None  # which publications, by their tags
    flag: int = 0  # bits, see `MUST_RECOVER`
    delta: str = ""  # the kind of delta that it understands
    type: int = 0  # of subscription; ours are streams


def is_plain(request: SubscribeRequest) -> bool:
    """Whether a request is for what a channel gives to everybody, from now on."""
    return not (
        request.token
        or request.recover
        or request.positioned
        or request.recoverable
        or request.join_leave
        or request.tf is not None
        or request.flag
        or request.delta
        or request.type
    )


# In `SubscribeRequest.type`: the client wants the newest of what a backend is asked for.
SHARED_POLL = 4

# In `SubscribeRequest.flag`: rather an error than a subscription that has missed something.
MUST_RECOVER = 2


class Subscribed(Struct, gc=False, omit_defaults=True):
    """What a client is told of its new subscription."""

    expires: bool = False
    ttl: int = 0  # seconds
    recoverable: bool = False
    epoch: str = ""
    publications: list[Publication] = []
    recovered: bool = False  # nothing is missing between what the client had and `publications`
    offset: int = 0
    positioned: bool = False
    data: Raw | UnsetType = UNSET
    was_recovering: bool = False
    delta: bool = False  # publications come in the form for deltas


class Expiry(Struct, frozen=True, gc=False, omit_defaults=True):
    """When a connection or a subscription has to be refreshed."""

    expires: bool = False
    ttl: int = 0  # seconds


class Connected(Struct, gc=False):
    """What a client is told when it is let in."""

    info: ClientInfo
    expiry: Expiry
    subs: dict[str, Subscribed]
    data: Raw | UnsetType = UNSET  # from the application

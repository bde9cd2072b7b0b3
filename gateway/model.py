"""What flows through the gateway, whatever the protocol of the client and the engine behind it.

Field names are those of the Centrifuge protocol, which writes these objects out as they are.
Payloads stay raw JSON: the gateway checks that they are valid, and never builds objects of them.
"""

from __future__ import annotations

from msgspec import UNSET, Raw, Struct, UnsetType


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


class StreamPosition(Struct, frozen=True, gc=False):
    """The newest place of a channel's history. ``epoch`` changes when offsets start anew."""

    offset: int = 0
    epoch: str = ""


class PresenceStats(Struct, frozen=True, gc=False):
    """How many are in a channel; a user with three tabs counts as one user and three clients."""

    num_clients: int
    num_users: int

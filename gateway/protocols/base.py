"""What the rest of the gateway knows of a client protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Raw

from gateway.codes import Unsubscribe
from gateway.model import ClientInfo, Expiry, Publication, Subscribed

if TYPE_CHECKING:
    from gateway.session import Session


class ClientProtocol(Protocol):
    """Frames into commands, events into frames. One stateless object for all its clients."""

    ping: bytes  # the frame that asks a client whether it is there

    def receive(self, session: Session, frame: str | bytes) -> None:
        """Take one frame from a client. A client's fault is answered, never raised."""

    def publication(self, channel: str, publication: Publication) -> bytes:
        """The frame that brings a publication to the subscribers of a channel."""

    def in_delta(self, publication: Publication, patch: bytes | None) -> Publication:
        """A publication in the form for clients that take deltas: as ``patch``, whole if None.

        It is a copy, which this protocol writes as it writes any publication.
        """

    def join(self, channel: str, info: ClientInfo) -> bytes:
        """The frame that tells that a client came into a channel."""

    def leave(self, channel: str, info: ClientInfo) -> bytes:
        """The frame that tells that a client left a channel."""

    def subscribed(self, channel: str, subscribed: Subscribed) -> bytes:
        """The frame that tells a client that it was put into a channel."""

    def unsubscribed(self, channel: str, why: Unsubscribe) -> bytes:
        """The frame that tells a client that it was taken out of a channel."""

    def refreshed(self, expiry: Expiry) -> bytes:
        """The frame that tells a client of another end of its connection."""

    def message(self, data: Raw) -> bytes:
        """The frame that brings a client what is for it alone."""

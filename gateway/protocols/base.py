"""What the rest of the gateway knows of a client protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.model import ClientInfo, Publication

if TYPE_CHECKING:
    from gateway.session import Session


class ClientProtocol(Protocol):
    """Frames into commands, events into frames. One stateless object for all its clients."""

    ping: bytes  # the frame that asks a client whether it is there

    def receive(self, session: Session, frame: str | bytes) -> None:
        """Take one frame from a client. A client's fault is answered, never raised."""

    def publication(self, channel: str, publication: Publication) -> bytes:
        """The frame that brings a publication to the subscribers of a channel."""

    def join(self, channel: str, info: ClientInfo) -> bytes:
        """The frame that tells that a client came into a channel."""

    def leave(self, channel: str, info: ClientInfo) -> bytes:
        """The frame that tells that a client left a channel."""

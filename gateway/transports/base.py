"""What the rest of the gateway knows of a transport."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol

from gateway.protocols.base import ClientProtocol


class Transport(Protocol):
    """The way to one client. A WebSocket connection of `fastws` is one as it stands.

    Neither method ever blocks; after ``close`` nothing more is sent.
    """

    def send(self, message: bytes, text: bool | None = None, /) -> Any: ...

    def close(self, code: int, reason: str, /) -> Any: ...


class Gone:
    """The transport of a session whose client is gone: it takes everything and does nothing."""

    def send(self, message: bytes, text: bool | None = None, /) -> None:
        pass

    def close(self, code: int, reason: str, /) -> None:
        pass


GONE = Gone()


class Endpoint(Protocol):
    """A door of the gateway: one transport and one client protocol, shared by its sessions."""

    protocol: ClientProtocol

    def fan_out(self, transports: Iterable[Transport], payload: bytes) -> None:
        """Send one payload to many clients, framed once. Skips closed ones."""

    def fan_out_ready(
        self, transports: Iterable[Transport], payload: bytes
    ) -> Collection[Transport]:
        """The same to those who read fast enough, and the others, who do not get it.

        The node's hub is told with `Hub.drained` when one of those can take more again.
        """

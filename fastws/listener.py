"""The fast style: callbacks instead of a coroutine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Listener"]


class Listener:
    """Base of the callbacks for a connection; override what is needed.

    They run one after the other in the loop's thread and must not block. An exception closes the
    connection with 1011 and is logged; others are not affected. ``serve`` and ``connect`` take a
    subclass (one instance per connection), a factory without arguments, or one instance that all
    connections share.
    """

    def on_open(self, ws: Connection) -> None:
        """The handshake is done. ``ws.request`` is kept for later only if it is read here."""

    def on_message(self, ws: Connection, message: str | bytes) -> None:
        """A whole message: ``str`` for text, ``bytes`` for binary."""

    def on_pong(self, ws: Connection, payload: bytes) -> None:
        """A pong that the library did not ask for itself."""

    def on_drain(self, ws: Connection) -> None:
        """The queue fell to the low-water mark after it had passed the high one."""

    def on_overflow(self, ws: Connection) -> None:
        """The queue passed ``max_backlog`` and was dropped. Close with a code of your own here;
        else it is 1008.
        """

    def on_close(self, ws: Connection, code: int, reason: str) -> None:
        """The connection is gone: what the peer's close frame said; 1005 if it gave no code, 1006
        if none came.
        """


def listener_factory(listener: Any) -> Callable[[], Any] | None:
    """What makes the listener of each connection from a class or an instance; else ``None``."""
    if isinstance(listener, Listener):
        return lambda: listener
    if isinstance(listener, type):
        return listener
    return None


def hook(listener: Any, name: str) -> Any:
    """The callback ``name`` of ``listener`` if it has one of its own, else ``None``."""
    if listener is None:
        return None
    own = getattr(type(listener), name, None)
    if own is None:
        return getattr(listener, name, None)
    if own is getattr(Listener, name):
        return None
    return getattr(listener, name)

"""What belongs to a loop: its reactor, and the reactor's poller."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from ._impl import COMPILED, Carrier, Reactor

__all__ = ["new_poller", "reactor_of", "tls_carrier"]

# More connections than this in one process need more than one process anyway.
_MAX_CONNECTIONS: Final = 1 << 20


def reactor_of(loop: asyncio.AbstractEventLoop) -> Reactor:
    """The reactor of ``loop``, made on first use; it lives and dies with the loop."""
    reactor: Reactor | None = getattr(loop, "_fastws_reactor", None)
    if reactor is None:
        reactor = Reactor(loop, _descriptor_limit())
        loop._fastws_reactor = reactor  # type: ignore[attr-defined]
    return reactor


def _descriptor_limit() -> int:
    """Connections that this process can ever have: what it may raise its limit of open files to."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 65536
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return min(limit, _MAX_CONNECTIONS)


def new_poller(reactor: Reactor) -> Any:
    """The epoll carrier of ``reactor``, made on first use.

    ``None`` where there is none: in the pure build, and not on Linux.
    """
    if reactor.poller is None and COMPILED:
        try:
            from ._poller import Poller
        except ModuleNotFoundError:
            return None
        reactor.poller = Poller(reactor)
    return reactor.poller


def tls_carrier(
    poller: Any,
    context: ssl.SSLContext,
    *,
    server_side: bool = True,
    server_hostname: str | None = None,
) -> Carrier:
    """A carrier of one connection over TLS in ``poller``, for ``poller.adopt()`` or to accept with.

    ``ValueError`` for a ``server_hostname`` that cannot be one, or that ``context`` needs.
    """
    from ._tls import TlsCarrier

    return TlsCarrier(poller, context, server_side=server_side, server_hostname=server_hostname)

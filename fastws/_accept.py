"""Accepting where a connection needs something before its carrier.

That is a PROXY header, which is read from the socket itself so that carriers and TLS begin behind
it, or a TLS context that may have been replaced since, which asyncio's own servers cannot do. Other
listening sockets are the poller's or asyncio's.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from .networks import Networks
from .proxy_protocol import InvalidProxyHeader, ProxiedAddresses, parse_proxy_header

__all__ = ["Acceptor"]

# Connections accepted per wake-up.
_BATCH: Final = 64
# Out of descriptors, memory or room: seconds until it is tried again.
_PAUSE: Final = 0.25
# Connections whose header has not come in full; one more, and the oldest goes. A proxy sends the
# header at once.
_WAITING: Final = 1024
# Seconds between complaints about headers.
_COMPLAINT_PERIOD: Final = 5.0

Take = Callable[[socket.socket, "ProxiedAddresses | None"], None]


class Acceptor:
    """One listening socket.

    Args:
        take: called with each accepted socket (non-blocking, its owner from then on), and with what
            the PROXY header said, ``None`` if there was none. ``OverflowError``: no room for it.
        networks: peers that have to send a PROXY header; others must not.
        timeout: seconds for the header; ``None``: any time.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        take: Take,
        *,
        networks: Networks | None,
        timeout: float | None,
        logger: logging.Logger,
    ) -> None:
        self.sock = sock
        self.refused = 0  # connections without a good header
        self._loop = loop
        self._take = take
        self._networks = networks
        self._timeout = timeout
        self._logger = logger
        self._waiting: dict[_Waiting, None] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._complained = False
        self._next_complaint = 0.0
        loop.add_reader(sock.fileno(), self._ready)

    def close(self) -> None:
        """Stop accepting and close the socket, and those whose header has not come."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        else:
            self._loop.remove_reader(self.sock.fileno())
        self.sock.close()
        for each in list(self._waiting):
            each.end()

    def _ready(self) -> None:
        for _ in range(_BATCH):
            try:
                sock, address = self.sock.accept()
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error.errno or 0)
                return
            sock.setblocking(False)
            if self._networks is None or address not in self._networks:
                self._give(sock, None)
            else:
                if len(self._waiting) >= _WAITING:
                    oldest = next(iter(self._waiting))
                    self.refuse(oldest, "too many connections wait for a PROXY header")
                _Waiting(self, sock, address).read()
            if self._retry is not None or self.sock.fileno() < 0:
                return  # no room, or closed by what it took

    def _give(self, sock: socket.socket, addresses: ProxiedAddresses | None) -> None:
        try:
            self._take(sock, addresses)
        except OverflowError:
            if self._retry is None and self.sock.fileno() >= 0:
                self._pause(errno.EMFILE)
        else:
            self._complained = False

    def _pause(self, error: int) -> None:
        if not self._complained:
            self._complained = True
            self._logger.error("not accepting connections for now: %s", os.strerror(error))
        self._loop.remove_reader(self.sock.fileno())
        self._retry = self._loop.call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self.sock.fileno(), self._ready)

    # --- of those that wait

    def wait(self, waiting: _Waiting) -> None:
        """Its header has not come in full."""
        self._waiting[waiting] = None
        self._loop.add_reader(waiting.sock.fileno(), waiting.read)
        if self._timeout is not None:
            waiting.timer = self._loop.call_later(self._timeout, waiting.give_up)

    def forget(self, waiting: _Waiting) -> None:
        """It waits no more, if it did."""
        if waiting in self._waiting:
            del self._waiting[waiting]
            self._loop.remove_reader(waiting.sock.fileno())
            if waiting.timer is not None:
                waiting.timer.cancel()

    def is_waiting(self, waiting: _Waiting) -> bool:
        return waiting in self._waiting

    def take(self, waiting: _Waiting, addresses: ProxiedAddresses) -> None:
        """Its header has come."""
        self.forget(waiting)
        self._give(waiting.sock, addresses)

    def refuse(self, waiting: _Waiting, reason: str) -> None:
        """Close it. Nothing is answered: what it speaks is not known."""
        waiting.end()
        self.refused += 1
        now = time.monotonic()
        if now >= self._next_complaint:
            self._next_complaint = now + _COMPLAINT_PERIOD
            self._logger.warning(
                "connection from proxy %s refused: %s (%d so far)",
                waiting.address or "on a Unix socket",
                reason,
                self.refused,
            )


class _Waiting:
    """A connection whose PROXY header is being read."""

    __slots__ = ("address", "data", "owner", "sock", "timer")

    def __init__(self, owner: Acceptor, sock: socket.socket, address: Any) -> None:
        self.owner = owner
        self.sock = sock
        self.address = address
        self.data = b""
        self.timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        self.owner.forget(self)
        self.sock.close()

    def give_up(self) -> None:
        self.owner.refuse(self, "its PROXY header did not come in time")

    def read(self) -> None:
        """Take from the socket what belongs to the header, and not a byte more."""
        owner, before = self.owner, len(self.data)
        try:
            ahead = self.sock.recv(4096, socket.MSG_PEEK)
            if not ahead:
                self.end()  # a health check that only connects
                return
            found = parse_proxy_header(self.data + ahead)
            own = len(ahead) if found is None else found[1] - before
            self.data += self.sock.recv(own)
        except (BlockingIOError, InterruptedError):
            found = None
        except InvalidProxyHeader as error:
            owner.refuse(self, str(error))
            return
        except OSError:
            self.end()
            return
        if found is not None:
            owner.take(self, found[0])
        elif not owner.is_waiting(self):
            owner.wait(self)

"""Listening sockets, bound but not yet listening."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["bind", "unlink_socket"]


async def bind(
    host: str | Sequence[str] | None,
    port: int,
    *,
    family: int = 0,
    flags: int = socket.AI_PASSIVE,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
) -> list[socket.socket]:
    """Sockets bound to every address of ``host``; with port 0, all to the same free port.

    ``family`` and ``flags`` are those of ``getaddrinfo``; the others as for ``loop.create_server``.
    """
    if reuse_address is None:
        reuse_address = os.name == "posix" and sys.platform != "cygwin"
    loop = asyncio.get_running_loop()
    hosts = [host] if host is None or isinstance(host, str) else list(host)
    addresses: dict[tuple[Any, ...], None] = {}
    for name in hosts:
        for found in await loop.getaddrinfo(
            name or None, port, family=family, type=socket.SOCK_STREAM, flags=flags
        ):
            addresses[(found[0], *found[4])] = None
    sockets: list[socket.socket] = []
    try:
        for kind, *parts in addresses:
            address: list[Any] = parts
            try:
                sock = socket.socket(kind, socket.SOCK_STREAM)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:
                    continue  # IPv6 is switched off
                raise
            sockets.append(sock)
            if reuse_address:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if kind == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(sockets) > 1:
                address[1] = sockets[0].getsockname()[1]
            try:
                sock.bind(tuple(address))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(addresses) > 1:
                    sockets.pop().close()
                    continue
                text = f"cannot listen on {tuple(address)}: {error.strerror}"
                raise OSError(error.errno, text) from None
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {host}: no address is available")
    return sockets


def unlink_socket(path: str) -> None:
    """Remove the socket file at ``path``, if there is one; never another kind of file."""
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass

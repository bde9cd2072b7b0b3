"""TCP connections to a host that may have several addresses (RFC 8305)."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final

__all__ = ["dial", "dial_unix", "set_nodelay"]

# Before the next address is tried beside the one that has not answered (RFC 8305 5, 8).
ATTEMPT_DELAY: Final = 0.25  # seconds

Address = tuple[Any, ...]  # family, then what connect() takes


async def dial(
    host: str,
    port: int,
    *,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    local_addr: tuple[str, int] | None = None,
    attempt_delay: float | None = ATTEMPT_DELAY,
    interleave: int = 1,
) -> socket.socket:
    """A connected, non-blocking socket.

    The addresses of ``host`` are tried in turn, IPv6 and IPv4 by turns after ``interleave`` of the
    first family (0: in the order of the look-up), each ``attempt_delay``
    seconds after the one before, or when that one has failed; the first that answers is taken.
    ``None``: only when it has failed. ``OSError`` if none answers.
    """
    how = (family, proto, flags)
    addresses = await _resolve(host, port, *how)
    if interleave:
        addresses = _interlaced(addresses, interleave)
    local = await _resolve(*local_addr, *how) if local_addr is not None else []
    if len(addresses) == 1:
        sock = await _attempt(addresses[0], local)
    else:
        sock = await _first_answer(addresses, local, attempt_delay)
    set_nodelay(sock)
    return sock


async def dial_unix(path: Any) -> socket.socket:
    """A connected, non-blocking Unix socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, path)
    except BaseException:
        sock.close()
        raise
    return sock


def set_nodelay(sock: socket.socket) -> None:
    """A message shall not wait for the acknowledgement of the one before."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def _resolve(host: str, port: int, family: int, proto: int, flags: int) -> list[Address]:
    try:
        # An address needs no thread, which is what look-ups run in.
        found = socket.getaddrinfo(
            host, port, family, socket.SOCK_STREAM, proto, flags=flags | socket.AI_NUMERICHOST
        )
    except (socket.gaierror, UnicodeError):
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM, proto=proto, flags=flags
        )
    return [(item[0], *item[4]) for item in found]


def _interlaced(addresses: Sequence[Address], count: int) -> list[Address]:
    """Families by turns after ``count`` of that of the first; else in order (RFC 8305 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    pairs = itertools.zip_longest(first[count - 1 :], others)
    turns = [address for pair in pairs for address in pair if address is not None]
    return first[: count - 1] + turns


async def _first_answer(
    addresses: Iterable[Address], local: Sequence[Address], delay: float | None
) -> socket.socket:
    waiting = list(addresses)
    attempts: set[asyncio.Task[socket.socket]] = set()
    answered: list[socket.socket] = []
    errors: list[OSError] = []
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.ensure_future(_attempt(waiting.pop(0), local)))
            done, attempts = await asyncio.wait(
                attempts,
                timeout=delay if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            _sort(done, answered, errors)
            if answered:
                return answered.pop(0)
        raise _combined(errors)
    finally:
        for attempt in attempts:
            attempt.cancel()
        if attempts:
            _sort((await asyncio.wait(attempts))[0], answered, errors)
        for sock in answered:  # those that came second
            sock.close()


def _sort(
    done: Iterable[asyncio.Task[socket.socket]],
    answered: list[socket.socket],
    errors: list[OSError],
) -> None:
    for attempt in done:
        if attempt.cancelled():
            continue
        error = attempt.exception()
        if error is None:
            answered.append(attempt.result())
        elif isinstance(error, OSError):
            errors.append(error)
        else:
            raise error


async def _attempt(address: Address, local: Sequence[Address]) -> socket.socket:
    family, *where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        ours = [tuple(rest) for kind, *rest in local if kind == family]
        if local and not ours:
            raise OSError(errno.EADDRNOTAVAIL, "no local address of this family")
        if ours:
            sock.bind(ours[0])
        await asyncio.get_running_loop().sock_connect(sock, tuple(where))
    except OSError as error:
        sock.close()
        # Of the class that fits the number, as the one that was raised.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, f"cannot connect to {_named(where)}: {reason}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _named(where: Sequence[Any]) -> str:
    host, port = where[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _combined(errors: list[OSError]) -> OSError:
    if len(errors) == 1:
        return errors[0]
    return OSError(errors[0].errno, "; ".join(str(error.strerror) for error in errors))

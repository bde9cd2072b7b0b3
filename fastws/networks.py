"""Networks that are believed: where proxies of ours are."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

__all__ = ["Networks"]

UNIX = "unix"


class Networks:
    """A set of addresses: ``address in networks``.

    Args:
        networks: addresses and networks in CIDR notation (RFC 4632 3.1, RFC 4291 2.3), such as
            ``"10.0.0.0/8"``, ``"::1"``; and ``"unix"`` for every peer on a Unix socket.

    Raises:
        ValueError: one of them is neither.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self.unix = False
        found: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for text in networks:
            if text == UNIX:
                self.unix = True
                continue
            try:
                found.append(ipaddress.ip_network(text))
            except ValueError as error:
                raise ValueError(f"{text!r} is no address, network or {UNIX!r}: {error}") from None
        self._networks = tuple(found)

    def __bool__(self) -> bool:
        return self.unix or bool(self._networks)

    def __contains__(self, address: Any) -> bool:
        """``address``: as ``socket.getpeername()`` gives it, or an IP address as text."""
        if isinstance(address, tuple):
            address = address[0]
        elif not _looks_like_ip(address):
            return self.unix
        if not self._networks:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped  # of a socket for both (RFC 4291 2.5.5.2)
        return any(ip in network for network in self._networks)


def _looks_like_ip(address: Any) -> bool:
    """Whether it is meant as one. The peer of a Unix socket is empty, a path or bytes."""
    return isinstance(address, str) and bool(address) and "/" not in address

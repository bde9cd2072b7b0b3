"""The PROXY protocol, both versions: a proxy says who its client is, before the client's bytes.

The specification is HAProxy's ``doc/proxy-protocol.txt`` (2020/03/05); sections below are its own.
This side only receives.
"""

from __future__ import annotations

import ipaddress
import os
import re
import struct
from typing import Any, Final, NamedTuple

__all__ = ["InvalidProxyHeader", "ProxiedAddresses", "parse_proxy_header"]

_V1_BEGIN: Final = b"PROXY "
_V1_LIMIT: Final = 107  # bytes with the line's end (section 2.1)
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r]*)?|(TCP[46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) "
    rb"(0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)

_V2_BEGIN: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD: Final = 16
# Addresses take 216 bytes at most; the rest is extensions, the largest being a client's
# certificate.
_V2_LIMIT: Final = 4096

_LOCAL, _PROXY = 0x20, 0x21  # version and command
_UNSPEC, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31  # family and transport


class InvalidProxyHeader(ValueError):
    """A connection that does not begin as the PROXY protocol wants."""


class ProxiedAddresses(NamedTuple):
    """Both ends of the proxy's own connection, as ``getpeername()`` and ``getsockname()`` there.

    ``None`` when the proxy speaks for itself (a health check), or does not know.
    """

    source: Any = None
    destination: Any = None


def parse_proxy_header(data: bytes) -> tuple[ProxiedAddresses, int] | None:
    """Read a header from the front of ``data``.

    Returns the addresses and the length of the header in bytes, ``None`` if there is more to come
    (then all of ``data`` belongs to it). Extensions (TLVs, section 2.2) are passed over.

    Raises:
        InvalidProxyHeader: this is none, or it is longer than 107 (version 1) or 4,096 bytes.
    """
    if data.startswith(_V1_BEGIN):
        return _parse_v1(data)
    if data.startswith(_V2_BEGIN):
        return _parse_v2(data)
    if _V1_BEGIN.startswith(data) or _V2_BEGIN.startswith(data):
        return None
    raise InvalidProxyHeader("there is no PROXY header")


def _parse_v1(data: bytes) -> tuple[ProxiedAddresses, int] | None:
    end = data.find(b"\r\n", 0, _V1_LIMIT)
    if end < 0:
        if len(data) >= _V1_LIMIT:
            raise InvalidProxyHeader(f"a line of more than {_V1_LIMIT} bytes")
        return None
    size = end + 2
    match = _V1.fullmatch(data, 0, size)
    if match is None:
        raise InvalidProxyHeader("the line is not as section 2.1 wants it")
    if match[1] is None:
        return ProxiedAddresses(), size
    family, *addresses = (group.decode("ascii") for group in match.groups())
    try:
        hosts = [_canonical(family == "TCP6", text) for text in addresses[:2]]
    except ValueError as error:
        raise InvalidProxyHeader(str(error)) from None
    ports = [int(text) for text in addresses[2:]]
    if max(ports) > 65535:
        raise InvalidProxyHeader("a port above 65535")
    return ProxiedAddresses(*map(_endpoint, hosts, ports)), size


def _canonical(is_v6: bool, text: str) -> str:
    return str(ipaddress.IPv6Address(text) if is_v6 else ipaddress.IPv4Address(text))


def _endpoint(host: str, port: int) -> tuple[Any, ...]:
    return (host, port, 0, 0) if ":" in host else (host, port)


def _parse_v2(data: bytes) -> tuple[ProxiedAddresses, int] | None:
    if len(data) < _V2_HEAD:
        return None
    command, kind, length = struct.unpack_from("!BBH", data, len(_V2_BEGIN))
    if command not in (_LOCAL, _PROXY):
        raise InvalidProxyHeader(f"version and command 0x{command:02x} are not known")
    size = _V2_HEAD + length
    if size > _V2_LIMIT:
        raise InvalidProxyHeader(f"a header of {size} bytes, more than {_V2_LIMIT}")
    if len(data) < size:
        return None
    if command == _LOCAL or kind == _UNSPEC:
        return ProxiedAddresses(), size
    return _parse_addresses(kind, data[_V2_HEAD:size]), size


def _parse_addresses(kind: int, data: bytes) -> ProxiedAddresses:
    needed = {_TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}.get(kind)
    if needed is None:
        raise InvalidProxyHeader(f"family and transport 0x{kind:02x} are no stream")
    if len(data) < needed:
        raise InvalidProxyHeader(f"{len(data)} bytes of addresses where {needed} are needed")
    if kind == _UNIX_STREAM:
        paths = (data[:108], data[108:216])
        return ProxiedAddresses(*(os.fsdecode(path.partition(b"\0")[0]) for path in paths))
    half = 4 if kind == _TCP4 else 16
    hosts = (str(ipaddress.ip_address(data[at : at + half])) for at in (0, half))
    return ProxiedAddresses(*map(_endpoint, hosts, struct.unpack_from("!HH", data, 2 * half)))

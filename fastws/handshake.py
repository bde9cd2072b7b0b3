"""The server's side of the opening handshake (RFC 6455 4.2), without I/O.

The client's is ``client_handshake``.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Sequence

from ._impl import Head
from .exceptions import InvalidHandshake, InvalidHeader, InvalidOrigin
from .http import Response

__all__ = [
    "accept_key",
    "check_head",
    "check_origin",
    "check_subprotocols",
    "offered_subprotocols",
    "refusal",
]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: "
)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

Origins = Sequence[str | re.Pattern[str] | None]


def accept_key(key: bytes) -> bytes:
    """``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455 4.2.2, 5.4)."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)


def switching(key: bytes, lines: bytes = b"") -> bytes:
    """The 101 response; ``lines`` are further header lines, each with its CRLF."""
    return b"".join((_SWITCHING, accept_key(key), b"\r\n", lines, b"\r\n"))


def check_head(head: Head) -> None:
    """``InvalidHandshake`` unless ``head`` is a valid opening handshake."""
    if head.fault is None:
        return
    status, message = head.fault
    headers: tuple[tuple[str, str], ...] = ()
    if status == 426:
        headers = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
    raise InvalidHeader(message, status=status, headers=headers)


def check_origin(head: Head, origins: Origins) -> None:
    """``InvalidOrigin`` (403) unless the ``Origin`` header is one of ``origins``.

    ``None`` in ``origins`` allows requests without the header: clients that are not browsers.
    """
    if head.origins > 1:
        raise InvalidOrigin("more than one Origin header")
    if head.origin is None:
        if None not in origins:
            raise InvalidOrigin("header Origin is missing")
        return
    origin = head.origin.decode("latin-1")
    for allowed in origins:
        if allowed == origin or (isinstance(allowed, re.Pattern) and allowed.fullmatch(origin)):
            return
    raise InvalidOrigin("this origin may not connect")


def offered_subprotocols(values: Sequence[str]) -> list[str]:
    """What ``Sec-WebSocket-Protocol`` lines offer, in order (RFC 6455 11.3.4)."""
    offered = [item.strip(" \t") for value in values for item in value.split(",")]
    for item in offered:
        if not _TOKEN.fullmatch(item):
            raise InvalidHeader("malformed Sec-WebSocket-Protocol header")
    return offered


def check_subprotocols(subprotocols: Sequence[str]) -> None:
    """``ValueError`` for one that cannot be offered (RFC 6455 4.1); ``TypeError`` for a str."""
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols must be a list")
    for name in subprotocols:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"subprotocols: {name!r} is not a token (RFC 9110 5.6.2)")


def refusal(error: InvalidHandshake) -> Response:
    """The response that says why a handshake failed."""
    return Response.of_text(
        error.status, f"Failed to open a WebSocket connection: {error}.\n", error.headers
    )

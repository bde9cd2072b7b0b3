"""The head of an HTTP/1.1 request, and whether it asks for a WebSocket (RFC 9112, RFC 6455 4.2.1).

The twin of ``fastws._head``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .._grammar import is_field_value, is_token
from ..exceptions import InvalidMessage

__all__ = ["MAX_HEAD", "MAX_LINES", "Head", "parse_head"]

MAX_HEAD: Final = 16384  # bytes
MAX_LINES: Final = 128

_MAX_EMPTY: Final = 8  # bytes of empty lines ignored before the request line

_is_target = re.compile(rb"[\x21-\x7e\x80-\xff]+").fullmatch
_is_version = re.compile(rb"HTTP/[0-9]\.[0-9]").fullmatch  # RFC 9112 2.3
# 16 bytes in base64 (RFC 6455 4.2.1).
_is_key = re.compile(rb"[0-9A-Za-z+/]{22}==").fullmatch


class Head:
    """A request head.

    Attributes:
        raw: the head, with the empty line that ends it.
        size: bytes to skip to what follows it.
        wants_websocket: there is an ``Upgrade`` header with ``websocket`` in it.
        fault: ``None`` if it is a valid opening handshake, else (HTTP status, what is wrong).
        key: ``Sec-WebSocket-Key``, once known to be 16 bytes in base64; else ``None``.
        origin: the ``Origin`` header, or ``None``; ``origins`` counts them.
        extensions: the ``Sec-WebSocket-Extensions`` header, several lines joined by commas, or
            ``None``.
    """

    __slots__ = (
        "extensions",
        "fault",
        "key",
        "origin",
        "origins",
        "raw",
        "size",
        "wants_websocket",
    )

    def __init__(self, raw: bytes, size: int, lines: _Lines) -> None:
        self.raw = raw
        self.size = size
        self.wants_websocket = _has_token(lines.upgrade, b"websocket")
        self.origins = len(lines.origin)
        self.origin = lines.origin[-1] if lines.origin else None
        self.extensions = b", ".join(lines.extensions) if lines.extensions else None
        self.fault = _fault(raw, lines)
        self.key = lines.key[0] if self.fault is None else None

    @property
    def method(self) -> str:
        return self.raw[: self.raw.index(b" ")].decode("ascii")

    @property
    def target(self) -> str:
        """The request target as sent: path and query, not decoded."""
        return self.raw.split(b" ", 2)[1].decode("utf-8", "surrogateescape")

    def lines(self) -> list[tuple[str, str]]:
        """The header lines in order, as (name, value); values as ISO-8859-1 (RFC 9110 5.5)."""
        found = []
        for line in self.raw[:-4].split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            found.append((name.decode("ascii"), value.strip(b" \t").decode("latin-1")))
        return found


class _Lines:
    """Values of the header lines that the handshake needs, by name, in order."""

    __slots__ = ("connection", "extensions", "host", "key", "origin", "upgrade", "version")

    def __init__(self) -> None:
        self.upgrade: list[bytes] = []
        self.connection: list[bytes] = []
        self.key: list[bytes] = []
        self.version: list[bytes] = []
        self.host: list[bytes] = []
        self.origin: list[bytes] = []
        self.extensions: list[bytes] = []

    def take(self, name: bytes, value: bytes) -> None:
        attribute = _NEEDED.get(name.lower())
        if attribute is not None:
            getattr(self, attribute).append(value.strip(b" \t"))


_NEEDED: Final = {
    b"upgrade": "upgrade",
    b"connection": "connection",
    b"sec-websocket-key": "key",
    b"sec-websocket-version": "version",
    b"host": "host",
    b"origin": "origin",
    b"sec-websocket-extensions": "extensions",
}


def parse_head(data: bytes) -> Head | None:
    """The head that ``data`` begins with; ``None`` if it goes on.

    ``InvalidMessage`` (status 400, 431 or 505) as soon as it cannot become an HTTP/1.1 request head
    of at most 16,384 bytes and 128 lines.
    """
    # CRLF before the request line is ignored (RFC 9112 2.2).
    begin = 0
    while begin < _MAX_EMPTY and data.startswith(b"\r\n", begin):
        begin += 2
    first = data[begin : begin + 1]
    if first and first != b"\r" and not is_token(first):
        raise InvalidMessage("not an HTTP request")

    stop = data.find(b"\r\n", begin)
    if stop < 0:
        _check_unfinished(data, begin, begin)
        return None
    _check_request_line(data[begin:stop])
    lines = _Lines()
    count = 0
    while True:
        at = stop + 2
        stop = data.find(b"\r\n", at)
        if stop < 0:
            _check_unfinished(data, begin, at)
            return None
        if stop + 2 - begin > MAX_HEAD:
            raise _too_long()
        if stop == at:
            return Head(data[begin : stop + 2], stop + 2, lines)
        count += 1
        if count > MAX_LINES:
            raise InvalidMessage(f"more than {MAX_LINES} header lines", status=431)
        name, colon, value = data[at:stop].partition(b":")
        # No space before the colon, no folded lines (RFC 9112 5.1, 5.2): neither is a name
        # character.
        if not colon or not is_token(name):
            raise InvalidMessage(f"malformed header line {count}")
        if not is_field_value(value):
            raise InvalidMessage(f"malformed value in header line {count}")
        lines.take(name, value)


def _check_request_line(line: bytes) -> None:
    """request-line = method SP request-target SP HTTP-version (RFC 9112 3)"""
    parts = line.split(b" ", 2)
    if (
        len(parts) != 3
        or not is_token(parts[0])
        or not _is_target(parts[1])
        or not _is_version(parts[2])
    ):
        raise InvalidMessage("malformed request line")
    if not parts[2].startswith(b"HTTP/1."):
        raise InvalidMessage("HTTP version is not 1.1", status=505)


def _check_unfinished(data: bytes, begin: int, at: int) -> None:
    """The line at ``at`` has no CRLF yet: refuse the head if it cannot become one."""
    if len(data) - begin > MAX_HEAD:
        raise _too_long()
    if data.find(b"\n", at) >= 0:
        raise InvalidMessage("line of the request head ends without CR")


def _too_long() -> InvalidMessage:
    return InvalidMessage(f"request head of more than {MAX_HEAD} bytes", status=431)


def _has_token(values: Sequence[bytes], token: bytes) -> bool:
    """Whether a list, by commas and on several lines, has ``token`` (RFC 9110 5.3, 5.6.1)."""
    return any(
        item.strip(b" \t").lower() == token for value in values for item in value.split(b",")
    )


def _fault(raw: bytes, lines: _Lines) -> tuple[int, str] | None:
    """Why this is no opening handshake (RFC 6455 4.2.1), with the HTTP status that says so."""
    if not raw.startswith(b"GET "):
        return 400, "method is not GET"
    if raw[: raw.index(b"\r")].endswith(b"0"):
        return 400, "HTTP version is 1.0; a WebSocket needs 1.1"
    if not lines.upgrade:
        return 400, "header Upgrade: websocket is missing"
    if not _has_token(lines.upgrade, b"websocket"):
        return 400, "header Upgrade does not name websocket"
    if not lines.connection:
        return 400, "header Connection: Upgrade is missing"
    if not _has_token(lines.connection, b"upgrade"):
        return 400, "header Connection does not name Upgrade"
    for name, values in (("Host", lines.host), ("Sec-WebSocket-Version", lines.version)):
        if len(values) != 1:
            return 400, _not_once(name, values)
    if lines.version[0] != b"13":
        return 426, "Sec-WebSocket-Version is not 13"
    if len(lines.key) != 1:
        return 400, _not_once("Sec-WebSocket-Key", lines.key)
    if not _is_key(lines.key[0]):
        return 400, "Sec-WebSocket-Key is not 16 bytes in base64"
    return None


def _not_once(name: str, values: Sequence[bytes]) -> str:
    return f"more than one {name} header" if values else f"header {name} is missing"

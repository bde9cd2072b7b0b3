"""An HTTP/1.1 response, as its bytes come, with strict limits (RFC 9112); without I/O."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

from ._grammar import is_field_value, is_token
from .exceptions import InvalidMessage
from .http import Headers, Response

__all__ = ["MAX_BODY", "ResponseParser"]

MAX_HEAD: Final = 16384  # bytes, interim responses included
MAX_LINES: Final = 128
MAX_BODY: Final = 65536  # bytes kept of a body; what follows is not waited for

_VERSION: Final = b"HTTP/1."
_is_status_line = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?"  # RFC 9112 4
).fullmatch
_is_size_line = re.compile(
    rb"([0-9A-Fa-f]{1,8})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]{0,256})?"  # RFC 9112 7.1
).fullmatch
_MAX_SIZE_LINE: Final = 300


class ResponseParser:
    """One response.

    Args:
        switching: statuses that end with their head: what follows is another protocol, and left in
            ``rest``.

    Attributes:
        minor: of HTTP/1.0 or 1.1.
        rest: bytes behind the head of a switching response.
    """

    def __init__(self, switching: Container[int]) -> None:
        self.minor = 1
        self.rest = b""
        self._response: Response | None = None
        self._switching = switching
        self._unread = b""
        self._interim = 0  # bytes of interim responses
        self._body: _Body | None = None

    @property
    def begun(self) -> bool:
        """Whether the head is there."""
        return self._response is not None

    @property
    def response(self) -> Response | None:
        """There as soon as the head is, with what has come of its body: at most ``MAX_BODY``
        bytes.
        """
        if self._response is not None and self._body is not None:
            self._response.body = bytes(self._body.data)
        return self._response

    def feed(self, data: bytes) -> bool:
        """Take bytes; whether the response is complete, as far as it is read.

        ``InvalidMessage`` as soon as they cannot become a response with a head of at most 16,384
        bytes and 128 lines.
        """
        if self._body is None:
            self._unread += data
            while self._body is None:
                taken = self._take_head()
                if not taken:
                    return False
                data, self._unread = self._unread, b""
                if self._body is None:
                    if self.begun:
                        self.rest = data
                        return True
                    self._unread = data  # behind an interim response
        return self._body.feed(data)

    def _take_head(self) -> bool:
        """Take a head from what is unread, if it is there."""
        data = self._unread
        limit = MAX_HEAD - self._interim
        if data[: len(_VERSION)] != _VERSION[: len(data)]:
            raise InvalidMessage("not an HTTP/1 response")
        end = data.find(b"\r\n\r\n", 0, limit)
        if end < 0:
            if len(data) >= limit:
                raise InvalidMessage(f"response head of more than {MAX_HEAD} bytes")
            if re.search(rb"(?<!\r)\n", data):
                raise InvalidMessage("line of the response head ends without CR")
            return False
        self._unread = data[end + 4 :]
        self.minor, response = _parse_head(data[:end])
        # Interim responses say nothing to us (RFC 9110 15.2).
        if response.status_code < 200 and response.status_code not in self._switching:
            self._interim += end + 4
            return True
        self._response = response
        if response.status_code not in self._switching:
            self._body = _body_of(response)
        return True


def _parse_head(head: bytes) -> tuple[int, Response]:
    """Minor version and response of a head without the empty line that ends it."""
    first, *lines = head.split(b"\r\n")
    status = _is_status_line(first)
    if status is None:
        raise InvalidMessage("malformed status line")
    if len(lines) > MAX_LINES:
        raise InvalidMessage(f"more than {MAX_LINES} header lines")
    headers = Headers()
    for count, line in enumerate(lines, 1):
        name, colon, value = line.partition(b":")
        # No space before the colon, no folded lines (RFC 9112 5.1, 5.2): neither is a token.
        if not colon or not is_token(name):
            raise InvalidMessage(f"malformed header line {count}")
        if not is_field_value(value):
            raise InvalidMessage(f"malformed value in header line {count}")
        headers[name.decode("ascii")] = value.strip(b" \t").decode("latin-1")
    phrase = (status[3] or b"").decode("latin-1")
    return int(status[1]), Response(int(status[2]), phrase, headers)


# --- bodies (RFC 9112 6.3); a wrong length costs us nothing: the connection ends with the response


class _Body:
    """A body that ends with the connection, or at its limit."""

    def __init__(self, limit: int = MAX_BODY) -> None:
        self.data = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> bool:
        """Whether it is complete."""
        self.data += data[: self._limit - len(self.data)]
        return len(self.data) >= self._limit


class _ChunkedBody(_Body):
    """RFC 9112 7.1; what breaks the coding ends the body."""

    def __init__(self) -> None:
        super().__init__()
        self._unread = b""
        self._left = 0  # bytes of the chunk, and of the CRLF behind it
        self._ended = False

    def feed(self, data: bytes) -> bool:
        self._unread += data
        while self._unread and not self._ended:
            if not self._left:
                line, end, rest = self._unread.partition(b"\r\n")
                if not end:
                    self._ended = len(line) > _MAX_SIZE_LINE
                    break
                size = _is_size_line(line)
                length = int(size[1], 16) if size else 0
                self._ended = length == 0
                self._left = length + 2
                self._unread = rest
            part = self._unread[: self._left]
            self._unread = self._unread[self._left :]
            super().feed(part[: max(self._left - 2, 0)])
            self._left -= len(part)
        return self._ended or len(self.data) >= self._limit


def _body_of(response: Response) -> _Body:
    headers = response.headers
    if response.status_code in (204, 304):
        return _Body(0)
    if headers.get_all("Transfer-Encoding"):
        chunked = headers.get_all("Transfer-Encoding")[-1].lower().endswith("chunked")
        return _ChunkedBody() if chunked else _Body()
    lengths = headers.get_all("Content-Length")
    if len(lengths) == 1 and lengths[0].isascii() and lengths[0].isdigit():
        # Not int(): a number of thousands of digits takes its time.
        digits = lengths[0].lstrip("0")
        return _Body(min(int(digits or "0"), MAX_BODY) if len(digits) < 10 else MAX_BODY)
    return _Body()

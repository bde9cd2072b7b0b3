"""The head of an HTTP/1.1 request, and whether it asks for a WebSocket (RFC 9112, RFC 6455 4.2.1).

One pass over the bytes checks the grammar and notes what the handshake needs; the header lines become Python objects
only if someone asks for them. ``fastws/_pure/head.py`` is the twin.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memset

from .exceptions import InvalidMessage

MAX_HEAD = 16384                      # bytes
MAX_LINES = 128

cdef enum:
    HEAD_LIMIT = 16384
    LINE_LIMIT = 128

cdef enum:
    NAME_CHAR = 1                     # tchar, RFC 9110 5.6.2
    VALUE_CHAR = 2                    # VCHAR, obs-text, SP, HTAB: RFC 9110 5.5
    TARGET_CHAR = 4
    BASE64_CHAR = 8

cdef uint8_t CLASS[256]


cdef void fill_classes() noexcept:
    cdef int char
    for char in range(256):
        CLASS[char] = 0
        if char == 9 or 0x20 <= char < 0x7F or char >= 0x80:
            CLASS[char] |= VALUE_CHAR
        if 0x21 <= char < 0x7F or char >= 0x80:
            CLASS[char] |= TARGET_CHAR
        if c'0' <= char <= c'9' or c'a' <= char <= c'z' or c'A' <= char <= c'Z':
            CLASS[char] |= NAME_CHAR | BASE64_CHAR
    for char in b"!#$%&'*+-.^_`|~":
        CLASS[char] |= NAME_CHAR
    for char in b"+/":
        CLASS[char] |= BASE64_CHAR


fill_classes()


cdef struct Span:
    const uint8_t *at
    Py_ssize_t length
    int count                         # header lines of that name


cdef bint is_space(const uint8_t *at) noexcept nogil:
    """OWS (RFC 9110 5.6.3)."""
    return at[0] == c' ' or at[0] == c'\t'


cdef bint same(const uint8_t *text, Py_ssize_t length, const char *lower) noexcept nogil:
    """ASCII comparison without regard to case; ``lower`` is lower-case and has ``length`` bytes."""
    cdef Py_ssize_t index
    cdef uint8_t char
    for index in range(length):
        char = text[index]
        if c'A' <= char <= c'Z':
            char |= 0x20
        if char != <uint8_t> lower[index]:
            return False
    return True


cdef bint has_token(Span *value, const char *token, Py_ssize_t size) noexcept nogil:
    """Whether a comma-separated list has ``token`` (RFC 9110 5.6.1)."""
    cdef const uint8_t *at = value.at
    cdef const uint8_t *end = value.at + value.length
    cdef const uint8_t *stop
    cdef const uint8_t *last
    while at < end:
        stop = at
        while stop < end and stop[0] != c',':
            stop += 1
        last = stop
        while at < last and is_space(at):
            at += 1
        while last > at and is_space(last - 1):
            last -= 1
        if last - at == size and same(at, size, token):
            return True
        at = stop + 1
    return False


cdef void note(Span *span, const uint8_t *at, Py_ssize_t length) noexcept nogil:
    span.count += 1
    span.at = at
    span.length = length


cdef bytes taken(Span *span):
    return PyBytes_FromStringAndSize(<const char *> span.at, span.length) if span.count else None


cdef class Head:
    """A request head.

    Attributes:
        raw: the head, with the empty line that ends it.
        size: bytes to skip to what follows it.
        wants_websocket: there is an ``Upgrade`` header with ``websocket`` in it.
        fault: ``None`` if it is a valid opening handshake, else (HTTP status, what is wrong).
        key: ``Sec-WebSocket-Key``, once known to be 16 bytes in base64; else ``None``.
        origin: the ``Origin`` header, or ``None``; ``origins`` counts them.
        extensions: the ``Sec-WebSocket-Extensions`` header, several lines joined by commas, or ``None``.
    """

    cdef readonly bytes raw
    cdef readonly Py_ssize_t size
    cdef readonly bytes key
    cdef readonly bytes origin
    cdef readonly bytes extensions
    cdef readonly int origins
    cdef readonly bint wants_websocket
    cdef readonly object fault

    @property
    def method(self) -> str:
        return self.raw[: self.raw.index(b" ")].decode("ascii")

    @property
    def target(self) -> str:
        """The request target as sent: path and query, not decoded."""
        cdef bytes raw = self.raw
        start = raw.index(b" ") + 1
        return raw[start : raw.index(b" ", start)].decode("utf-8", "surrogateescape")

    def lines(self) -> list:
        """The header lines in order, as (name, value); values as ISO-8859-1 (RFC 9110 5.5)."""
        cdef list found = []
        for line in self.raw[: len(self.raw) - 4].split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            found.append((name.decode("ascii"), value.strip(b" \t").decode("latin-1")))
        return found


def parse_head(bytes data not None):
    """The head that ``data`` begins with; ``None`` if it goes on.

    ``InvalidMessage`` (status 400, 431 or 505) as soon as it cannot become an HTTP/1.1 request head of at most
    16,384 bytes and 128 lines.
    """
    cdef const uint8_t *begin = <const uint8_t *> PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = len(data)
    cdef const uint8_t *end = begin + size
    cdef const uint8_t *at = begin
    cdef const uint8_t *stop
    cdef const uint8_t *colon
    cdef int lines = 0
    cdef Span upgrade, connection, key, version, host, origin, extensions
    cdef bint websocket = False
    cdef bint upgrading = False
    cdef bint old = False
    cdef bint is_get
    cdef Head head

    # CRLF before the request line is ignored (RFC 9112 2.2).
    while end - at >= 2 and at[0] == c'\r' and at[1] == c'\n' and at - begin < 8:
        at += 2
    begin = at
    if at < end and not CLASS[at[0]] & NAME_CHAR and at[0] != c'\r':
        raise InvalidMessage("not an HTTP request")
    memset(&upgrade, 0, sizeof(Span))
    connection = key = version = host = origin = extensions = upgrade

    # request-line = method SP request-target SP HTTP-version (RFC 9112 3)
    stop = line_end(at, end)
    if stop == NULL:
        return unfinished(begin, at, end)
    colon = <const uint8_t *> memchr(at, c' ', stop - at)
    if colon == NULL or colon == at or not all_of(at, colon, NAME_CHAR):
        raise InvalidMessage("malformed request line")
    is_get = colon - at == 3 and at[0] == c'G' and at[1] == c'E' and at[2] == c'T'
    at = colon + 1
    colon = <const uint8_t *> memchr(at, c' ', stop - at)
    if colon == NULL or colon == at or not all_of(at, colon, TARGET_CHAR):
        raise InvalidMessage("malformed request line")
    at = colon + 1
    if stop - at != 8 or memcmp(at, b"HTTP/", 5) != 0 or at[6] != c'.' or not (is_digit(at[5]) and is_digit(at[7])):
        raise InvalidMessage("malformed request line")
    if at[5] != c'1':
        raise InvalidMessage("HTTP version is not 1.1", status=505)
    old = at[7] == c'0'
    at = stop + 2

    while True:
        stop = line_end(at, end)
        if stop == NULL:
            return unfinished(begin, at, end)
        if stop + 2 - begin > HEAD_LIMIT:
            raise too_long()
        if stop == at:
            break
        lines += 1
        if lines > LINE_LIMIT:
            raise InvalidMessage(f"more than {LINE_LIMIT} header lines", status=431)
        colon = <const uint8_t *> memchr(at, c':', stop - at)
        # No space before the colon, no folded lines (RFC 9112 5.1, 5.2): neither is a name character.
        if colon == NULL or colon == at or not all_of(at, colon, NAME_CHAR):
            raise InvalidMessage(f"malformed header line {lines}")
        if not all_of(colon + 1, stop, VALUE_CHAR):
            raise InvalidMessage(f"malformed value in header line {lines}")
        take_line(
            at, colon, stop, &upgrade, &connection, &key, &version, &host, &origin, &extensions, &websocket,
            &upgrading,
        )
        at = stop + 2

    head = Head.__new__(Head)
    head.size = stop + 2 - <const uint8_t *> PyBytes_AS_STRING(data)
    head.raw = PyBytes_FromStringAndSize(<const char *> begin, stop + 2 - begin)
    head.wants_websocket = websocket
    head.origins = origin.count
    head.origin = taken(&origin)
    head.extensions = taken(&extensions)
    if extensions.count > 1:
        head.extensions = ", ".join(
            [value for name, value in head.lines() if name.lower() == "sec-websocket-extensions"]
        ).encode("latin-1")
    if not is_get:
        head.fault = 400, "method is not GET"
    elif old:
        head.fault = 400, "HTTP version is 1.0; a WebSocket needs 1.1"
    elif not websocket:
        head.fault = 400, "header Upgrade: websocket is missing" if upgrade.count == 0 else "header Upgrade does not name websocket"
    elif not upgrading:
        head.fault = 400, "header Connection: Upgrade is missing" if connection.count == 0 else "header Connection does not name Upgrade"
    elif host.count != 1:
        head.fault = 400, "header Host is missing" if host.count == 0 else "more than one Host header"
    elif version.count != 1:
        head.fault = 400, "header Sec-WebSocket-Version is missing" if version.count == 0 else "more than one Sec-WebSocket-Version header"
    elif version.length != 2 or not same(version.at, 2, "13"):
        head.fault = 426, "Sec-WebSocket-Version is not 13"
    elif key.count != 1:
        head.fault = 400, "header Sec-WebSocket-Key is missing" if key.count == 0 else "more than one Sec-WebSocket-Key header"
    elif not is_key(&key):
        head.fault = 400, "Sec-WebSocket-Key is not 16 bytes in base64"
    else:
        head.key = taken(&key)
    return head


cdef object unfinished(const uint8_t *begin, const uint8_t *at, const uint8_t *end):
    """The line at ``at`` has no CRLF yet: refuse the head if it cannot become one."""
    if end - begin > HEAD_LIMIT:
        raise too_long()
    if memchr(at, c'\n', end - at) != NULL:
        raise InvalidMessage("line of the request head ends without CR")
    return None


cdef object too_long():
    return InvalidMessage(f"request head of more than {HEAD_LIMIT} bytes", status=431)


cdef bint is_digit(uint8_t char) noexcept nogil:
    return c'0' <= char <= c'9'


cdef const uint8_t *line_end(const uint8_t *at, const uint8_t *end) noexcept:
    """Where the CRLF of this line is; NULL if it is not here."""
    cdef const uint8_t *stop
    while True:
        stop = <const uint8_t *> memchr(at, c'\r', end - at)
        if stop == NULL or stop + 1 == end:
            return NULL
        if stop[1] == c'\n':
            return stop
        at = stop + 1


cdef bint all_of(const uint8_t *at, const uint8_t *end, uint8_t kind) noexcept nogil:
    while at < end:
        if not CLASS[at[0]] & kind:
            return False
        at += 1
    return True


cdef bint is_key(Span *key) noexcept nogil:
    """16 bytes in base64: 22 characters and ``==`` (RFC 6455 4.2.1)."""
    return (
        key.length == 24
        and all_of(key.at, key.at + 22, BASE64_CHAR)
        and key.at[22] == c'='
        and key.at[23] == c'='
    )


cdef void take_line(
    const uint8_t *name,
    const uint8_t *colon,
    const uint8_t *stop,
    Span *upgrade,
    Span *connection,
    Span *key,
    Span *version,
    Span *host,
    Span *origin,
    Span *extensions,
    bint *websocket,
    bint *upgrading,
) noexcept:
    """Note a header line if the handshake needs it. Lists may be spread over several lines (RFC 9110 5.3)."""
    cdef Py_ssize_t size = colon - name
    cdef const uint8_t *at = colon + 1
    while at < stop and is_space(at):
        at += 1
    while stop > at and is_space(stop - 1):
        stop -= 1
    if size == 4 and same(name, 4, "host"):
        note(host, at, stop - at)
    elif size == 6 and same(name, 6, "origin"):
        note(origin, at, stop - at)
    elif size == 7 and same(name, 7, "upgrade"):
        note(upgrade, at, stop - at)
        websocket[0] = websocket[0] or has_token(upgrade, "websocket", 9)
    elif size == 10 and same(name, 10, "connection"):
        note(connection, at, stop - at)
        upgrading[0] = upgrading[0] or has_token(connection, "upgrade", 7)
    elif size == 17 and same(name, 17, "sec-websocket-key"):
        note(key, at, stop - at)
    elif size == 21 and same(name, 21, "sec-websocket-version"):
        note(version, at, stop - at)
    elif size == 24 and same(name, 24, "sec-websocket-extensions"):
        note(extensions, at, stop - at)

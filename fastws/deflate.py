"""permessage-deflate (RFC 7692): what is offered and agreed on, and the streams behind it.

Without context takeover every message is compressed on its own. Then one compressor serves all
connections of a loop, a broadcast is compressed once, and an idle connection holds nothing. With
takeover, a message may refer to those before it: small messages that resemble each other shrink
further, at the price of a compressor and a decompressor per connection, made when first needed.

Messages on their own, if they are not long, are compressed and decompressed by code of ours. For
the rest, and where our extensions are missing, there are streams: those of ``isal`` and ``zlib-ng``
where these packages are installed (up to twice as fast), and of ``zlib`` otherwise.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import _messages
from ._impl import COMPILED
from .exceptions import InvalidHeader, NegotiationError, ProtocolError

if TYPE_CHECKING:
    from typing_extensions import Buffer

if TYPE_CHECKING or COMPILED:
    from ._deflate import OwnDeflater, OwnInflater

__all__ = ["Deflate"]

EXTENSION: Final = "permessage-deflate"

# An empty stored block without its header bits: what a sync flush ends with, and senders leave out
# (RFC 7692 7.2.1).
_TAIL: Final = b"\x00\x00\xff\xff"

# An empty block with BFINAL set: a stream that takes it as its end stood between two blocks.
_FINAL: Final = b"\x03\x00"
_END: Final = _TAIL + _FINAL

# More bytes than these can turn into: 258 for each two bits.
_END_ROOM: Final = 8192

# An empty message (RFC 7692 7.2.3.6).
_EMPTY: Final = b"\x00"

_SYNC_FLUSH: Final = 2
_FULL_FLUSH: Final = 3  # a sync flush after which nothing refers back

_MAX_BITS: Final = 15
# zlib cannot compress with a window of 8 bits, though the RFC has it: such a peer gets all its
# messages as they are.
_MIN_BITS: Final = 9

# A block with BFINAL set ends the stream, and what follows is another (RFC 7692 7.2.3.4). A sender
# may do that with each of its blocks, but each costs us a new stream: allowed are some, and one
# more for every so many bytes of the message.
_FREE_STREAMS: Final = 16
_BYTES_PER_STREAM: Final = 64
# Bytes looked at in a message of several streams: what one leaves is copied each time.
_SLICE: Final = 4096

# What it is called beside these.
_OWN: Final = "fastws"
_OWN_LEVEL: Final = 1
# Bytes of JSON from which isal, in assembly, is faster.
_ISAL_FROM: Final = 3072
_PACKAGES: Final = {"isal": "isal.isal_zlib", "zlib-ng": "zlib_ng.zlib_ng", "zlib": "zlib"}

# Its fastest level costs a third in size, which the next one does not.
_ZLIB_NG_LEVELS: Final = {1: 2}
# It has no others, and its 0 is not zlib's.
_ISAL_LEVELS: Final = range(1, 4)


# --- streams


@functools.cache
def _package(name: str) -> Any:
    """The module of a package of streams; ``None`` if it is not installed."""
    try:
        return importlib.import_module(_PACKAGES[name])
    except ImportError:
        return None


class Deflater:
    """Compresses messages.

    With ``context`` each may refer to those before it, so that it serves one connection only.
    """

    __slots__ = ("_begin", "_compress", "_end", "_flush", "_stale", "key")

    def __init__(self, key: DeflaterKey, *, context: bool) -> None:
        self.key = key
        self._begin = functools.partial(
            _package(key.package).compressobj, key.level, 8, -key.window_bits, key.memory_level
        )
        self._end = _SYNC_FLUSH if context else _FULL_FLUSH
        self._start()

    def _start(self) -> None:
        stream = self._begin()
        self._compress = stream.compress
        self._flush = stream.flush
        self._stale = False

    def compress(self, data: Buffer) -> bytes:
        """The payload of a message (RFC 7692 7.2.1)."""
        try:
            if self._stale:
                self._flush(_FULL_FLUSH)
                self._stale = False
            payload: bytes = self._compress(data) + self._flush(self._end)
        except BaseException:
            # Memory is out, or a signal's handler raised: nothing of this message may be left in
            # the stream, to come out with the next one, which may be another client's.
            self._start()
            raise
        return payload[:-4]

    def forget(self) -> None:
        """The next message refers to none before it: the peer's window has moved on without us."""
        self._stale = True


def _shared_deflater(key: DeflaterKey) -> Deflater | OwnDeflater:
    """A compressor of messages on their own, for a loop."""
    if key.package != _OWN:
        return Deflater(key, context=False)
    other = _key(_package_of_streams(key.level), *key[1:])
    most = _ISAL_FROM if other.package == "isal" else sys.maxsize
    return OwnDeflater(key, functools.partial(Deflater, other, context=False), most)


class Fragments:
    """Compresses one message in fragments (RFC 7692 7.2.1).

    ``deflater`` has context, and nothing else uses it until the message has ended.
    """

    __slots__ = ("_begun", "_deflater")

    def __init__(self, deflater: Deflater) -> None:
        self._deflater = deflater
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        """The payload of a fragment, all of which the peer can read when it comes. The tail of its
        flush waits for the next one, since the last fragment leaves it out.
        """
        if not data:
            return b""
        payload = self._deflater.compress(data)
        if self._begun:
            payload = _TAIL + payload
        self._begun = True
        return payload

    def end(self) -> bytes:
        """The payload of an empty last fragment."""
        return b"" if self._begun else _EMPTY


class DeflaterKey(NamedTuple):
    """What makes one compressor as good as another."""

    package: str
    level: int
    window_bits: int
    memory_level: int


def _key(package: str, level: int, window_bits: int, memory_level: int) -> DeflaterKey:
    """``level`` is zlib's, or nearest to it."""
    if package == "zlib-ng":
        level = _ZLIB_NG_LEVELS.get(level, level)
    return DeflaterKey(package, level, window_bits, memory_level)


class Inflater:
    """Decompresses the messages of one connection, as they come.

    The peer may end its stream within a message (by BFINAL) and begin another, which may refer back
    to what came before. Since a stream that has ended takes its window with it, what comes out is
    kept as well; with context, only of a peer that does so in its first message: others flush.
    """

    __slots__ = (
        "_bits",
        "_history",
        "_kept",
        "_package",
        "_size",
        "_stream",
        "_streams",
        "_unused",
    )

    def __init__(self, package: Any, window_bits: int, *, context: bool) -> None:
        self._package = package
        self._bits = -window_bits
        self._kept = context
        self._streams = 0  # ended in the message under way
        self._size = 0  # bytes that have come out of it
        self._unused = True  # nothing of the message under way has come
        self._history: bytes | None = b""  # a window of what has come out
        self._stream = self._package.decompressobj(self._bits)

    def inflate(self, data: bytes, room: int, last: bool) -> bytes:
        """The next bytes of a message, or its ``last`` ones.

        ``room`` is how many it may still have. ``ProtocolError`` with 1009 as soon as it has more,
        before they are made; with 1007 for what is no deflate stream, or ends inside a block.
        """
        if data:
            self._unused = False
        out = self._run(data, room)
        if last:
            self._end()
        return out

    def _end(self) -> None:
        unused, self._unused = self._unused, True
        if unused:
            return  # not even an empty block, which is how some senders write an empty message
        # What gives these a meaning of their own was inside a block.
        end = self._run(_TAIL if self._kept else _END, _END_ROOM)
        stream = self._stream
        if self._kept:
            stream = stream.copy()
            try:
                end += stream.decompress(_FINAL, _END_ROOM)
            except self._package.error:
                raise _invalid() from None
        if end or not stream.eof or stream.unused_data:
            raise _invalid()
        if not self._streams:
            self._history = None
        self._streams = self._size = 0

    def _run(self, data: bytes, room: int) -> bytes:
        pieces = []
        at = 0
        while at < len(data):
            part = data[at : at + _SLICE] if self._streams else data
            try:
                piece = self._stream.decompress(part, _max_length(room))
            except self._package.error:
                raise _invalid() from None
            room -= len(piece)
            if room < 0:
                raise ProtocolError(1009, _messages.inflated_too_big())
            self._size += len(piece)
            pieces.append(piece)
            if self._history is not None:
                self._history = _window(self._history, piece)
            at += len(part) - len(self._stream.unused_data)
            if self._stream.eof and at < len(data):
                self._streams += 1
                if self._streams > _FREE_STREAMS + self._size // _BYTES_PER_STREAM:
                    raise ProtocolError(1009, _messages.too_many_streams())
                self._stream = self._package.decompressobj(self._bits, self._history or b"")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _window(history: bytes, more: bytes) -> bytes:
    size = 1 << _MAX_BITS
    return more[-size:] if len(more) >= size else (history + more)[-size:]


def _max_length(room: int) -> int:
    """One byte more than allowed shows that it is too much. 0, which is no limit, if nothing is."""
    return room + 1 if room < sys.maxsize else 0


def _invalid() -> ProtocolError:
    return ProtocolError(1007, _messages.invalid_deflate())


# --- negotiation


class Parameters(NamedTuple):
    """The parameters of an offer or of the answer to it (RFC 7692 7.1); bits 0: not mentioned."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 0
    client_max_window_bits: int | None = 0  # None: mentioned, without a value

    def __str__(self) -> str:
        """As it stands in ``Sec-WebSocket-Extensions``."""
        parts = [EXTENSION]
        for name, value in zip(self._fields, self, strict=True):
            if value is None or value is True:
                parts.append(name)
            elif value:
                parts.append(f"{name}={value}")
        return "; ".join(parts)

    @classmethod
    def parse(cls, found: Iterable[tuple[str, str | None]]) -> Parameters:
        """``NegotiationError`` for one that is unknown, doubled, or has no legal value."""
        values: dict[str, Any] = {}
        for name, value in found:
            if name in values:
                raise NegotiationError(f"{EXTENSION} parameter {name} is there twice")
            if name in ("server_no_context_takeover", "client_no_context_takeover"):
                legal = value is None
                values[name] = True
            elif name == "client_max_window_bits" and value is None:
                legal = True
                values[name] = None
            elif name in ("server_max_window_bits", "client_max_window_bits"):
                legal = value is not None and _BITS.fullmatch(value) is not None
                values[name] = int(value or 0) if legal else 0
            else:
                raise NegotiationError(f"{EXTENSION} parameter {name} is unknown")
            if not legal:
                raise NegotiationError(f"{EXTENSION} parameter {name} cannot be {value}")
        return cls(**values)


# 8 to 15, without leading zeros (RFC 7692 7.1.2.1).
_BITS: Final = re.compile(r"[89]|1[0-5]")


class Agreement:
    """What both ends of a connection hold to; shared by all connections for which it is the same.

    Attributes:
        deflater: compresses a message on its own; ``None``: we send all as it is.
        context: our messages refer to those before them, by a compressor per connection.
        keeps_inflater: the peer's do, by a decompressor per connection.
        threshold: bytes of payload below which a message is sent as it is.
    """

    __slots__ = (
        "_at_once",
        "_bits",
        "_inflating",
        "_key",
        "context",
        "deflater",
        "keeps_inflater",
        "threshold",
    )

    def __init__(
        self,
        settings: Deflate,
        agreed: Parameters,
        *,
        client: bool,
        shared: dict[Any, Any],
    ) -> None:
        ours = agreed.server_max_window_bits or _MAX_BITS
        theirs = agreed.client_max_window_bits or _MAX_BITS
        alone, theirs_alone = agreed[:2]
        if client:
            ours, theirs = theirs, ours
            alone, theirs_alone = theirs_alone, alone
        self.context = not alone
        self.keeps_inflater = not theirs_alone
        self.threshold = settings.threshold
        self._inflating = _inflating_package()
        self._bits = max(theirs, _MIN_BITS)
        self._at_once = _shared_inflater(shared) if COMPILED else None
        self._key = settings.deflater_key(ours, context=True)
        self.deflater: Deflater | OwnDeflater | None = None
        if ours >= _MIN_BITS:
            key = settings.deflater_key(ours)
            self.deflater = shared.get(key)
            if self.deflater is None:
                self.deflater = shared[key] = _shared_deflater(key)

    def new_deflater(self) -> Deflater:
        """A compressor for one connection, which remembers its messages."""
        assert self.deflater is not None
        return Deflater(self._key, context=True)

    def new_inflater(self) -> Inflater:
        """A decompressor for one connection, or for one of its messages."""
        return Inflater(self._inflating, self._bits, context=self.keeps_inflater)

    def inflate(self, data: bytes, room: int) -> bytes:
        """A whole message that refers to none before it: as a new inflater does, but faster."""
        if self._at_once is not None:
            own = self._at_once.inflate(data, room)
            if own is not None:
                return own
        package = self._inflating
        stream = package.decompressobj(-self._bits)
        try:
            out: bytes = stream.decompress(data, _max_length(room))
            if (
                len(out) <= room
                and not stream.decompress(_END, _END_ROOM)
                and stream.eof
                and not stream.unused_data
            ):
                return out
        except package.error:
            pass
        return self.new_inflater().inflate(data, room, True)  # which says what is wrong with it


def _shared_inflater(shared: dict[Any, Any]) -> OwnInflater:
    found: OwnInflater | None = shared.get(OwnInflater)
    if found is None:
        found = shared[OwnInflater] = OwnInflater()
    return found


def _package_of_streams(level: int) -> str:
    """The first that is installed and has the level."""
    if level in _ISAL_LEVELS and _package("isal") is not None:
        return "isal"
    return "zlib-ng" if _package("zlib-ng") is not None else "zlib"


def _inflating_package() -> Any:
    """isal's streams cannot be copied, which shows whether a message ended inside a block."""
    return _package("zlib-ng") or _package("zlib")


class Deflate:
    """Settings of permessage-deflate (RFC 7692), for ``compression=`` of ``serve`` and ``connect``.

    Args:
        server_no_context_takeover: the server compresses each of its messages on its own.
        client_no_context_takeover: the client does. ``None``, the default of both: yes for what a
            server agrees to, so that connections cost it no memory; as the server wishes for what a
            client offers.
        server_max_window_bits: the server's messages refer back at most 2 to the power of this, 9
            to 15, bytes; smaller takes less memory. ``client_max_window_bits``: the client's,
            likewise, if it can limit itself.
        level: 1, fastest, to 9, smallest; 0 stores.
        memory_level: 1 to 9; more is faster and takes more memory. A compressor of zlib takes at
            most 2 ** (window bits + 2) + 2 ** (memory level + 9) bytes and some 6,000, its
            decompressor 2 ** window bits + 9,000. For one of isal it is about 77,000 bytes whatever
            the settings are, for one of zlib-ng 150,000 to 290,000.
        threshold: bytes of payload below which a message is sent as it is.
        package: "fastws", "isal", "zlib-ng" or "zlib", to compress with. ``None``: the first of
            them that is there and has the level. "fastws" is code of ours, which has level 1 alone.
            It leaves messages in fragments, with context takeover or over 64 KiB (where isal is
            installed: 3 KiB) to the next one.

    Raises:
        ValueError: an argument is out of its bounds.
        ImportError: the package is not installed.
    """

    def __init__(
        self,
        *,
        server_no_context_takeover: bool | None = None,
        client_no_context_takeover: bool | None = None,
        server_max_window_bits: int = _MAX_BITS,
        client_max_window_bits: int = _MAX_BITS,
        level: int = 1,
        memory_level: int = 8,
        threshold: int = 256,
        package: str | None = None,
    ) -> None:
        for name, value, low, high in (
            ("server_max_window_bits", server_max_window_bits, _MIN_BITS, _MAX_BITS),
            ("client_max_window_bits", client_max_window_bits, _MIN_BITS, _MAX_BITS),
            ("level", level, 0, 9),
            ("memory_level", memory_level, 1, 9),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}: {value} is not in {low}..{high}")
        if threshold < 0:
            raise ValueError(f"threshold: {threshold} bytes; at least 0")
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.level = level
        self.memory_level = memory_level
        self.threshold = threshold
        self.package = self._choose(package)

    def _choose(self, package: str | None) -> str:
        if package is None:
            if self.level == _OWN_LEVEL and COMPILED:
                return _OWN
            return _package_of_streams(self.level)
        if package == _OWN:
            if self.level != _OWN_LEVEL:
                raise ValueError(f"level: {self.level}; {_OWN} has {_OWN_LEVEL}")
            if not COMPILED:
                raise ImportError(f"package {_OWN} is not compiled here")
            return package
        if package not in _PACKAGES:
            raise ValueError(f"package: {package!r} is not one of {_OWN}, {', '.join(_PACKAGES)}")
        if package == "isal" and self.level not in _ISAL_LEVELS:
            raise ValueError(f"level: {self.level}; isal has 1 to 3")
        if _package(package) is None:
            raise ImportError(f"package {package} is not installed")
        return package

    def deflater_key(self, window_bits: int, *, context: bool = False) -> DeflaterKey:
        """Which compressor these settings ask for."""
        package = self.package
        if package == _OWN and context:
            package = _package_of_streams(self.level)
        return _key(package, self.level, window_bits, self.memory_level)

    def accept(self, offers: Sequence[Extension]) -> Parameters | None:
        """A server's answer: to the first offer that it can meet (RFC 7692 5.1), or none."""
        for name, found in offers:
            if name != EXTENSION:
                continue
            try:
                offer = Parameters.parse(found)
            except NegotiationError:
                continue
            ours = min(self.server_max_window_bits, offer.server_max_window_bits or _MAX_BITS)
            if ours < _MIN_BITS:
                continue
            # A client that did not mention its window cannot limit it (RFC 7692 7.1.2.2).
            theirs = 0
            if offer.client_max_window_bits != 0:
                theirs = min(self.client_max_window_bits, offer.client_max_window_bits or _MAX_BITS)
            return Parameters(
                offer.server_no_context_takeover or self.server_no_context_takeover is not False,
                offer.client_no_context_takeover or self.client_no_context_takeover is not False,
                ours if ours < _MAX_BITS or offer.server_max_window_bits else 0,
                theirs if theirs < _MAX_BITS else 0,
            )
        return None

    def offer(self) -> Parameters:
        """What a client asks for."""
        bits = self.client_max_window_bits
        return Parameters(
            bool(self.server_no_context_takeover),
            bool(self.client_no_context_takeover),
            self.server_max_window_bits if self.server_max_window_bits < _MAX_BITS else 0,
            bits if bits < _MAX_BITS else None,
        )

    def agree(self, answers: Sequence[Extension]) -> Parameters | None:
        """What a client holds to after the server's answer; ``None``: nothing is compressed.

        ``NegotiationError`` if that is no answer to what was offered (RFC 7692 7.1).
        """
        if not answers:
            return None
        for name, _ in answers:
            if name != EXTENSION:
                raise NegotiationError(f"extension {name!r} was not offered")
        if len(answers) > 1:
            raise NegotiationError(f"the server answered with {EXTENSION} twice")
        answer = Parameters.parse(answers[0][1])
        offer = self.offer()
        if offer.server_no_context_takeover and not answer.server_no_context_takeover:
            raise NegotiationError("the server did not agree to server_no_context_takeover")
        if offer.server_max_window_bits and not (
            0 < answer.server_max_window_bits <= offer.server_max_window_bits
        ):
            raise NegotiationError("the server did not agree to server_max_window_bits")
        if answer.client_max_window_bits is None:
            raise NegotiationError("the server gave client_max_window_bits no value")
        # The server may ask for less than we offered; more is no fault, as we need not use it.
        ours = min(self.client_max_window_bits, answer.client_max_window_bits or _MAX_BITS)
        return answer._replace(
            client_no_context_takeover=(
                answer.client_no_context_takeover or offer.client_no_context_takeover
            ),
            client_max_window_bits=ours,
        )


# Browsers and libraries offer extensions in a handful of short ways; who offers others finds no
# place.
_MAX_KNOWN: Final = 64
_MAX_OFFERS: Final = 256  # bytes


class Answers:
    """What a server answers to offers of extensions.

    ``shared`` is that of the loop's reactor.
    """

    def __init__(self, deflate: Deflate, shared: dict[Any, Any]) -> None:
        self._deflate = deflate
        self._shared = shared
        self._known: dict[bytes, tuple[bytes, Agreement] | None] = {}

    def __call__(self, offers: bytes) -> tuple[bytes, Agreement] | None:
        """The header line that answers ``offers``, and what it agrees to; ``InvalidHeader`` for
        what is no list of extensions.
        """
        try:
            return self._known[offers]
        except KeyError:
            pass
        agreed = None
        answer = self._deflate.accept(parse_extensions(offers.decode("latin-1")))
        if answer is not None:
            agreement = Agreement(self._deflate, answer, client=False, shared=self._shared)
            agreed = f"Sec-WebSocket-Extensions: {answer}\r\n".encode(), agreement
        if len(self._known) < _MAX_KNOWN and len(offers) <= _MAX_OFFERS:
            self._known[offers] = agreed
        return agreed


def as_deflate(compression: str | Deflate | None) -> Deflate | None:
    """The argument ``compression`` of ``serve`` and ``connect``."""
    if compression is None or isinstance(compression, Deflate):
        return compression
    if compression == "deflate":
        return Deflate()
    raise ValueError(f"compression: {compression!r} is not 'deflate', None or a Deflate")


# --- the header

# extension = token *( ";" token [ "=" ( token | quoted-string ) ] ) (RFC 6455 9.1); what is quoted
# must be a token too.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = rf"[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|\"({_TOKEN})\"))?"
_is_extension = re.compile(rf"({_TOKEN})((?:{_PARAMETER})*)").fullmatch
_find_parameters = re.compile(_PARAMETER).finditer

Extension = tuple[str, list[tuple[str, str | None]]]


def parse_extensions(value: str) -> list[Extension]:
    """``Sec-WebSocket-Extensions``: names and their parameters, in order.

    ``InvalidHeader`` if it breaks the grammar of RFC 6455 9.1.
    """
    found: list[Extension] = []
    for item in value.split(","):
        text = item.strip(" \t")
        if not text:
            continue  # RFC 9110 5.6.1 allows empty elements
        match = _is_extension(text)
        if match is None:
            raise InvalidHeader("malformed Sec-WebSocket-Extensions header")
        parameters = [
            (name, value or quoted)
            for name, value, quoted in (
                parameter.groups() for parameter in _find_parameters(match[2])
            )
        ]
        found.append((match[1], parameters))
    return found

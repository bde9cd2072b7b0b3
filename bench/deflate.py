"""permessage-deflate (RFC 7692): what the load generator sends, and a check of what is answered."""

import base64
import json
import os
import random
import socket
import struct
import zlib
from collections import defaultdict
from functools import cache
from pathlib import Path

from bench.process import BenchError

NO_TAKEOVER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TAKEOVER = "permessage-deflate"

_MESSAGES = 16
_WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "kilo")
_TAIL = b"\0\0\xff\xff"  # RFC 7692 7.2.1: left out, and put back to inflate


def _document(chance: random.Random, size: int) -> bytes:
    """JSON of so many bytes or a few more, such as APIs send: names, numbers, keys that repeat."""
    items: list[str] = []
    length = 0
    while length < size:
        item = {
            "id": chance.randrange(10**6),
            "name": " ".join(chance.choices(_WORDS, k=3)),
            "price": round(chance.uniform(1, 1000), 2),
            "active": chance.random() < 0.5,
        }
        items.append(json.dumps(item, separators=(",", ":")))
        length += len(items[-1]) + 1
    return f"[{','.join(items)}]".encode()


def _compress(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)


@cache
def messages(size: int) -> tuple[bytes, ...]:
    """Compressed JSON documents of about `size` bytes, all of the same compressed length.

    Each is complete in itself, so that it inflates whatever was sent before.
    """
    chance = random.Random(size)
    by_length: defaultdict[int, list[bytes]] = defaultdict(list)
    while True:
        data = _compress(_document(chance, size))
        same = by_length[len(data)]
        same.append(data)
        if len(same) == _MESSAGES:
            return tuple(same)


def messages_file(size: int, folder: Path) -> tuple[Path, int]:
    """A file of them for `load --messages`, and the length of each."""
    made = messages(size)
    path = folder / f"deflate-{size}"
    path.write_bytes(b"".join(made))
    return path, len(made[0])


def check_echo(port: int, offer: str, size: int) -> None:
    """Raises BenchError unless the server answers a compressed message with itself, compressed."""
    sent = messages(size)[0]
    with socket.create_connection(("127.0.0.1", port), 10) as sock, sock.makefile("rb") as stream:
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Extensions: {offer}\r\n\r\n".encode()
        )
        while stream.readline() not in (b"\r\n", b""):
            pass
        # Masked with zeros, which leaves it as it is.
        sock.sendall(struct.pack("!BBH4x", 0xC1, 0x80 | 126, len(sent)) + sent)
        first, length = stream.read(2)
        if length == 126:
            (length,) = struct.unpack("!H", stream.read(2))
        answer = stream.read(length)
    if first != 0xC1 or _inflate(answer) != _inflate(sent):
        raise BenchError(f"not an echo in permessage-deflate: first byte {first:#x}")


def _inflate(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + _TAIL)

"""The C programs are honest: the limit is a correct server, the load generator sees wrong echoes.

`python -m pytest bench/tests`; takes a few seconds.
"""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bench.certificate import certificate
from bench.deflate import NO_TAKEOVER, TAKEOVER, check_echo, messages, messages_file
from bench.dialects import CENTRIFUGE, push_size, subscribe_commands
from bench.process import BenchError, free_port, peer_command, run_load, server
from bench.tests.conftest import Limit

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def _frame(first: int, payload: bytes, key: bytes | None) -> bytes:
    masked = 0x80 if key is not None else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, masked | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, masked | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, masked | 127, len(payload))
    if key is None:
        return head + payload
    mask = (key * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return head + key + number.to_bytes(len(payload), "big")


def _connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + _KEY.encode() + b"\r\n\r\n"
    )
    response = b""
    while not response.endswith(b"\r\n\r\n"):
        response += client.recv(1)
    assert response.startswith(b"HTTP/1.1 101 ")
    assert _ACCEPT in response
    return client


def _read(client: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size and (part := client.recv(1 << 20)):
        parts += part
    return bytes(parts)


@pytest.mark.parametrize("seed", range(8))
def test_limit_echoes_frames_however_they_are_cut(limit: Limit, seed: int) -> None:
    chance = random.Random(seed)
    sent, wanted = bytearray(), bytearray()
    for _ in range(60):
        size = chance.choice([0, 1, 5, 125, 126, 127, 128, 1000, 16384, 65535, 65536, 300_000])
        first, payload = chance.choice([0x81, 0x82]), chance.randbytes(size)
        sent += _frame(first, payload, chance.randbytes(4))
        wanted += _frame(first, payload, None)
        if chance.random() < 0.2:
            sent += _frame(0x89, payload[:20], chance.randbytes(4))
            wanted += _frame(0x8A, payload[:20], None)
    with closing(_connect(limit.port)) as client:
        position, got = 0, bytearray()
        while position < len(sent):
            step = chance.choice([1, 2, 3, 7, 100, 5000, 100_000, 400_000])
            client.sendall(sent[position : position + step])
            position += step
            client.setblocking(False)
            try:
                got += client.recv(1 << 20)
            except BlockingIOError:
                pass
            client.setblocking(True)
            client.settimeout(10)
        got += _read(client, len(wanted) - len(got))
        assert got == wanted


def test_limit_keeps_what_a_slow_client_does_not_read(limit: Limit) -> None:
    payload = os.urandom(3_000_000)
    with closing(_connect(limit.port)) as client:
        client.sendall(_frame(0x82, payload, b"abcd"))
        wanted = _frame(0x82, payload, None)
        assert _read(client, len(wanted)) == wanted


def test_limit_answers_a_close_and_ends(limit: Limit) -> None:
    with closing(_connect(limit.port)) as client:
        client.sendall(_frame(0x88, b"\x03\xe8", b"abcd"))
        assert _read(client, 100) == b"\x88\x02\x03\xe8"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(_frame(0x82, b"x", None), id="not masked"),
        pytest.param(_frame(0xC2, b"x", b"abcd"), id="RSV1"),
        pytest.param(_frame(0x83, b"x", b"abcd"), id="reserved opcode"),
        pytest.param(_frame(0x89, b"x" * 126, b"abcd"), id="long ping"),
        pytest.param(b"\x82\xff" + b"\xff" * 8 + b"abcd", id="length with the top bit"),
    ],
)
def test_limit_refuses_broken_frames(limit: Limit, frame: bytes) -> None:
    with closing(_connect(limit.port)) as client:
        client.sendall(frame)
        assert _read(client, 100) == b"\x88\x02\x03\xea"


_BAD_SERVER = """
import asyncio, sys
from websockets.asyncio.server import serve

async def echo(ws):
    count = 0
    async for message in ws:
        count += 1
        if count == 50:
            message = {change}
        await ws.send(message)

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), compression=None):
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def _bad_server(change: str, log: Path) -> Iterator[tuple[int, int]]:
    pytest.importorskip("websockets")
    port = free_port()
    command = [sys.executable, "-c", _BAD_SERVER.format(change=change), str(port)]
    with server(command, port, log) as pid:
        yield port, pid


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("message[:-1] + bytes([message[-1] ^ 1])", id="last bit"),
        pytest.param("message[:-1]", id="shorter"),
        pytest.param("message.hex()[:128]", id="text for binary"),
        pytest.param("1 // 0", id="a lost connection"),
    ],
)
def test_load_sees_a_wrong_echo(change: str, tmp_path: Path) -> None:
    arguments = ["--connections", "2", "--depth", "4", "--warmup", "0", "--duration", "0.5"]
    with _bad_server(change, tmp_path / "log") as (port, pid), pytest.raises(BenchError):
        run_load(port, pid, arguments, 30)


def test_load_accepts_a_right_echo(tmp_path: Path) -> None:
    arguments = ["--connections", "2", "--depth", "4", "--warmup", "0", "--duration", "0.3"]
    with _bad_server("message", tmp_path / "log") as (port, pid):
        result = run_load(port, pid, arguments, 30)
    assert result["messages"] > 100
    assert result["mismatches"] == 0


_TLS_SERVER = """
import asyncio, ssl, sys
from websockets.asyncio.server import serve

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), compression=None, ssl=context):
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("size", [128, 100_000])
def test_load_speaks_tls(size: int, tmp_path: Path) -> None:
    pytest.importorskip("websockets")
    port = free_port()
    arguments = ["--tls", "--connections", "3", "--depth", "4", "--warmup", "0"]
    with server(
        [sys.executable, "-c", _TLS_SERVER, str(port), certificate()], port, tmp_path / "log"
    ) as pid:
        result = run_load(port, pid, [*arguments, "--size", str(size), "--duration", "0.5"], 30)
    assert result["messages"] >= 4
    assert result["answer_bytes"] == pytest.approx(size, rel=0.2)


def test_load_without_tls_does_not_get_through_to_a_server_with_it(tmp_path: Path) -> None:
    pytest.importorskip("websockets")
    port = free_port()
    with (
        server(
            [sys.executable, "-c", _TLS_SERVER, str(port), certificate()], port, tmp_path / "log"
        ) as pid,
        pytest.raises(BenchError),
    ):
        run_load(port, pid, ["--connections", "1", "--duration", "0.2"], 30)


@pytest.mark.parametrize("offer", [NO_TAKEOVER, TAKEOVER], ids=["no takeover", "takeover"])
def test_load_sends_and_counts_compressed_messages(offer: str, tmp_path: Path) -> None:
    pytest.importorskip("websockets")
    port = free_port()
    path, length = messages_file(1024, tmp_path)
    arguments = ["--connections", "2", "--depth", "3", "--payload", "ascii", "--warmup", "0"]
    arguments += ["--deflate", offer, "--messages", str(path), "--size", str(length)]
    command = peer_command("websockets_asyncio", port, features=("deflate",))
    with server(command, port, tmp_path / "log") as pid:
        check_echo(port, offer, 1024)
        result = run_load(port, pid, [*arguments, "--duration", "0.5"], 30)
    assert result["messages"] > 5
    assert 10 < result["answer_bytes"] < 1024


def test_load_insists_on_the_extension_that_it_offers(tmp_path: Path) -> None:
    pytest.importorskip("websockets")
    port = free_port()
    path, length = messages_file(1024, tmp_path)
    arguments = ["--deflate", TAKEOVER, "--messages", str(path), "--size", str(length)]
    with (
        server(peer_command("websockets_asyncio", port), port, tmp_path / "log") as pid,
        pytest.raises(BenchError, match="could be opened"),
    ):
        run_load(port, pid, ["--connections", "1", *arguments], 30)


def test_deflated_messages_are_of_one_length_and_differ() -> None:
    made = messages(1024)
    assert len({len(data) for data in made}) == 1
    texts = {zlib.decompressobj(wbits=-15).decompress(data + b"\0\0\xff\xff") for data in made}
    assert len(texts) == len(made) == 16
    assert all(1024 <= len(text) < 1200 and json.loads(text) for text in texts)


def test_send_limit_reaches_everybody(tmp_path: Path) -> None:
    port = free_port()
    arguments = ["--mode", "fanout", "--connections", "50", "--rounds", "4", "--burst", "3"]
    with server(peer_command("limit", port, "broadcast"), port, tmp_path / "log") as pid:
        result = run_load(port, pid, [*arguments, "--size", "200", "--buckets"], 30)
    assert result["deliveries"] == 50 * 4 * 3
    assert result["bytes_per_delivery"] == 200
    # Each delivery has a latency of its own.
    assert sum(count for _, count in result["buckets"]) == result["deliveries"]
    assert 0 < result["p50_us"] <= result["p99_us"] <= result["max_us"]
    assert result["p50_us"] <= result["last_p50_us"]


_CENTRIFUGE_SERVER = """
import asyncio, json, sys
from websockets.asyncio.server import broadcast, serve

clients, answered = set(), set()

async def client(ws):
    async for text in ws:
        command = json.loads(text)
        if not command:
            answered.add(ws)
        elif "publish" in command:
            assert answered == clients
            broadcast(clients, json.dumps(
                {"push": {"channel": command["publish"]["channel"],
                          "pub": {"data": command["publish"]["data"]}}},
                separators=(",", ":")))
            await ws.send('{"id":3,"publish":{}}')
        else:
            clients.add(ws)
            key = "connect" if "connect" in command else "subscribe"
            await ws.send(json.dumps({"id": command["id"], key: {}}, separators=(",", ":")))
            await ws.send("{}")

async def main():
    async with serve(client, "127.0.0.1", int(sys.argv[1]), compression=None):
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_load_speaks_centrifuge(tmp_path: Path) -> None:
    pytest.importorskip("websockets")
    port = free_port()
    arguments = ["--mode", "fanout", "--connections", "30", "--rounds", "5", "--warmup-rounds", "1"]
    with server(
        [sys.executable, "-c", _CENTRIFUGE_SERVER, str(port)], port, tmp_path / "log"
    ) as pid:
        result = run_load(port, pid, [*arguments, *CENTRIFUGE.publishing(128, port)], 30)
    assert result["deliveries"] == 30 * 5
    assert result["bytes_per_delivery"] == push_size(128)


def test_load_compares_answers_to_commands(tmp_path: Path) -> None:
    """The gateway answers these; something else is seen at once."""
    options = [*CENTRIFUGE.opening(), "--connections", "3", "--depth", "4"]
    options += ["--warmup", "0", "--duration", "0.3"]
    port = free_port()
    with server(peer_command("gateway", port), port, tmp_path / "log") as pid:
        result = run_load(port, pid, [*options, *subscribe_commands(3)], 30)
        assert result["messages"] > 100
        with pytest.raises(BenchError):
            run_load(port, pid, [*options, "--ask", '{"id":5,"ping":{}}', "--answer", "{}"], 30)


def test_the_runner_leaves_no_server_behind(tmp_path: Path) -> None:
    port = free_port()
    with server(peer_command("limit", port), port, tmp_path / "log") as pid:
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_missing_compiler_is_said_clearly(tmp_path: Path) -> None:
    code = "import bench.native as n, pathlib; n._BUILD = pathlib.Path({!r}); n.program('load')"
    done = subprocess.run(
        [sys.executable, "-c", code.format(str(tmp_path))],
        env={**os.environ, "CC": "no-such-compiler"},
        capture_output=True,
        text=True,
    )
    assert "there is no 'no-such-compiler'" in done.stderr

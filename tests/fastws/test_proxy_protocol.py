"""A PROXY header in front of a connection: who the client is, and what bad headers come to."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

import fastws
from fastws import _accept
from fastws.networks import Networks
from fastws.proxy_protocol import InvalidProxyHeader, ProxiedAddresses, parse_proxy_header
from tests.fastws.certificates import client_context, server_context
from tests.fastws.client import Echo, Peer, Recorder, address, head, serve, until, url

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LOOPBACK = ["127.0.0.0/8"]
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
CLIENT = ("192.0.2.7", 40000)


def v2(kind: int, addresses: bytes, *, command: int = 0x21, extensions: bytes = b"") -> bytes:
    body = addresses + extensions
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body)) + body


TCP4 = v2(
    0x11,
    socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + b"\x9c\x40\1\xbb",
)
TCP6 = v2(
    0x21,
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + b"\x9c\x40\1\xbb",
    extensions=b"\x01\x00\x02h2",
)
PATHS = b"/from".ljust(108, b"\0") + b"/to".ljust(108, b"\0")


@pytest.mark.parametrize(
    ("data", "source", "destination"),
    [
        (LINE, CLIENT, ("198.51.100.1", 443)),
        (b"PROXY TCP6 2001:DB8:0::7 ::1 1 0\r\n", ("2001:db8::7", 1, 0, 0), ("::1", 0, 0, 0)),
        (b"PROXY UNKNOWN\r\n", None, None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None, None),
        (TCP4, CLIENT, ("198.51.100.1", 443)),
        (TCP6, ("2001:db8::7", 40000, 0, 0), ("2001:db8::1", 443, 0, 0)),
        (v2(0x31, PATHS), "/from", "/to"),
        (v2(0x00, b"", extensions=b"\x04\0\0"), None, None),
        (v2(0x11, b"", command=0x20), None, None),  # LOCAL: addresses are to be ignored
    ],
)
def test_a_header_is_read_to_its_end_and_no_further(
    data: bytes, source: Any, destination: Any
) -> None:
    expected = ProxiedAddresses(source, destination), len(data)
    assert parse_proxy_header(data) == expected
    assert parse_proxy_header(data + b"\r\nGET /") == expected
    for size in range(len(data)):
        assert parse_proxy_header(data[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",  # TLS
        b"PROXX",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 040 443\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 40 443\r\n",
        b"PROXY TCP4 2001:db8::7 198.51.100.1 40 443\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 40 443\r\n",
        b"PROXY TCP4 192.0.2.7  198.51.100.1 40 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40 443 \r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 40 443\r\n",
        b"PROXY " + b"x" * 200,
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        v2(0x11, b"\0" * 11),
        v2(0x21, b"\0" * 35),
        v2(0x31, b"\0" * 215),
        v2(0x12, b"\0" * 12),  # datagrams
        v2(0x41, b"\0" * 12),
        v2(0x11, b"\0" * 12, command=0x11),
        v2(0x11, b"\0" * 12, command=0x22),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidProxyHeader):
        parse_proxy_header(data)


def test_networks_hold_addresses_of_both_families_and_unix_sockets() -> None:
    networks = Networks(["10.0.0.0/8", "::1", "fe80::/10", "unix"])
    for inside in ["10.1.2.3", ("10.1.2.3", 1), ("::ffff:10.0.0.1", 1, 0, 0), "::1", "", "/path"]:
        assert inside in networks
    assert ("fe80::1%eth0", 1, 0, 2) in networks
    for outside in ["11.0.0.1", "::2", "unknown", ("999.1.1.1", 1)]:
        assert outside not in networks
    assert "" not in Networks(["10.0.0.0/8"])
    with pytest.raises(ValueError, match=r"'10\.0\.0\.1/8' is no address, network or 'unix'"):
        Networks(["10.0.0.1/8"])


# --- servers


@pytest.mark.usefixtures("loop_kind")
@pytest.mark.parametrize("header", [LINE, TCP4], ids=["v1", "v2"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_the_address_is_the_clients(carrier: str, header: bytes, secure: bool) -> None:
    recorder = Recorder()
    options = {"ssl": server_context()} if secure else {}
    async with serve(recorder, carrier, proxy_protocol=LOOPBACK, **options) as server:
        peer = await Peer.connect(server)
        await peer.send(header)
        async with fastws.connect(
            url(server).replace("ws:", "wss:" if secure else "ws:"),
            sock=peer.sock,
            ssl=client_context() if secure else None,
        ) as ws:
            there = await recorder.opened.get()
            assert there.remote_address == CLIENT
            assert there.local_address == ("198.51.100.1", 443)
            await ws.send("x")
            assert await recorder.messages.get() == "x"
        await until(lambda: there.state is fastws.State.CLOSED)
        assert there.remote_address == CLIENT


@pytest.mark.parametrize("header", [LINE, TCP6], ids=["v1", "v2"])
async def test_a_header_may_come_byte_by_byte_and_with_what_follows(
    carrier: str, header: bytes
) -> None:
    async with (
        serve(Echo, carrier, proxy_protocol=LOOPBACK) as server,
        await Peer.connect(server) as peer,
    ):
        for at in range(len(header) - 1):
            peer.send_now(header[at : at + 1])
            await asyncio.sleep(0)
        peer.send_now(header[-1:] + head())
        assert (await peer.response())[0] == 101


async def test_a_proxy_that_speaks_for_itself_keeps_its_own_address(carrier: str) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier, proxy_protocol=LOOPBACK) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(v2(0, b"", command=0x20) + head())
        assert (await recorder.opened.get()).remote_address == peer.sock.getsockname()


async def test_a_header_from_anyone_else_is_no_request(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier, proxy_protocol=["192.0.2.0/24"]) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(LINE + head())
            assert (await peer.response())[0] == 400
        async with await Peer.open(server) as peer:
            assert (await recorder.opened.get()).remote_address == peer.sock.getsockname()


async def test_bad_missing_and_slow_headers_end_the_connection_and_are_logged_once(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fastws.server")
    async with serve(Echo, carrier, proxy_protocol=LOOPBACK, open_timeout=0.1) as server:
        for data in (head(), LINE[:-1] + b"x" * 100, LINE[:20], b""):
            async with await Peer.connect(server) as peer:
                await peer.send(data)
                assert await peer.drain() == 0
    [record] = [each for each in caplog.records if each.name == "fastws.server"]
    assert "there is no PROXY header" in record.getMessage()


async def test_so_many_may_wait_then_the_oldest_goes(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_accept, "_WAITING", 2)
    async with serve(Echo, carrier, proxy_protocol=LOOPBACK) as server:
        peers = [await Peer.connect(server) for _ in range(3)]
        assert await peers[0].drain() == 0
        for peer in peers[1:]:
            await peer.send(LINE + head())
            assert (await peer.response())[0] == 101
        for peer in peers:
            peer.close()


async def test_closing_the_server_ends_those_that_wait(carrier: str) -> None:
    async with serve(Echo, carrier, proxy_protocol=LOOPBACK) as server:
        peer = await Peer.connect(server)
        peer.send_now(LINE[:10])
        await asyncio.sleep(0.01)
    assert await peer.drain() == 0
    peer.close()


async def test_on_a_unix_socket_a_proxy_is_believed_when_that_is_said(
    carrier: str, tmp_path: Path
) -> None:
    recorder = Recorder()
    path = str(tmp_path / "socket")
    async with (
        fastws.unix_serve(recorder, path, carrier=carrier, proxy_protocol=["unix"]),
        await Peer.connect(path) as peer,
    ):
        await peer.send(TCP4 + head())
        assert (await recorder.opened.get()).remote_address == CLIENT


class _Http(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        told = [self.transport.get_extra_info(name) for name in ("peername", "sockname", "socket")]
        self.transport.write(repr(told).encode())  # type: ignore[attr-defined]
        self.transport.close()


@pytest.mark.usefixtures("loop_kind")
async def test_plain_http_is_told_the_clients_address_too(carrier: str) -> None:
    async with (
        serve(Echo, carrier, proxy_protocol=LOOPBACK, http=_Http) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(LINE + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await peer.rest() == repr([CLIENT, ("198.51.100.1", 443), None]).encode()


# --- a context that is replaced


@pytest.mark.usefixtures("loop_kind")
@pytest.mark.parametrize("http", [None, _Http], ids=["websocket", "http"])
async def test_another_context_is_for_new_connections(carrier: str, http: Any) -> None:
    options = {"ssl": server_context("old.test"), "http": http}
    # Plain HTTP over TLS is asyncio's business.
    async with serve(Echo, "asyncio" if http else carrier, **options) as server:
        uri, context = url(server).replace("ws:", "wss:"), client_context()
        async with fastws.connect(uri, ssl=context, server_hostname="old.test") as old:
            server.ssl = server_context("new.test")
            async with fastws.connect(uri, ssl=context, server_hostname="new.test"):
                await old.send("x")
                assert await old.recv() == "x"


async def test_a_server_without_tls_takes_no_context(carrier: str) -> None:
    async with serve(Echo, carrier) as server:
        assert server.ssl is None
        with pytest.raises(ValueError, match="without TLS"):
            server.ssl = server_context()


@pytest.mark.usefixtures("loop_kind")
async def test_a_tls_handshake_under_way_does_not_hold_the_end_up() -> None:
    async with serve(Echo, "asyncio", ssl=server_context()) as server:
        peer = await Peer.connect(server)
        await asyncio.sleep(0.02)
        assert address(server)
    assert await peer.drain() == 0
    peer.close()

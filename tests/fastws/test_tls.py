"""``wss``: the server on both carriers, and what a client can do to it by means of TLS."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import logging
import socket
import ssl
import time
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import fastws
from tests.fastws.certificates import client_context, server_context
from tests.fastws.client import (
    BINARY,
    CLOSE,
    Echo,
    Peer,
    Recorder,
    address,
    echo,
    frame,
    head,
    logged,
    serve,
    turns,
    until,
    url,
)

pytestmark = pytest.mark.usefixtures("loop_kind")


def secure(handler: Any, carrier: str, **options: Any) -> Any:
    options.setdefault("ssl", server_context())
    return serve(handler, carrier, **options)


class SecurePeer(Peer):
    """The client's end of a TLS connection, its records in our hands.

    ``records`` and ``read_records`` move what ``tls`` says, so that a test may hold back, cut or
    spoil it.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.hello = b""  # what the server sent first
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.context = client_context()

    @classmethod
    async def handshake(cls, where: Any, **options: Any) -> Self:
        context = options.pop("context", None)
        peer = await cls.connect(where, **options)
        peer.context = context or peer.context
        try:
            peer.begin()
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    peer.tls.do_handshake()
                    break
                await Peer.send(peer, peer.outgoing.read())
                await peer.read_records()
            await Peer.send(peer, peer.outgoing.read())
        except BaseException:
            peer.close()
            raise
        return peer

    @classmethod
    async def open(cls, where: Any, *, behind: bytes = b"", **options: Any) -> Self:
        peer = await cls.handshake(where, **options)
        try:
            await peer.send(head() + behind)
            assert (await peer.response())[0] == 101
        except BaseException:
            peer.close()
            raise
        return peer

    def begin(self) -> None:
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")

    def records(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    async def read_records(self) -> None:
        data = await self.loop.sock_recv(self.sock, 65536)
        if not data:
            raise EOFError("the TCP connection has ended")
        self.hello = self.hello or data
        self.incoming.write(data)

    async def send(self, data: bytes) -> None:
        await super().send(self.records(data))

    def send_now(self, data: bytes) -> None:
        super().send_now(self.records(data))

    async def _more(self, count: int = 65536) -> None:
        while True:
            try:
                data = self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self.read_records()
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                raise EOFError("close_notify")
            self.unread += data
            return


# --- messages


@pytest.mark.parametrize("handler", [echo, Echo], ids=["coroutine", "listener"])
async def test_messages_of_every_size_are_echoed(carrier: str, handler: Any) -> None:
    async with (
        secure(handler, carrier, max_size=None) as server,
        await SecurePeer.open(server) as peer,
    ):
        for size in (0, 1, 125, 126, 16_384, 65_536, 200_000, 3_000_000):
            payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
            sending = asyncio.ensure_future(peer.send(frame(BINARY, payload)))
            assert await peer.frame() == (BINARY, payload)
            await sending
        await peer.say_close()
        assert await peer.close_frame() == (1000, "")
        assert await peer.rest() == b""


async def test_a_client_that_ends_in_order_sees_close_notify(carrier: str) -> None:
    async with secure(echo, carrier) as server, await SecurePeer.open(server) as peer:
        await peer.say_close()
        assert await peer.close_frame() == (1000, "")
        with pytest.raises(EOFError, match="close_notify"):
            await peer._more()


async def test_records_may_be_cut_anywhere(carrier: str) -> None:
    async with secure(Echo, carrier) as server, await SecurePeer.open(server) as peer:
        records = peer.records(frame(BINARY, b"x" * 20_000)) + peer.records(frame(BINARY, b"y"))
        for begin in (0, 3, 5, 6, 700, 16_383, len(records) - 1):
            await turns(5)
            end = {0: 3, 3: 5, 5: 6, 6: 700, 700: 16_383, 16_383: len(records) - 1}.get(begin)
            Peer.send_now(peer, records[begin:end])
        assert await peer.message() == b"x" * 20_000
        assert await peer.message() == b"y"


async def test_many_messages_in_one_read_are_answered_in_one_record(carrier: str) -> None:
    async with secure(Echo, carrier) as server, await SecurePeer.open(server) as peer:
        Peer.send_now(peer, b"".join(peer.records(frame(BINARY, b"%d" % i)) for i in range(100)))
        for i in range(100):
            assert await peer.message() == b"%d" % i
        if carrier == "reactor":
            peer.send_now(frame(BINARY, b"a" * 100) * 100)
            answer = await peer.loop.sock_recv(peer.sock, 65536)
            length = int.from_bytes(answer[3:5], "big")
            assert 5 + length == len(answer) > 100 * 102


async def test_prepared_messages_and_broadcasts_arrive_in_order(carrier: str) -> None:
    recorder = Recorder()
    async with secure(recorder, carrier) as server, await SecurePeer.open(server) as peer:
        ws = await recorder.opened.get()
        wanted: list[bytes] = []
        for size in (10, 40_000, 20, 30, 16_384, 100_000, 1):
            message = bytes([size % 251]) * size
            wanted.append(message)
            if size % 3:
                ws.send(message)
            else:
                fastws.broadcast([ws], message)
        for message in wanted:
            assert await peer.message() == message


async def test_connections_that_talk_at_once_get_their_own_bytes(carrier: str) -> None:
    """On the reactor, they share the memory that OpenSSL reads from and writes to."""
    async with secure(Echo, carrier) as server, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await SecurePeer.open(server)) for _ in range(8)]
        for turn in range(10):
            for number, peer in enumerate(peers):
                records = peer.records(frame(BINARY, bytes([number]) * 3000 * (turn + 1)))
                cut = len(records) * number // 8
                Peer.send_now(peer, records[:cut])
                peer.late = records[cut:]  # type: ignore[attr-defined]
            await turns()
            for peer in reversed(peers):
                Peer.send_now(peer, peer.late)  # type: ignore[attr-defined]
            for number, peer in enumerate(peers):
                assert await peer.message() == bytes([number]) * 3000 * (turn + 1)


async def test_handshake_and_first_message_may_come_in_one_record(carrier: str) -> None:
    async with (
        secure(Echo, carrier) as server,
        await SecurePeer.open(server, behind=frame(BINARY, b"early")) as peer,
    ):
        assert await peer.message() == b"early"


async def test_both_ends_are_told_by_their_address(carrier: str) -> None:
    recorder = Recorder()
    async with secure(recorder, carrier) as server, await SecurePeer.open(server) as peer:
        ws = await recorder.opened.get()
        assert ws.remote_address == peer.sock.getsockname()
        assert ws.local_address == address(server)
        assert ws.ssl_object is not None
        assert ws.ssl_object.cipher() == peer.tls.cipher()


async def test_a_plain_connection_has_no_ssl_object(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server):
        assert (await recorder.opened.get()).ssl_object is None


# --- contexts


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_either_version_of_tls_is_spoken(carrier: str, version: ssl.TLSVersion) -> None:
    context = client_context()
    context.minimum_version = context.maximum_version = version
    async with (
        secure(Echo, carrier) as server,
        await SecurePeer.open(server, context=context) as peer,
    ):
        assert peer.tls.version() == version.name.replace("_", ".")
        await peer.send(frame(BINARY, b"x" * 50_000))
        assert await peer.message() == b"x" * 50_000
        await peer.say_close()
        assert await peer.close_frame() == (1000, "")
        assert await peer.rest() == b""


async def test_the_context_may_be_changed_by_the_name_that_is_asked_for(carrier: str) -> None:
    asked = []

    def choose(tls: Any, name: str | None, context: ssl.SSLContext) -> None:
        asked.append(name)
        tls.context = server_context("other.test")

    context = server_context()
    context.sni_callback = choose
    client = client_context()
    async with (
        secure(Echo, carrier, ssl=context) as server,
        fastws.connect(
            url(server).replace("ws:", "wss:"), ssl=client, server_hostname="other.test"
        ) as ws,
    ):
        await ws.send("x")
        assert await ws.recv() == "x"
    assert asked == ["other.test"]


async def test_a_certificate_loaded_later_is_used_for_new_connections(carrier: str) -> None:
    context = server_context("old.test")
    async with secure(Echo, carrier, ssl=context) as server:
        uri = url(server).replace("ws:", "wss:")
        async with fastws.connect(uri, ssl=client_context(), server_hostname="old.test") as old:
            certificate = server_certificate("new.test")
            certificate.configure_cert(context)
            async with fastws.connect(uri, ssl=client_context(), server_hostname="new.test"):
                await old.send("x")
                assert await old.recv() == "x"


def server_certificate(name: str) -> Any:
    from tests.fastws.certificates import _authority

    return _authority().issue_cert(name)


async def test_a_client_without_the_certificate_that_is_asked_for_is_refused(carrier: str) -> None:
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    servers_may_complain()
    recorder = Recorder()
    async with secure(recorder, carrier, ssl=context) as server:
        with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
            await SecurePeer.open(server)
    assert recorder.opened.empty()


# --- what a client may do wrong


def servers_may_complain() -> None:
    """asyncio reports a TLS handshake that a client broke off; that is what these tests want."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)


async def test_plain_http_on_the_port_of_tls_is_not_answered(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    servers_may_complain()
    caplog.set_level(logging.INFO)
    async with secure(echo, carrier) as server, await Peer.connect(server) as peer:
        await peer.send(head())
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in await peer.rest()
        await until(lambda: not server._all())
    assert not logged(caplog)


async def test_garbage_instead_of_a_handshake_ends_the_connection(carrier: str) -> None:
    servers_may_complain()
    async with secure(echo, carrier) as server:
        for garbage in (b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000, b"\x80" * 9):
            async with await Peer.connect(server) as peer:
                with contextlib.suppress(ConnectionError):
                    await peer.send(garbage)
                    await peer.rest()
        async with await SecurePeer.open(server):
            pass


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["silent", "half-said"])
async def test_a_client_that_stalls_in_the_handshake_is_dropped(carrier: str, share: float) -> None:
    servers_may_complain()
    async with secure(echo, carrier, open_timeout=0.1) as server:
        async with await SecurePeer.connect(server) as peer:
            peer.begin()
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            hello = peer.outgoing.read()
            await Peer.send(peer, hello[: int(len(hello) * share)])
            started = time.monotonic()
            assert await Peer.ended(peer) in ("fin", "reset")
            assert 0.05 < time.monotonic() - started < 5
        await until(lambda: not server._all())


async def test_timeouts_of_asyncios_tls_may_be_given_and_choose_it() -> None:
    servers_may_complain()
    timeouts = {"ssl_handshake_timeout": 0.1, "ssl_shutdown_timeout": 0.1}
    async with secure(echo, "asyncio", **timeouts) as server:
        async with await Peer.connect(server) as silent:
            started = time.monotonic()
            assert await silent.ended() in ("fin", "reset")
            assert 0.05 < time.monotonic() - started < 5
        async with await SecurePeer.open(server) as peer:
            await peer.text("x")
            assert await peer.message() == "x"
    with pytest.raises(RuntimeError, match="no ssl_"):
        await secure(echo, "reactor", **timeouts)


async def test_a_client_that_says_nothing_after_the_tls_handshake_gets_408(carrier: str) -> None:
    async with (
        secure(echo, carrier, open_timeout=0.5, close_timeout=0.2) as server,
        await SecurePeer.handshake(server) as peer,
    ):
        assert (await peer.response())[0] == 408
        assert await peer.rest() == b""


async def test_a_record_that_was_tampered_with_ends_the_connection(carrier: str) -> None:
    servers_may_complain()
    recorder = Recorder()
    async with secure(recorder, carrier) as server, await SecurePeer.open(server) as peer:
        good = peer.records(frame(BINARY, b"good"))
        bad = bytearray(peer.records(frame(BINARY, b"x" * 100)))
        bad[-1] ^= 1
        await Peer.send(peer, good + bytes(bad))
        assert (await recorder.closed.get())[1] == 1006
        if carrier == "reactor":
            assert await recorder.messages.get() == b"good"
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                await peer._more()


async def test_truncation_is_an_abnormal_end_whether_or_not_there_is_a_close_notify(
    carrier: str,
) -> None:
    servers_may_complain()
    recorder = Recorder()
    async with secure(recorder, carrier) as server:
        async with await SecurePeer.open(server) as peer:
            peer.half_close()
            assert (await recorder.closed.get())[1] == 1006
        async with await SecurePeer.open(server) as peer:
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.unwrap()
            await Peer.send(peer, peer.outgoing.read())
            assert (await recorder.closed.get())[1] == 1006
        async with await SecurePeer.open(server) as peer:
            records = peer.records(frame(BINARY, b"x" * 1000))
            await Peer.send(peer, records[:500])
            peer.half_close()
            assert (await recorder.closed.get())[1] == 1006
    assert recorder.messages.empty()


async def test_what_came_before_a_close_notify_is_delivered(carrier: str) -> None:
    recorder = Recorder()
    async with secure(recorder, carrier) as server, await SecurePeer.open(server) as peer:
        records = peer.records(frame(BINARY, b"last words") + frame(CLOSE, b"\x03\xe8"))
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.unwrap()
        await Peer.send(peer, records + peer.outgoing.read())
        assert await recorder.messages.get() == b"last words"
        assert (await recorder.closed.get())[1] == 1000


async def test_a_reset_ends_the_connection(carrier: str) -> None:
    recorder = Recorder()
    async with secure(recorder, carrier) as server:
        peer = await SecurePeer.open(server)
        peer.reset()
        assert (await recorder.closed.get())[1] == 1006


class KeyUpdates:
    """KeyUpdate messages of a TLS 1.3 client (RFC 8446 4.6.3), each under a key of its own.

    ``log``: what the client's context wrote to ``keylog_filename``; ``sent``: records that the
    client has sent since its handshake.
    """

    def __init__(self, log: str, sent: int) -> None:
        lines = [line.split() for line in log.splitlines()]
        (secret,) = (line[2] for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0")
        self.secret = bytes.fromhex(secret)
        self.sequence = sent

    def expand(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label (RFC 8446 7.1); one block is enough."""
        label = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0\x01"
        return hmac.digest(self.secret, info, "sha384")[:length]

    def record(self) -> bytes:
        nonce = int.from_bytes(self.expand(b"iv", 12), "big") ^ self.sequence
        message = b"\x18\0\0\x01\x01" + b"\x16"  # update requested; of type handshake
        header = b"\x17\x03\x03" + (len(message) + 16).to_bytes(2, "big")
        cipher = AESGCM(self.expand(b"key", 32))
        sealed = cipher.encrypt(nonce.to_bytes(12, "big"), message, header)
        self.secret, self.sequence = self.expand(b"traffic upd", 48), 0
        return header + sealed


async def test_key_updates_are_answered_but_not_for_ever(carrier: str, tmp_path: Path) -> None:
    context = client_context()
    context.keylog_filename = str(tmp_path / "keys")
    recorder = Recorder()
    async with (
        secure(recorder, carrier, buffers=8192) as server,
        await SecurePeer.open(server, context=context, buffers=8192) as peer,
    ):
        assert "TLS_AES_256_GCM_SHA384" in (peer.tls.cipher() or ())
        ws = await recorder.opened.get()
        updates = KeyUpdates((tmp_path / "keys").read_text(), sent=1)
        await Peer.send(peer, b"".join(updates.record() for _ in range(100)))
        await turns(5)
        ws.send("still here")
        assert await peer.message() == "still here"
        await flood(peer, updates)
        assert (await recorder.closed.get())[1] == 1006


async def flood(peer: Peer, records: Any) -> None:
    """Send until the server ends it, and read nothing of what it answers."""
    with contextlib.suppress(ConnectionError):
        for _ in range(1000):
            await Peer.send(peer, b"".join(records.record() for _ in range(100)))
        pytest.fail("the server takes any number of them")


class Hellos:
    """Records of a TLS 1.2 client after its handshake, which begin the next one (RFC 5246 7.4.1).

    ``log``: as for ``KeyUpdates``; ``hello``: what the server sent first.
    """

    def __init__(self, log: str, hello: bytes) -> None:
        (line,) = (line.split() for line in log.splitlines() if line.startswith("CLIENT_RANDOM"))
        seed = b"key expansion" + hello[11:43] + bytes.fromhex(line[1])
        secret, block, a = bytes.fromhex(line[2]), b"", seed
        while len(block) < 40:  # two keys, and two halves of nonces (RFC 5288 3)
            a = hmac.digest(secret, a, "sha256")
            block += hmac.digest(secret, a + seed, "sha256")
        self.cipher, self.salt = AESGCM(block[:16]), block[32:36]
        self.sequence = 2  # Finished, and the request of the handshake above

    def record(self, kind: int = 22, data: bytes = b"\x01\0\0\x04\x03\x03\0\0") -> bytes:
        count, version = self.sequence.to_bytes(8, "big"), b"\x03\x03"
        head = bytes([kind]) + version
        self.sequence += 1
        sealed = self.cipher.encrypt(
            self.salt + count, data, count + head + len(data).to_bytes(2, "big")
        )
        return head + (len(sealed) + 8).to_bytes(2, "big") + count + sealed


async def test_renegotiation_is_refused_each_time_but_not_for_ever(
    carrier: str, tmp_path: Path
) -> None:
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AES128+AESGCM")
    context.keylog_filename = str(tmp_path / "keys")
    recorder = Recorder()
    async with (
        secure(recorder, carrier, buffers=8192) as server,
        await SecurePeer.open(server, context=context, buffers=8192) as peer,
    ):
        await recorder.opened.get()
        hellos = Hellos((tmp_path / "keys").read_text(), peer.hello)
        await Peer.send(peer, b"".join(hellos.record() for _ in range(100)))
        await Peer.send(peer, hellos.record(23, frame(BINARY, b"still here")))
        assert await recorder.messages.get() == b"still here"
        await flood(peer, hellos)
        assert (await recorder.closed.get())[1] == 1006


# --- back pressure


async def test_a_client_that_does_not_read_is_not_read_either(carrier: str) -> None:
    async with (
        secure(Echo, carrier, buffers=8192, write_limit=(32768, 8192)) as server,
        await SecurePeer.open(server, buffers=8192) as peer,
    ):
        (ws,) = server.connections
        peer.sock.setblocking(False)
        records = b"".join(peer.records(frame(BINARY, bytes([i]) * 8000)) for i in range(200))
        sending = asyncio.ensure_future(peer.loop.sock_sendall(peer.sock, records))
        done, _ = await asyncio.wait([sending], timeout=0.3)
        assert not done
        assert ws.buffered_amount < 200_000
        for i in range(200):
            assert await peer.message() == bytes([i]) * 8000
        await sending


async def test_a_queue_over_max_backlog_is_dropped(carrier: str) -> None:
    recorder = Recorder()
    async with (
        secure(recorder, carrier, buffers=8192, max_backlog=300_000, close_timeout=0.2) as server,
        await SecurePeer.open(server, buffers=8192),
    ):
        ws = await recorder.opened.get()
        while ws.state == fastws.State.OPEN:
            ws.send(bytes(20_000))
            assert ws.buffered_amount <= 321_000
            await asyncio.sleep(0)
        await recorder.closed.get()


async def test_everything_queued_leaves_before_the_end(carrier: str) -> None:
    recorder = Recorder()
    async with (
        secure(recorder, carrier, buffers=8192) as server,
        await SecurePeer.open(server, buffers=8192) as peer,
    ):
        ws = await recorder.opened.get()
        ws.send(bytes(1_000_000))
        ws.close(1001, "bye")
        assert await peer.message() == bytes(1_000_000)
        assert await peer.close_frame() == (1001, "bye")
        await peer.say_close(1001)
        assert await peer.rest() == b""
        assert (await recorder.closed.get())[1:] == (1001, "")


async def test_bytes_that_come_after_the_end_are_ignored(carrier: str) -> None:
    """asyncio's transport goes on reading while it flushes."""
    recorder = Recorder()
    async with (
        secure(recorder, carrier, max_backlog=None, close_timeout=0.05) as server,
        await SecurePeer.open(server, buffers=8192) as peer,
    ):
        ws = await recorder.opened.get()
        ws.send(bytes(30_000_000))
        await turns()
        await peer.send(frame(BINARY, b"early"))
        assert await recorder.messages.get() == b"early"
        ws.close()
        await recorder.closed.get()
        with contextlib.suppress(ConnectionError):
            for _ in range(10):
                await peer.send(frame(BINARY, b"late") * 100)
                await turns()
        assert recorder.messages.empty()
        await turns(10)


async def test_a_server_that_closes_lets_its_clients_know(carrier: str) -> None:
    async with secure(echo, carrier) as server, await SecurePeer.open(server) as peer:
        server.close()
        assert await peer.close_frame() == (1001, "")
        await peer.say_close(1001)
        assert await peer.rest() == b""
        await server.wait_closed()


async def test_a_refusal_is_read_to_its_end(carrier: str) -> None:
    async with (
        secure(echo, carrier, origins=["https://here"], close_timeout=0.2) as server,
        await SecurePeer.handshake(server) as peer,
    ):
        await peer.send(head([("Origin", "https://elsewhere")]))
        status, _, body = await peer.response()
        assert status == 403 and body
        with pytest.raises(EOFError, match=r"close_notify|TCP"):
            await peer._more()


# --- plain HTTP on the same port


async def test_plain_http_over_tls_is_handed_over_on_the_asyncio_carrier() -> None:
    class Answer(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            self.transport.close()

    async with secure(echo, "auto", http=Answer) as server:
        async with await SecurePeer.handshake(server) as peer:
            await peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await peer.response())[::2] == (200, b"ok")
        async with await SecurePeer.open(server) as peer:
            await peer.text("x")
            assert await peer.message() == "x"


# --- memory


async def test_nothing_is_left_of_connections_that_have_ended(carrier: str) -> None:
    recorder = Recorder()
    async with secure(recorder, carrier) as server:
        for _ in range(20):
            async with await SecurePeer.open(server) as peer:
                await recorder.opened.get()
                await peer.say_close()
                await peer.close_frame()
            await recorder.closed.get()
        await until(lambda: not len(server.reactor))
        await turns()
        gc.collect()
        if carrier == "reactor":  # asyncio's transport takes its time
            held = [item for item in gc.get_objects() if isinstance(item, ssl.SSLObject)]
            assert not [item for item in held if item.server_side]

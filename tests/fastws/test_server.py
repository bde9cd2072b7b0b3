"""``serve``: sockets, handlers, accepting, and the end of a server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect

import fastws
from tests.fastws.client import (
    TEXT,
    Echo,
    Held,
    Peer,
    Recorder,
    address,
    echo,
    frame,
    has_nodelay,
    head,
    logged,
    serve,
    turns,
    until,
)

pytestmark = pytest.mark.usefixtures("loop_kind")


# --- handlers


async def test_every_kind_of_handler_is_taken(carrier: str) -> None:
    class WithArgument(Echo):
        def __init__(self, name: str) -> None:
            self.name = name

    class CallableObject:
        async def __call__(self, ws: fastws.Connection) -> None:
            await echo(ws)

    class NotDerived:
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            ws.send(message)

    handlers: list[Any] = [
        echo,
        Echo,
        Echo(),
        lambda: WithArgument("x"),
        lambda ws: echo(ws),
        CallableObject(),
        NotDerived,
    ]
    for handler in handlers:
        async with serve(handler, carrier) as server, await Peer.open(server) as peer:
            await peer.text("hello")
            assert await peer.message() == "hello"


async def test_what_is_no_handler_is_a_type_error(carrier: str) -> None:
    for wrong in (None, "echo", 1):
        with pytest.raises(TypeError, match="handler"):
            await serve(wrong, carrier)
    gc.collect()


async def test_listener_class_is_made_anew_for_each_connection_and_an_instance_is_shared(
    carrier: str,
) -> None:
    class Counting(fastws.Listener):
        def __init__(self) -> None:
            self.count = 0

        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            self.count += 1
            assert ws.listener is self
            ws.send(str(self.count))

    for handler, expected in ((Counting, ["1", "1"]), (Counting(), ["1", "2"])):
        async with serve(handler, carrier) as server:
            got = []
            for _ in range(2):
                async with await Peer.open(server) as peer:
                    await peer.text("x")
                    got.append(await peer.message())
            assert got == expected


async def test_listener_without_callbacks_ignores_what_comes(carrier: str) -> None:
    async with serve(fastws.Listener, carrier) as server, await Peer.open(server) as peer:
        (ws,) = server.connections
        await peer.send(frame(TEXT, b"x") * 1000)
        ws.send("hello")
        assert await peer.message() == "hello"
        await peer.say_close()
        assert await peer.close_frame() == (1000, "")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_listener_factory_that_raises_closes_with_1011(
    carrier: str, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def factory() -> fastws.Listener:
        raise ValueError("no listener today")

    async def process(ws: fastws.Connection, request: fastws.Request) -> None:
        await asyncio.sleep(0)

    options = {"process_request": process} if asynchronous else {}
    async with serve(factory, carrier, **options) as server, await Peer.open(server) as peer:
        assert (await peer.close_frame())[0] == 1011
        assert await peer.ended() == "fin"
    (record,) = logged(caplog)
    assert record.exc_info is not None and str(record.exc_info[1]) == "no listener today"


async def test_coroutine_that_returns_closes_with_1000(carrier: str) -> None:
    async def handler(ws: fastws.Connection) -> None:
        await ws.send("only this")

    async with serve(handler, carrier) as server, await Peer.open(server) as peer:
        assert await peer.message() == "only this"
        assert await peer.close_frame() == (1000, "")
        await peer.say_close()
        assert await peer.ended() == "fin"


async def test_coroutine_that_lets_connection_closed_through_is_not_an_error(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: fastws.Connection) -> None:
        while True:
            await ws.recv()

    async with serve(handler, carrier) as server:
        for end in ("half_close", "reset"):
            async with await Peer.open(server) as peer:
                getattr(peer, end)()
                await until(lambda: not server.connections)
    assert logged(caplog) == []


async def test_logger_can_be_given(carrier: str, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(fastws.Listener):
        def on_open(self, ws: fastws.Connection) -> None:
            raise ValueError

    logger = logging.getLogger("tests.fastws")
    async with serve(Failing, carrier, logger=logger) as server, await Peer.open(server) as peer:
        assert (await peer.close_frame())[0] == 1011
    assert [record.name for record in logged(caplog)] == ["tests.fastws"]


# --- where it listens


async def test_free_port_is_the_same_for_every_address(carrier: str) -> None:
    async with fastws.serve(echo, "localhost", carrier=carrier) as server:
        ports = {sock.getsockname()[1] for sock in server.sockets}
        assert len(ports) == 1
        assert server.is_serving()
        async with connect(f"ws://localhost:{ports.pop()}") as client:
            await client.send("x")
            assert await client.recv() == "x"
    assert server.sockets == () and not server.is_serving()


async def test_several_hosts_are_listened_on(carrier: str) -> None:
    async with fastws.serve(echo, ["127.0.0.1", "127.0.0.2"], carrier=carrier) as server:
        assert [sock.getsockname()[0] for sock in server.sockets] == ["127.0.0.1", "127.0.0.2"]
        for sock in server.sockets:
            async with await Peer.open(sock.getsockname()) as peer:
                await peer.text("x")
                assert await peer.message() == "x"


async def test_address_in_use_is_an_error_that_names_it(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        port = address(server)[1]
        with pytest.raises(OSError, match=str(port)):
            await fastws.serve(echo, "127.0.0.1", port, carrier=carrier)
    async with fastws.serve(echo, "127.0.0.1", port, carrier=carrier):
        pass  # free again at once


async def test_reuse_port_lets_two_servers_share_it(carrier: str) -> None:
    async with fastws.serve(echo, "127.0.0.1", 0, reuse_port=True, carrier=carrier) as first:
        port = address(first)[1]
        async with fastws.serve(echo, "127.0.0.1", port, reuse_port=True, carrier=carrier) as other:
            assert address(other)[1] == port
            for _ in range(4):
                async with await Peer.open(first) as peer:
                    await peer.text("x")
                    assert await peer.message() == "x"


async def test_bound_socket_can_be_given(carrier: str) -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    where = sock.getsockname()
    async with fastws.serve(echo, sock=sock, carrier=carrier) as server:
        assert address(server) == where
        async with await Peer.open(where) as peer:
            await peer.text("x")
            assert await peer.message() == "x"
            (ws,) = server.connections
            assert has_nodelay(ws)
    assert sock.fileno() == -1


async def test_unix_socket_is_served_and_removed(carrier: str, tmp_path: Path) -> None:
    path = str(tmp_path / "ws.sock")
    for _ in range(2):
        async with fastws.unix_serve(echo, path, carrier=carrier) as server:
            assert server.sockets[0].family == socket.AF_UNIX
            async with unix_connect(path) as client:
                for message in ("x", bytes(200_000)):
                    await client.send(message)
                    assert await client.recv() == message
        assert not os.path.exists(path)


async def test_stale_unix_socket_is_replaced_but_no_other_file(
    carrier: str, tmp_path: Path
) -> None:
    path = tmp_path / "ws.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    async with (
        fastws.unix_serve(echo, str(path), carrier=carrier),
        await Peer.open(str(path)) as peer,
    ):
        await peer.text("x")
        assert await peer.message() == "x"
    path.write_text("precious")
    with pytest.raises(OSError):
        await fastws.unix_serve(echo, str(path), carrier=carrier)
    assert path.read_text() == "precious"


async def test_arguments_out_of_bounds_are_refused_by_name(carrier: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_size": 0}, "max_size"),
        ({"max_fragments": 0}, "max_fragments"),
        ({"max_queue": 0}, "max_queue"),
        ({"write_limit": -1}, "write_limit"),
        ({"write_limit": (10, 20)}, "write_limit"),
        ({"open_timeout": 0}, "open_timeout"),
        ({"close_timeout": -1}, "close_timeout"),
        ({"ping_interval": 0}, "ping_interval"),
        ({"ping_timeout": 0}, "ping_timeout"),
    ]
    for options, name in wrong:
        with pytest.raises(ValueError, match=name):
            await serve(echo, carrier, **options)
    with pytest.raises(ValueError, match="carrier"):
        await serve(echo, "smoke signals")
    with socket.socket() as sock, pytest.raises(ValueError, match="sock"):
        await fastws.serve(echo, "127.0.0.1", sock=sock, carrier=carrier)


async def test_server_that_cannot_start_leaves_no_socket_behind(
    carrier: str, tmp_path: Path
) -> None:
    """An unclosed socket would be a ResourceWarning, and so fail this test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(RuntimeError, match="http= and ssl="):
        await fastws.serve(
            echo, "127.0.0.1", 0, carrier="reactor", ssl=context, http=asyncio.Protocol
        )
    path = tmp_path / "ws.sock"
    with pytest.raises(TypeError):
        await fastws.unix_serve(None, str(path), carrier=carrier)
    with pytest.raises(ValueError, match="max_size"):
        await fastws.unix_serve(echo, str(path), carrier=carrier, max_size=0)
    assert not path.exists()
    gc.collect()


# --- accepting


async def test_burst_of_connections_is_accepted(carrier: str) -> None:
    """More than one wake-up's worth, all connected before the loop looks."""
    count = 300
    async with serve(Echo, carrier) as server, contextlib.AsyncExitStack() as stack:
        peers = []
        for index in range(count):
            sock = socket.create_connection(address(server), timeout=5)
            sock.sendall(head() + frame(TEXT, str(index).encode()))
            sock.setblocking(False)
            peers.append(await _enter_without_turn(stack, sock))
        for index, peer in enumerate(peers):
            assert (await peer.response())[0] == 101
            assert await peer.message() == str(index)
        assert len(server.connections) == len(server.reactor) == count
        assert len({ws.slot for ws in server.connections}) == count
    assert len(server.reactor) == 0


async def _enter_without_turn(stack: contextlib.AsyncExitStack, sock: socket.socket) -> Peer:
    peer = Peer(sock)
    stack.callback(peer.close)
    return peer


OUT_OF_DESCRIPTORS = """
    import asyncio, logging, resource, sys
    from tests.conftest import loop_factory
    from tests.fastws.client import Echo, Peer, head, serve, until

    async def talk(peer):
        await peer.text("x")
        assert await asyncio.wait_for(peer.message(), 5) == "x"

    async def main(carrier):
        lines = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        logging.getLogger("fastws.server").addHandler(handler)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, what: lines.append(what["message"]))
        async with serve(Echo, carrier) as server:
            inside = [await Peer.open(server) for _ in range(10)]
            await until(lambda: len(server.reactor) == 10)
            # Two descriptors are left, then none.
            spare = [open("/dev/null") for _ in range(3)]
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare[2].fileno() + 1, hard))
            spare.pop(0).close()
            starved = await Peer.connect(server)  # takes the last one
            # The server finds none for it, again and again.
            await asyncio.sleep(0.7)
            for peer in inside:
                await talk(peer)
            print(*lines, sep="\\n")
            # As others leave, those in the backlog come in.
            for peer in inside:
                peer.close()
            if carrier == "asyncio":
                # Its loop may have hung up on the one that it could not take.
                starved.close()
                starved = await Peer.connect(server)
            await starved.send(head())
            assert (await asyncio.wait_for(starved.response(), 5))[0] == 101
            await talk(starved)
            starved.close()
            for file in spare:
                file.close()

    with asyncio.Runner(loop_factory=loop_factory(sys.argv[2])) as runner:
        runner.run(main(sys.argv[1]))
"""


def test_out_of_descriptors_stops_accepting_says_so_once_and_recovers(
    carrier: str, loop_kind: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OUT_OF_DESCRIPTORS), carrier, loop_kind],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    if carrier == "reactor":  # what is said otherwise is the loop's business
        (line,) = done.stdout.splitlines()
        assert line.startswith("not accepting connections for now: Too many open files")


async def test_more_connections_than_a_reactor_holds_do_not_disturb_those_it_has(
    carrier: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastws._loop._descriptor_limit", lambda: 3)
    async with serve(Echo, carrier) as server, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await Peer.open(server)) for _ in range(3)]
        late = await stack.enter_async_context(await Peer.connect(server))
        await late.send(head())
        await until(lambda: logged(caplog))
        for peer in peers:
            await peer.text("x")
            assert await peer.message() == "x"
        assert len(server.reactor) == 3
        peers[0].close()
        if carrier == "reactor":
            # It waited in the backlog.
            assert (await late.response())[0] == 101
        else:
            assert await late.ended() in ("fin", "reset")
            await until(lambda: len(server.reactor) < 3)
            await stack.enter_async_context(await Peer.open(server))
    assert logged(caplog)[0].levelname == "ERROR"


# --- the end of a server


async def test_close_says_going_away_to_every_connection_and_waits_for_it(carrier: str) -> None:
    recorder = Recorder()
    server = await serve(recorder, carrier)
    async with await Peer.open(server) as first, await Peer.open(server) as second:
        server.close()
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        for peer in (first, second):
            assert await peer.close_frame() == (1001, "")
            assert not waiting.done()
            await peer.say_close(1001)
        await waiting
        assert server.connections == set()
        assert [(await recorder.closed.get())[1] for _ in range(2)] == [1001, 1001]


async def test_close_takes_another_code_and_reason(carrier: str) -> None:
    async with serve(echo, carrier) as server, await Peer.open(server) as peer:
        server.close(code=1012, reason="restart")
        assert await peer.close_frame() == (1012, "restart")


async def test_close_may_leave_connections_open(carrier: str) -> None:
    async with serve(echo, carrier) as server, await Peer.open(server) as peer:
        where = address(server)
        server.close(close_connections=False)
        with pytest.raises(OSError):
            await Peer.connect(where)
        waiting = asyncio.ensure_future(server.wait_closed())
        await peer.text("still here")
        assert await peer.message() == "still here"
        assert not waiting.done()
        await peer.say_close()
        await waiting


async def test_close_drops_handshakes_that_are_not_done(carrier: str) -> None:
    decision = asyncio.Event()

    async def process(ws: fastws.Connection, request: fastws.Request) -> None:
        await decision.wait()

    async with (
        serve(echo, carrier, process_request=process) as server,
        await Peer.connect(server) as half,
        await Peer.connect(server) as deciding,
    ):
        await half.send(head()[:20])
        await deciding.send(head())
        await until(lambda: len(server.reactor) == 2)
        await turns()
        server.close()
        await server.wait_closed()
        assert await half.ended() in ("fin", "reset")
        assert await deciding.ended() in ("fin", "reset")


async def test_wait_closed_waits_for_handlers_that_are_still_busy(carrier: str) -> None:
    release = asyncio.Event()
    finished = []

    async def handler(ws: fastws.Connection) -> None:
        await ws.wait_closed()
        await release.wait()
        finished.append(ws)

    server = await serve(handler, carrier)
    async with await Peer.open(server) as peer:
        server.close()
        await peer.close_frame()
        await peer.say_close(1001)
        waiting = asyncio.ensure_future(server.wait_closed())
        assert await peer.ended() == "fin"
        await turns(10)
        assert not waiting.done()
        release.set()
        await waiting
        assert len(finished) == 1


async def test_wait_closed_can_be_cancelled_and_called_again(carrier: str) -> None:
    server = await serve(echo, carrier)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.wait_closed(), 0.01)
    server.close()
    await server.wait_closed()
    await server.wait_closed()


async def test_serve_forever_closes_the_server_when_it_is_cancelled(carrier: str) -> None:
    server = await serve(echo, carrier)
    async with await Peer.open(server) as peer:
        forever = asyncio.ensure_future(server.serve_forever())
        await peer.text("x")
        assert await peer.message() == "x"
        forever.cancel()
        assert await peer.close_frame() == (1001, "")
        await peer.say_close(1001)
        with pytest.raises(asyncio.CancelledError):
            await forever
        assert not server.is_serving()


async def test_closing_a_server_in_a_handler_of_its_own_works(carrier: str) -> None:
    class Closer(fastws.Listener):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            server.close()

    async with serve(Closer, carrier) as server, await Peer.open(server) as peer:
        await peer.text("x")
        assert await peer.close_frame() == (1001, "")


async def test_closing_many_connections_takes_time_in_proportion(carrier: str) -> None:
    """Each end may not look at all the connections that are left."""
    recorder = Recorder()
    count = 200
    async with serve(recorder, carrier) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(await Peer.open(server))
        looked = 0
        real = server._all

        def counting() -> list[fastws.Connection]:
            nonlocal looked
            found = real()
            looked += len(found)
            return found

        server._all = counting  # type: ignore[method-assign]
        server.close()
        await stack.aclose()
        await server.wait_closed()
        assert looked < 5 * count


async def test_closed_connections_are_forgotten(carrier: str) -> None:
    class Plain(fastws.Listener):
        def on_open(self, ws: fastws.Connection) -> None:
            listeners.append(weakref.ref(self))

    listeners: list[weakref.ref[Plain]] = []
    async with serve(Plain, carrier) as server:
        for _ in range(3):
            async with await Peer.open(server) as peer:
                await peer.text("x")
                await peer.say_close()
                await peer.close_frame()
        await until(lambda: not len(server.reactor))
        await turns()
        gc.collect()
        assert [ref() for ref in listeners] == [None] * 3


# --- names that programs for websockets use


async def test_connections_are_of_the_class_that_create_connection_names(carrier: str) -> None:
    class Mine(fastws.ServerConnection):
        pass

    held = Held()
    async with (
        serve(held, carrier, create_connection=Mine) as server,
        await Peer.open(server) as peer,
    ):
        ws = await held.connection()
        assert isinstance(ws, Mine)
        assert ws.server is server
        ws.send("hello")
        assert await peer.message() == "hello"


async def test_a_server_is_started_and_knows_its_loop() -> None:
    async with serve(echo, "auto") as server:
        await server.start_serving()
        assert server.is_serving()
        assert server.get_loop() is asyncio.get_running_loop()


@pytest.mark.usefixtures("loop_kind")
async def test_a_server_may_begin_to_accept_later(carrier: str) -> None:
    async with serve(echo, carrier, start_serving=False) as server:
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect(server)
        await server.start_serving()
        assert server.is_serving()
        async with await Peer.open(server) as peer:
            await peer.text("x")
            assert await peer.message() == "x"


async def test_a_server_that_never_began_is_closed() -> None:
    async with serve(echo, "auto", start_serving=False) as server:
        (sock,) = server.sockets
    assert sock.fileno() == -1 and server.sockets == ()
    await server.start_serving()
    assert not server.is_serving()


async def test_serve_forever_begins_to_accept() -> None:
    server = await serve(echo, "auto", start_serving=False)
    running = asyncio.ensure_future(server.serve_forever())
    await until(server.is_serving)
    async with await Peer.open(server):
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_addresses_are_looked_up_as_the_caller_says() -> None:
    async with fastws.serve(echo, "localhost", 0, family=socket.AF_INET) as server:
        assert {sock.family for sock in server.sockets} == {socket.AF_INET}
    with pytest.raises(OSError):
        await fastws.serve(echo, "localhost", 0, flags=socket.AI_NUMERICHOST)


@pytest.mark.skipif(os.name != "posix", reason="it is the default of POSIX")
async def test_addresses_are_reused_unless_told_not_to() -> None:
    for given, reused in ((None, True), (True, True), (False, False)):
        async with fastws.serve(echo, "127.0.0.1", 0, reuse_address=given) as server:
            (sock,) = server.sockets
            assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is reused

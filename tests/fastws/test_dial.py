"""TCP connections to hosts with several addresses (RFC 8305)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import fastws
from fastws._dial import dial

pytestmark = pytest.mark.usefixtures("loop_kind")

whole_network = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere 127.0.0.1 is the only address of 127.0.0.0/8"
)

GOOD = "127.0.0.1"
# Nobody listens there: refused at once.
REFUSING = ("127.0.0.2", "127.0.0.3")


@contextlib.contextmanager
def listener(host: str = GOOD, family: int = socket.AF_INET) -> Iterator[int]:
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Which addresses a name has; it can be changed."""
    names: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if isinstance(host, bytes):
            host = host.decode()
        if host not in names:
            return real(host, port, *args, **options)
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        found = []
        for address in names[host]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            where: tuple[Any, ...] = (address, port, 0, 0) if ":" in address else (address, port)
            found.append((family, socket.SOCK_STREAM, 6, "", where))
        return found

    async def resolve(self: Any, host: Any, port: Any, **options: Any) -> list[Any]:
        return getaddrinfo(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    loop_classes = [asyncio.BaseEventLoop]
    with contextlib.suppress(ImportError):
        import uvloop

        loop_classes.append(uvloop.Loop)
    for loop_class in loop_classes:
        monkeypatch.setattr(loop_class, "getaddrinfo", resolve)
    return names


async def test_an_address_needs_no_look_up() -> None:
    with listener() as port:
        sock = await dial(GOOD, port)
        with sock:
            assert sock.getpeername() == (GOOD, port)
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_name_is_looked_up() -> None:
    with listener() as port:
        (await dial("localhost", port, family=socket.AF_INET)).close()


@whole_network
async def test_the_next_address_is_tried_as_soon_as_one_has_failed(
    resolver: dict[str, list[str]],
) -> None:
    resolver["many.test"] = [*REFUSING, GOOD]
    with listener() as port:
        started = time.monotonic()
        for delay in (None, 20.0):
            sock = await dial("many.test", port, attempt_delay=delay)
            assert sock.getpeername() == (GOOD, port)
            sock.close()
        assert time.monotonic() - started < 5


async def test_the_next_address_is_tried_beside_one_that_is_silent(
    resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver["many.test"] = ["127.0.0.9", GOOD]
    silent, cancelled = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    real = type(loop).sock_connect

    async def sock_connect(self: Any, sock: socket.socket, address: Any) -> None:
        if address[0] != "127.0.0.9":
            return await real(self, sock, address)
        silent.set()
        try:
            await asyncio.sleep(60)
        finally:
            assert sock.fileno() != -1
            cancelled.set()

    monkeypatch.setattr(type(loop), "sock_connect", sock_connect)
    with listener() as port:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(dial("many.test", port, attempt_delay=None), 0.1)
        cancelled.clear()
        sock = await dial("many.test", port, attempt_delay=0.02)
        assert sock.getpeername() == (GOOD, port)
        sock.close()
    assert silent.is_set() and cancelled.is_set()


async def test_families_are_tried_by_turns(resolver: dict[str, list[str]]) -> None:
    from fastws._dial import _interlaced, _resolve

    resolver["both.test"] = ["::1", "::2", "::3", "127.0.0.1"]
    addresses = await _resolve("both.test", 80, 0, 0, 0)
    turns = {
        count: [address[1] for address in _interlaced(addresses, count)] for count in (1, 2, 9)
    }
    assert turns[1] == ["::1", "127.0.0.1", "::2", "::3"]
    assert turns[2] == ["::1", "::2", "127.0.0.1", "::3"]
    assert turns[9] == resolver["both.test"]


@whole_network
async def test_addresses_are_left_in_order_without_interleaving(
    resolver: dict[str, list[str]],
) -> None:
    with listener() as port:
        resolver["both.test"] = [GOOD, "::9", GOOD]
        for interleave in (0, 1):
            sock = await dial("both.test", port, interleave=interleave)
            assert sock.getpeername() == (GOOD, port)
            sock.close()


async def test_the_look_up_is_as_the_caller_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def getaddrinfo(*args: Any, **options: Any) -> list[Any]:
        asked.append((args, options))
        raise OSError("enough")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match="enough"):
        await fastws.connect(
            "ws://host.test/", proxy=None, family=socket.AF_INET6, proto=6, flags=socket.AI_ALL
        )
    flags = {"flags": socket.AI_ALL | socket.AI_NUMERICHOST}
    assert asked == [(("host.test", 80, socket.AF_INET6, socket.SOCK_STREAM, 6), flags)]


@whole_network
async def test_the_error_names_every_address_that_was_tried(resolver: dict[str, list[str]]) -> None:
    resolver["none.test"] = [*REFUSING]
    with pytest.raises(ConnectionRefusedError) as caught:
        await dial("none.test", 9)
    for address in REFUSING:
        assert f"cannot connect to {address}:9: Connection refused" in str(caught.value)
    assert caught.value.errno == errno.ECONNREFUSED


async def test_a_name_that_has_no_address() -> None:
    with pytest.raises(OSError):
        await dial("nowhere.invalid", 80)


@whole_network
async def test_the_local_address_may_be_chosen() -> None:
    with listener() as port:
        with await dial(GOOD, port, local_addr=("127.0.0.5", 0)) as sock:
            assert sock.getsockname()[0] == "127.0.0.5"
        with pytest.raises(OSError, match="cannot connect"):
            await dial(GOOD, port, local_addr=("::1", 0))

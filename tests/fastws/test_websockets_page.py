"""docs/websockets.md has every public name of websockets, and what it says of ours is so."""

from __future__ import annotations

import ast
import asyncio
import enum
import functools
import importlib
import inspect
import logging
import re
import socket
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import websockets
from websockets.asyncio import client, connection, server

import fastws
from tests.fastws.raw_server import no_proxy

__all__ = ["no_proxy"]

PAGE = Path(__file__).parents[2] / "docs" / "websockets.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="only the tests are here")

# What its documentation calls the asyncio API.
MODULES = (
    "websockets",
    "websockets.asyncio.client",
    "websockets.asyncio.connection",
    "websockets.asyncio.server",
    "websockets.datastructures",
    "websockets.exceptions",
    "websockets.frames",
    "websockets.http11",
    "websockets.typing",
)

# They need a package of their own.
NOT_INSTALLED = {"route", "unix_route", "Router"}

# Its documentation of connect() has it, though no module lists it.
UNLISTED = {"process_exception"}

ROW = re.compile(r"^\| `([^`]+)` \| (same|differs|missing) \| ?(.*?) ?\|$", re.MULTILINE)


def public(namespace: object) -> Iterator[str]:
    return (name for name in dir(namespace) if not name.startswith("_"))


def parameters(function: Callable[..., Any]) -> Iterator[str]:
    """Names of what ``function`` takes, but for itself and what it passes on."""
    for name, parameter in inspect.signature(function).parameters.items():
        variable = parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
        if name != "self" and not variable:
            yield name


def assigned(cls: type) -> Iterator[str]:
    """Public attributes that ``cls.__init__`` sets."""
    if not written(cls):
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                if not name.startswith("_"):
                    yield name


def written(cls: type) -> bool:
    """Whether ``cls`` has an ``__init__`` of its own that somebody wrote."""
    function = vars(cls).get("__init__")
    return inspect.isfunction(function) and not hasattr(cls, "__dataclass_fields__")


def attributes(cls: type) -> set[str]:
    """Public attributes and methods that ``cls`` adds to what it is based on."""
    inherited = {name for base in cls.__mro__[1:] for name in attributes_of(base)}
    return attributes_of(cls) - inherited


@functools.cache
def attributes_of(cls: type) -> set[str]:
    fields = getattr(cls, "__dataclass_fields__", {})
    own = {*public(cls), *assigned(cls), *(name for name in fields if not name.startswith("_"))}
    # asyncio's protocol methods are for transports to call.
    return (
        own
        - {"connection_made", "connection_lost", "data_received", "eof_received"}
        - {
            "pause_writing",
            "resume_writing",
        }
    )


def their_names() -> set[str]:
    """``name``, ``function(parameter)``, ``Class.attribute`` and ``Class.method(parameter)``."""
    names = NOT_INSTALLED | UNLISTED
    objects: dict[str, Any] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        names.update(module.__all__)
        for name in module.__all__:
            if name not in NOT_INSTALLED:
                objects[name] = getattr(module, name)
    for function in (server.serve, server.unix_serve, server.broadcast, server.basic_auth):
        names.update(f"{function.__name__}({name})" for name in parameters(function))
    for function in (client.connect, client.unix_connect):
        names.update(f"{function.__name__}({name})" for name in parameters(function))
    for method in ("send", "recv", "recv_streaming", "ping", "pong", "close"):
        function = getattr(connection.Connection, method)
        names.update(f"Connection.{method}({name})" for name in parameters(function))
    names.update(f"Server.close({name})" for name in parameters(server.Server.close))
    for name in ("Connection", "ServerConnection", "ClientConnection", "Server", "connect"):
        names.update(f"{name}.{attribute}" for attribute in attributes(objects[name]))
    for name in ("Headers", "Request", "Response", "Close"):
        names.update(f"{name}.{attribute}" for attribute in attributes(objects[name]))
    for name, found in objects.items():
        if isinstance(found, type) and issubclass(found, enum.Enum):
            names.update(f"{name}.{member}" for member in found.__members__)
        elif isinstance(found, type) and issubclass(found, Exception):
            names.update(f"{name}.{attribute}" for attribute in attributes(found))
    return names


def ours(name: str) -> bool:
    """Whether fastws has ``name``, which is written as ``their_names`` does."""
    path, _, parameter = name.rstrip(")").partition("(")
    first, _, attribute = path.partition(".")
    found: Any = getattr(fastws, first, None)
    if found is None:
        return False
    if attribute:
        if not hasattr(found, attribute) and attribute not in own_attributes(found):
            return False
        found = getattr(found, attribute, None)
    return not parameter or takes(found, parameter)


def own_attributes(cls: type) -> set[str]:
    """Those that only instances have."""
    annotated = {name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})}
    return annotated.union(*(assigned(base) for base in cls.__mro__))


def takes(function: Any, parameter: str) -> bool:
    """Whether ``function`` has a parameter of that name."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # compiled: its docstring begins with the signature
        line = (function.__doc__ or "").partition("\n")[0]
        return re.search(rf"\b{parameter}\b", line) is not None
    variable = inspect.Parameter.VAR_KEYWORD
    if any(found.kind is variable for found in signature.parameters.values()):
        # unix_serve and unix_connect pass on what the others take.
        return parameter in signature.parameters or takes(fastws.serve, parameter)
    return parameter in signature.parameters


@functools.cache
def rows() -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = ROW.findall(PAGE.read_text())
    return found


def test_every_public_name_of_websockets_is_in_the_page_once() -> None:
    listed = [name for name, _, _ in rows()]
    assert sorted(their_names() - set(listed)) == []
    assert sorted(name for name in set(listed) if listed.count(name) > 1) == []


def test_the_page_has_no_name_that_websockets_does_not_have() -> None:
    assert sorted({name for name, _, _ in rows()} - their_names()) == []


def test_names_that_are_the_same_or_differ_are_in_fastws() -> None:
    claimed = [name for name, verdict, _ in rows() if verdict != "missing"]
    assert [name for name in claimed if not ours(name)] == []


def test_names_that_are_missing_are_not_in_fastws() -> None:
    missing = [name for name, verdict, _ in rows() if verdict == "missing"]
    assert [name for name in missing if ours(name)] == []


def test_what_differs_or_is_missing_is_explained() -> None:
    assert [name for name, verdict, note in rows() if verdict != "same" and not note] == []


# --- the same programs with both


@pytest.fixture(params=[websockets, fastws], ids=["websockets", "fastws"])
def library(request: pytest.FixtureRequest, no_proxy: None) -> Any:
    found: ModuleType = request.param
    return found


def uri(running: Any) -> str:
    return f"ws://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}/"


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.mark.parametrize(
    ("ours", "offered", "chosen"),
    [
        (["a", "b"], ["b", "a"], "a"),
        (["a", "b"], ["x", "b"], "b"),
        (["a"], ["x"], 400),
        (["a"], None, 400),
        ([], ["x"], None),
        (None, ["x"], None),
    ],
)
async def test_the_server_chooses_a_subprotocol_or_refuses(
    library: Any, ours: Any, offered: Any, chosen: Any
) -> None:
    async with library.serve(echo, "127.0.0.1", 0, subprotocols=ours) as running:
        if chosen == 400:
            with pytest.raises(library.InvalidStatus) as refused:
                await library.connect(uri(running), subprotocols=offered)
            assert refused.value.response.status_code == 400
            return
        async with library.connect(uri(running), subprotocols=offered) as ws:
            assert ws.subprotocol == chosen


async def test_a_function_chooses_instead(library: Any) -> None:
    def choose(ws: Any, offered: Any) -> Any:
        return "x" if "x" in offered else None

    async with library.serve(
        echo, "127.0.0.1", 0, subprotocols=["a"], select_subprotocol=choose
    ) as running:
        for offered, chosen in ((["x"], "x"), (["a"], None), (None, None)):
            async with library.connect(uri(running), subprotocols=offered) as ws:
                assert ws.subprotocol == chosen


async def test_addresses_are_there_after_the_end(library: Any) -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def handler(ws: Any) -> None:
        await ws.wait_closed()
        told.put_nowait((ws.local_address, ws.remote_address))

    async with library.serve(handler, "127.0.0.1", 0) as running:
        async with library.connect(uri(running)) as ws:
            ends = ws.remote_address, ws.local_address
        assert (ws.remote_address, ws.local_address) == ends == await told.get()


async def test_two_pings_with_the_same_data_are_told_apart_by_an_error(library: Any) -> None:
    async with (
        library.serve(echo, "127.0.0.1", 0) as running,
        library.connect(uri(running)) as ws,
    ):
        await ws.ping("same")
        with pytest.raises(library.ConcurrencyError):
            await ws.ping(b"same")


async def test_a_record_of_a_connection_names_it(
    library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Any) -> None:
        ws.logger.warning("a word")
        raise ValueError("a bug")

    caplog.set_level(logging.WARNING)
    logger = logging.getLogger("tests.page")
    async with (
        library.serve(handler, "127.0.0.1", 0, logger=logger) as running,
        library.connect(uri(running)) as ws,
    ):
        await ws.wait_closed()
    records: list[Any] = [each for each in caplog.records if each.name == logger.name]
    assert [each.message for each in records] == ["a word", "connection handler failed"]
    assert all(each.websocket.remote_address == ws.local_address for each in records)


async def test_headers_are_printed_as_they_go_over_the_wire(library: Any) -> None:
    headers = library.Headers([("A", "1"), ("b", "2"), ("A", "3")])
    assert str(headers) == "A: 1\r\nb: 2\r\nA: 3\r\n\r\n"
    assert repr(headers) == "Headers([('A', '1'), ('b', '2'), ('A', '3')])"


@pytest.mark.parametrize(
    "options",
    [
        {"family": socket.AF_INET},
        {"flags": socket.AI_PASSIVE},
        {"reuse_address": True},
        {"reuse_port": False},
        {"backlog": 10},
        {"extensions": None, "create_connection": None, "subprotocols": None},
        {"extensions": []},
        {"max_size": (1000, None), "max_queue": (16, 4), "write_limit": (1000, None)},
        {"max_size": (None, None), "max_queue": (None, None), "write_limit": (1000, 10)},
    ],
)
async def test_what_a_server_takes(library: Any, options: dict[str, Any]) -> None:
    async with (
        library.serve(echo, "127.0.0.1", 0, **options) as running,
        library.connect(uri(running)) as ws,
    ):
        await ws.send("x")
        assert await ws.recv() == "x"


@pytest.mark.parametrize(
    "options",
    [
        {"family": socket.AF_INET},
        {"proto": socket.IPPROTO_TCP, "flags": socket.AI_ADDRCONFIG},
        {"happy_eyeballs_delay": 0.1, "interleave": 0},
        {"local_addr": ("127.0.0.1", 0)},
        {"extensions": None, "create_connection": None, "subprotocols": None},
        {"extensions": []},
        {"max_size": (1000, 1000), "max_queue": (16, None), "write_limit": (1000, None)},
    ],
)
async def test_what_a_client_takes(library: Any, options: dict[str, Any]) -> None:
    async with (
        library.serve(echo, "127.0.0.1", 0) as running,
        library.connect(uri(running), **options) as ws,
    ):
        await ws.send("x")
        assert await ws.recv() == "x"


async def test_a_server_may_begin_later(library: Any) -> None:
    async with library.serve(echo, "127.0.0.1", 0, start_serving=False) as running:
        assert not running.is_serving()
        with pytest.raises(OSError):
            await library.connect(uri(running))
        await running.start_serving()
        assert running.is_serving()
        async with library.connect(uri(running)):
            pass


async def test_timeouts_of_tls_mean_nothing_without_tls(library: Any) -> None:
    with pytest.raises(ValueError, match="ssl"):
        await library.serve(echo, "127.0.0.1", 0, ssl_handshake_timeout=1)


async def test_failures_that_another_attempt_may_cure(library: Any) -> None:
    decide = importlib.import_module(
        "websockets.client" if library is websockets else "fastws"
    ).process_exception

    def status(code: int) -> Exception:
        refused: Exception = library.InvalidStatus(library.Response(code, "", library.Headers()))
        return refused

    ended = library.InvalidMessage("no answer")
    ended.__cause__ = EOFError()
    for error in (OSError(), TimeoutError(), ended, *map(status, (500, 502, 503, 504))):
        assert decide(error) is None
    for error in (ValueError(), library.InvalidMessage("nonsense"), status(404), status(501)):
        assert decide(error) is error

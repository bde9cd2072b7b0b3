"""docs/websockets.md has every public name of websockets, and what it says of ours is so."""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio import client, connection, server

import fastws

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
    names = set(NOT_INSTALLED)
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

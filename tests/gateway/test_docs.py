"""docs/gateway.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from msgspec import Struct
from starlette.routing import Route

from gateway import codes
from gateway.api.methods import METHODS, NOT_AVAILABLE
from gateway.app import events
from gateway.app.replies import NOT_HERE
from gateway.config import KEYS, Config, load
from gateway.engines import MemoryEngine
from gateway.http import make_app
from gateway.metrics import NodeCollector
from gateway.node import Node
from gateway.protocols.centrifuge.messages import Command

TEXT = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
_SECTION = TEXT.partition("\n## Configuration\n")[2].partition("\n## ")[0]
DEFAULTS = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| `([^`]+)` \|", _SECTION, re.MULTILINE))


def test_every_key_is_there_and_nothing_else() -> None:
    assert list(DEFAULTS) == list(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_defaults_are_the_real_ones(key: str) -> None:
    default = "" if DEFAULTS[key] == '""' else DEFAULTS[key]
    assert load(flags={key: default}) == Config()


def test_every_metric_is_there() -> None:
    for metric in NodeCollector(Node(Config(), MemoryEngine())).collect():
        name = metric.name + ("_total" if metric.type == "counter" else "")
        assert re.search(rf"`{name}(\{{[\w,]+\}})?`", TEXT), name


def test_every_path_is_there() -> None:
    config = load(flags={"http_api.key": "key"})
    for route in make_app(Node(config, MemoryEngine())).routes:
        if isinstance(route, Route):
            assert f"`{route.path}`" in TEXT


@pytest.mark.parametrize("method", sorted(NOT_AVAILABLE))
def test_every_method_that_is_not_available_is_said_to_be(method: str) -> None:
    assert re.search(rf"\*\*Not there\*\*[^\n]*`{method}`", TEXT)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_api_is_there(method: str) -> None:
    assert f"\n| `{method}` |" in TEXT.partition("\n## HTTP API\n")[2]


def fields(kind: Any) -> set[str]:
    """Names of the fields of a struct, and of those inside it."""
    found = set()
    for field in msgspec.structs.fields(kind):
        found.add(field.encode_name)
        parts = [field.type]
        while parts:
            part = parts.pop()
            parts.extend(get_args(part))
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                found |= fields(part)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_fields_of_the_api_are_those_of_the_code(method: str) -> None:
    cells: dict[str, list[set[str]]] = {}
    for row in re.findall(r"^\| `\w+` \|.*\|$", TEXT.partition("\n## HTTP API\n")[2], re.M):
        [name], *told = (re.findall(r"`(\w+)(?:: true)?`", cell) for cell in row.split("|")[1:4])
        cells.setdefault(name, list(map(set, told)))
    said = cells[method]
    if method == "broadcast":  # "and the same"
        said[0] |= cells["publish"][0] - {"channel"}
    elsewhere = {"session", *(name for name in fields(METHODS[method][0]) if name[:3] == "b64")}
    for names, kind in zip(said, METHODS[method], strict=True):
        own = {field.encode_name for field in msgspec.structs.fields(kind)}
        assert own - elsewhere <= names
        if names is said[0]:
            assert names <= fields(kind) | {"jti"}


@pytest.mark.parametrize("command", [name for name in get_type_hints(Command) if name != "id"])
def test_every_command_is_there(command: str) -> None:
    section = TEXT.partition("\n## Protocol\n")[2].partition("\n## ")[0]
    assert re.search(rf"^\| `{command}`[ ,]", section, re.MULTILINE)


EVENTS: dict[str, tuple[type[Struct], type[Struct] | None]] = {
    "`connect`": (events.ConnectEvent, events.ConnectReply),
    "each of `subs`": (events.Event, events.ConnectSubscription),
    "`refresh`": (events.RefreshEvent, events.RefreshReply),
    "`subscribe`": (events.SubscribeEvent, events.SubscribeReply),
    "`sub_refresh`": (events.SubRefreshEvent, events.SubRefreshReply),
    "`publish`": (events.PublishEvent, events.PublishReply),
    "`rpc`": (events.RpcEvent, events.RpcReply),
    "`disconnect`": (events.DisconnectEvent, None),
}


def fields_of(kind: type[Struct] | None) -> set[str]:
    names = set(kind.__struct_fields__) if kind is not None else set()
    return {name for name in names if not name.startswith("b64")}


def test_every_field_of_webhooks_is_there_and_nothing_else() -> None:
    section = TEXT.partition("\n## Your application\n")[2].partition("\n## ")[0]
    common = re.search(r"of the client (.*?)and what the event is", section, re.DOTALL)
    assert common is not None
    assert set(re.findall(r"`(\w+)`", common[1])) == fields_of(events.Event)
    table = section.partition("| event | asked with | result |\n|---|---|---|\n")[2]
    rows = [row.split("|")[1:4] for row in table.partition("\n\n")[0].splitlines()]
    assert [event.strip() for event, _, _ in rows] == list(EVENTS)
    for event, asked, result in rows:
        kinds = EVENTS[event.strip()]
        asked_with = fields_of(kinds[0]) - fields_of(events.Event)
        assert set(re.findall(r"`(\w+)`", asked)) == asked_with, event
        assert set(re.findall(r"`(\w+)`", result)) == fields_of(kinds[1]), event


@pytest.mark.parametrize("field", [name for names in NOT_HERE.values() for name in names])
def test_every_field_that_is_refused_is_there(field: str) -> None:
    assert (
        f"`{field}`" in TEXT.partition("Of Centrifugo's fields, ")[2].partition(" are not here")[0]
    )


# Codes that exist in the protocol, and that nothing here gives yet.
UNUSED = {
    codes.UNAUTHORIZED,
    codes.EXPIRED,  # to a client that is gone
    codes.CONNECTION_CLOSED,
    codes.FORCE_RECONNECT,
}
CODES = [
    value
    for value in vars(codes).values()
    if isinstance(value, codes.Error | codes.Disconnect | codes.Unsubscribe)
]


@pytest.mark.parametrize("code", [code for code in CODES if code not in UNUSED])
def test_every_code_that_is_used_is_there(
    code: codes.Error | codes.Disconnect | codes.Unsubscribe,
) -> None:
    text = code.message if isinstance(code, codes.Error) else code.reason
    assert re.search(rf"^\| {code.code} \| {text}( \(temporary\))? \|", TEXT, re.MULTILINE)

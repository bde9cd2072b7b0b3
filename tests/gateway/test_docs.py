"""docs/gateway.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.routing import Route

from gateway import codes
from gateway.config import KEYS, Config, load
from gateway.engines import MemoryEngine
from gateway.http import make_app
from gateway.metrics import NodeCollector
from gateway.node import Node

TEXT = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
_SECTION = TEXT.partition("\n## Configuration\n")[2].partition("\n## ")[0]
DEFAULTS = dict(re.findall(r"^\| `([a-z_.]+)` \| `([^`]+)` \|", _SECTION, re.MULTILINE))


def test_every_key_is_there_and_nothing_else() -> None:
    assert list(DEFAULTS) == list(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_defaults_are_the_real_ones(key: str) -> None:
    assert load(flags={key: DEFAULTS[key]}) == Config()


def test_every_metric_is_there() -> None:
    for metric in NodeCollector(Node(Config(), MemoryEngine())).collect():
        name = metric.name + ("_total" if metric.type == "counter" else "")
        assert re.search(rf"`{name}(\{{code\}})?`", TEXT), name


def test_every_path_is_there() -> None:
    for route in make_app(Node(Config(), MemoryEngine())).routes:
        if isinstance(route, Route):
            assert f"`{route.path}`" in TEXT


@pytest.mark.parametrize(
    "code",
    [
        codes.SHUTDOWN,
        codes.SLOW,
        codes.NO_PONG,
        codes.TOO_MANY_COMMANDS,
        codes.INVALID_REQUEST,
        codes.STALE,
        codes.INTERNAL,
        codes.METHOD_NOT_FOUND,
        codes.ALREADY_SUBSCRIBED,
        codes.LIMIT_EXCEEDED,
        codes.BAD_REQUEST,
        codes.NOT_AVAILABLE,
        codes.UNRECOVERABLE_POSITION,
    ],
)
def test_every_code_that_is_used_is_there(code: codes.Disconnect | codes.Error) -> None:
    text = code.reason if isinstance(code, codes.Disconnect) else code.message
    assert re.search(rf"^\| {code.code} \| {text}( \(temporary\))? \|", TEXT, re.MULTILINE)

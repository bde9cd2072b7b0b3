"""Configuration: where values come from, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config import KEYS, Config, ConfigError, env_name, load


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({}, None),
        ({"internal_port": 9000}, ("h", 9000)),
        ({"internal_port": "9000"}, ("h", 9000)),
        ({"internal_port": ""}, None),
        ({"internal_port": 8000}, None),
        ({"internal_address": "other"}, ("other", 8000)),
        ({"internal_address": "h", "internal_port": 8000}, None),
        ({"internal_address": "h", "internal_port": 9000}, ("h", 9000)),
        ({"internal_address": "unix:/run/i"}, ("unix:/run/i", 8000)),
        ({"port": 0, "internal_port": 0}, ("h", 0)),
        ({"port": 0}, None),
    ],
)
def test_either_key_makes_an_internal_place(
    keys: dict[str, Any], place: tuple[str, int] | None
) -> None:
    flags = {f"http_server.{key}": value for key, value in {"address": "h", **keys}.items()}
    assert load(flags=flags).http_server.internal == place


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"internal_address": "127.0.0.1"}, "needs an http_server.internal_port of its own"),
        (
            {"address": "unix:/run/c", "internal_port": 9000},
            "needs http_server.internal_address, as a Unix socket",
        ),
    ],
)
def test_an_internal_place_that_is_none_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(flags={f"http_server.{key}": value for key, value in keys.items()})


def test_defaults_are_centrifugos() -> None:
    config = load()
    assert (config.http_server.address, config.http_server.port) == ("127.0.0.1", 8000)
    client = config.client
    assert (client.ping_interval, client.pong_timeout, client.stale_close_delay) == (25, 8, 10)
    assert (client.channel_limit, client.queue_max_size) == (128, 1048576)
    assert config.websocket.message_size_limit == 65536
    assert config.channel.max_length == 255
    assert config.shutdown.timeout == 30
    assert not config.dev
    assert config == Config()


def test_flags_win_over_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        http_server = { address = "::1", port = 1, workers = 1 }
        client.ping_interval = "1m30s"
        [channel.without_namespace]
        history_size = 5
        """,
    )
    environ = {"FASTWS_HTTP_SERVER_PORT": "2", "FASTWS_CLIENT_PONG_TIMEOUT": "500ms", "HOME": "/"}
    config = load(file, environ, {"http_server.port": 3, "http_server.address": None})
    assert (config.http_server.address, config.http_server.port) == ("::1", 3)
    assert (config.client.ping_interval, config.client.pong_timeout) == (90.0, 0.5)
    assert config.channel.without_namespace.history_size == 5
    assert load(file, environ).http_server.port == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ('"30"', 30), ('"30s"', 30), ("1.5", 1.5), ('"2h"', 7200)]
)
def test_durations_are_seconds_or_written_with_units(
    tmp_path: Path, text: str, seconds: float
) -> None:
    assert load(write(tmp_path, f"shutdown.timeout = {text}")).shutdown.timeout == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "client.ping_intervall = 3",
            "unknown key 'client.ping_intervall', did you mean 'client.ping_interval'?",
        ),
        ("prot = 3", "unknown key 'prot'"),
        ("[clint]\nping_interval = 3", "unknown section 'clint', did you mean 'client'?"),
        ("client = 3", "unknown key 'client'"),
        ("http_server.port = 70000", "http_server.port = 70000: Expected `int` <= 65535"),
        ("http_server.port = true", "http_server.port = True: Expected `int`, got `bool`"),
        ('http_server.port = "x"', "http_server.port = 'x': Expected `int`, got `str`"),
        ('shutdown.timeout = "soon"', "(seconds, or a duration"),
        ("shutdown.timeout = -1", "shutdown.timeout = -1: Expected `float` >= 0.0"),
        (
            'engine.type = "redis"',
            "engine.type = 'redis': Invalid enum value 'redis' (one of memory)",
        ),
        ("http_server.port = ", "not valid TOML"),
        ("http_server.workers = 4", "keeps channels within one process"),
        ("client.ping_interval = 5", "client.pong_timeout = 8 s must be shorter"),
    ],
)
def test_a_wrong_key_is_one_line_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_environment_is_named() -> None:
    with pytest.raises(ConfigError, match="FASTWS_HTTP_SERVER_PORT = 'http'"):
        load(environ={"FASTWS_HTTP_SERVER_PORT": "http"})
    with pytest.raises(ConfigError, match="FASTWS_LOG_LEVL, did you mean 'FASTWS_LOG_LEVEL'"):
        load(environ={"FASTWS_LOG_LEVL": "debug"})


def test_variables_of_others_are_left_alone() -> None:
    others = {
        "FASTWS_PURE": "1",
        "FASTWS_IO_URING": "0",
        "FASTWS_LOOP": "asyncio",
        "FASTWS_REQUIRE_ALL": "1",
        "FASTWS_SERVICE_HOST": "10.0.0.1",
        "FASTWS_GATEWAY_SERVICE_PORT_CLIENTS": "80",
        "FASTWS_GATEWAY_PORT": "tcp://10.0.0.1:80",
        "FASTWS_GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "FASTWS_SERVICE_PORT_HTTP": "80",
        "FASTWS_PORT": "tcp://10.0.0.1:80",
        "FASTWS_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(environ=others) == Config()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load(tmp_path / "none.toml")


def test_every_key_has_its_own_variable() -> None:
    assert len({env_name(key) for key in KEYS}) == len(KEYS)

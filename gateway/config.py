"""Configuration: a TOML file, then ``FASTWS_…`` in the environment, then flags; the last wins.

A key is written ``client.ping_interval`` here and in messages, as a table in the file, and
``FASTWS_CLIENT_PING_INTERVAL`` in the environment. Names and defaults are Centrifugo's where it has
the same thing.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, field

# Marks a number of seconds, which may also be written as a duration: "25s", "1m30s", "200ms".
_SECONDS = Meta(ge=0, le=10 * 365 * 86400, extra={"seconds": True})

Seconds = Annotated[float, _SECONDS]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Port = Annotated[int, Meta(ge=0, le=65535)]

ENV_PREFIX = "FASTWS_"

# Variables that others read: the library and its build, our tests, and the --config flag.
_ENV_OF_OTHERS = {
    ENV_PREFIX + name
    for name in [
        "ANNOTATE",
        "BUILD",
        "CONFIG",
        "JOBS",
        "KERNEL",
        "PURE",
        "REQUIRE_ALL",
        "SANITIZE",
        "WERROR",
    ]
}

# Kubernetes gives every pod the addresses of the services around it; one may be called "fastws".
_ENV_OF_KUBERNETES = re.compile(r"FASTWS_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class ConfigError(Exception):
    """A configuration that cannot be used. The text is one line that names the key."""


class HttpServer(Struct, frozen=True):
    """Where to listen. Port 0 takes a free one."""

    address: str = "127.0.0.1"
    port: Port = 8000
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1


class WebSocket(Struct, frozen=True):
    """Limits of the WebSocket transport, in bytes."""

    message_size_limit: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 65536


class Client(Struct, frozen=True):
    """What a client may do. A count of 0 is no limit, an interval or delay of 0 turns it off."""

    ping_interval: Seconds = 25.0
    pong_timeout: Seconds = 8.0
    stale_close_delay: Seconds = 10.0
    channel_limit: Count = 128
    queue_max_size: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 1048576
    history_max_publication_limit: Count = 300


class ChannelOptions(Struct, frozen=True):
    """What a channel offers. History is kept when its size and its time to live are above 0."""

    presence: bool = True
    join_leave: bool = True
    history_size: Count = 0
    history_ttl: Seconds = 0.0


class Channel(Struct, frozen=True):
    """Rules of channels. The length of a name is in bytes of UTF-8."""

    max_length: Annotated[int, Meta(ge=1, le=65535)] = 255
    without_namespace: ChannelOptions = field(default_factory=ChannelOptions)


class Engine(Struct, frozen=True):
    """Which engine carries messages, history and presence."""

    type: Literal["memory"] = "memory"


class Shutdown(Struct, frozen=True):
    """How long a shutdown may take before connections are cut."""

    timeout: Seconds = 30.0


class Log(Struct, frozen=True):
    """What goes to stderr. "auto" is for people on a terminal and JSON lines elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(Struct, frozen=True):
    """The whole configuration; each field of a field is a key."""

    dev: bool = True
    http_server: HttpServer = field(default_factory=HttpServer)
    websocket: WebSocket = field(default_factory=WebSocket)
    client: Client = field(default_factory=Client)
    channel: Channel = field(default_factory=Channel)
    engine: Engine = field(default_factory=Engine)
    shutdown: Shutdown = field(default_factory=Shutdown)
    log: Log = field(default_factory=Log)


def keys(section: type[Struct] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its type, in the order of the classes above."""
    for name, kind in get_type_hints(section, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, kind


KEYS = dict(keys())


def load(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Read all sources and check the whole. ``flags`` are by key; None means not given.

    Raises `ConfigError` at the first fault.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values.update(_from_file(file))
    values.update(_from_environ(environ or {}))
    for key, value in (flags or {}).items():
        if value is not None:
            values[key] = _convert(key, value, f"flag for {key}")
    config: Config = _build(Config, values)
    _check(config)
    return config


def _from_file(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    for key, value in _flatten(tree):
        if key not in KEYS:
            raise ConfigError(f"{file}: unknown key {key!r}{_suggest(key, KEYS)}")
        yield key, _convert(key, value, f"{file}: {key}")


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = prefix + name
        if isinstance(value, dict) and key not in KEYS:
            if not any(known.startswith(key + ".") for known in KEYS):
                sections = {known.rpartition(".")[0] for known in KEYS} - {""}
                raise ConfigError(f"unknown section {key!r}{_suggest(key, sections)}")
            yield from _flatten(value, key + ".")
        else:
            yield key, value


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    by_variable = {env_name(key): key for key in KEYS}
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in _ENV_OF_OTHERS:
            continue
        key = by_variable.get(variable)
        if key is not None:
            yield key, _convert(key, text, variable)
        elif not _ENV_OF_KUBERNETES.fullmatch(variable):
            hint = _suggest(variable, by_variable)
            raise ConfigError(f"unknown environment variable {variable}{hint}")


def env_name(key: str) -> str:
    """The environment variable of a key."""
    return ENV_PREFIX + key.upper().replace(".", "_")


def _convert(key: str, value: Any, where: str) -> Any:
    kind = KEYS[key]
    is_text = isinstance(value, str)
    if is_text and _is_seconds(kind) and _DURATION.fullmatch(value):
        parts = _DURATION_PART.findall(value)
        value, is_text = sum(float(number) * _UNITS[unit] for number, unit in parts), False
    if is_text and kind is bool:
        value = {"on": "true", "yes": "true", "off": "false", "no": "false"}.get(value, value)
    try:
        # Text may stand for a number: in the environment it must, and port = "8000" in TOML is
        # clear.
        return msgspec.convert(value, kind, strict=not is_text)
    except msgspec.ValidationError as error:
        wanted = ' (seconds, or a duration such as "25s")' if _is_seconds(kind) else ""
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if choices:
            wanted = f" (one of {', '.join(choices)})"
        raise ConfigError(f"{where} = {value!r}: {error}{wanted}") from None


def _is_seconds(kind: Any) -> bool:
    return _SECONDS in getattr(kind, "__metadata__", ())


def _build(section: type[Struct], values: Mapping[str, Any], prefix: str = "") -> Any:
    fields: dict[str, Any] = {}
    for name, kind in get_type_hints(section, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, Struct):
            fields[name] = _build(kind, values, f"{prefix}{name}.")
        elif prefix + name in values:
            fields[name] = values[prefix + name]
    return section(**fields)


def _suggest(wrong: str, known: Any) -> str:
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _check(config: Config) -> None:
    """Faults that no key shows by itself."""
    client = config.client
    if client.ping_interval and client.ping_interval <= client.pong_timeout:
        raise ConfigError(
            f"client.pong_timeout = {client.pong_timeout:g} s must be shorter than "
            f"client.ping_interval = {client.ping_interval:g} s"
        )
    if config.http_server.workers > 1:
        raise ConfigError(
            f"http_server.workers = {config.http_server.workers}: the engine "
            f"{config.engine.type!r} keeps channels within one process, so only 1 is possible"
        )
    if not config.dev:
        raise ConfigError(
            "dev = false: there is no authentication yet, so dev mode is all there is"
        )

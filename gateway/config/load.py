"""Where the values of the configuration come from, and what is said of wrong ones.

A key is written ``client.ping_interval`` here and in messages, as a table in the file, and
``FASTWS_CLIENT_PING_INTERVAL`` in the environment.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from gateway.config.check import check
from gateway.config.errors import ConfigError, suggest
from gateway.config.sections import SECONDS, Config

ENV_PREFIX = "FASTWS_"

# Variables that others read: the library and its build, our tests, and the --config flag.
_ENV_OF_OTHERS = {
    ENV_PREFIX + name
    for name in [
        "ANNOTATE",
        "BUILD",
        "CONFIG",
        "IO_URING",
        "JOBS",
        "KERNEL",
        "LOOP",
        "PURE",
        "REQUIRE_ALL",
        "SANITIZE",
        "WERROR",
    ]
}

# Kubernetes gives every pod the addresses of the services around it; one may be called "fastws", or
# "fastws-gateway".
_ENV_OF_KUBERNETES = re.compile(
    r"FASTWS_(?:\w+_)??(?:(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)=.*"
    r"|PORT=(?:tcp|udp|sctp)://.*)"
)

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def keys(section: type[Struct] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its type, in the order of the classes above."""
    for name, kind in get_type_hints(section, include_extras=True).items():
        if _is_section(kind):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


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
            values[key] = _convert(KEYS[key], value, f"flag for {key}")
    config: Config = _build(Config, values)
    check(config)
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
            raise ConfigError(f"{file}: unknown key {key!r}{suggest(key, KEYS)}")
        yield key, _convert(KEYS[key], value, f"{file}: {key}")


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = prefix + name
        if isinstance(value, dict) and key not in KEYS:
            if not any(known.startswith(key + ".") for known in KEYS):
                sections = {known.rpartition(".")[0] for known in KEYS} - {""}
                raise ConfigError(f"unknown section {key!r}{suggest(key, sections)}")
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
            yield key, _convert(KEYS[key], text, variable)
        elif not _ENV_OF_KUBERNETES.fullmatch(f"{variable}={text}"):
            hint = suggest(variable, by_variable)
            raise ConfigError(f"unknown environment variable {variable}{hint}")


def env_name(key: str) -> str:
    """The environment variable of a key."""
    return ENV_PREFIX + key.upper().replace(".", "_")


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin is list:
        return _convert_list(kind, value, where)
    if origin is dict:
        return _convert_map(kind, value, where)
    return (_convert_table if _is_section(kind) else _convert_one)(kind, value, where)


def _convert_list(kind: Any, value: Any, where: str) -> list[Any]:
    """A list as it is in TOML; in the environment JSON, or words between commas."""
    (item,) = get_args(kind)
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise ConfigError(f"{where}: not valid JSON: {error}") from None
        else:
            value = [word for word in (part.strip() for part in value.split(",")) if word]
    if not isinstance(value, list):
        raise ConfigError(f"{where} = {value!r}: Expected `array`, got `{type(value).__name__}`")
    return [_convert(item, each, f"{where}[{number}]") for number, each in enumerate(value)]


def _convert_map(kind: Any, value: Any, where: str) -> Any:
    """A table of any names; in the environment JSON. Messages leave its values out."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"{where}: not valid JSON: {error}") from None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None


def _convert_table(section: type[Struct], table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} = {table!r}: Expected `object`, got `{type(table).__name__}`")
    kinds = get_type_hints(section, include_extras=True)
    for name in table:
        if name not in kinds:
            raise ConfigError(f"{where}: unknown key {name!r}{suggest(name, kinds)}")
    fields = {
        name: _convert(kinds[name], value, f"{where}.{name}") for name, value in table.items()
    }
    return section(**fields)


def _convert_one(kind: Any, value: Any, where: str) -> Any:
    if value == "" and type(None) in get_args(kind):
        return None
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
    return SECONDS in getattr(kind, "__metadata__", ())


def _build(section: type[Struct], values: Mapping[str, Any], prefix: str = "") -> Any:
    fields: dict[str, Any] = {}
    for name, kind in get_type_hints(section, include_extras=True).items():
        if _is_section(kind):
            fields[name] = _build(kind, values, f"{prefix}{name}.")
        elif prefix + name in values:
            fields[name] = values[prefix + name]
    return section(**fields)

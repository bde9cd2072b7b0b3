"""Where the values of the configuration come from, and what is said of wrong ones.

A key is written ``client.ping_interval`` here and in messages, as a table in the file, and
``FASTWS_CLIENT_PING_INTERVAL`` in the environment.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from fastws.networks import Networks
from gateway.config.sections import SECONDS, AdminPage, Config, HttpServer, Token

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

# Kubernetes gives every pod the addresses of the services around it; one may be called "fastws", or
# "fastws-gateway".
_ENV_OF_KUBERNETES = re.compile(
    r"FASTWS_(?:\w+_)??(?:(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)=.*"
    r"|PORT=(?:tcp|udp|sctp)://.*)"
)

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class ConfigError(Exception):
    """A configuration that cannot be used. The text is one line that names the key."""


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
        elif not _ENV_OF_KUBERNETES.fullmatch(f"{variable}={text}"):
            hint = _suggest(variable, by_variable)
            raise ConfigError(f"unknown environment variable {variable}{hint}")


def env_name(key: str) -> str:
    """The environment variable of a key."""
    return ENV_PREFIX + key.upper().replace(".", "_")


def _convert(key: str, value: Any, where: str) -> Any:
    kind = KEYS[key]
    if get_origin(kind) is list:
        return _convert_list(kind, value, where)
    return _convert_one(kind, value, where)


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
    convert = _convert_table if _is_section(item) else _convert_one
    return [convert(item, each, f"{where}[{number}]") for number, each in enumerate(value)]


def _convert_table(section: type[Struct], table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} = {table!r}: Expected `object`, got `{type(table).__name__}`")
    kinds = get_type_hints(section, include_extras=True)
    for name in table:
        if name not in kinds:
            raise ConfigError(f"{where}: unknown key {name!r}{_suggest(name, kinds)}")
    fields = {
        name: _convert_one(kinds[name], value, f"{where}.{name}") for name, value in table.items()
    }
    return section(**fields)


def _convert_one(kind: Any, value: Any, where: str) -> Any:
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
    _check_http_server(config.http_server)
    _check_admin(config.admin)
    _check_channels(config)
    _check_proxies(config)
    _check_token("client.token", client.token)
    _check_token("client.subscription_token", client.subscription_token)


def _check_http_server(server: HttpServer) -> None:
    for where, tls in (
        ("http_server.tls", server.tls),
        ("http_server.internal_tls", server.internal_tls),
    ):
        if tls.enabled and not tls.cert_pem_file:
            raise ConfigError(f"{where}.enabled needs {where}.cert_pem_file")
    try:
        trusted = Networks(server.trusted_proxies)
    except ValueError as error:
        raise ConfigError(f"http_server.trusted_proxies: {error}") from None
    if server.proxy_protocol and not trusted:
        raise ConfigError(
            "http_server.proxy_protocol needs http_server.trusted_proxies: nobody else may say "
            "where a client comes from"
        )


def _check_admin(admin: AdminPage) -> None:
    if not admin.enabled:
        return
    if not admin.password and not admin.insecure:
        raise ConfigError(
            "admin.enabled needs admin.password; for development only, admin.insecure goes without"
        )
    if admin.password and len(admin.password) < 8:
        raise ConfigError("admin.password is too short: it needs 8 characters or more")
    if admin.token_ttl < 1:
        raise ConfigError(f"admin.token_ttl = {admin.token_ttl:g} s: it needs 1 s or more")
    if admin.secret and len(admin.secret.encode()) < 32:
        raise ConfigError("admin.secret is too short: it needs 32 bytes or more")


def _check_channels(config: Config) -> None:
    channel = config.channel
    names = [namespace.name for namespace in channel.namespaces]
    for number, name in enumerate(names):
        if not name:
            raise ConfigError(f"channel.namespaces[{number}]: a namespace needs a name")
        if name in names[:number]:
            raise ConfigError(f"channel.namespaces[{number}].name = {name!r} is there twice")
    feature = config.client.subscribe_to_user_personal_channel
    personal = feature.personal_channel_namespace if feature.enabled else ""
    if personal and personal not in names:
        raise ConfigError(
            "client.subscribe_to_user_personal_channel.personal_channel_namespace = "
            f"{personal!r}: there is no such namespace{_suggest(personal, names)}"
        )
    options = [("channel.without_namespace", channel.without_namespace)]
    options += [(f"channel.namespaces.{each.name}", each) for each in channel.namespaces]
    for where, each in options:
        _check_regex(f"{where}.channel_regex", each.channel_regex)
        keeps = each.history_size and each.history_ttl
        for name in ("force_positioning", "force_recovery", "allow_positioning", "allow_recovery"):
            if getattr(each, name) and not keeps:
                raise ConfigError(
                    f"{where}.{name} needs history: set history_size and history_ttl too"
                )
        if each.auto_cache_recover and not (
            each.force_recovery and each.force_recovery_mode == "cache"
        ):
            raise ConfigError(
                f'{where}.auto_cache_recover needs force_recovery and force_recovery_mode = "cache"'
            )


def _check_proxies(config: Config) -> None:
    client, channel = config.client.proxy, config.channel.proxy
    for where, proxy in (
        ("client.proxy.connect", client.connect),
        ("client.proxy.refresh", client.refresh),
        ("client.proxy.disconnect", client.disconnect),
        ("channel.proxy.subscribe", channel.subscribe),
        ("channel.proxy.publish", channel.publish),
        ("channel.proxy.sub_refresh", channel.sub_refresh),
        ("rpc.proxy", config.rpc.proxy),
    ):
        if proxy.enabled and not proxy.endpoint.startswith(("https://", "http://")):
            raise ConfigError(f"{where}.endpoint = {proxy.endpoint!r}: not an http(s) address")


def _check_token(where: str, token: Token) -> None:
    for name in ("audience", "issuer"):
        if getattr(token, name) and getattr(token, f"{name}_regex"):
            raise ConfigError(f"{where}.{name} and {where}.{name}_regex exclude each other")
        _check_regex(f"{where}.{name}_regex", getattr(token, f"{name}_regex"))
    endpoint = token.jwks_public_endpoint
    if endpoint and not endpoint.startswith(("https://", "http://")):
        raise ConfigError(f"{where}.jwks_public_endpoint = {endpoint!r}: not an http(s) address")


def _check_regex(where: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{where} = {pattern!r}: not a regular expression: {error}") from None

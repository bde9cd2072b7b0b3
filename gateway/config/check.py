"""Faults of a configuration that no key shows by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fastws.networks import Networks
from gateway.codes import MAX_REASON, Disconnect
from gateway.config.errors import ConfigError, suggest
from gateway.config.proxies import channel_options, choices, event_proxies
from gateway.config.sections import (
    DEFAULT_PROXY,
    UNIX_PREFIX,
    AdminPage,
    Config,
    HttpServer,
    NamedProxy,
    Namespace,
    ProxyOptions,
    RpcNamespace,
    ToDisconnect,
    Token,
)

_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")  # RFC 9110 5.5
# What is behind these is not for the API to take.
_OWN_PATHS = {"connection", "static", "health", "metrics", "admin"}
_SECRET_BYTES = 32  # RFC 7518 3.2: as many as the hash has, of SHA-256
_HEADERS_OF_OURS = {"content-type", "content-length", "transfer-encoding"}


def check(config: Config) -> None:
    """Raises `ConfigError` at the first one."""
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
    prefix = config.http_api.handler_prefix
    if prefix.split("/")[1] in _OWN_PATHS:
        raise ConfigError(f"http_api.handler_prefix = {prefix!r}: there is something else already")
    _check_admin(config.admin)
    _check_channels(config)
    _check_names("rpc.namespaces", config.rpc.namespaces)
    _check_proxies(config)
    _check_token("client.token", client.token)
    _check_token("client.subscription_token", client.subscription_token)


def _check_http_server(server: HttpServer) -> None:
    for where, tls in (
        ("http_server.tls", server.tls),
        ("http_server.internal_tls", server.internal_tls),
    ):
        if tls.enabled and not tls.cert_pem:
            raise ConfigError(f"{where}.enabled needs {where}.cert_pem")
    _check_internal(server)
    try:
        trusted = Networks(server.trusted_proxies)
    except ValueError as error:
        raise ConfigError(f"http_server.trusted_proxies: {error}") from None
    if server.proxy_protocol and not trusted:
        raise ConfigError(
            "http_server.proxy_protocol needs http_server.trusted_proxies: nobody else may say "
            "where a client comes from"
        )


def _check_internal(server: HttpServer) -> None:
    if server.internal is not None:
        return
    if server.internal_address and server.internal_port is None:
        raise ConfigError(
            f"http_server.internal_address = {server.internal_address!r} is http_server.address: "
            "it needs an http_server.internal_port of its own"
        )
    if server.internal_port is not None and server.address.startswith(UNIX_PREFIX):
        raise ConfigError(
            "http_server.internal_port needs http_server.internal_address, as a Unix socket has no "
            "port"
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
    names = _check_names("channel.namespaces", channel.namespaces)
    feature = config.client.subscribe_to_user_personal_channel
    personal = feature.personal_channel_namespace if feature.enabled else ""
    if personal and personal not in names:
        raise ConfigError(
            "client.subscribe_to_user_personal_channel.personal_channel_namespace = "
            f"{personal!r}: there is no such namespace{suggest(personal, names)}"
        )
    for where, each in channel_options(config):
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


def _check_names(
    where: str, tables: Sequence[Namespace] | Sequence[NamedProxy] | Sequence[RpcNamespace]
) -> list[str]:
    """The names of a list of tables: each has one of its own."""
    names = [each.name for each in tables]
    for number, name in enumerate(names):
        if not name:
            raise ConfigError(f"{where}[{number}]: it needs a name")
        if name in names[:number]:
            raise ConfigError(f"{where}[{number}].name = {name!r} is there twice")
    return names


def _check_proxies(config: Config) -> None:
    for _, key, proxy in event_proxies(config):
        _check_proxy(key, proxy, enabled=proxy.enabled)
    names = _check_names("proxies", config.proxies)
    if DEFAULT_PROXY in names:
        raise ConfigError(
            f"proxies[{names.index(DEFAULT_PROXY)}].name = {DEFAULT_PROXY!r}: this name stands for "
            "the webhook of each event, such as channel.proxy.subscribe"
        )
    for named in config.proxies:
        _check_proxy(f"proxies.{named.name}", named)
    known = [*names, DEFAULT_PROXY]
    for _, key, name, _ in choices(config):
        if name not in known:
            raise ConfigError(f"{key} = {name!r}: there is no such proxy{suggest(name, known)}")


def _check_proxy(where: str, proxy: ProxyOptions, *, enabled: bool = True) -> None:
    if enabled and not proxy.endpoint.startswith(("https://", "http://")):
        raise ConfigError(f"{where}.endpoint = {proxy.endpoint!r}: not an http(s) address")
    headers = f"{where}.http.static_headers"
    for name, value in proxy.http.static_headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigError(f"{headers}: {name!r} is no name of a header")
        if name.lower() in _HEADERS_OF_OURS:
            raise ConfigError(f"{headers}: {name} is for the gateway to set")
        if not HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"{headers}: {name} has a character that no header may have")
    for name in (*proxy.http_headers, *proxy.emulated_headers):
        if name.lower() in _HEADERS_OF_OURS:
            raise ConfigError(f"{where}: the header {name} is for the gateway to set")
    failure = ToDisconnect(proxy.on_failure.disconnect_code, proxy.on_failure.disconnect_reason)
    if failure.code or failure.reason:
        _check_disconnect(f"{where}.on_failure", failure)
    for number, transform in enumerate(proxy.http.status_to_code_transforms):
        key = f"{where}.http.status_to_code_transforms[{number}]"
        if transform.status_code == 200:
            raise ConfigError(f"{key}.status_code = 200: the answer is read")
        if bool(transform.to_error.code) == bool(transform.to_disconnect.code):
            raise ConfigError(f"{key}: it needs the code of either to_error or to_disconnect")
        if transform.to_disconnect.code:
            _check_disconnect(f"{key}.to_disconnect", transform.to_disconnect)


def _check_disconnect(where: str, disconnect: ToDisconnect) -> None:
    if not Disconnect(disconnect.code, disconnect.reason).can_be_sent:
        raise ConfigError(
            f"{where}: the code of a disconnect has to be 3000-4999, and the reason at most "
            f"{MAX_REASON} bytes"
        )


def _check_token(where: str, token: Token) -> None:
    for name in ("audience", "issuer"):
        if getattr(token, name) and getattr(token, f"{name}_regex"):
            raise ConfigError(f"{where}.{name} and {where}.{name}_regex exclude each other")
        _check_regex(f"{where}.{name}_regex", getattr(token, f"{name}_regex"))
    endpoint = token.jwks_public_endpoint
    if endpoint and not endpoint.startswith(("https://", "http://")):
        raise ConfigError(f"{where}.jwks_public_endpoint = {endpoint!r}: not an http(s) address")


def warnings(config: Config) -> list[str]:
    """What can be used, and should not be."""
    client = config.client
    return [
        f"{where}.{name} is short: with 32 random bytes or more nobody can find it from a token"
        for where, token in (
            ("client.token", client.token),
            ("client.subscription_token", client.subscription_token),
        )
        for name in ("hmac_secret_key", "hmac_previous_secret_key")
        if 0 < len(getattr(token, name).encode()) < _SECRET_BYTES
    ]


def _check_regex(where: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{where} = {pattern!r}: not a regular expression: {error}") from None

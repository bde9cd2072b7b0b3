"""Commands beside ``serve``: configurations and tokens, made and checked."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jwt
import msgspec
import typer

from gateway import config, tls
from gateway.auth import (
    ConnectionClaims,
    InvalidToken,
    SubscriptionClaims,
    TokenExpired,
    TokenVerifier,
)
from gateway.config import KEYS, Config, ConfigError, env_name
from gateway.engines import MemoryEngine
from gateway.node import Node

EXIT_USAGE = 2

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file.", envvar="FASTWS_CONFIG")
]

DEFAULT_URL = "http://127.0.0.1:8000"

# A week, as Centrifugo's tokens of the command line have. Seconds.
TOKEN_TTL = 7 * 86400

TEMPLATE = """\
# A configuration of fastws-gateway. docs/gateway.md has every key; the rest has its default.

[http_server]
address = "127.0.0.1"
port = 8000

[http_api]
key = "{api_key}"

# The page at /admin/, once it is enabled.
[admin]
enabled = false
password = "{password}"
secret = "{admin_secret}"

[client]
# Pages that may connect, if they do not come from this host.
allowed_origins = []

[client.token]
hmac_secret_key = "{secret}"

# Channels such as chat:room, for users with a token.
[[channel.namespaces]]
name = "chat"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
allow_history_for_subscriber = true
presence = true
join_leave = true
history_size = 100
history_ttl = "10m"
force_recovery = true
"""


def fail(message: object, status: int = EXIT_USAGE) -> typer.Exit:
    """Say in one line what is wrong; the caller raises the result."""
    typer.echo(f"fastws-gateway: {message}", err=True)
    return typer.Exit(status)


def read(file: Path | None) -> tuple[Config, Node]:
    """A configuration with all that is made of it, or the end of the command."""
    try:
        settings = config.load(file, os.environ)
        tls.make_contexts(settings)
        return settings, Node(settings, MemoryEngine())
    except ConfigError as error:
        raise fail(error) from None


def genconfig(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File, not stdout.")] = None,
) -> None:
    """Write a configuration to start from, with new random keys."""
    text = TEMPLATE.format(
        secret=secrets.token_urlsafe(48),
        api_key=secrets.token_urlsafe(32),
        password=secrets.token_urlsafe(15),
        admin_secret=secrets.token_urlsafe(48),
    )
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        # For the owner only: there are keys in it.
        with open(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise fail(f"{output}: {error.strerror}", 1) from None


def checkconfig(config_file: ConfigFile = None) -> None:
    """Check a configuration, the environment included; says nothing if it is good."""
    settings, _ = read(config_file)
    for text in config.warnings(settings):
        typer.echo(f"fastws-gateway: {text}", err=True)


def configdoc() -> None:
    """Print every key with its default and its environment variable."""
    defaults = msgspec.to_builtins(Config())
    for key in KEYS:
        value: Any = defaults
        for name in key.split("."):
            value = value[name]
        typer.echo(f"{key} = {msgspec.json.encode(value).decode()}  # {env_name(key)}")


User = Annotated[str, typer.Option("--user", "-u", help="User id; empty: anonymous.")]
Ttl = Annotated[int, typer.Option("--ttl", "-t", help="Seconds; 0 or less: for ever.")]


def gentoken(
    config_file: ConfigFile = None,
    user: User = "",
    ttl: Ttl = TOKEN_TTL,
    channel: Annotated[
        str, typer.Option("--channel", help="Makes a subscription token for this channel.")
    ] = "",
) -> None:
    """Print a token, signed with the HMAC secret of the configuration, to try things out."""
    settings, _ = read(config_file)
    keys = settings.client.token
    if channel and settings.client.subscription_token.enabled:
        keys = settings.client.subscription_token
    if not keys.hmac_secret_key:
        raise fail("there is no hmac_secret_key to sign with")
    now = int(time.time())
    claims: dict[str, Any] = {"sub": user, "iat": now}
    if ttl > 0:
        claims["exp"] = now + ttl
    if keys.user_id_claim:
        claims[keys.user_id_claim] = user
    if channel:
        claims["channel"] = channel
    typer.echo(jwt.encode(claims, keys.hmac_secret_key, algorithm="HS256"))


def gensubtoken(
    channel: Annotated[str, typer.Option("--channel", "-s", help="Channel that it is for.")],
    config_file: ConfigFile = None,
    user: User = "",
    ttl: Ttl = TOKEN_TTL,
) -> None:
    """Print a subscription token, signed likewise."""
    gentoken(config_file, user, ttl, channel)


def checktoken(
    token: Annotated[str, typer.Argument(help="Connection token.")],
    config_file: ConfigFile = None,
    subscription: Annotated[
        bool, typer.Option("--subscription", help="It is a subscription token.")
    ] = False,
) -> None:
    """Check a token as the gateway would, and print its claims; status 1 if it is not good."""
    _, node = read(config_file)
    verifier = node.subscription_tokens if subscription else node.tokens
    try:
        claims = asyncio.run(_claims(verifier, token, subscription=subscription))
    except TokenExpired:
        raise fail("the token has expired", 1) from None
    except (InvalidToken, OSError) as error:
        raise fail(f"the token is not good: {error}", 1) from None
    typer.echo(msgspec.json.format(msgspec.json.encode(claims)).decode())


def checksubtoken(
    token: Annotated[str, typer.Argument(help="Subscription token.")],
    config_file: ConfigFile = None,
) -> None:
    """Check a subscription token likewise."""
    checktoken(token, config_file, subscription=True)


def top(
    url: Annotated[str, typer.Argument(help="Where the gateway listens.")] = DEFAULT_URL,
    config_file: ConfigFile = None,
    interval: Annotated[
        float, typer.Option("--interval", "-n", min=0.1, max=3600, help="Seconds between looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON each time.")] = False,
) -> None:
    """Show a running gateway in the terminal; q ends it. It takes admin.enabled there."""
    from gateway import top as watching

    try:
        password = config.load(config_file, os.environ).admin.password
        watching.run(url, password, interval=interval, once=once, lines=as_json)
    except ConfigError as error:
        raise fail(error) from None
    except watching.TopError as error:
        raise fail(error, error.status) from None
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        pass


async def _claims(
    verifier: TokenVerifier, token: str, *, subscription: bool
) -> ConnectionClaims | SubscriptionClaims:
    if subscription:
        return await verifier.subscription(token)
    return await verifier.connection(token)

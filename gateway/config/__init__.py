"""Configuration: a TOML file, then ``FASTWS_…`` in the environment, then flags; the last wins."""

from gateway.config.load import KEYS, ConfigError, env_name, keys, load
from gateway.config.sections import (
    Channel,
    ChannelOptions,
    Client,
    Config,
    Engine,
    HttpApi,
    HttpServer,
    Log,
    Namespace,
    PersonalChannel,
    Shutdown,
    SubscriptionToken,
    Token,
    TokenSource,
    WebSocket,
)

__all__ = [
    "KEYS",
    "Channel",
    "ChannelOptions",
    "Client",
    "Config",
    "ConfigError",
    "Engine",
    "HttpApi",
    "HttpServer",
    "Log",
    "Namespace",
    "PersonalChannel",
    "Shutdown",
    "SubscriptionToken",
    "Token",
    "TokenSource",
    "WebSocket",
    "env_name",
    "keys",
    "load",
]

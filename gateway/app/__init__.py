"""The application behind the gateway: what it is asked, in this process or over HTTP."""

from gateway.app.base import App, NoApp
from gateway.app.events import (
    ConnectEvent,
    ConnectReply,
    ConnectSubscription,
    DisconnectEvent,
    MessageEvent,
    PublishEvent,
    PublishReply,
    RefreshEvent,
    RefreshReply,
    RpcEvent,
    RpcReply,
    SubRefreshEvent,
    SubRefreshReply,
    SubscribeEvent,
    SubscribeReply,
)
from gateway.codes import Disconnect, Disconnected, Error, Refused

__all__ = [
    "App",
    "ConnectEvent",
    "ConnectReply",
    "ConnectSubscription",
    "Disconnect",
    "DisconnectEvent",
    "Disconnected",
    "Error",
    "MessageEvent",
    "NoApp",
    "PublishEvent",
    "PublishReply",
    "RefreshEvent",
    "RefreshReply",
    "Refused",
    "RpcEvent",
    "RpcReply",
    "SubRefreshEvent",
    "SubRefreshReply",
    "SubscribeEvent",
    "SubscribeReply",
]

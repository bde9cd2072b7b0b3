"""An application over HTTP, in any language: the events are posted to it as JSON.

The answer is ``{"result": …}``, ``{"error": {"code", "message", "temporary"}}`` or ``{"disconnect":
{"code", "reason"}}``. While the backend is down or slow, clients get error 100, which their SDKs
try again; after some failures in a row it is left alone for a while, so that neither waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp
import msgspec
import structlog
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.app.base import App, Headers
from gateway.app.events import (
    ConnectEvent,
    ConnectReply,
    DisconnectEvent,
    Event,
    PublishEvent,
    PublishReply,
    RefreshEvent,
    RefreshReply,
    RpcEvent,
    RpcReply,
    SubRefreshEvent,
    SubscribeEvent,
    SubscribeReply,
)
from gateway.codes import Disconnect, Disconnected, Error, Refused
from gateway.config import Config, Proxy

log = structlog.get_logger("gateway.webhooks")

# The breaker: so many failures in a row, and the backend is left alone for so many seconds.
FAILURES = 5
REST = 2.0

# Requests under way at once; more wait, and run into their time-out.
_CONNECTIONS = 256
_MAX_REPLY = 1 << 20

_T = TypeVar("_T")


class WebhookFailed(OSError):
    """The backend gave no answer that means something."""


class _Reply(Struct):
    result: Raw | UnsetType = UNSET
    error: Error | None = None
    disconnect: Disconnect | None = None


_decode = msgspec.json.Decoder(_Reply).decode
_encode = msgspec.json.Encoder().encode


class Hook:
    """One kind of event and where it is posted."""

    def __init__(self, name: str, settings: Proxy, clock: Callable[[], float]) -> None:
        self.name = name
        self.settings = settings
        self.calls = 0
        self.failures = 0
        self._clock = clock
        self._in_a_row = 0
        self._rests_until = 0.0

    def check(self) -> None:
        """Raises `WebhookFailed` while the backend is left alone."""
        if self._in_a_row >= FAILURES and self._clock() < self._rests_until:
            raise WebhookFailed(f"{self.name}: the backend has failed {self._in_a_row} times")

    def note(self, *, failed: bool) -> None:
        self.calls += 1
        self.failures += failed
        self._in_a_row = self._in_a_row + 1 if failed else 0
        if self._in_a_row >= FAILURES:
            self._rests_until = self._clock() + REST


class Webhooks(App):
    """The backends of a configuration. ``clock`` is monotonic."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        settings = {
            "connect": config.client.proxy.connect,
            "refresh": config.client.proxy.refresh,
            "subscribe": config.channel.proxy.subscribe,
            "sub_refresh": config.channel.proxy.sub_refresh,
            "publish": config.channel.proxy.publish,
            "disconnect": config.client.proxy.disconnect,
            "rpc": config.rpc.proxy,
        }
        self.hooks = {
            name: Hook(name, each, clock) for name, each in settings.items() if each.enabled
        }
        self.disconnect_rate = config.client.proxy.disconnect_rate_limit
        wanted = {name for hook in self.hooks.values() for name in hook.settings.http_headers}
        self.http_headers = tuple(sorted(wanted))
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),  # one client's cookies are not another's
        )

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    def handles(self, event: str) -> bool:
        return event in self.hooks

    async def connect(self, event: ConnectEvent, headers: Headers) -> ConnectReply:
        return await self._ask("connect", event, headers, ConnectReply)

    async def refresh(self, event: RefreshEvent, headers: Headers) -> RefreshReply:
        return await self._ask("refresh", event, headers, RefreshReply)

    async def subscribe(self, event: SubscribeEvent, headers: Headers) -> SubscribeReply:
        return await self._ask("subscribe", event, headers, SubscribeReply)

    async def sub_refresh(self, event: SubRefreshEvent, headers: Headers) -> RefreshReply:
        return await self._ask("sub_refresh", event, headers, RefreshReply)

    async def publish(self, event: PublishEvent, headers: Headers) -> PublishReply:
        return await self._ask("publish", event, headers, PublishReply)

    async def disconnect(self, event: DisconnectEvent, headers: Headers) -> None:
        """Whatever the backend answers with status 200 is good."""
        hook = self.hooks["disconnect"]
        hook.check()
        try:
            await self._post(hook, _encode(event), headers or {})
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._failed(hook, error) from None
        hook.note(failed=False)

    async def rpc(self, event: RpcEvent, headers: Headers) -> RpcReply:
        return await self._ask("rpc", event, headers, RpcReply)

    async def _ask(self, name: str, event: Event, headers: Headers, kind: type[_T]) -> _T:
        hook = self.hooks[name]
        hook.check()
        try:
            reply = _decode(await self._post(hook, _encode(event), headers or {}))
            answered = reply.result
            result = msgspec.json.decode(answered or b"{}", type=kind)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise self._failed(hook, error) from None
        hook.note(failed=False)
        if reply.disconnect is not None:
            raise Disconnected(reply.disconnect, f"the backend answered {name} with it")
        if reply.error is not None:
            raise Refused(reply.error)
        if isinstance(answered, UnsetType):
            raise WebhookFailed(f"{name}: neither a result nor an error")
        return result

    def _failed(self, hook: Hook, error: Exception) -> WebhookFailed:
        hook.note(failed=True)
        log.warning("webhook failed", event_name=hook.name, error=repr(error))
        return WebhookFailed(f"{hook.name}: {error!r}")

    async def _post(self, hook: Hook, body: bytes, headers: Any) -> bytes:
        assert self._http is not None, "start() first"
        settings = hook.settings
        wanted = {each.lower() for each in settings.http_headers}
        passed = {name: value for name, value in headers.items() if name.lower() in wanted}
        sent = {**passed, "Content-Type": "application/json"}
        with self.node.tracing.ask(f"POST {hook.name}", sent) as span:
            span.set("http.request.method", "POST")
            async with self._http.post(
                settings.endpoint,
                data=body,
                headers=sent,
                timeout=aiohttp.ClientTimeout(total=settings.timeout),
                allow_redirects=False,
            ) as response:
                span.set("http.response.status_code", response.status)
                if response.status != 200:
                    raise WebhookFailed(f"status {response.status}")
                return await _content(response)


async def _content(response: aiohttp.ClientResponse) -> bytes:
    content = await response.content.read(_MAX_REPLY + 1)
    while len(content) <= _MAX_REPLY and (more := await response.content.read(_MAX_REPLY)):
        content += more
    if len(content) > _MAX_REPLY:
        raise WebhookFailed(f"an answer of more than {_MAX_REPLY} bytes")
    return content

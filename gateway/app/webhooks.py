"""An application over HTTP, in any language: the events are posted to it as JSON.

The answer is a result, an error or a disconnect (`gateway.app.replies`). While the backend is down
or slow, clients get error 100, which their SDKs try again; after some failures in a row it is left
alone for a while, so that neither waits.

Each event has one endpoint; namespaces may name a proxy instead, which has an endpoint of its own.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog
from msgspec import UNSET

from gateway.app import replies
from gateway.app.base import App, Headers, NoApp
from gateway.app.endpoints import BadStatus, Endpoint, WebhookFailed
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
    SubRefreshReply,
    SubscribeEvent,
    SubscribeReply,
)
from gateway.codes import NOT_AVAILABLE, Disconnect, Disconnected, Refused
from gateway.config import DEFAULT_PROXY, Config, ProxyOptions
from gateway.config.proxies import choices, event_proxies
from gateway.histogram import Histogram
from gateway.log import Seldom

if TYPE_CHECKING:
    from gateway.app.posting import Poster

seldom = Seldom(structlog.get_logger("gateway.webhooks"))

_NOBODY = NoApp()
_RENEWALS = ("refresh", "sub_refresh")

_T = TypeVar("_T")


_encode = msgspec.json.Encoder().encode


class Hook:
    """One event under one name of a proxy: where it is posted now, and how often it was."""

    def __init__(self, event: str, proxy: str, endpoint: Endpoint) -> None:
        self.event = event
        self.proxy = proxy
        self.endpoint = endpoint
        self.in_flight = 0  # those that wait for room are among them
        self.calls = 0
        self.failures = 0
        self.times = Histogram()  # what calls took, in seconds

    def note(self, endpoint: Endpoint, taken: float, *, failed: bool) -> None:
        """A call has ended, after ``taken`` seconds."""
        self.calls += 1
        self.times.add(taken)
        self.failures += failed
        endpoint.note(failed=failed)


class Backend(App):
    """What is asked under one name of a proxy. ``post`` asks an endpoint of an event."""

    def __init__(self, post: Callable[[Endpoint, str, bytes, Headers], Awaitable[bytes]]) -> None:
        self.hooks: dict[str, Hook] = {}  # by event
        self._post = post

    def handles(self, event: str) -> bool:
        return event in self.hooks

    # An answer without a result means what it does to Centrifugo.

    async def connect(self, event: ConnectEvent, headers: Headers) -> ConnectReply | None:
        return await self._ask("connect", event, headers, ConnectReply)

    async def refresh(self, event: RefreshEvent, headers: Headers) -> RefreshReply:
        reply = await self._ask("refresh", event, headers, RefreshReply)
        return reply or RefreshReply(expired=True)

    async def subscribe(self, event: SubscribeEvent, headers: Headers) -> SubscribeReply:
        return await self._ask("subscribe", event, headers, SubscribeReply) or SubscribeReply()

    async def sub_refresh(self, event: SubRefreshEvent, headers: Headers) -> SubRefreshReply:
        reply = await self._ask("sub_refresh", event, headers, SubRefreshReply)
        return reply or SubRefreshReply(expired=True)

    async def publish(self, event: PublishEvent, headers: Headers) -> PublishReply:
        return await self._ask("publish", event, headers, PublishReply) or PublishReply()

    async def rpc(self, event: RpcEvent, headers: Headers) -> RpcReply:
        return await self._ask("rpc", event, headers, RpcReply) or RpcReply()

    async def disconnect(self, event: DisconnectEvent, headers: Headers) -> None:
        """Whatever the backend answers with status 200 is good."""
        await self._call("disconnect", event, headers, lambda answer: None)

    async def _ask(self, name: str, event: Event, headers: Headers, kind: type[_T]) -> _T | None:
        try:
            return await self._call(name, event, headers, lambda answer: replies.read(answer, kind))
        except WebhookFailed as failed:
            then = failed.then
            if then is None or not then.disconnect_code or name in _RENEWALS:
                raise
            goodbye = Disconnect(then.disconnect_code, then.disconnect_reason)
            raise Disconnected(goodbye, str(failed)) from None

    async def _call(
        self, name: str, event: Event, headers: Headers, read: Callable[[bytes], _T]
    ) -> _T:
        """Post an event and ``read`` the answer; what goes wrong is counted and logged.

        An error or a disconnect that the backend answers with is nothing wrong.
        """
        hook = self.hooks.get(name)
        if hook is None:
            raise Refused(NOT_AVAILABLE)
        endpoint = hook.endpoint  # the hook may have another one when the answer is here
        endpoint.check()
        if not endpoint.settings.include_connection_meta:
            event.meta = UNSET
        hook.in_flight += 1
        began = time.perf_counter()
        failed = False
        try:
            answer = read(await self._request(endpoint, name, event, headers))
        except OSError as error:
            failed = True
            seldom.warning(
                "webhook failed",
                f"{hook.proxy} {name}",
                event_name=name,
                proxy=hook.proxy,
                client=event.client,
                error=repr(error),
            )
            raise endpoint.failure(error) from None
        finally:
            hook.in_flight -= 1
            hook.note(endpoint, time.perf_counter() - began, failed=failed)
        return answer

    async def _request(
        self, endpoint: Endpoint, name: str, event: Event, headers: Headers
    ) -> bytes:
        try:
            return await self._post(endpoint, name, _encode(event), headers)
        except BadStatus as bad:
            raise endpoint.decision(bad.status) or bad from None


class Webhooks(Backend):
    """The backends of a configuration: that of each event, and those of named proxies.

    ``clock`` is monotonic.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(self._post_there)
        self._clock = clock
        self._named: dict[str, Backend] = {}
        self._endpoints: dict[str, Endpoint] = {}  # by name
        self._poster: Poster | None = None
        self._running = False
        self.disconnect_rate = config.client.proxy.disconnect_rate_limit
        self._take(config)

    async def start(self) -> None:
        self._running = True
        self._open()

    async def close(self) -> None:
        self._running = False
        if self._poster is not None:
            await self._poster.close()
            self._poster = None

    def reload(self, config: Config) -> None:
        """Ask the backends of another configuration from now on.

        Calls under way go on. An endpoint that stays as it is also keeps what is known of it.
        """
        self._take(config)
        self._open()

    def behind(self, proxy: str) -> App:
        return self if proxy == DEFAULT_PROXY else self._named.get(proxy, _NOBODY)

    @property
    def all_hooks(self) -> list[Hook]:
        """Those of events, then those of named proxies."""
        return [hook for each in (self, *self._named.values()) for hook in each.hooks.values()]

    def _take(self, config: Config) -> None:
        known = {(hook.event, hook.proxy): hook for hook in self.all_hooks}
        endpoints: dict[str, Endpoint] = {}
        self.hooks, self._named = {}, {}
        for event, proxy, settings in _wanted(config):
            name = event if proxy == DEFAULT_PROXY else f"proxies.{proxy}"
            endpoint = endpoints.get(name) or self._endpoints.get(name)
            if endpoint is None or endpoint.settings != settings:
                endpoint = Endpoint(name, settings, self._clock)
            endpoints[name] = endpoint
            hook = known.get((event, proxy)) or Hook(event, proxy, endpoint)
            hook.endpoint = endpoint
            if proxy == DEFAULT_PROXY:
                self.hooks[event] = hook
            else:
                self._named.setdefault(proxy, Backend(self._post)).hooks[event] = hook
        self._endpoints = endpoints
        # Of a header that is written in two ways, one will do.
        asked = [name for each in endpoints.values() for name in each.settings.http_headers]
        self.http_headers = tuple(sorted({name.lower(): name for name in asked}.values()))
        emulated = [name for each in endpoints.values() for name in each.settings.emulated_headers]
        self.emulated_headers = tuple(sorted({name.lower() for name in emulated}))

    def _open(self) -> None:
        if self._running and self._endpoints and self._poster is None:
            from gateway.app.posting import Poster  # needs aiohttp, which others do not

            self._poster = Poster()

    async def _post_there(
        self, endpoint: Endpoint, event: str, body: bytes, headers: Headers
    ) -> bytes:
        if self._poster is None:
            raise WebhookFailed("the gateway has stopped")
        return await self._poster.post(endpoint, event, body, headers, self.node.tracing)


def _wanted(config: Config) -> Iterator[tuple[str, str, ProxyOptions]]:
    """What may be asked: an event, the name of a proxy, and its settings."""
    for event, _, proxy in event_proxies(config):
        if proxy.enabled:
            yield event, DEFAULT_PROXY, proxy
    named = {each.name: each for each in config.proxies}
    for choice in choices(config):
        if choice.enabled and choice.name != DEFAULT_PROXY:
            yield choice.event, choice.name, named[choice.name]

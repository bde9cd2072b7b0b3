"""Asks the application on behalf of the node: sessions into events, replies into decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, NamedTuple, TypeVar

from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from gateway.app.base import App
from gateway.app.endpoints import WebhookFailed
from gateway.app.events import (
    ConnectEvent,
    ConnectSubscription,
    MessageEvent,
    PublishEvent,
    RefreshEvent,
    RefreshReply,
    RpcEvent,
    SubRefreshEvent,
    SubRefreshReply,
    SubscribeEvent,
)
from gateway.auth.tokens import ConnectionClaims, SubscribeOptions, payload
from gateway.channels.grants import Grant, Source, grant
from gateway.codes import MAX_REASON, METHOD_NOT_FOUND, Disconnect, Disconnected, Refused
from gateway.config import ChannelOptions
from gateway.engines import Once
from gateway.model import SubscribeRequest
from gateway.session import Session

_T = TypeVar("_T")


# Seconds that what the application could not renew goes on, where nothing else is configured.
RETRY_AFTER = 60


class BadReply(OSError):
    """The application answered something that cannot be used."""


class Approved(NamedTuple):
    """A publication of a client as the application wants it, by the arguments of `Node.publish`."""

    data: Raw
    tags: dict[str, str] | None
    skip_history: bool
    once: Once | None
    delta: bool


class AppCalls:
    """The questions of one node to its application.

    Each raises what the application does: `Refused`, `Disconnected` or `OSError`.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.handles = app.handles

    async def connect(
        self,
        session: Session,
        client: str,
        data: Raw | UnsetType,
        name: str,
        version: str,
        channels: Iterable[str],
    ) -> tuple[ConnectionClaims, Raw | UnsetType] | None:
        """Who a client without a token is, and what it is told; None where nobody says."""
        event = ConnectEvent(
            client=client,
            address=session.address,
            data=data,
            name=name,
            version=version,
            channels=list(channels),
        )
        reply = await _own_task(self.app.connect(event, session.headers))
        if reply is None:
            return None
        subs: dict[str, SubscribeOptions] = {
            channel: ConnectSubscription() for channel in reply.channels
        }
        for channel, sub in reply.subs.items():
            info, chan_data = content(sub.info, sub.b64info), content(sub.data, sub.b64data)
            subs[channel] = replace(sub, info=info, data=chan_data)
        claims = ConnectionClaims(
            sub=reply.user,
            expire_at=reply.expire_at,
            info=content(reply.info, reply.b64info),
            meta=content(reply.meta),
            subs=subs,
        )
        return claims, content(reply.data, reply.b64data)

    async def refresh(self, session: Session) -> RefreshReply:
        """Whether a client goes on."""
        event = RefreshEvent(**_who(session))
        return await _own_task(self.app.refresh(event, session.headers))

    async def subscribe(
        self, session: Session, request: SubscribeRequest, options: ChannelOptions
    ) -> Grant:
        """On what terms a client may subscribe."""
        event = SubscribeEvent(
            **_who(session),
            channel=request.channel,
            data=request.data,
        )
        app = self.app.behind(options.subscribe_proxy_name)
        reply = await _own_task(app.subscribe(event, session.headers))
        terms = grant(options, Source.SUBSCRIBE_PROXY, reply.override)
        terms.info = content(reply.info, reply.b64info)
        terms.data = content(reply.data, reply.b64data)
        terms.expire_at = reply.expire_at
        return terms

    async def sub_refresh(
        self, session: Session, channel: str, options: ChannelOptions
    ) -> SubRefreshReply:
        """Whether a subscription goes on."""
        event = SubRefreshEvent(
            **_who(session),
            channel=channel,
        )
        app = self.app.behind(options.sub_refresh_proxy_name)
        return await _own_task(app.sub_refresh(event, session.headers))

    async def publish(
        self, session: Session, channel: str, data: Raw, options: ChannelOptions
    ) -> Approved:
        """What is published for a client."""
        event = PublishEvent(
            **_who(session),
            channel=channel,
            data=data,
        )
        app = self.app.behind(options.publish_proxy_name)
        reply = await _own_task(app.publish(event, session.headers))
        changed = content(reply.data, reply.b64data)
        once = None
        if reply.idempotency_key or reply.version:
            once = Once(reply.idempotency_key, reply.version, reply.version_epoch)
        return Approved(
            data if isinstance(changed, UnsetType) else changed,
            reply.tags or None,
            reply.skip_history,
            once,
            reply.delta,
        )

    async def message(self, session: Session, data: Raw | UnsetType) -> None:
        """Something that a client sends, and nobody answers."""
        event = MessageEvent(
            **_who(session),
            data=data,
        )
        await _own_task(self.app.message(event, session.headers))

    async def rpc(
        self, session: Session, method: str, data: Raw | UnsetType, proxy: str
    ) -> Raw | UnsetType:
        """The answer to a question of a client, by the proxy of this name.

        Raises `Refused`: 104 when nobody is there to answer.
        """
        app = self.app.behind(proxy)
        if not app.handles("rpc"):
            raise Refused(METHOD_NOT_FOUND)
        event = RpcEvent(
            **_who(session),
            method=method,
            data=data,
        )
        reply = await _own_task(app.rpc(event, session.headers))
        return content(reply.data, reply.b64data)


def content(raw: Raw | UnsetType, b64: str = "") -> Raw | UnsetType:
    """A payload of a reply. Raises `BadReply` for what is not JSON in base64."""
    try:
        return payload(raw, b64)
    except ValueError as error:
        raise BadReply(str(error)) from None


def kept_for(error: Exception) -> float:
    """Seconds that what was to be renewed goes on after an error of the application."""
    then = error.then if isinstance(error, WebhookFailed) else None
    return then.keep if then is not None else RETRY_AFTER


def check_disconnect(disconnect: Disconnect) -> None:
    """Raises `BadReply` for one that clients cannot be told."""
    if not disconnect.can_be_sent:
        raise BadReply(
            f"disconnect {disconnect.code} with {len(disconnect.reason)} characters of reason: "
            f"the code has to be 3000-4999, the reason at most {MAX_REASON} bytes"
        )


def _who(session: Session) -> dict[str, Any]:
    """What every event says of the client."""
    known = session.credentials
    return {
        "client": session.id,
        "address": session.address,
        "user": session.user,
        "meta": UNSET if known is None else known.meta,
    }


async def _own_task(call: Coroutine[Any, Any, _T]) -> _T:
    """A command runs without a task until it waits (`gateway.stepping`), and handlers need one."""
    try:
        return await asyncio.get_running_loop().create_task(call)
    except Disconnected as reason:
        check_disconnect(reason.disconnect)
        raise

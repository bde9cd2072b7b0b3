"""What a backend does to clients: it puts them into channels, and sends them away."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from msgspec import Raw, UnsetType

from gateway import codes
from gateway.channels.grants import Grant
from gateway.codes import Disconnected, Refused, Unsubscribe
from gateway.membership import expiry
from gateway.model import StreamPosition
from gateway.session import Session

if TYPE_CHECKING:
    from gateway.node import Node


class Administration:
    """The part of a node that obeys its backend."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def subscribe(
        self,
        sessions: Collection[Session],
        name: str,
        terms: Grant,
        since: StreamPosition | None = None,
    ) -> None:
        """Put clients into a channel, and tell them. Who is in it already stays as it is.

        Who has as many channels as a client may have is closed (3505), as in Centrifugo. Raises
        `Refused`: 100 engine.
        """
        limit = self._node.config.client.channel_limit
        for session in sessions:
            if limit and len(session.subscriptions) >= limit:
                if session.find(self._node.hub.channels.get(name)) is None:
                    self._node.disconnect(session, codes.CHANNEL_LIMIT)
                continue
            try:
                subscription, told = await self._node.members.enter(
                    session, name, terms, since, server_side=True
                )
            except Refused as refusal:
                if refusal.error not in (codes.ALREADY_SUBSCRIBED, codes.EXPIRED):
                    raise
                continue
            except Disconnected as reason:
                self._node.disconnect(session, reason.disconnect)
                continue
            session.transport.send(session.endpoint.protocol.subscribed(name, told), True)
            await self._node.members.joined(subscription)

    def unsubscribe(self, sessions: Collection[Session], name: str, why: Unsubscribe) -> None:
        """Take clients out of a channel, or out of all without a name, and tell them."""
        for session in sessions:
            for subscription in session.subscriptions:
                if not name or subscription.channel.name == name:
                    self._node.members.expel(subscription, why)

    async def refresh(
        self, sessions: Collection[Session], expire_at: float, info: Raw | UnsetType
    ) -> None:
        """Give connections another end (Unix time; 0 for never), and another ``conn_info``."""
        for session in sessions:
            session.expire_at = expire_at
            self._node.admission.schedule(session)
            told = expiry(expire_at, self._node.wall())
            session.transport.send(session.endpoint.protocol.refreshed(told), True)
            await self._node.admission.show(session, info)

    async def block_user(self, user: str, expire_at: float = 0) -> None:
        """Close a user's connections (3507) and keep the user out."""
        self._node.revocations.block(user, expire_at)
        await self._node.disconnect_all(self._node.clients.of_user(user), codes.NOT_PERMITTED)

    async def revoke_token(self, token_id: str, expire_at: float = 0) -> None:
        """Refuse a token by its ``jti``, and close connections that came with it (3500)."""
        self._node.revocations.revoke_token(token_id, expire_at)
        await self._close_revoked(self._node.clients)

    async def invalidate_user_tokens(
        self, user: str, issued_before: float = 0, channel: str = "", expire_at: float = 0
    ) -> None:
        """Refuse a user's tokens issued before a time (0: now), and close what came with them."""
        self._node.revocations.invalidate_user_tokens(user, issued_before, channel, expire_at)
        if not channel:
            await self._close_revoked(self._node.clients.of_user(user))

    async def _close_revoked(self, sessions: Iterable[Session]) -> None:
        revoked = [
            session
            for session in sessions
            if (with_token := session.credentials) is not None
            and self._node.revocations.is_revoked(
                with_token.token_id, session.user, with_token.issued_at
            )
        ]
        await self._node.disconnect_all(revoked, codes.INVALID_TOKEN)

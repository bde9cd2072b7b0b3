"""How clients come in, and how long they stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog
from msgspec import UNSET, Raw, UnsetType

from gateway import codes
from gateway.app import RefreshReply
from gateway.app.calls import content
from gateway.auth import ConnectionClaims, InvalidToken, TokenExpired
from gateway.auth.tokens import SubscribeOptions, payload
from gateway.channels.grants import Grant, Source, grant
from gateway.codes import Disconnected, Refused
from gateway.log import Seldom
from gateway.membership import RETRY_AFTER, expiry
from gateway.model import ClientInfo, Connected, Expiry, StreamPosition, Subscribed
from gateway.session import Credentials, Session, with_channel_info
from gateway.stepping import start

if TYPE_CHECKING:
    from gateway.node import Node

log = structlog.get_logger("gateway.admission")
seldom = Seldom(log)


class Admission:
    """The part of a node that decides who is its client: by token, by application, or anyone."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def connect(
        self,
        session: Session,
        token: str = "",
        data: Raw | UnsetType = UNSET,
        since: Mapping[str, StreamPosition] | None = None,
        name: str = "",
        version: str = "",
    ) -> Connected:
        """Let a client in, and put it into the channels that are not for it to choose.

        ``since`` is where it left off in those; ``name`` and ``version`` are of its software. A
        client without a token is let in by the application, if that wants to be asked. In dev mode
        anyone else comes in, and ``data`` becomes what others see of it.

        Raises `Refused`: 109 token expired, 100 keys, application or engine out of reach, 102 a
        channel of an unknown namespace; `Disconnected`: 3500 invalid token, 3501 connected already
        or no token, 3504 too many connections, 3505 too many channels, 3507 not this user.
        """
        if session.info is not None:
            raise Disconnected(codes.INVALID_REQUEST, "client has connected already")
        token, session.token = token or session.token, ""
        client = session.id
        told: Raw | UnsetType = UNSET
        if token:
            claims = await self._admit(token)
            if not claims.sub and self._node.config.client.disallow_anonymous_connection_tokens:
                raise Disconnected(codes.NOT_PERMITTED, "anonymous tokens are not allowed")
            session.credentials = Credentials(claims.jti, claims.iat, claims.meta)
        elif self._node.app.handles("connect"):
            claims, told = await self._node.app.connect(session, client, data, name, version)
            session.credentials = Credentials(meta=claims.meta, by_app=True)
        elif self._node.config.dev:
            claims = ConnectionClaims(info=payload(data))
        elif self._node.config.client.allow_anonymous_connect_without_token:
            claims = ConnectionClaims()
        else:
            raise Disconnected(codes.INVALID_REQUEST, "no token")
        if session.ended:
            raise Refused(codes.EXPIRED)
        if self._node.revocations.is_blocked(claims.sub):
            raise Disconnected(codes.NOT_PERMITTED, "the user is blocked")
        if claims.sub and not self._node.limits.check_user(self._node.clients.count(claims.sub)):
            raise Disconnected(codes.CONNECTION_LIMIT, "the user has too many connections")
        session.expire_at = claims.expires
        session.info = ClientInfo(client, claims.sub, claims.info)
        self._evict_others(session)
        self._enlist(session)
        try:
            subs = await self._enter_all(session, claims.subs, since or {})
        except Refused:
            await self._withdraw(session)
            raise
        if self._node.config.log.level == "debug":  # a line that is not written costs some us too
            log.debug("client connected", client=client, user=claims.sub, address=session.address)
        end = Expiry() if self._renews(session) else expiry(session.expire_at, self._node.wall())
        return Connected(session.info, end, subs, told)

    async def _admit(self, token: str) -> ConnectionClaims:
        try:
            return await self._node.tokens.connection(token)
        except TokenExpired:
            raise Refused(codes.TOKEN_EXPIRED) from None
        except InvalidToken as error:
            raise Disconnected(codes.INVALID_TOKEN, str(error)) from None

    def _enlist(self, session: Session) -> None:
        self._node.clients.add(session)
        self._node.counters.sessions += 1
        if self._node.heartbeat is not None:
            self._node.heartbeat.begin(session, self._node.clock())
        self.schedule(session)

    async def _enter_all(
        self,
        session: Session,
        subs: Mapping[str, SubscribeOptions],
        since: Mapping[str, StreamPosition],
    ) -> dict[str, Subscribed]:
        """Put a client into the channels it was given, and into its own one."""
        known = session.credentials
        by_app = known is not None and known.by_app
        source = Source.CONNECT_PROXY if by_app else Source.CONNECTION_TOKEN
        wanted: dict[str, Grant] = {}
        for name, sub in subs.items():
            terms = grant(self._node.rules.options(name), source, sub.override)
            terms.info, terms.data = sub.info, sub.data
            wanted[name] = terms
        personal = self._node.rules.personal_channel(session.user)
        if personal is not None:
            wanted[personal] = grant(self._node.rules.options(personal), Source.USER_PERSONAL)
        limit = self._node.config.client.channel_limit
        if limit and len(wanted) > limit:
            self._node.limits.reach("channel_limit")
            raise Disconnected(codes.CHANNEL_LIMIT)
        told = {}
        for name, terms in wanted.items():
            _, told[name] = await self._node.members.enter(
                session, name, terms, since.get(name), server_side=True
            )
        return told

    async def _withdraw(self, session: Session) -> None:
        """Undo a connect that failed: the client may try again."""
        if session.ended:
            return
        left = [(each, self._node.members.remove(each)) for each in session.subscriptions]
        self._node.clients.remove(session)
        self._node.counters.sessions -= 1
        session.info, session.credentials, session.expire_at = None, None, 0.0
        if self._node.heartbeat is not None:
            self._node.heartbeat.open(session, self._node.clock())
        await self._node.members.left(left)

    def _evict_others(self, session: Session) -> None:
        """The newest connection of a user is the only one, where that is configured."""
        feature = self._node.config.client.subscribe_to_user_personal_channel
        if feature.enabled and feature.single_connection and session.user:
            for other in self._node.clients.of_user(session.user):
                self._node.disconnect(other, codes.CONNECTION_LIMIT)

    async def refresh(self, session: Session, token: str) -> Expiry:
        """Take a new token for a connection.

        Raises `Disconnected`: 3500 invalid token or another user's, 3501 none, 3005 expired, 3010
        when it is for other channels than the client is in.
        """
        if not token:
            raise Disconnected(codes.INVALID_REQUEST, "refresh needs a token")
        try:
            claims = await self._node.tokens.connection(token)
        except TokenExpired:
            raise Disconnected(codes.CONNECTION_EXPIRED, "the new token has expired") from None
        except InvalidToken as error:
            raise Disconnected(codes.INVALID_TOKEN, str(error)) from None
        if claims.sub != session.user:
            raise Disconnected(codes.INVALID_TOKEN, "the token is for another user")
        session.credentials = Credentials(claims.jti, claims.iat, claims.meta)
        session.expire_at = claims.expires
        self.schedule(session)
        await self.show(session, claims.info)
        mine = {
            each.channel.name
            for each in session.subscriptions
            if each.terms.source is Source.CONNECTION_TOKEN
        }
        if mine != set(claims.subs):
            raise Disconnected(codes.INSUFFICIENT_STATE, "the token is for other channels")
        return expiry(claims.expires, self._node.wall())

    async def show(self, session: Session, conn_info: Raw | UnsetType) -> None:
        """Change what others see of a client, if there is something new."""
        old = session.info
        if isinstance(conn_info, UnsetType) or old is None or old.conn_info == conn_info:
            return
        session.info = ClientInfo(old.client, old.user, conn_info)
        for subscription in session.subscriptions:
            subscription.info = with_channel_info(session.info, subscription.info.chan_info)
            if subscription.terms.presence:
                await self._node.engine.presence_add(subscription.channel.name, subscription.info)

    # -- a client's time

    def schedule(self, session: Session) -> None:
        """Tell the heartbeat when to look at a session again."""
        if self._node.heartbeat is None or session.ended:
            return
        ends = [self._end_of(session)]
        ends += [self._node.members.end_of(each) for each in session.subscriptions]
        self._wake_at(session, min(filter(None, ends), default=0.0))

    def _renews(self, session: Session) -> bool:
        """Whether the application renews a session, and not the client."""
        known = session.credentials
        return known is not None and known.by_app and self._node.app.handles("refresh")

    def _end_of(self, session: Session) -> float:
        """When a session has to be looked at, in Unix time; 0 for never."""
        if not session.expire_at:
            return 0.0
        delay = 0.0 if self._renews(session) else self._node.config.client.expired_close_delay
        return session.expire_at + delay

    def _wake_at(self, session: Session, end: float) -> None:
        node = self._node
        if node.heartbeat is not None:
            when = node.clock() + end - node.wall() if end else None
            node.heartbeat.expire_at(session, when)

    def expire(self, session: Session) -> None:
        """Look at a session whose token, or one of whose subscriptions' tokens, may have ended."""
        end = self._end_of(session)
        if end and end <= self._node.wall():
            if self._renews(session):
                start(self._renew(session))
            else:
                self._node.disconnect(session, codes.CONNECTION_EXPIRED)
            return
        self._node.members.expire(session)
        self.schedule(session)

    async def _renew(self, session: Session) -> None:
        """Let the application say whether a client goes on."""
        try:
            reply = await self._node.app.refresh(session)
            info = content(reply.info, reply.b64info)
        except Disconnected as reason:
            self._node.disconnect(session, reason.disconnect)
            return
        except (OSError, Refused) as error:
            seldom.warning("refresh failed", client=session.id, error=str(error))
            reply, info = RefreshReply(expire_at=int(self._node.wall()) + RETRY_AFTER), UNSET
        if session.ended:
            return
        if reply.expired:
            self._node.disconnect(session, codes.CONNECTION_EXPIRED)
            return
        session.expire_at = reply.expire_at
        self.schedule(session)
        await self.show(session, info)

"""How clients come in, and how long they stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from gateway import codes
from gateway.app import ConnectSubscription
from gateway.app.calls import content, kept_for
from gateway.app.headers import with_emulated
from gateway.auth import ConnectionClaims, InvalidToken, TokenExpired
from gateway.auth.tokens import SubscribeOptions, payload
from gateway.channels.grants import Grant, Source, grant
from gateway.codes import Disconnected, Refused
from gateway.log import Seldom
from gateway.membership import expiry
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
        wanted: Mapping[str, StreamPosition | None] | None = None,
        name: str = "",
        version: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Connected:
        """Let a client in, and put it into the channels that are not for it to choose.

        ``wanted`` are channels that it was in before, and where it left off: others than those of
        its token are entered too where it may subscribe. ``name`` and ``version`` are of its
        software, ``headers`` for the application. A client without a token is let in by that, if it
        wants to be asked. In dev mode anyone else comes in, and ``data`` becomes what others see of
        it.

        Raises `Refused`: 109 token expired, 110 its end is past, 100 keys, application or engine
        out of reach, 102 a channel of an unknown namespace; `Disconnected`: 3500 invalid token,
        3501 connected already or no token, 3504 too many connections, 3505 too many channels,
        3507 not this user.
        """
        if session.info is not None:
            raise Disconnected(codes.INVALID_REQUEST, "client has connected already")
        token, session.token = token or session.token, ""
        session.credentials = None
        if headers and (listed := self._node.app.app.emulated_headers):
            session.headers = with_emulated(session.headers, headers, listed)
        client = session.id
        told: Raw | UnsetType = UNSET
        if token:
            claims = await self._admit(token)
            if not claims.sub and self._node.config.client.disallow_anonymous_connection_tokens:
                raise Disconnected(codes.NOT_PERMITTED, "anonymous tokens are not allowed")
            session.credentials = Credentials(claims.jti, claims.iat, claims.meta)
        else:
            known = None
            if self._node.app.handles("connect"):
                app = self._node.app
                known = await app.connect(session, client, data, name, version, wanted or ())
            if known is not None:
                claims, told = known
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
        end = expiry(claims.expires, self._node.wall())
        session.expire_at = claims.expires
        session.info = ClientInfo(client, claims.sub, claims.info)
        self._evict_others(session)
        self._enlist(session)
        try:
            subs = await self._enter_all(session, claims.subs, wanted or {})
        except Refused:
            await self._withdraw(session)
            raise
        if self._node.config.log.level == "debug":  # a line that is not written costs some us too
            log.debug("client connected", client=client, user=claims.sub, address=session.address)
        end = Expiry() if self._renews() else expiry(session.expire_at, self._node.wall())
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
        wanted: Mapping[str, StreamPosition | None],
    ) -> dict[str, Subscribed]:
        """Put a client into the channels it was given, into its own one, and where it was before.

        The application has said all that it has to say.
        """
        known = session.credentials
        by_app = known is not None and known.by_app
        source = Source.CONNECT_PROXY if by_app else Source.CONNECTION_TOKEN
        granted: dict[str, Grant] = {}
        for name, sub in subs.items():
            terms = grant(self._node.rules.options(name), source, sub.override)
            terms.info, terms.data = sub.info, sub.data
            if isinstance(sub, ConnectSubscription):
                terms.expire_at = sub.expire_at
                terms.auto_recover = terms.auto_recover or sub.cache_recover
            granted[name] = terms
        personal = self._node.rules.personal_channel(session.user)
        if personal is not None:
            granted[personal] = grant(self._node.rules.options(personal), Source.USER_PERSONAL)
        if not by_app:
            for name in wanted:
                if name not in granted and self._may_return(session, name):
                    granted[name] = grant(self._node.rules.options(name), Source.UNI_CONNECT)
        limit = self._node.config.client.channel_limit
        if limit and len(granted) > limit:
            self._node.limits.reach("channel_limit")
            raise Disconnected(codes.CHANNEL_LIMIT)
        told = {}
        for name, terms in granted.items():
            _, told[name] = await self._node.members.enter(
                session, name, terms, wanted.get(name), server_side=True
            )
        return told

    def _may_return(self, session: Session, name: str) -> bool:
        """Whether a client may be in a channel that it names when it connects."""
        rules = self._node.rules
        try:
            options = rules.check(name)
        except Refused:
            return False
        return (
            name != ""
            and not rules.needs_token(name)
            and not options.subscribe_proxy_enabled
            and rules.may_subscribe(name, options, session.user)
        )

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

        Raises `Refused`: 110 when the new end is past; `Disconnected`: 3500 invalid token or
        another user's, 3501 none or not for the client to do, 3005 expired, 3010 when it is for
        other channels than the client is in.
        """
        if not token:
            raise Disconnected(codes.INVALID_REQUEST, "refresh needs a token")
        if self._renews():
            raise Disconnected(codes.INVALID_REQUEST, "the application renews connections")
        try:
            claims = await self._node.tokens.connection(token)
        except TokenExpired:
            raise Disconnected(codes.CONNECTION_EXPIRED, "the new token has expired") from None
        except InvalidToken as error:
            raise Disconnected(codes.INVALID_TOKEN, str(error)) from None
        if claims.sub != session.user:
            raise Disconnected(codes.INVALID_TOKEN, "the token is for another user")
        if not _fits(session, claims.subs):
            raise Disconnected(codes.INSUFFICIENT_STATE, "the token is for other channels")
        end = expiry(claims.expires, self._node.wall())
        meta = claims.meta
        if isinstance(meta, UnsetType) and session.credentials is not None:
            meta = session.credentials.meta
        session.credentials = Credentials(claims.jti, claims.iat, meta)
        session.expire_at = claims.expires
        self.schedule(session)
        await self.show(session, claims.info)
        return end

    async def show(self, session: Session, conn_info: Raw | UnsetType) -> None:
        """Change what others see of a client, if there is something new."""
        old = session.info
        if isinstance(conn_info, UnsetType) or old is None or old.conn_info == conn_info:
            return
        session.info = ClientInfo(old.client, old.user, conn_info)
        for subscription in session.subscriptions:
            info = with_channel_info(session.info, subscription.info.chan_info)
            await self._node.members.show(subscription, info)

    # -- a client's time

    def schedule(self, session: Session) -> None:
        """Tell the heartbeat when to look at a session again."""
        if self._node.heartbeat is None or session.ended:
            return
        ends = [self._end_of(session)]
        ends += [self._node.members.end_of(each) for each in session.subscriptions]
        self._wake_at(session, min(filter(None, ends), default=0.0))

    def _renews(self) -> bool:
        """Whether the application renews sessions, and not their clients."""
        return self._node.app.handles("refresh")

    def _end_of(self, session: Session) -> float:
        """When a session has to be looked at, in Unix time; 0 for never."""
        if not session.expire_at:
            return 0.0
        delay = 0.0 if self._renews() else self._node.config.client.expired_close_delay
        return session.expire_at + delay

    def _wake_at(self, session: Session, end: float) -> None:
        node = self._node
        if node.heartbeat is not None:
            when = node.clock() + end - node.wall() if end else None
            node.heartbeat.expire_at(session, when)

    def expire(self, session: Session) -> None:
        """Look at a session whose token, or one of whose subscriptions' tokens, may have ended."""
        if session.ended:
            return
        end = self._end_of(session)
        if end and end <= self._node.wall():
            if self._renews():
                start(self._renew(session))
            else:
                self._node.disconnect(session, codes.CONNECTION_EXPIRED)
            return
        self._node.members.expire(session)
        self.schedule(session)

    async def _renew(self, session: Session) -> None:
        """Let the application say whether a client goes on."""
        info: Raw | UnsetType = UNSET
        meta: Raw | UnsetType = UNSET
        try:
            reply = await self._node.app.refresh(session)
            info, meta = content(reply.info, reply.b64info), content(reply.meta)
            end = 0.0 if reply.expired else float(reply.expire_at)
        except Disconnected as reason:
            self._node.disconnect(session, reason.disconnect)
            return
        except Refused as refusal:
            log.info("refresh refused", client=session.id, detail=str(refusal))
            end = 0.0
        except Exception as error:
            seldom.warning("refresh failed", client=session.id, error=repr(error))
            end = self._node.wall() + kept_for(error)
        if session.ended:
            return
        if end <= self._node.wall():
            self._node.disconnect(session, codes.CONNECTION_EXPIRED)
            return
        session.expire_at = end
        self.schedule(session)
        if session.credentials is not None and not isinstance(meta, UnsetType):
            session.credentials = replace(session.credentials, meta=meta)
        await self.show(session, info)


def _fits(session: Session, subs: Mapping[str, SubscribeOptions]) -> bool:
    """Whether a client is in all channels of a new token, and by the old one in no others."""
    own, all_ = set(), set()
    for subscription in session.subscriptions:
        all_.add(subscription.channel.name)
        if subscription.terms.source is Source.CONNECTION_TOKEN:
            own.add(subscription.channel.name)
    return own <= subs.keys() <= all_

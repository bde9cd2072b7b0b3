"""How sessions come into channels and out of them: permission, position, recovery, expiry.

Operations of one session never run beside each other: its protocol takes the commands one by one.
`Node.leave` or a backend's call may come while one of them waits for the engine, so each looks
again after a wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from copy import copy
from typing import TYPE_CHECKING

import structlog
from msgspec import UNSET, Raw, UnsetType

from gateway import codes
from gateway.app.calls import RETRY_AFTER, AppCalls, content, kept_for
from gateway.auth import (
    InvalidToken,
    SubscriptionClaims,
    TokenExpired,
    TokenMark,
    TokenVerifier,
)
from gateway.channels import BadFilter, ChannelRules, TagFilter
from gateway.channels.deltas import DELTA_TYPES, chain
from gateway.channels.grants import Grant, Source, grant
from gateway.channels.lagging import lag_policy
from gateway.channels.recovery import recover_cache, recover_stream
from gateway.codes import Disconnected, Refused, Unsubscribe
from gateway.config import ChannelOptions, Config
from gateway.engines import Engine, HistoryQuery, HistorySettings
from gateway.hub import Channel, Hub
from gateway.log import Seldom
from gateway.model import (
    MUST_RECOVER,
    SHARED_POLL,
    ClientInfo,
    Expiry,
    Publication,
    StreamPosition,
    Subscribed,
    SubscribeRequest,
    is_plain,
)
from gateway.session import Session, Subscription, subscription_on, with_channel_info
from gateway.stepping import start

if TYPE_CHECKING:
    from gateway.codes import Disconnect

log = structlog.get_logger("gateway.membership")
seldom = Seldom(log)

# A token that lives longer than this is told as living this long: SDKs count in 32 bits.
MAX_TTL = 365 * 86400

# Channels looked at before others get their turn: about a millisecond of work.
_AT_ONCE = 500


def expiry(expire_at: float, now: float) -> Expiry:
    """What a client is told of an end in Unix time, 0 for never.

    Raises `Refused`: 110 for one in the past.
    """
    if not expire_at:
        return Expiry()
    if expire_at <= now:
        raise Refused(codes.EXPIRED)
    return Expiry(True, int(min(max(expire_at - now, 1), MAX_TTL)))


class Membership:
    """The subscriptions of one node.

    ``disconnect`` closes a session. ``schedule`` is called when the time has changed at which a
    session or one of its subscriptions ends. ``on_limit`` gets the name of a limit by which
    something was refused. ``clock`` gives Unix time.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        hub: Hub,
        rules: ChannelRules,
        tokens: TokenVerifier,
        app: AppCalls,
        *,
        disconnect: Callable[[Session, Disconnect], None],
        schedule: Callable[[Session], None],
        on_limit: Callable[[str], None] = lambda limit: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rules = rules
        self.recoveries = 0
        self.recovered = 0
        self._client = config.client
        self._engine = engine
        self._hub = hub
        self._tokens = tokens
        self._app = app
        self._disconnect = disconnect
        self._schedule = schedule
        self._on_limit = on_limit
        self._clock = clock
        self._behind: dict[str, StreamPosition] = {}  # what the last check has found missing
        hub.on_gap = self._lost

    def reload(self, config: Config, rules: ChannelRules, tokens: TokenVerifier) -> None:
        """Go on by other rules. Who is in a channel stays."""
        self.rules = rules
        self._client = config.client
        self._tokens = tokens

    # -- in, because the client asks

    async def subscribe(
        self, session: Session, request: SubscribeRequest
    ) -> tuple[Subscription, Subscribed]:
        """Let a client have what is published in a channel.

        When it returns, publications may follow at once. `joined` is the second half, to be called
        when the client has been told. Raises `Refused`: 105 subscribed already, 106 too many
        channels, 107 bad name or filter, 102 no such namespace, 103 not allowed, 108 no such type,
        109 token expired, 110 its end is past, 112 what it missed is gone and it must have it, 100
        engine; or `Disconnected`: 3500 for somebody else's token, 3501 for a kind of delta that
        there is not.
        """
        name = request.channel
        if request.delta and request.delta not in DELTA_TYPES:
            raise Disconnected(codes.INVALID_REQUEST, "an unknown kind of delta")
        if request.type == SHARED_POLL:
            raise Refused(codes.NOT_AVAILABLE)
        options = self.rules.check(name)
        if session.find(self._hub.channels.get(name)) is not None:
            raise Refused(codes.ALREADY_SUBSCRIBED)
        limit = self._client.channel_limit
        if limit and len(session.subscriptions) >= limit:
            self._on_limit("channel_limit")
            raise Refused(codes.LIMIT_EXCEEDED)
        terms = await self._terms(session, request, options)
        since = StreamPosition(request.offset, request.epoch) if request.recover else None
        return await self.enter(session, name, terms, since)

    def subscribe_at_once(self, session: Session, request: SubscribeRequest) -> bool:
        """Both `subscribe` and `joined`, if nothing has to be asked, read or waited for.

        The reply is an empty `Subscribed`. False, with nothing done, where `subscribe` is to be
        awaited, which may refuse. Raises `Refused`: 102, 107.
        """
        engine, info = self._engine.immediate, session.info
        if engine is None or info is None or not is_plain(request):
            return False
        name, rules, channels = request.channel, self.rules, self._hub.channels
        offer = rules.offers.get(name) or rules.offer(name)
        terms = offer.subscribe[info.user != ""]
        if terms is None:
            return False
        limit = self._client.channel_limit
        if limit and len(session.subscriptions) >= limit:
            return False
        channel = channels.get(name)
        if channel is None:
            # Live at once: nobody has to be told.
            channel = Channel(name, True, offer.exclude_publisher, offer.lag_policy)
            channels[name] = channel
        elif (terms.join_leave and channel.watchers) or session.find(channel) is not None:
            return False
        channel.users += 1
        if terms.presence:
            engine.presence_add_now(name, info)
        self._hub.add(Subscription(session, channel, terms, info))
        return True

    def unsubscribe_at_once(self, session: Session, name: str) -> bool:
        """`unsubscribe`, if nothing has to be waited for. False where it is to be awaited."""
        channel = self._hub.channels.get(name)
        subscription = session.find(channel)
        if channel is None or subscription is None:
            return True
        engine, terms = self._engine.immediate, subscription.terms
        if engine is None or (terms.join_leave and channel.watchers):
            return False
        self._hub.remove(subscription)
        if terms.presence:
            engine.presence_remove_now(name, subscription.info)
        return True

    async def _terms(
        self, session: Session, request: SubscribeRequest, options: ChannelOptions
    ) -> Grant:
        """What the client is allowed in the channel, and wants of it."""
        name, user = request.channel, session.user
        if request.type:
            raise Refused(codes.PERMISSION_DENIED)
        if request.token:
            claims = await self._claims(session, request.token)
            self._check_holder(session, name, claims)
            terms = grant(options, Source.SUBSCRIPTION_TOKEN, claims.override)
            terms.info, terms.data = claims.info, claims.data
            terms.expire_at = claims.expires
            terms.token = TokenMark(claims.jti, claims.iat)
        elif self.rules.asks_app(name, options):
            terms = await self._app.subscribe(session, request, options)
        elif self.rules.may_subscribe(name, options, user):
            terms = self.rules.terms(name, options)
        else:
            raise Refused(codes.PERMISSION_DENIED)
        if (
            request.positioned
            or request.recoverable
            or request.join_leave
            or request.tf is not None
            or request.flag
            or request.delta
        ):
            terms = copy(terms)
            self._grant_wishes(terms, session, request, options)
        return terms

    def _grant_wishes(
        self, terms: Grant, session: Session, request: SubscribeRequest, options: ChannelOptions
    ) -> None:
        """What the client may have if it asks; it counts as a subscriber already."""
        terms.must_recover = bool(request.flag & MUST_RECOVER)
        user = session.user
        sees_history = self.rules.may_see_history(options, user, True)
        keeps_history = bool(options.history_size and options.history_ttl)
        if request.positioned and keeps_history and (options.allow_positioning or sees_history):
            terms.positioning = True
        if request.recoverable and keeps_history and (options.allow_recovery or sees_history):
            terms.recovery = True
        sees_presence = self.rules.may_see_presence(options, user, True)
        if request.join_leave and options.join_leave and sees_presence:
            terms.push_join_leave = True
        if request.tf is not None:
            if not options.allow_tags_filter:
                raise Refused(codes.BAD_REQUEST)
            try:
                terms.filter = TagFilter(request.tf)
            except BadFilter as error:
                log.info("bad filter", client=session.id, detail=str(error))
                raise Refused(codes.BAD_REQUEST) from None
        # A delta is from the publication before: only for those who miss none without being told.
        terms.delta = (
            request.delta in options.allowed_delta_types
            and (terms.positioning or terms.recovery)
            and terms.filter is None
        )

    async def _claims(self, session: Session, token: str) -> SubscriptionClaims:
        try:
            return await self._tokens.subscription(token)
        except TokenExpired:
            raise Refused(codes.TOKEN_EXPIRED) from None
        except InvalidToken as error:
            log.info("invalid subscription token", client=session.id, detail=str(error))
            raise Refused(codes.PERMISSION_DENIED) from None

    @staticmethod
    def _check_holder(session: Session, name: str, claims: SubscriptionClaims) -> None:
        """A token is good for one channel, one user and, if it says so, one connection."""
        if claims.channel != name:
            raise Disconnected(codes.INVALID_TOKEN, "the token is for another channel")
        if claims.sub != session.user:
            raise Disconnected(codes.INVALID_TOKEN, "the token is for another user")
        if claims.client and claims.client != session.id:
            raise Disconnected(codes.INVALID_TOKEN, "the token is for another client")

    async def refresh(self, session: Session, name: str, token: str) -> Expiry:
        """Take a new token for a subscription.

        Raises `Refused`: 103 not subscribed, 107 no token, 110 when the new end is past; or
        `Disconnected`: 3500, 3501 not for the client to do, or 3006 when the token has expired.
        """
        subscription = session.find(self._hub.channels.get(name))
        if subscription is None:
            raise Refused(codes.PERMISSION_DENIED)
        if not self._refreshes(subscription):
            raise Disconnected(codes.INVALID_REQUEST, "the client does not renew this subscription")
        if not token:
            raise Refused(codes.BAD_REQUEST)
        try:
            claims = await self._tokens.subscription(token)
        except TokenExpired:
            raise Disconnected(codes.SUBSCRIPTION_EXPIRED, "the new token has expired") from None
        except InvalidToken as error:
            raise Disconnected(codes.INVALID_TOKEN, str(error)) from None
        self._check_holder(session, name, claims)
        end = expiry(claims.expires, self._clock())
        subscription.terms = terms = copy(subscription.terms)
        terms.token = TokenMark(claims.jti, claims.iat)
        subscription.expire_at = claims.expires
        self._schedule(session)
        assert session.info is not None
        await self.show(subscription, with_channel_info(session.info, claims.info))
        return end

    async def show(self, subscription: Subscription, info: ClientInfo) -> None:
        """Change how a client is seen in a channel."""
        if info == subscription.info:
            return
        subscription.info = info
        if subscription.terms.presence:
            channel = subscription.channel
            await self._engine.presence_add(channel.name, info)
            if subscription.session.find(channel) is None:  # it has left meanwhile
                await self._engine.presence_remove(channel.name, info)

    # -- in, whoever asks

    async def enter(
        self,
        session: Session,
        name: str,
        terms: Grant,
        since: StreamPosition | None = None,
        *,
        server_side: bool = False,
    ) -> tuple[Subscription, Subscribed]:
        """Put a session into a channel on terms that have been checked.

        ``since`` is where the client left off, if it wants what it missed. Raises `Refused`: 100,
        103 when the token has been revoked meanwhile, 105, 110 when the end of the terms is past or
        the client has gone meanwhile; `Disconnected` (3010) when publications were lost while its
        history was read.
        """
        hub, engine = self._hub, self._engine
        end = expiry(terms.expire_at, self._clock())
        channel = hub.reserve(name)
        subscription = subscription_on(terms, session, channel, server_side)
        entered = False
        try:
            if not channel.live:
                options = self.rules.options_within(name)
                channel.excludes_publisher = options.exclude_publisher
                channel.lag_policy = lag_policy(options)
                await engine.subscribe(name)
                channel.live = True
            if terms.presence:
                await engine.presence_add(name, subscription.info)
            position, result = None, Subscribed()
            if subscription.positioned:
                position, result = await self._catch_up(channel, terms, since)
                if terms.delta:
                    result.delta = True
                    protocol = session.endpoint.protocol
                    result.publications = chain(protocol, result.publications)
            if session.ended:
                raise Refused(codes.EXPIRED)  # nobody is there to read it
            if terms.token is not None and self._tokens.is_revoked(terms.token, session.user, name):
                raise Refused(codes.PERMISSION_DENIED)  # meanwhile
            if session.find(channel) is not None:
                raise Refused(codes.ALREADY_SUBSCRIBED)  # a backend was faster
            hub.add(subscription, position)
            entered = True
        finally:
            if not entered:
                await self._forget(channel, subscription)
        if terms.expire_at:
            self._schedule(session)
            if self._refreshes(subscription):
                result.expires, result.ttl = end.expires, end.ttl
        result.data = terms.data
        result.was_recovering = result.was_recovering or since is not None
        return subscription, result

    async def _catch_up(
        self, channel: Channel, terms: Grant, since: StreamPosition | None
    ) -> tuple[StreamPosition, Subscribed]:
        """The position that a new subscriber starts from, and what brings it there."""
        result = Subscribed(recoverable=terms.recovery, positioned=True)
        recovering = terms.recovery and (since is not None or (terms.cache and terms.auto_recover))
        since = since or StreamPosition()
        options = self.rules.options_within(channel.name)
        settings = HistorySettings(options.history_size, options.history_ttl)
        if not recovering:
            query = HistoryQuery()
        elif terms.cache:
            query = HistoryQuery(1, reverse=True)
        else:
            query = HistoryQuery(self._client.recovery_max_publication_limit or -1, since)
        meanwhile = self._hub.begin(channel)
        try:
            publications, top = await self._engine.history(channel.name, query, settings)
        finally:
            self._hub.end(channel, meanwhile)
        fresh = _continue(top, meanwhile)
        position = StreamPosition(fresh[-1].offset if fresh else top.offset, top.epoch)
        result.epoch, result.offset = position.epoch, position.offset
        if recovering:
            result.was_recovering = True
            recover = recover_cache if terms.cache else recover_stream
            missed = recover(since, publications, top)
            self.recoveries += 1
            if missed is None and terms.must_recover:
                raise Refused(codes.UNRECOVERABLE_POSITION)
            if missed is not None:
                self.recovered += 1
                result.recovered = True
                missed += fresh
                if terms.cache:
                    missed = missed[-1:]
                wanted = terms.filter
                result.publications = [
                    each for each in missed if wanted is None or wanted.accepts(each.tags)
                ]
                # The client goes on from what it said it had, through what it gets here.
                result.offset = since.offset if not terms.cache else position.offset
        return position, result

    async def joined(self, subscription: Subscription) -> None:
        """Tell who wants to know, the newcomer included, that a session is in a channel."""
        if subscription.terms.join_leave:
            await self._engine.publish_join(subscription.channel.name, subscription.info)

    # -- out

    async def unsubscribe(self, session: Session, name: str) -> None:
        """Take a session out of a channel. Being out already is no error."""
        subscription = session.find(self._hub.channels.get(name))
        if subscription is not None:
            emptied = self.remove(subscription)
            await self._left(subscription, emptied=emptied)

    def expel(self, subscription: Subscription, why: Unsubscribe) -> None:
        """Take a client out of a channel and tell it."""
        session = subscription.session
        emptied = self.remove(subscription)
        name = subscription.channel.name
        protocol = session.endpoint.protocol
        session.transport.send(protocol.unsubscribed(name, why), True)
        start(self.left([(subscription, emptied)]))

    def remove(self, subscription: Subscription) -> bool:
        """Nothing reaches the session through this channel from now on; `left` is to follow.

        True when nobody here is in the channel any more.
        """
        return self._hub.remove(subscription)

    async def left(self, left: Iterable[tuple[Subscription, bool]]) -> None:
        """Tell the engine of subscriptions that were removed."""
        for subscription, emptied in left:
            try:
                await self._left(subscription, emptied=emptied)
            except OSError as error:
                seldom.warning("engine failed", client=subscription.info.client, error=str(error))

    async def _left(self, subscription: Subscription, *, emptied: bool) -> None:
        name, info = subscription.channel.name, subscription.info
        if emptied and name not in self._hub.channels:
            await self._engine.unsubscribe(name)
        if subscription.terms.presence:
            await self._engine.presence_remove(name, info)
        if subscription.terms.join_leave:
            await self._engine.publish_leave(name, info)

    async def _forget(self, channel: Channel, subscription: Subscription) -> None:
        """Undo the first steps of a subscription that failed."""
        if self._hub.release(channel) and channel.live:
            await self._engine.unsubscribe(channel.name)
        if subscription.terms.presence and subscription.session.find(channel) is None:
            await self._engine.presence_remove(channel.name, subscription.info)

    # -- what ends by itself

    def _lost(self, subscriptions: list[Subscription]) -> None:
        """Publications were lost on the way to these: let them subscribe again and recover."""
        for subscription in subscriptions:
            if subscription.session.ended:
                continue
            if subscription.server_side:
                self._disconnect(subscription.session, codes.INSUFFICIENT_STATE)
            else:
                self.expel(subscription, codes.POSITION_LOST)

    async def check_positions(self) -> None:
        """Compare what has come by here with what the engine has, for channels that rely on it.

        A channel that is behind in two checks in a row has lost something: what is published last
        before a silence would otherwise never be missed.
        """
        behind = {}
        for number, channel in enumerate(list(self._hub.channels.values())):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            seen = channel.position
            if seen is None or not any(each.positioned for each in channel.subscribers):
                continue
            options = self.rules.options_within(channel.name)
            settings = HistorySettings(options.history_size, options.history_ttl)
            try:
                _, top = await self._engine.history(channel.name, HistoryQuery(), settings)
            except OSError as error:
                log.warning("engine failed", channel=channel.name, error=str(error))
                return
            seen = channel.position
            if seen is None or (seen.epoch == top.epoch and seen.offset >= top.offset):
                continue
            missed = self._behind.get(channel.name)
            if missed is None or (seen.epoch == missed.epoch and seen.offset >= missed.offset):
                behind[channel.name] = top
            else:
                self._hub.lose(channel, top)
        self._behind = behind

    def _renews(self, subscription: Subscription) -> bool:
        """Whether the application renews a subscription, and not the client."""
        return self.rules.options_within(subscription.channel.name).sub_refresh_proxy_enabled

    def _refreshes(self, subscription: Subscription) -> bool:
        """Whether the client does: it asked for the subscription, and has a token for it."""
        return not subscription.server_side and not self._renews(subscription)

    def end_of(self, subscription: Subscription) -> float:
        """When a subscription has to be looked at, in Unix time; 0 for never."""
        if not subscription.expire_at:
            return 0.0
        delay = 0.0 if self._renews(subscription) else self._client.expired_sub_close_delay
        return subscription.expire_at + delay

    def expire(self, session: Session) -> None:
        """End or renew the subscriptions of a session whose time is over."""
        now = self._clock()
        for subscription in session.subscriptions:
            end = self.end_of(subscription)
            if not end or end > now or session.ended:
                continue
            if self._renews(subscription):
                subscription.expire_at = now + RETRY_AFTER  # until it has answered
                start(self._renew(subscription))
            else:
                self._end(subscription)

    def _end(self, subscription: Subscription) -> None:
        """The time of a subscription is over. A client cannot ask anew for one it did not want."""
        if subscription.server_side:
            self._disconnect(subscription.session, codes.SUBSCRIPTION_EXPIRED)
        else:
            self.expel(subscription, codes.SUBSCRIPTION_ENDED)

    async def _renew(self, subscription: Subscription) -> None:
        """Let the application say whether a subscription goes on."""
        session, name = subscription.session, subscription.channel.name
        options = self.rules.options_within(name)
        info: Raw | UnsetType = UNSET
        try:
            reply = await self._app.sub_refresh(session, name, options)
            info = content(reply.info, reply.b64info)
            ended, end = reply.expired, float(reply.expire_at)
        except Disconnected as reason:
            self._disconnect(session, reason.disconnect)
            return
        except Refused as refusal:
            log.info("sub_refresh refused", client=session.id, channel=name, detail=str(refusal))
            ended, end = True, 0.0
        except Exception as error:
            seldom.warning("sub_refresh failed", client=session.id, channel=name, error=repr(error))
            ended, end = False, self._clock() + kept_for(error)
        if session.ended or subscription not in session.subscriptions:
            return
        if ended or 0 < end <= self._clock():
            self._end(subscription)
            return
        subscription.expire_at = end
        self._schedule(session)
        known = session.info
        if known is not None and not isinstance(info, UnsetType):
            await self.show(subscription, with_channel_info(known, info))


def _continue(top: StreamPosition, meanwhile: list[Publication]) -> list[Publication]:
    """What was published after the history was read. Raises `Disconnected` if some is missing."""
    fresh = []
    last = top.offset
    for publication in meanwhile:
        if publication.offset <= last:
            continue
        if publication.offset != last + 1:
            raise Disconnected(codes.INSUFFICIENT_STATE, "publications were lost")
        last = publication.offset
        fresh.append(publication)
    return fresh

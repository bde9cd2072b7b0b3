"""What the name of a channel means, and what a user may do in it.

``news:sport`` is of the namespace ``news``; ``$secret`` needs a token; ``chat#ann,bob`` is for
these users. The signs are configurable. Anonymous clients, whose user id is empty, may do what
others may only where that is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import structs

from gateway import codes
from gateway.channels.grants import Grant, Source, grant
from gateway.channels.history import history_settings
from gateway.channels.lagging import lag_policy
from gateway.codes import Refused
from gateway.config import ChannelOptions, Config, Namespace

# Names whose options are remembered: working them out takes longer than most commands.
_REMEMBERED = 4096

# What dev mode opens, whatever the options say. Not history: how much to keep is for the options.
_OPEN = {
    "presence": True,
    "join_leave": True,
    "allow_user_limited_channels": True,
    "allow_tags_filter": True,
    "channel_regex": "(?s).*",
    **{
        f"allow_{what}_for_{whom}": True
        for what in ("subscribe", "publish", "presence", "history")
        for whom in ("client", "anonymous")
    },
}


class Offer:
    """What a channel offers to every client alike, worked out once for each name.

    ``subscribe`` has the terms for anonymous clients and for users, in this order; None where it
    depends on more than that, or is refused. ``publish`` says in the same order whether all may
    publish, and ``publish_inside`` whether subscribers may.
    """

    __slots__ = (
        "delta_publish",
        "exclude_publisher",
        "history",
        "lag_policy",
        "publish",
        "publish_inside",
        "subscribe",
    )

    def __init__(
        self, options: ChannelOptions, subscribe: tuple[Grant | None, Grant | None]
    ) -> None:
        self.subscribe = subscribe
        self.exclude_publisher = options.exclude_publisher
        self.lag_policy = lag_policy(options)
        self.delta_publish = options.delta_publish
        self.history = history_settings(options)
        asks = options.publish_proxy_enabled or options.publication_data_format == "json_object"
        self.publish, self.publish_inside = (
            (
                not asks and ChannelRules.may_publish(options, "", inside),
                not asks and ChannelRules.may_publish(options, "somebody", inside),
            )
            for inside in (False, True)
        )


def _bytes(name: str) -> int:
    return len(name) if name.isascii() else len(name.encode(errors="replace"))


class ChannelRules:
    """Names and permissions of channels, from the configuration.

    ``on_limit`` gets the name of a limit by which something was refused.
    """

    def __init__(
        self, config: Config, on_limit: Callable[[str], None] = lambda limit: None
    ) -> None:
        channel, self._dev = config.channel, config.dev
        self._max_length = channel.max_length
        self._on_limit = on_limit
        self._private = channel.private_prefix
        self._boundary = channel.namespace_boundary
        self._user_boundary = channel.user_boundary
        self._user_separator = channel.user_separator
        self._data_format = channel.publication_data_format
        self._options: dict[str, ChannelOptions] = {"": self._prepare(channel.without_namespace)}
        for namespace in channel.namespaces:
            self._options[namespace.name] = self._prepare(namespace)
        self._patterns = {
            name: re.compile(options.channel_regex)
            for name, options in self._options.items()
            if options.channel_regex
        }
        self._known: dict[str, ChannelOptions] = {}
        self.offers: dict[str, Offer] = {}  # those that `offer` has worked out lately
        self._terms: dict[tuple[int, Source], Grant] = {}  # by the options, which stay
        feature = config.client.subscribe_to_user_personal_channel
        namespace_name = feature.personal_channel_namespace
        self._personal = (
            (namespace_name + self._boundary if namespace_name else "") + self._user_boundary
            if feature.enabled
            else None
        )

    def _prepare(self, options: ChannelOptions) -> ChannelOptions:
        if isinstance(options, Namespace):
            options = ChannelOptions(
                **{name: getattr(options, name) for name in ChannelOptions.__struct_fields__}
            )
        if not options.publication_data_format:
            options = structs.replace(options, publication_data_format=self._data_format)
        if self._dev:
            options = structs.replace(options, **_OPEN)
            if options.history_size and options.history_ttl:
                options = structs.replace(options, allow_recovery=True, allow_positioning=True)
        return options

    def options(self, channel: str) -> ChannelOptions:
        """How a channel behaves. Raises `Refused`: 102 for a namespace that there is not."""
        return self._split(channel)[1]

    def options_within(self, channel: str) -> ChannelOptions:
        """The options of a channel that clients are in already.

        Its namespace may have gone since, in a reload: nothing is offered there any more.
        """
        try:
            return self.options(channel)
        except Refused:
            return ChannelOptions()

    def _split(self, channel: str) -> tuple[str, ChannelOptions, str]:
        """The namespace of a channel, its options, and the part of its name that they rule."""
        boundary = self._boundary
        if not boundary or boundary not in channel:
            return "", self._options[""], channel
        name, _, rest = channel.removeprefix(self._private).partition(boundary)
        options = self._options.get(name)
        if options is None:
            if self._dev:
                return "", self._options[""], channel
            raise Refused(codes.UNKNOWN_CHANNEL)
        return name, options, rest

    def _check_length(self, channel: str) -> None:
        if _bytes(channel) > self._max_length:
            self._on_limit("max_length")
            raise Refused(codes.BAD_REQUEST)

    def find(self, channel: str) -> ChannelOptions:
        """The options of a channel that the backend names, which may use any characters.

        Raises `Refused`: 102 for a namespace that there is not, 107 for a name that is too long.
        """
        self._check_length(channel)
        return self._split(channel)[1]

    def check(self, channel: str) -> ChannelOptions:
        """The options of a channel that a client names.

        Raises `Refused`: 102 for a namespace that there is not, 107 for a name that is too long, or
        is not ASCII and not allowed by ``channel_regex``.
        """
        options = self._known.get(channel)
        if options is None:
            options = self._check(channel)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[channel] = options
        return options

    def _check(self, channel: str) -> ChannelOptions:
        self._check_length(channel)
        name, options, rest = self._split(channel)
        pattern = self._patterns.get(name)
        if pattern is not None:
            if pattern.search(rest) is None:
                raise Refused(codes.BAD_REQUEST)
        elif not channel.isascii():
            raise Refused(codes.BAD_REQUEST)
        return options

    def offer(self, channel: str) -> Offer:
        """What a channel that a client names offers to all. Raises `Refused` as `check`.

        Look in ``offers`` first.
        """
        options = self.check(channel)
        terms = [self._plain_terms(channel, options, user) for user in ("", "somebody")]
        offer = Offer(options, (terms[0], terms[1]))
        if len(self.offers) >= _REMEMBERED:
            self.offers.clear()
        self.offers[channel] = offer
        return offer

    def forget(self) -> None:
        """Let go of what is remembered of names.

        A few thousand small objects among those of a million channels would keep the allocator from
        giving the memory of all the others back.
        """
        self.offers.clear()
        self._known.clear()

    def _plain_terms(self, channel: str, options: ChannelOptions, user: str) -> Grant | None:
        """The terms for any such user, if they come from the options and need no history read."""
        limited = options.allow_user_limited_channels and self._is_user_limited(channel)
        if (limited and not self._dev) or self.asks_app(channel, options):
            return None
        if not self.may_subscribe(channel, options, user):
            return None
        terms = self.terms(channel, options)
        return None if terms.positioning or terms.recovery or terms.push_join_leave else terms

    # -- permissions: a client's user id, and whether it is in the channel

    def needs_token(self, channel: str) -> bool:
        """Whether only a subscription token lets a client in."""
        return bool(self._private) and channel.startswith(self._private)

    def asks_app(self, channel: str, options: ChannelOptions) -> bool:
        """Whether the application says who may subscribe."""
        return (
            options.subscribe_proxy_enabled
            and not self.needs_token(channel)
            and not (options.allow_user_limited_channels and self._is_user_limited(channel))
        )

    def may_subscribe(self, channel: str, options: ChannelOptions, user: str) -> bool:
        """Whether a client may subscribe without a token."""
        if self.needs_token(channel):
            return self._dev
        if options.allow_user_limited_channels and self._is_user_limited(channel):
            return self._dev or (bool(user) and user in self._users(channel))
        return options.allow_subscribe_for_client and (
            user != "" or options.allow_subscribe_for_anonymous
        )

    def terms(self, channel: str, options: ChannelOptions) -> Grant:
        """On what terms `may_subscribe` has said yes. They are shared: copy them to change them."""
        if self._dev:
            source = Source.CLIENT_INSECURE
        elif options.allow_user_limited_channels and self._is_user_limited(channel):
            source = Source.USER_LIMITED
        else:
            source = Source.CLIENT_ALLOWED
        terms = self._terms.get((id(options), source))
        if terms is None:
            terms = self._terms[id(options), source] = grant(options, source)
        return terms

    @staticmethod
    def may_publish(options: ChannelOptions, user: str, subscribed: bool) -> bool:
        """Whether a client may publish."""
        may = options.allow_publish_for_client or (
            subscribed and options.allow_publish_for_subscriber
        )
        return may and (user != "" or options.allow_publish_for_anonymous)

    @staticmethod
    def may_see_presence(options: ChannelOptions, user: str, subscribed: bool) -> bool:
        """Whether a client may know who is in a channel, and who comes and goes."""
        may = options.allow_presence_for_client or (
            subscribed and options.allow_presence_for_subscriber
        )
        return may and (user != "" or options.allow_presence_for_anonymous)

    @staticmethod
    def may_see_history(options: ChannelOptions, user: str, subscribed: bool) -> bool:
        """Whether a client may read what was published before."""
        may = options.allow_history_for_client or (
            subscribed and options.allow_history_for_subscriber
        )
        return may and (user != "" or options.allow_history_for_anonymous)

    def _is_user_limited(self, channel: str) -> bool:
        return bool(self._user_boundary) and self._user_boundary in channel

    def _users(self, channel: str) -> list[str]:
        listed = channel.rpartition(self._user_boundary)[2]
        return listed.split(self._user_separator) if self._user_separator else [listed]

    # -- the channel of a user

    def personal_channel(self, user: str) -> str | None:
        """The channel that this user is subscribed to without asking, or None."""
        return self._personal + user if self._personal is not None and user else None

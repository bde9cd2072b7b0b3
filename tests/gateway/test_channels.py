"""What names of channels mean, who may do what in them, and with which token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.channels import BadFilter, TagFilter
from gateway.channels.filters import MAX_DEPTH, MAX_NODES, FilterNode
from gateway.codes import Refused
from gateway.config import Config, ConfigError, load
from gateway.engines import HistoryQuery
from tests.gateway.fakes import Client, World
from tests.gateway.tokens import SECRET, token

DENIED = {"error": {"code": 103, "message": "permission denied"}}
UNKNOWN = {"error": {"code": 102, "message": "unknown channel"}}
EXPIRED = {"error": {"code": 109, "message": "token expired"}}
BAD = {"error": {"code": 107, "message": "bad request"}}
PAST = {"error": {"code": 110, "message": "expired"}}


def config(*namespaces: dict[str, Any], **options: Any) -> Config:
    """Options of channels without a namespace, and namespaces."""
    keys = {f"channel.without_namespace.{name}": value for name, value in options.items()}
    return load(
        flags={
            "client.token.hmac_secret_key": SECRET,
            "client.allow_anonymous_connect_without_token": True,
            "channel.namespaces": list(namespaces),
            **keys,
        }
    )


def ann(world: World) -> Client:
    return world.client(token=token("ann"))


def may(client: Client, command: str, channel: str, **more: Any) -> bool:
    client.send({"id": 9, command: {"channel": channel, **more}})
    [reply] = [each for each in client.take() if each.pop("id", None)]  # it may hear itself
    assert reply == DENIED or command in reply, reply
    return command in reply


# -- permissions


async def test_nothing_is_allowed_that_is_not_configured() -> None:
    keeps = {"presence": True, "history_size": 1, "history_ttl": "1m"}
    async with World(config(**keeps)) as world:
        for client in ann(world), world.client():
            assert not may(client, "subscribe", "a")
            assert not may(client, "publish", "a", data=1)
            assert not may(client, "presence", "a")
            assert not may(client, "presence_stats", "a")
            assert not may(client, "history", "a")


@pytest.mark.parametrize("what", ["subscribe", "publish", "presence", "history"])
@pytest.mark.parametrize("whom", ["client", "subscriber", "anonymous", "client anonymous"])
async def test_what_is_configured_is_allowed_to_those_it_is_for(what: str, whom: str) -> None:
    if what == "subscribe" and whom == "subscriber":
        return
    options = {f"allow_{what}_for_{each}": True for each in whom.split()}
    keeps = {"presence": True, "history_size": 1, "history_ttl": "1m"}
    async with World(config(**keeps, **options)) as world:
        user, subscriber, nobody = ann(world), world.client(), world.client()
        subscriber = world.client(token=token("bob", channels=["a"]))
        data = {"data": 1} if what == "publish" else {}
        assert may(user, what, "a", **data) is ("client" in whom)
        assert may(nobody, what, "a", **data) is (whom == "client anonymous")
        if what != "subscribe":
            assert may(subscriber, what, "a", **data) is (whom != "anonymous")


async def test_namespaces_have_options_of_their_own() -> None:
    chat = {"name": "chat", "allow_subscribe_for_client": True}
    async with World(config(chat)) as world:
        client = ann(world)
        assert may(client, "subscribe", "chat:1")
        assert not may(client, "subscribe", "chat")
        assert client.ask({"subscribe": {"channel": "other:1"}}) == UNKNOWN
        assert client.ask({"publish": {"channel": "other:1", "data": 1}}) == UNKNOWN
        assert client.ask({"subscribe": {"channel": ":1"}}) == DENIED


async def test_in_dev_mode_anyone_may_do_anything_anywhere() -> None:
    async with World() as world:
        client = world.client()
        for channel in "a", "nowhere:a", "$secret", "room#bob", "grüß:☃":
            assert may(client, "subscribe", channel)
            assert may(client, "publish", channel, data=1)


async def test_names_are_ascii_unless_a_pattern_says_otherwise() -> None:
    chat = {"name": "chat", "allow_subscribe_for_client": True, "channel_regex": r"^\w+$"}
    async with World(config(chat, allow_subscribe_for_client=True)) as world:
        client = ann(world)
        assert may(client, "subscribe", "chat:grüß")
        for channel in "grüß", "chat:a b", "chat:":
            assert client.ask({"subscribe": {"channel": channel}})["error"]["code"] == 107


async def test_user_limited_channels_are_for_the_users_in_their_name() -> None:
    options = {"allow_user_limited_channels": True, "allow_subscribe_for_client": True}
    async with World(config(**options)) as world:
        client, nobody = ann(world), world.client()
        assert may(client, "subscribe", "talk#ann,bob")
        assert may(client, "subscribe", "#ann")
        for channel in "talk#bob", "talk#anna", "talk#ann#bob", "#":
            assert not may(client, "subscribe", channel)
        assert not may(nobody, "subscribe", "talk#")
    async with World(config(allow_subscribe_for_client=True)) as world:
        assert may(ann(world), "subscribe", "talk#bob"), "a name like any other"


async def test_join_and_leave_are_pushed_to_all_where_that_is_forced() -> None:
    options = {
        "allow_subscribe_for_client": True,
        "join_leave": True,
        "force_push_join_leave": True,
    }
    async with World(config(**options)) as world:
        client = ann(world)
        client.send({"id": 2, "subscribe": {"channel": "a"}})
        assert [list(each) for each in client.take()] == [["id", "subscribe"], ["push"]]
    async with World(config(allow_subscribe_for_client=True, join_leave=True)) as world:
        client = ann(world)
        may(client, "subscribe", "a", join_leave=True)  # presence is not for clients here
        client.leave()


# -- subscription tokens


async def test_a_private_channel_needs_a_token() -> None:
    async with World(config(allow_subscribe_for_client=True)) as world:
        client = ann(world)
        assert not may(client, "subscribe", "$a")
        assert may(client, "subscribe", "$a", token=token("ann", channel="$a"))


async def test_a_token_says_how_one_is_subscribed() -> None:
    async with World(config()) as world:
        client = ann(world)
        text = token(
            "ann",
            channel="a",
            client=client.session.id,
            info={"role": "x"},
            data={"hello": 1},
            exp=world.now + 60,
            override={"presence": {"value": True}},
        )
        reply = client.ask({"subscribe": {"channel": "a", "token": text}})["subscribe"]
        assert reply == {"expires": True, "ttl": 60, "data": {"hello": 1}}
        [present] = (await world.node.engine.presence("a")).values()
        assert present.chan_info == Raw(b'{"role":"x"}')


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"channel": "b"}, 3500),
        ({"channel": "a", "sub": "bob"}, 3500),
        ({"channel": "a", "client": "another"}, 3500),
    ],
)
async def test_somebody_elses_token_closes_with_3500(claims: dict[str, Any], code: int) -> None:
    async with World(config()) as world:
        client = ann(world)
        user = claims.pop("sub", "ann")
        wanted = {"channel": "a", "token": token(user, **claims)}
        client.send({"id": 2, "subscribe": wanted})
        assert client.closed == (code, "invalid token")


async def test_a_token_that_is_not_believed_is_denied_and_an_expired_one_is_109() -> None:
    async with World(config()) as world:
        client = ann(world)
        for text in "garbage", token("ann"), token("ann", key=SECRET + "x", channel="a"):
            assert client.ask({"subscribe": {"channel": "a", "token": text}}) == DENIED
        text = token("ann", channel="a", exp=world.now)
        assert client.ask({"subscribe": {"channel": "a", "token": text}}) == EXPIRED


async def test_subscription_tokens_can_have_a_key_of_their_own() -> None:
    other = "another secret, which is long enough for every algorithm: 64 bytes"
    settings = load(
        flags={
            "client.token.hmac_secret_key": SECRET,
            "client.subscription_token.enabled": True,
            "client.subscription_token.hmac_secret_key": other,
        }
    )
    async with World(settings) as world:
        client = ann(world)
        assert not may(client, "subscribe", "a", token=token("ann", channel="a"))
        assert may(client, "subscribe", "a", token=token("ann", key=other, channel="a"))


async def test_a_subscription_ends_some_time_after_its_token() -> None:
    async with World(config(allow_subscribe_for_client=True)) as world:
        client = ann(world)
        may(client, "subscribe", "b")
        may(client, "subscribe", "a", token=token("ann", channel="a", exp=world.now + 60))
        world.turn(60 + 24.9)
        assert client.take() == []
        world.turn(0.2)
        ended = {"code": 2501, "reason": "subscription expired"}
        assert client.take() == [{"push": {"channel": "a", "unsubscribe": ended}}]
        assert list(world.node.hub.channels) == ["b"]
        assert client.closed is None


async def test_a_refreshed_subscription_goes_on() -> None:
    async with World(config()) as world:
        client = ann(world)
        may(client, "subscribe", "a", token=token("ann", channel="a", exp=world.now + 60))
        text = token("ann", channel="a", exp=world.now + 600)
        reply = client.ask({"sub_refresh": {"channel": "a", "token": text}})
        assert reply == {"sub_refresh": {"expires": True, "ttl": 600}}
        world.turn(100)
        assert client.take() == []
        world.turn(600)
        assert client.take()[0]["push"]["unsubscribe"]["code"] == 2501


async def test_a_refresh_can_change_what_others_see_in_the_channel() -> None:
    async with World(config(presence=True)) as world:
        client = ann(world)
        may(client, "subscribe", "a", token=token("ann", channel="a", info=1))
        text = token("ann", channel="a", info=2)
        assert client.ask({"sub_refresh": {"channel": "a", "token": text}}) == {"sub_refresh": {}}
        [present] = (await world.node.presence("a")).values()
        assert present.chan_info == Raw(b"2")


async def test_a_subscription_whose_end_is_past_is_error_110() -> None:
    async with World(config()) as world:
        client = ann(world)
        past = token("ann", channel="a", expire_at=int(world.now), info=2)
        assert client.ask({"subscribe": {"channel": "a", "token": past}}) == PAST
        assert world.node.hub.channels == {}
        may(client, "subscribe", "a", token=token("ann", channel="a", exp=world.now + 60, info=1))
        assert client.ask({"sub_refresh": {"channel": "a", "token": past}}) == PAST
        [subscription] = client.session.subscriptions
        assert subscription.expire_at == world.now + 60
        assert subscription.info.chan_info == Raw(b"1")


async def test_a_subscription_that_a_client_did_not_ask_for_is_not_its_to_refresh() -> None:
    async with World(config()) as world:
        client = world.client(token=token("ann", channels=["a"]))
        text = token("ann", channel="a", exp=world.now + 60)
        client.send({"id": 2, "sub_refresh": {"channel": "a", "token": text}})
        assert client.closed == (3501, "bad request")


async def test_the_earliest_end_comes_first_whatever_the_order() -> None:
    async with World(config()) as world:
        client = world.client(token=token("ann", exp=world.now + 300))
        for channel, seconds in ("a", 200), ("b", 100):
            may(
                client,
                "subscribe",
                channel,
                token=token("ann", channel=channel, exp=world.now + seconds),
            )
        ended = []
        for _ in range(30):
            world.turn(15)
            ended += [push["push"]["channel"] for push in client.take()]
        assert ended == ["b", "a"]
        assert client.closed == (3005, "connection expired")


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("", 107),
        ("garbage", 3500),
        (token("bob", channel="a"), 3500),
        (token("ann", channel="b"), 3500),
        (token("ann", channel="a", exp=1), 3006),
    ],
)
async def test_a_wrong_sub_refresh(text: str, outcome: int) -> None:
    async with World(config()) as world:
        client = ann(world)
        assert client.ask({"sub_refresh": {"channel": "a", "token": text}}) == DENIED
        may(client, "subscribe", "a", token=token("ann", channel="a"))
        client.send({"id": 3, "sub_refresh": {"channel": "a", "token": text}})
        if outcome < 3000:
            assert client.take()[0]["error"]["code"] == outcome
        else:
            assert client.closed is not None and client.closed[0] == outcome


# -- who gets what


async def test_a_publisher_can_be_left_out() -> None:
    options = {
        "allow_subscribe_for_client": True,
        "allow_publish_for_client": True,
        "exclude_publisher": True,
    }
    async with World(config(**options)) as world:
        client, other = ann(world), ann(world)
        for each in client, other:
            may(each, "subscribe", "a")
        assert client.ask({"publish": {"channel": "a", "data": 1}}) == {"publish": {}}
        assert other.take()[0]["push"]["pub"]["data"] == 1
        await world.node.publish("a", Raw(b"2"))
        for each in client, other:
            assert each.take()[0]["push"]["pub"]["data"] == 2


async def test_a_filter_lets_through_what_it_accepts() -> None:
    options = {"allow_subscribe_for_client": True, "allow_tags_filter": True}
    async with World(config(**options)) as world:
        plain, one, two = ann(world), ann(world), ann(world)
        wanted = {"key": "n", "cmp": "eq", "val": "1"}
        may(plain, "subscribe", "a")
        for each in one, two:
            may(each, "subscribe", "a", tf=wanted)
        await world.node.publish("a", Raw(b"1"), tags={"n": "1"})
        await world.node.publish("a", Raw(b"2"), tags={"n": "2"})
        assert len(world.endpoint.payloads) == 3, "equal filters share an audience"
        assert [len(each.take()) for each in (plain, one, two)] == [2, 1, 1]
        for each in plain, one, two:
            each.leave()
        assert world.node.hub.channels == {}


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"op": "xor"},
        {"op": "and"},
        {"key": "k"},
        {"key": "k", "cmp": "eq"},
        {"key": "k", "cmp": "eq", "val": "1", "vals": ["1"]},
        {"key": "k", "cmp": "in", "val": "1"},
        {"key": "k", "cmp": "ex", "val": "1"},
        {"cmp": "ex"},
        {"key": "k", "cmp": "lt", "val": "x"},
    ],
)
async def test_a_filter_that_means_nothing_is_107(wanted: dict[str, Any]) -> None:
    options = {"allow_subscribe_for_client": True, "allow_tags_filter": True}
    async with World(config(**options)) as world:
        assert ann(world).ask({"subscribe": {"channel": "a", "tf": wanted}}) == BAD
        assert world.node.hub.channels == {}


async def test_a_filter_where_none_is_allowed_is_107() -> None:
    async with World(config(allow_subscribe_for_client=True)) as world:
        wanted = {"key": "k", "cmp": "ex"}
        for channel, token_ in ("a", {}), ("$b", {"token": token("ann", channel="$b")}):
            asked = {"channel": channel, "tf": wanted, **token_}
            assert ann(world).ask({"subscribe": asked}) == BAD
        assert world.node.hub.channels == {}


async def test_what_only_other_servers_have_is_refused_and_not_passed_over() -> None:
    options = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
    async with World(config(**options)) as world:
        client = ann(world)
        assert not may(client, "subscribe", "a", type=1)
        shared_poll = {"subscribe": {"channel": "a", "type": 4}}
        assert client.ask(shared_poll)["error"]["code"] == 108
        assert not may(client, "publish", "a", data=1, type=1)
        assert world.node.counters.publications == 0
        assert world.node.hub.channels == {}


@pytest.mark.parametrize(
    ("cmp", "val", "accepted"),
    [
        ("eq", "10", ["10"]),
        ("neq", "10", ["9", "x10", None]),
        ("in", "", ["9", "10"]),
        ("nin", "", ["x10", None]),
        ("ex", "", ["9", "10", "x10"]),
        ("nex", "", [None]),
        ("sw", "x", ["x10"]),
        ("ew", "0", ["10", "x10"]),
        ("ct", "1", ["10", "x10"]),
        ("lt", "10", ["9"]),
        ("lte", "10", ["9", "10"]),
        ("gt", "9", ["10"]),
        ("gte", "9", ["9", "10"]),
    ],
)
def test_comparisons_of_a_filter(cmp: str, val: str, accepted: list[str | None]) -> None:
    one_of = ["9", "10"] if cmp in ("in", "nin") else []
    wanted = TagFilter(FilterNode(key="k", cmp=cmp, val=val, vals=one_of))
    values = ["9", "10", "x10", None]
    assert [v for v in values if wanted.accepts({"k": v} if v is not None else None)] == accepted


def test_filters_are_bounded() -> None:
    leaf = FilterNode(key="k", cmp="ex")
    with pytest.raises(BadFilter):
        TagFilter(FilterNode(op="and", nodes=[leaf] * MAX_NODES))
    deep = leaf
    for _ in range(MAX_DEPTH + 1):
        deep = FilterNode(op="not", nodes=[deep])
    with pytest.raises(BadFilter):
        TagFilter(deep)


COMPARISONS = ["eq", "neq", "in", "nin", "ex", "nex", "sw", "ew", "ct", "lt", "lte", "gt", "gte"]

nodes = st.recursive(
    st.builds(
        FilterNode,
        op=st.sampled_from(["", "", "and"]),
        key=st.sampled_from(["", "a", "b"]),
        cmp=st.sampled_from([*COMPARISONS, "x"]),
        val=st.sampled_from(["", "1", "1e999999", "nan", "-2.5", "x"]),
        vals=st.lists(st.sampled_from(["1", "x"]), max_size=2),
    ),
    lambda inner: st.builds(
        FilterNode, op=st.sampled_from(["and", "or", "not", "x"]), nodes=st.lists(inner, max_size=3)
    ),
    max_leaves=8,
)


@given(nodes, st.dictionaries(st.sampled_from("ab"), st.sampled_from(["1", "x", "1e9", "inf"])))
def test_a_filter_is_refused_or_gives_an_answer(node: FilterNode, tags: dict[str, str]) -> None:
    try:
        wanted = TagFilter(node)
    except BadFilter:
        return
    answer = wanted.accepts(tags)
    assert TagFilter(FilterNode(op="not", nodes=[node])).accepts(tags) is not answer


# -- configuration


@pytest.mark.parametrize(
    ("namespaces", "message"),
    [
        ([{}], r"channel\.namespaces\[0\]: it needs a name"),
        ([{"name": "x y"}], r"namespaces\[0\]\.name = 'x y'"),
        ([{"name": "aa"}, {"name": "aa"}], r"namespaces\[1\]\.name = 'aa' is there twice"),
        ([{"name": "aa", "presense": True}], r"\[0\]: unknown key 'presense', .* 'presence'"),
        ([{"name": "aa", "history_size": "x"}], r"\[0\]\.history_size = 'x'"),
        ([{"name": "aa", "force_recovery": True}], r"aa\.force_recovery needs history"),
        ([{"name": "aa", "channel_regex": "("}], r"aa\.channel_regex = '\(': not a regular"),
        ([{"name": "aa", "auto_cache_recover": True}], r"aa\.auto_cache_recover needs"),
        ([5], r"\[0\] = 5: Expected `object`"),
        (5, r"channel\.namespaces = 5: Expected `array`"),
    ],
)
def test_a_wrong_namespace_is_named(namespaces: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(flags={"channel.namespaces": namespaces})


@pytest.mark.parametrize("for_all", [False, True])
async def test_data_may_have_to_be_an_object(for_all: bool) -> None:
    where = "channel" if for_all else "channel.without_namespace"
    flags = {
        "client.allow_anonymous_connect_without_token": True,
        "channel.without_namespace.allow_publish_for_client": True,
        "channel.without_namespace.allow_publish_for_anonymous": True,
        f"{where}.publication_data_format": "json_object",
        "channel.namespaces": [
            {
                "name": "any",
                "publication_data_format": "json",
                "allow_publish_for_client": True,
                "allow_publish_for_anonymous": True,
            }
        ],
    }
    async with World(load(flags=flags)) as world:
        client = world.client()
        for channel, data, code in (
            ("a", {"x": 1}, None),
            ("a", 1, 107),
            ("a", [{}], 107),
            ("any:a", 1, None),
        ):
            reply = client.ask({"publish": {"channel": channel, "data": data}})
            assert reply.get("error", {}).get("code") == code
        with pytest.raises(Refused):
            await world.node.publish("a", Raw(b"1"))
        await world.node.publish("a", Raw(b' \n{"x": 1}'))


def test_data_that_is_no_json_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="publication_data_format = 'binary'"):
        load(flags={"channel.publication_data_format": "binary"})


async def test_the_time_that_a_position_is_known_is_an_option_of_the_namespace() -> None:
    options = {"history_size": 5, "history_ttl": 1, "history_meta_ttl": "1m"}
    config = load(flags={"channel.namespaces": [{"name": "kept", **options}]})
    async with World(config) as world:
        first = await world.node.publish("kept:a", Raw(b"1"))
        for seconds, same in ((50, True), (20, False)):
            world.turn(seconds)
            _, place = await world.node.history("kept:a", HistoryQuery())
            assert (place.epoch == first.epoch) == same

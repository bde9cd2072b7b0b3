"""Who comes in, for how long, and who is sent away."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET, Raw

import fastws
from gateway import codes
from gateway.auth.handshake import OriginCheck, select_subprotocol, token_of
from gateway.channels.grants import Grant, Source
from gateway.config import Config, TokenSource, load
from gateway.engines import MemoryEngine
from gateway.session import Credentials
from tests.gateway.fakes import Client, SlowEngine, World
from tests.gateway.tokens import RSA_KEY, SECRET, token

INVALID = (3500, "invalid token")


def config(**flags: Any) -> Config:
    """A gateway with a secret; ``client__token__issuer="x"`` sets ``client.token.issuer``."""
    keys = {key.replace("__", "."): value for key, value in flags.items()}
    return load(flags={"client.token.hmac_secret_key": SECRET, **keys})


def ann(world: World, **claims: Any) -> Client:
    return world.client(token=token("ann", **claims))


# -- connect


async def test_a_client_is_who_its_token_says() -> None:
    async with World(config()) as world:
        client = world.open()
        reply = client.ask({"connect": {"token": token("ann", info={"name": "Ann"}), "data": 1}})
        assert set(reply["connect"]) == {"client", "version", "ping", "pong"}
        info = client.session.info
        assert info is not None
        assert (info.user, info.conn_info) == ("ann", Raw(b'{"name":"Ann"}'))
        assert world.node.clients.of_user("ann") == (client.session,)


async def test_data_of_a_client_is_no_info_about_it() -> None:
    async with World(config(client__allow_anonymous_connect_without_token=True)) as world:
        client = world.client(data={"name": "admin"})
        assert client.session.info is not None
        assert client.session.info.conn_info is UNSET


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        token(key=SECRET + "x"),
        token(key=RSA_KEY, algorithm="RS256"),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
        token(channel="a"),
    ],
)
async def test_a_token_that_is_not_believed_closes_with_3500(text: str) -> None:
    async with World(config()) as world:
        client = world.open()
        client.send({"id": 1, "connect": {"token": text}})
        assert client.take() == []
        assert client.closed == INVALID
        assert len(world.node.clients) == 0


async def test_an_expired_token_is_error_109_and_a_new_one_may_follow() -> None:
    async with World(config()) as world:
        client = world.open()
        error = {"code": 109, "message": "token expired"}
        expired = {"connect": {"token": token(exp=world.now)}}
        assert client.ask(expired) == {"error": error}
        assert "connect" in client.ask({"connect": {"token": token(exp=world.now + 9)}})


async def test_without_a_token_only_those_who_may_come_in() -> None:
    async with World(config()) as world:
        client = world.open()
        client.send({"id": 1, "connect": {}})
        assert client.closed == (3501, "bad request")
    async with World(config(client__allow_anonymous_connect_without_token=True)) as world:
        assert world.client().session.user == ""
        client = world.open()
        client.send({"id": 1, "connect": {"token": "garbage"}})
        assert client.closed == INVALID


async def test_anonymous_tokens_can_be_disallowed() -> None:
    async with World(config()) as world:
        world.client(token=token(""))
    async with World(config(client__disallow_anonymous_connection_tokens=True)) as world:
        client = world.open()
        client.send({"id": 1, "connect": {"token": token("")}})
        assert client.closed == (3507, "permission denied")


async def test_a_token_of_the_opening_request_is_used_unless_the_command_has_one() -> None:
    async with World(config()) as world:
        client = world.open()
        client.session.token = token("ann")
        client.connect()
        assert client.session.user == "ann"
        assert client.session.token == ""
        other = world.open()
        other.session.token = token("ann")
        other.connect(token=token("bob"))
        assert other.session.user == "bob"


async def test_keys_out_of_reach_are_a_temporary_error() -> None:
    async with World(config(client__token__jwks_public_endpoint="http://127.0.0.1:9/")) as world:
        jwks = world.node.tokens._jwks
        assert jwks is not None
        jwks._tried_at = jwks._clock()  # and it was down a moment ago
        reply = world.open().ask({"connect": {"token": token(headers={"kid": "x"})}})
        assert reply["error"]["code"] == 100
        assert reply["error"]["temporary"] is True


async def test_the_time_of_the_server_is_told_where_it_is_asked_for() -> None:
    async with World(config(client__connect_include_server_time=True)) as world:
        reply = world.open().ask({"connect": {"token": token()}})
        assert reply["connect"]["time"] > 1_700_000_000_000


# -- server-side subscriptions


async def test_channels_of_the_token_are_entered_and_told() -> None:
    async with World(config()) as world:
        client = world.open()
        subs = {"news": {"data": {"hello": 1}, "info": 5}}
        reply = client.ask({"connect": {"token": token(subs=subs)}})
        assert reply["connect"]["subs"] == {"news": {"data": {"hello": 1}}}
        assert client.session.subscriptions[0].info.chan_info == Raw(b"5")
        await world.node.publish("news", Raw(b"1"))
        assert client.take()[0]["push"] == {"channel": "news", "pub": {"data": 1}}


async def test_an_unknown_namespace_in_a_token_is_error_102_and_leaves_nothing() -> None:
    async with World(config()) as world:
        client = world.open()
        for channels in (["a", "nowhere:b"],):
            reply = client.ask({"connect": {"token": token(channels=channels)}})
            assert reply["error"]["code"] == 102
        assert world.node.hub.channels == {}
        assert (len(world.node.clients), world.node.counters.sessions) == (0, 0)
        client.connect(token=token())


async def test_a_client_that_comes_back_is_in_the_channels_it_may_be_in() -> None:
    keys = {
        "channel__without_namespace__allow_subscribe_for_client": True,
        "channel__without_namespace__allow_user_limited_channels": True,
        "channel__namespaces": [
            {"name": "closed"},
            {"name": "asks", "subscribe_proxy_enabled": True, "allow_subscribe_for_client": True},
        ],
    }
    async with World(config(**keys)) as world:
        client = world.open()
        names = ["a", "#ann", "#bob", "$a", "closed:a", "asks:a", "none:a", "", "ü", "given"]
        wanted: dict[str, Any] = {name: {} for name in names}
        text = token(channels=["given"])
        reply = client.ask({"connect": {"token": text, "subs": wanted}})["connect"]
        assert sorted(reply["subs"]) == ["#ann", "a", "given"]
        sources = {each.channel.name: each.terms.source for each in client.session.subscriptions}
        assert (sources["a"], sources["given"]) == (8, 1)
        assert "refresh" in client.ask({"refresh": {"token": text}})


async def test_a_token_for_too_many_channels_closes_with_3505() -> None:
    async with World(config(client__channel_limit=2)) as world:
        client = world.open()
        client.send({"id": 1, "connect": {"token": token(channels=["a", "b", "c"])}})
        assert client.closed == (3505, "channel limit")


async def test_a_backend_that_puts_a_client_into_too_many_channels_closes_it() -> None:
    async with World(config(client__channel_limit=1)) as world:
        client = ann(world, channels=["a"])
        for channel, closed in ("a", None), ("b", (3505, "channel limit")):
            terms = Grant(Source.SERVER_API)
            await world.node.administration.subscribe([client.session], channel, terms)
            assert client.closed == closed
        assert world.node.hub.channels == {}


async def test_users_have_a_channel_of_their_own() -> None:
    feature = "client__subscribe_to_user_personal_channel__"
    async with World(config(**{feature + "enabled": True})) as world:
        client = world.open()
        reply = client.ask({"connect": {"token": token("ann")}})
        assert list(reply["connect"]["subs"]) == ["#ann"]
        assert "subs" not in world.open().ask({"connect": {"token": token("")}})["connect"]


async def test_the_newest_connection_of_a_user_can_be_the_only_one() -> None:
    feature = "client__subscribe_to_user_personal_channel__"
    keys = {feature + "enabled": True, feature + "single_connection": True}
    async with World(config(**keys)) as world:
        first, other = ann(world), world.client(token=token("bob"))
        second = ann(world)
        assert first.closed == (3504, "connection limit")
        assert (second.closed, other.closed) == (None, None)


# -- expiry and refresh


async def test_a_connection_ends_some_time_after_its_token() -> None:
    async with World(config()) as world:
        client = world.open()
        reply = client.ask({"connect": {"token": token(exp=world.now + 60)}})["connect"]
        assert (reply["expires"], reply["ttl"]) == (True, 60)
        world.turn(60 + 24.9)
        assert client.closed is None
        world.turn(0.2)
        assert client.closed == (3005, "connection expired")


async def test_a_refreshed_connection_goes_on() -> None:
    async with World(config()) as world:
        client = ann(world, exp=world.now + 60)
        world.turn(70)
        reply = client.ask({"refresh": {"token": token(exp=world.now + 60)}})["refresh"]
        assert (reply["expires"], reply["ttl"]) == (True, 60)
        world.turn(84)
        assert client.closed is None
        assert client.ask({"refresh": {"token": token(expire_at=0)}})["refresh"].get("ttl") is None
        world.turn(1e6)
        assert client.closed is None


EXPIRED = {"error": {"code": 110, "message": "expired"}}


async def test_a_connection_whose_end_is_past_is_error_110_and_a_later_one_may_follow() -> None:
    async with World(config(client__allow_anonymous_connect_without_token=True)) as world:
        client = world.open()
        for end in 1, world.now:
            text = token(expire_at=int(end), meta={"a": 1}, channels=["a"])
            assert client.ask({"connect": {"token": text}}) == EXPIRED
        assert (len(world.node.clients), world.node.hub.channels) == (0, {})
        client.connect()
        assert client.session.credentials is None
        reply = world.open().ask({"connect": {"token": token(expire_at=int(world.now) + 9)}})
        assert reply["connect"]["ttl"] == 9


async def test_a_refresh_to_an_end_that_is_past_is_error_110_and_changes_nothing() -> None:
    async with World(config()) as world:
        client = ann(world, exp=world.now + 60, info=1)
        text = token(expire_at=int(world.now), info=2)
        assert client.ask({"refresh": {"token": text}}) == EXPIRED
        assert client.session.expire_at == world.now + 60
        assert client.session.info is not None
        assert client.session.info.conn_info == Raw(b"1")


async def test_a_backend_can_not_give_an_end_that_is_past() -> None:
    async with World(config()) as world:
        client = ann(world)
        terms = Grant(Source.SERVER_API, expire_at=world.now)
        with pytest.raises(codes.Refused, match="110"):
            await world.node.administration.subscribe([client.session], "a", terms)
        assert world.node.hub.channels == {}
        await world.node.administration.refresh([client.session], world.now, UNSET)
        assert client.take() == []
        assert client.closed == (3005, "connection expired")


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("", (3501, "bad request")),
        ("garbage", INVALID),
        (token("bob"), INVALID),
        (token("ann", exp=1), (3005, "connection expired")),
        (token("ann", channels=["a"]), (3010, "insufficient state")),
    ],
)
async def test_a_wrong_refresh_closes(text: str, closed: tuple[int, str]) -> None:
    async with World(config()) as world:
        client = ann(world)
        client.send({"id": 2, "refresh": {"token": text}})
        assert client.closed == closed


async def test_a_refresh_can_change_what_others_see() -> None:
    async with World(config(channel__without_namespace__presence=True)) as world:
        client = ann(world, info={"name": "Ann"}, channels=["a"])
        client.ask({"refresh": {"token": token(info={"name": "Anna"}, channels=["a"])}})
        [present] = (await world.node.presence("a")).values()
        assert present.conn_info == Raw(b'{"name":"Anna"}')


async def test_a_refresh_keeps_what_it_does_not_name() -> None:
    async with World(config()) as world:
        client = ann(world, jti="1", meta={"a": 1}, info=1)
        for claims, meta in ({"jti": "2"}, b'{"a":1}'), ({"meta": 3}, b"3"):
            client.ask({"refresh": {"token": token(**claims)}})
            known, info = client.session.credentials, client.session.info
            assert known is not None and info is not None
            assert (known.token_id, known.meta) == (claims.get("jti", ""), Raw(meta))
            assert info.conn_info == Raw(b"1")


async def test_a_refresh_may_name_any_channel_that_the_client_is_in() -> None:
    feature = "client__subscribe_to_user_personal_channel__"
    keys = {
        feature + "enabled": True,
        "channel__without_namespace__allow_subscribe_for_client": True,
    }
    async with World(config(**keys)) as world:
        client = ann(world, channels=["#ann", "a"])
        client.ask({"subscribe": {"channel": "b"}})
        for channels in ["#ann", "a"], ["a"], ["a", "b"]:
            assert "refresh" in client.ask({"refresh": {"token": token(channels=channels)}})
        client.send({"id": 2, "refresh": {"token": token(channels=["b"], info=2)}})
        assert client.closed == (3010, "insufficient state")


async def test_one_who_leaves_while_a_refresh_is_shown_is_seen_no_more() -> None:
    engine = SlowEngine()
    async with World(config(channel__without_namespace__presence=True), engine) as world:
        client = world.open()
        client.send({"id": 1, "connect": {"token": token(info=1, channels=["a"])}})
        for _ in range(4):
            await engine.let_go()
        client.send({"id": 2, "refresh": {"token": token(info=2, channels=["a"])}})
        adding, engine.waiting = engine.waiting, []
        client.leave()
        for _ in range(4):
            await engine.let_go()
        engine.waiting = adding
        for _ in range(4):
            await engine.let_go()
        assert await MemoryEngine.presence(engine, "a") == {}


# -- sent away


async def test_a_blocked_user_is_closed_and_kept_out() -> None:
    async with World(config()) as world:
        client, other = ann(world), world.client(token=token("bob"))
        await world.node.administration.block_user("ann", world.now + 100)
        assert client.closed == (3507, "permission denied")
        assert other.closed is None
        again = world.open()
        again.send({"id": 1, "connect": {"token": token("ann")}})
        assert again.closed == (3507, "permission denied")
        world.turn(100)
        ann(world)


async def test_a_revoked_token_closes_its_connections_and_no_others() -> None:
    async with World(config()) as world:
        client, other = ann(world, jti="1"), ann(world, jti="2")
        await world.node.administration.revoke_token("1")
        assert client.closed == INVALID
        assert other.closed is None


async def test_tokens_issued_before_a_time_close_their_connections() -> None:
    async with World(config()) as world:
        old, new, bob = ann(world, iat=900), ann(world, iat=950), world.client(token=token("bob"))
        await world.node.administration.invalidate_user_tokens("ann", 950)
        assert old.closed == INVALID
        assert (new.closed, bob.closed) == (None, None)


async def test_a_revoked_token_ends_its_subscriptions_and_no_others() -> None:
    async with World(config(channel__without_namespace__allow_subscribe_for_client=True)) as world:
        client, other = ann(world, jti="1"), ann(world)
        for each, jti in (client, "2"), (other, "3"):
            for channel in "a", "b":
                text = token("ann", channel=channel, jti=jti + channel)
                each.ask({"subscribe": {"channel": channel, "token": text}})
            each.ask({"subscribe": {"channel": "c"}})
        text = token("ann", channel="a", jti="4a")
        client.ask({"sub_refresh": {"channel": "a", "token": text}})
        await world.node.administration.revoke_token("2a")
        assert client.take() == [], "it has been renewed by another"
        for jti in "4a", "2b":
            await world.node.administration.revoke_token(jti)
        ended = {"code": 2000, "reason": "server unsubscribe"}
        assert [each["push"] for each in client.take()] == [
            {"channel": channel, "unsubscribe": ended} for channel in ("a", "b")
        ]
        assert client.ask({"subscribe": {"channel": "a", "token": text}})["error"]["code"] == 103
        assert [each.channel.name for each in client.session.subscriptions] == ["c"]
        assert (client.closed, other.closed, other.take()) == (None, None, [])
        assert len(other.session.subscriptions) == 3


async def test_a_token_that_is_revoked_while_a_client_comes_in_is_refused() -> None:
    engine = SlowEngine()
    async with World(config(), engine) as world:
        client = ann(world)
        text = token("ann", channel="a", jti="1")
        client.send({"id": 2, "subscribe": {"channel": "a", "token": text}})
        await world.node.administration.revoke_token("1")
        for _ in range(3):
            await engine.let_go()
        assert client.take()[0]["error"]["code"] == 103
        assert world.node.hub.channels == {}


async def test_tokens_issued_before_a_time_end_their_subscriptions() -> None:
    async with World(config()) as world:
        old, new, bob = ann(world, iat=900), ann(world, iat=900), world.client(token=token("bob"))
        for client, user, issued in (old, "ann", 900), (new, "ann", 950), (bob, "bob", 900):
            for channel in "a", "b":
                text = token(user, channel=channel, iat=issued)
                client.ask({"subscribe": {"channel": channel, "token": text}})
        await world.node.administration.invalidate_user_tokens("ann", 950, "a")
        [pushed] = old.take()
        assert (pushed["push"]["channel"], pushed["push"]["unsubscribe"]["code"]) == ("a", 2000)
        assert new.take() == bob.take() == []
        assert old.closed is None


async def test_whom_the_application_let_in_has_no_token_to_be_invalidated() -> None:
    async with World(config()) as world:
        client = ann(world)
        client.session.credentials = Credentials(by_app=True)
        await world.node.administration.invalidate_user_tokens("ann")
        assert client.closed is None


async def test_a_user_is_found_whatever_the_number_of_connections() -> None:
    async with World(config()) as world:
        clients = [ann(world) for _ in range(3)]
        assert set(world.node.clients.of_user("ann")) == {each.session for each in clients}
        for client in clients:
            client.leave()
        assert world.node.clients.of_user("ann") == ()
        assert world.node.clients.num_users == len(world.node.clients) == 0


async def test_one_of_several_is_selected_by_its_id() -> None:
    async with World(config()) as world:
        one, two = ann(world), ann(world)
        clients = world.node.clients
        assert clients.select("ann", one.session.id) == (one.session,)
        assert clients.select("", two.session.id) == (two.session,)
        assert clients.select("bob", one.session.id) == ()
        assert clients.select("ann", "nobody") == ()


# -- the opening request


def request(path: str = "/", **headers: str) -> fastws.Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return fastws.Request(path, fastws.Headers(named))


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("https://example.com", "example.com", True),
        ("http://localhost:8000", "localhost:8000", True),
        ("https://example.com", "example.com:443", True),
        ("HTTPS://Example.COM", "example.com", True),
        ("https://example.com:444", "example.com", False),
        ("https://evil.com", "example.com", False),
        ("https://example.com.evil.com", "example.com", False),
        ("null", "example.com", False),
        ("", "example.com", False),
        ("https://[::1", "example.com", False),
        ("https://example.com:x", "example.com", False),
    ],
)
def test_pages_of_the_same_host_may_connect(origin: str, host: str, allowed: bool) -> None:
    assert OriginCheck([]).allows(request(Origin=origin, Host=host)) is allowed


def test_configured_origins_may_connect_and_no_others() -> None:
    check = OriginCheck(["https://*.example.com", "http://localhost", "http://[::1]:8000"])
    for origin, allowed in (
        ("https://a.example.com", True),
        ("http://localhost", True),
        ("http://[::1]:8000", True),
        ("http://::8000", False),
        ("http://localhost.evil.com", False),
        ("https://example.com", False),
        ("https://a.example.com.evil.com", False),
    ):
        assert check.allows(request(Origin=origin, Host="a.example.com")) is allowed
    assert not check.allows(request(Origin="https://us", Host="us"))
    assert OriginCheck(["*"]).allows(request(Origin="null"))


def test_two_origins_are_one_too_many_and_none_is_no_browser() -> None:
    headers = fastws.Headers([("Origin", "https://a"), ("Origin", "https://a"), ("Host", "a")])
    assert not OriginCheck([]).allows(fastws.Request("/", headers))
    assert OriginCheck(["https://a"]).allows(request(Host="b"))


def test_a_token_is_taken_from_where_it_may_be() -> None:
    carried = request(
        "/connection/websocket?x=1&token=query",
        Authorization="Bearer header",
        Cookie='a=b; bad cookie; token="cookie"; c',
        Sec_WebSocket_Protocol="json, token.protocol",
    )
    assert token_of(carried, TokenSource()) == ""
    assert token_of(carried, TokenSource(authorization_header=True)) == "header"
    assert token_of(carried, TokenSource(cookie="token")) == "cookie"
    assert token_of(carried, TokenSource(query_parameter="token")) == "query"
    assert token_of(carried, TokenSource(subprotocol_prefix="token.")) == "protocol"
    everywhere = TokenSource(True, "token", "token", "token.")
    assert token_of(request(), everywhere) == ""
    assert token_of(request("/?" + "a=1&" * 200, Authorization="Basic x"), everywhere) == ""


def test_a_browser_that_offers_subprotocols_is_answered_with_one() -> None:
    source = TokenSource(subprotocol_prefix="token.")
    assert select_subprotocol(["token.x", "json"], source) == "json"
    assert select_subprotocol(["token.x"], source) == "token.x"
    assert select_subprotocol(["json"], source) is None
    assert select_subprotocol(["json"], TokenSource()) is None


def test_custom_codes_say_whether_to_come_back() -> None:
    assert codes.Disconnect(4000, "").reconnect and not codes.Disconnect(4500, "").reconnect

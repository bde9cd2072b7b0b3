"""The HTTP API, called by `cent` and by hand."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import cent
import pytest

from gateway.api.methods import METHODS, NOT_AVAILABLE
from gateway.api.openapi import describe
from gateway.config import ConfigError, load
from gateway.http import make_app
from gateway.server import Gateway
from tests.gateway.fakes import World
from tests.gateway.test_gateway import Client, connect, eventually, url
from tests.gateway.tokens import SECRET, token

KEY = "the key"

SETTINGS = {
    "http_server.port": 0,
    "http_api.key": KEY,
    "http_api.body_size_limit": 100_000,
    "client.token.hmac_secret_key": SECRET,
    "channel.without_namespace.allow_subscribe_for_client": True,
    "channel.without_namespace.presence": True,
    "channel.namespaces": [{"name": "kept", "history_size": 10, "history_ttl": "1m"}],
}


LONG_REASON = {"code": 4000, "reason": "x" * 124}


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[Gateway, cent.AsyncClient]]:
    """A gateway, and a backend that talks to it."""
    async with (
        Gateway(load(flags=SETTINGS)) as gateway,
        cent.AsyncClient(url(gateway, "/api", "http"), KEY) as backend,
    ):
        yield gateway, backend


async def ann(gateway: Gateway, *channels: str, **claims: Any) -> Client:
    """A client of the user ann."""
    client = Client(await connect(url(gateway), compression=None))
    assert "connect" in await client.ask({"connect": {"token": token("ann", **claims)}})
    for channel in channels:
        assert "subscribe" in await client.ask({"subscribe": {"channel": channel}})
    return client


async def post(
    gateway: Gateway, path: str, body: Any = b"{}", **headers: str
) -> tuple[int, Any, str]:
    """Status, body and its type, as a caller gets them."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as http,
        http.post(url(gateway, path, "http"), data=data, headers=headers) as response,
    ):
        text = await response.text()
        return response.status, text, response.content_type


# -- by cent


async def test_what_a_backend_publishes_clients_read() -> None:
    async with running() as (gateway, backend), await ann(gateway, "news") as client:
        await backend.publish(cent.PublishRequest(channel="news", data={"a": 1}, tags={"k": "v"}))
        assert (await client.read())["push"]["pub"] == {"data": {"a": 1}, "tags": {"k": "v"}}
        told = await backend.broadcast(
            cent.BroadcastRequest(channels=["news", "nowhere:x", "kept:a"], data=2)
        )
        assert (await client.read())["push"]["pub"] == {"data": 2}
        assert [each.error.code if each.error else 0 for each in told.responses] == [0, 102, 0]
        assert told.responses[2].result is not None
        assert told.responses[2].result.offset == 1


async def test_a_key_makes_a_publication_once() -> None:
    async with running() as (_, backend):
        request = cent.PublishRequest(channel="kept:a", data=1, idempotency_key="x")
        assert await backend.publish(request) == await backend.publish(request)
        history = await backend.history(cent.HistoryRequest(channel="kept:a", limit=10))
        assert [each.data for each in history.publications] == [1]


async def test_history_is_read_and_removed() -> None:
    async with running() as (_, backend):
        for number in range(1, 4):
            await backend.publish(cent.PublishRequest(channel="kept:a", data=number))
        await backend.publish(cent.PublishRequest(channel="kept:a", data=4, skip_history=True))
        everything = await backend.history(cent.HistoryRequest(channel="kept:a", limit=-1))
        assert [each.data for each in everything.publications] == [1, 2, 3]
        since = cent.StreamPosition(offset=3, epoch=everything.epoch)
        before = await backend.history(
            cent.HistoryRequest(channel="kept:a", limit=1, since=since, reverse=True)
        )
        assert [each.data for each in before.publications] == [2]
        await backend.history_remove(cent.HistoryRemoveRequest(channel="kept:a"))
        nothing = await backend.history(cent.HistoryRequest(channel="kept:a", limit=-1))
        assert (nothing.publications, nothing.offset) == ([], 3)
        with pytest.raises(cent.CentApiResponseError) as error:
            await backend.history(cent.HistoryRequest(channel="news", limit=1))
        assert error.value.code == 108


async def test_a_backend_sees_who_is_where() -> None:
    async with (
        running() as (gateway, backend),
        await ann(gateway, "news", info={"name": "Ann"}, jti="7", meta={"m": 1}) as client,
    ):
        present = (await backend.presence(cent.PresenceRequest(channel="news"))).presence
        [(client_id, info)] = present.items()
        assert (info.user, info.conn_info) == ("ann", {"name": "Ann"})
        stats = await backend.presence_stats(cent.PresenceStatsRequest(channel="news"))
        assert (stats.num_clients, stats.num_users) == (1, 1)
        channels = await backend.channels(cent.ChannelsRequest(pattern="n*"))
        assert {name: each.num_clients for name, each in channels.channels.items()} == {"news": 1}
        assert (await backend.channels(cent.ChannelsRequest(pattern="x*"))).channels == {}
        connections = await backend.connections(cent.ConnectionsRequest(user="ann", expression=""))
        [(same_id, connection)] = connections.connections.items()
        assert same_id == client_id
        assert connection.user == "ann"
        assert connection.state is not None and connection.state.connection_token is not None
        assert connection.state.connection_token.uid == "7"
        [node] = (await backend.info(cent.InfoRequest())).nodes
        assert (node.num_clients, node.num_users, node.num_channels) == (1, 1, 1)
        assert "ping" in await client.ask({"ping": {}})


async def test_a_backend_subscribes_and_unsubscribes_clients() -> None:
    async with running() as (gateway, backend), await ann(gateway) as client:
        position = await backend.publish(cent.PublishRequest(channel="kept:a", data=1))
        request = cent.SubscribeRequest(
            user="ann",
            channel="kept:a",
            data={"hello": 1},
            override=cent.ChannelOptionsOverride(force_recovery=cent.BoolValue(value=True)),
            recover_since=cent.StreamPosition(offset=0, epoch=position.epoch),
        )
        await backend.subscribe(request)
        push = (await client.read())["push"]
        assert push["channel"] == "kept:a"
        told = push["subscribe"]
        assert (told["recovered"], told["data"]) == (True, {"hello": 1})
        assert [each["data"] for each in told["publications"]] == [1]
        await backend.subscribe(request)  # it is there already
        await backend.publish(cent.PublishRequest(channel="kept:a", data=2))
        assert (await client.read())["push"]["pub"]["data"] == 2
        await backend.unsubscribe(cent.UnsubscribeRequest(user="ann", channel="kept:a"))
        why = {"code": 2000, "reason": "server unsubscribe"}
        assert (await client.read())["push"]["unsubscribe"] == why
        assert gateway.node.hub.channels == {}


async def test_who_is_put_into_too_many_channels_is_closed() -> None:
    settings = SETTINGS | {"client.channel_limit": 2}
    async with (
        Gateway(load(flags=settings)) as gateway,
        cent.AsyncClient(url(gateway, "/api", "http"), KEY) as backend,
        await ann(gateway, "a", "b") as client,
    ):
        await backend.subscribe(cent.SubscribeRequest(user="ann", channel="b"))
        assert "ping" in await client.ask({"ping": {}})
        await backend.subscribe(cent.SubscribeRequest(user="ann", channel="c"))
        assert await client.closed() == (3505, "channel limit")


async def test_a_backend_disconnects_a_user_except_some_clients() -> None:
    async with (
        running() as (gateway, backend),
        await ann(gateway) as one,
        await ann(gateway) as two,
    ):
        first, second = gateway.node.clients.of_user("ann")
        spared = first.id if first.slot > second.slot else second.id
        await backend.disconnect(
            cent.DisconnectRequest(
                user="ann", disconnect=cent.Disconnect(code=4001, reason="bye"), whitelist=[spared]
            )
        )
        ended, kept = (one, two) if gateway.node.clients.get(spared) else (two, one)
        assert len(gateway.node.clients) == 1
        await backend.disconnect(cent.DisconnectRequest(user="ann"))
        assert {await ended.closed(), await kept.closed()} == {
            (4001, "bye"),
            (3503, "force disconnect"),
        }


async def test_a_backend_refreshes_and_ends_connections() -> None:
    async with running() as (gateway, backend), await ann(gateway, exp=2e9) as client:
        await backend.refresh(cent.RefreshRequest(user="ann", expire_at=0, info={"name": "Anna"}))
        assert (await client.read())["push"] == {"refresh": {}}
        [session] = gateway.node.clients.of_user("ann")
        assert session.expire_at == 0
        await backend.refresh(cent.RefreshRequest(user="ann", expired=True))
        assert await client.closed() == (3005, "connection expired")


async def test_a_backend_blocks_users_and_revokes_tokens() -> None:
    async with running() as (gateway, backend):
        async with await ann(gateway, jti="1") as client:
            await backend.revoke_token(cent.RevokeTokenRequest(uid="1", expire_at=None))
            assert await client.closed() == (3500, "invalid token")
        async with await ann(gateway) as client:
            await backend.invalidate_user_tokens(cent.InvalidateUserTokensRequest(user="ann"))
            assert await client.closed() == (3500, "invalid token")
        async with await ann(gateway, iat=2e9) as client:
            await backend.block_user(cent.BlockUserRequest(user="ann"))
            assert await client.closed() == (3507, "permission denied")
        await backend.unblock_user(cent.UnblockUserRequest(user="ann"))
        async with await ann(gateway, iat=2e9):
            pass
        await eventually(lambda: len(gateway.node.clients) == 0)


async def test_a_batch_is_answered_one_by_one() -> None:
    async with running() as (_, backend):
        requests = [
            cent.PublishRequest(channel="kept:a", data=1),
            cent.PublishRequest(channel="kept:a", data=2),
            cent.PresenceStatsRequest(channel="news"),
        ]
        replies = (await backend.batch(cent.BatchRequest(requests=requests))).replies
        assert [getattr(each, "offset", None) for each in replies] == [1, 2, None]


async def test_a_wrong_key_is_refused() -> None:
    async with (
        running() as (gateway, _),
        cent.AsyncClient(url(gateway, "/api", "http"), "wrong") as other,
    ):
        with pytest.raises(cent.CentUnauthorizedError):
            await other.info(cent.InfoRequest())


# -- by hand


async def test_the_key_may_be_in_either_header() -> None:
    async with running() as (gateway, _):
        for headers, status in (
            ({"X-API-Key": KEY}, 200),
            ({"Authorization": f"apikey {KEY}"}, 200),
            ({"Authorization": f"Bearer {KEY}"}, 401),
            ({"X-API-Key": "", "Authorization": f"ApiKey {KEY}"}, 200),
            ({"X-API-Key": ""}, 401),
            ({"X-API-Key": "wrong", "Authorization": f"apikey {KEY}"}, 401),
            ({}, 401),
        ):
            got = await post(gateway, "/api/info", **headers)
            assert got[0] == status
            assert got[2] == "application/json"


@pytest.mark.parametrize(
    ("query", "status"),
    [("api_key=the%20key", 200), ("a=b&api_key=the+key", 200), ("api_key=%ff", 401), ("key", 401)],
)
async def test_the_key_may_be_in_the_query(query: str, status: int) -> None:
    async with running() as (gateway, _):
        assert (await post(gateway, f"/api/info?{query}"))[0] == status
        wrong = {"X-API-Key": "wrong"}
        assert (await post(gateway, f"/api/info?{query}", **wrong))[0] == status


ERRORS = [
    ("publish", {"channel": "nowhere:a", "data": 1}, 404, 102),
    ("publish", {}, 400, 107),
    ("presence", {"channel": "kept:a"}, 400, 108),
    ("history", {"channel": "kept:a", "since": {"epoch": "x"}}, 416, 112),
    ("rpc", {"method": "x"}, 404, 104),
]


@pytest.mark.parametrize(("method", "body", "status", "code"), ERRORS)
async def test_an_error_has_a_status_where_that_is_wanted(
    method: str, body: Any, status: int, code: int
) -> None:
    headers = {"X-API-Key": KEY}
    asked = headers | {"X-Centrifugo-Error-Mode": "transport"}
    settings = SETTINGS | {"http_api.error_mode": "transport"}
    async with running() as (one, _), Gateway(load(flags=settings)) as other:
        for gateway, sent in ((one, asked), (other, headers)):
            got, text, _ = await post(gateway, f"/api/{method}", body, **sent)
            assert (got, json.loads(text)["code"]) == (status, code)
            batch = {"commands": [{method: body}]}
            got, text, _ = await post(gateway, "/api/batch", batch, **sent)
            assert (got, json.loads(text)["replies"][0]["error"]["code"]) == (200, code)


@pytest.mark.parametrize("method", sorted(NOT_AVAILABLE))
async def test_a_method_that_is_centrifugos_only_is_not_available(method: str) -> None:
    headers = {"X-API-Key": KEY}
    command = {"channel": "kept:a", "key": "k"}
    async with running() as (gateway, _):
        for path, body in (
            (f"/api/{method}", command),
            ("/api/batch", {"commands": [{method: command}]}),
            ("/api", {"method": method, "params": command}),
        ):
            status, text, _ = await post(gateway, path, body, **headers)
            reply = json.loads(text)
            [reply] = reply.get("replies", [reply])
            assert (status, reply["error"]["code"]) == (200, 108)


@pytest.mark.parametrize("prefix", ["/v1/realtime", "/v1/realtime/"])
async def test_the_api_may_be_at_another_path(prefix: str) -> None:
    settings = SETTINGS | {"http_api.handler_prefix": prefix}
    async with (
        Gateway(load(flags=settings)) as gateway,
        cent.AsyncClient(url(gateway, "/v1/realtime", "http"), KEY) as backend,
        aiohttp.ClientSession() as http,
    ):
        assert (await backend.info(cent.InfoRequest())).nodes
        body = b'{"method": "info"}'
        assert (await post(gateway, "/v1/realtime", body, **{"X-API-Key": KEY}))[0] == 200
        assert (await post(gateway, "/api/info", **{"X-API-Key": KEY}))[0] == 404
        async with http.get(url(gateway, "/v1/realtime/openapi.json", "http")) as response:
            assert "/v1/realtime/publish" in (await response.json())["paths"]


@pytest.mark.parametrize("prefix", ["", "/", "api", "/api/{x}", "//a", "/health", "/admin/api/"])
def test_a_path_that_is_none_or_taken_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"http_api\.handler_prefix"):
        load(flags={"http_api.handler_prefix": prefix})


async def test_without_a_configured_key_there_is_no_api() -> None:
    async with Gateway(load(flags={"http_server.port": 0, "dev": True})) as gateway:
        assert (await post(gateway, "/api/info"))[0] == 404
        assert (await post(gateway, "/api", **{"X-API-Key": ""}))[0] == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/api/nothing", {}, 404, 104),
        ("/api/__init__", {}, 404, 104),
        ("/api/_publish", {}, 404, 104),
        ("/api/publish", b"garbage", 400, 107),
        ("/api/publish", b"[]", 400, 107),
        ("/api/publish", b"\xff", 400, 107),
        ("/api/publish", b"[" * 50_000, 400, 107),
        ("/api/publish", b" " * 100_001, 413, 107),
        ("/api/publish", {"channel": 5}, 400, 107),
        ("/api/publish", {"channel": "a", "data": 1, "tags": {"a": 1}}, 400, 107),
        ("/api/publish", b'{"channel":"a","data":nope}', 400, 107),
        ("/api/publish", {}, 200, 107),
        ("/api/publish", {"channel": "a"}, 200, 107),
        ("/api/publish", {"channel": "a", "b64data": "%"}, 200, 107),
        ("/api/publish", {"channel": "a", "b64data": "bm8="}, 200, 107),
        ("/api/publish", {"channel": "x" * 256, "data": 1}, 200, 107),
        ("/api/publish", {"channel": "nowhere:a", "data": 1}, 200, 102),
        ("/api/broadcast", {"data": 1}, 200, 107),
        ("/api/broadcast", {"channels": [""], "data": 1}, 200, 107),
        ("/api/disconnect", {}, 200, 107),
        ("/api/disconnect", {"user": "a", "disconnect": {"code": 1000}}, 200, 107),
        ("/api/disconnect", {"user": "a", "disconnect": LONG_REASON}, 200, 107),
        ("/api/subscribe", {"channel": "a"}, 200, 107),
        ("/api/unsubscribe", {"channel": "a"}, 200, 107),
        ("/api/refresh", {}, 200, 107),
        ("/api/subscribe", {"channel": "a", "user": "ann", "session": "s"}, 200, 108),
        ("/api/unsubscribe", {"channel": "a", "user": "ann", "session": "s"}, 200, 108),
        ("/api/disconnect", {"user": "ann", "session": "s"}, 200, 108),
        ("/api/refresh", {"user": "ann", "session": "s"}, 200, 108),
        ("/api/block_user", {}, 200, 107),
        ("/api/revoke_token", {}, 200, 107),
        ("/api/history", {"channel": "kept:a", "since": {"epoch": "x"}}, 200, 112),
        ("/api/rpc", {"method": "x"}, 200, 104),
        ("/api/batch", {"commands": [{}]}, 400, 107),
        ("/api/batch", {"commands": [{"publish": {"channel": 5}}]}, 400, 107),
        ("/api", b"", 400, 107),
        ("/api", {"method": "nothing"}, 200, 104),
        ("/api", {"method": "publish", "params": 5}, 400, 107),
    ],
)
async def test_what_is_wrong_is_said_with_a_code(
    path: str, body: Any, status: int, code: int
) -> None:
    async with running() as (gateway, _):
        got, text, kind = await post(gateway, path, body, **{"X-API-Key": KEY})
        assert (got, json.loads(text)["error"]["code"]) == (status, code)
        assert kind == "application/json"


async def test_the_older_form_takes_a_command_to_a_line() -> None:
    async with running() as (gateway, _):
        commands = [
            {"method": "publish", "params": {"channel": "kept:a", "data": 1}},
            {"method": "info"},
        ]
        body = "\n".join(map(json.dumps, commands)).encode()
        status, text, _ = await post(gateway, "/api", body, **{"X-API-Key": KEY})
        replies = [json.loads(line) for line in text.split("\n")]
        assert status == 200
        assert [list(reply["result"]) for reply in replies] == [["offset", "epoch"], ["nodes"]]


async def test_replies_of_the_older_form_have_the_id_of_their_command() -> None:
    async with running() as (gateway, _):
        body = b'{"id": 7, "method": "info"}\n{"id": 8, "method": "nothing"}\n{"method": "info"}'
        _, text, _ = await post(gateway, "/api", body, **{"X-API-Key": KEY})
        replies = [json.loads(line) for line in text.split("\n")]
        assert [(each.get("id"), "error" in each) for each in replies] == [
            (7, False),
            (8, True),
            (None, False),
        ]


PUBLISH = {"channel": "kept:a", "data": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/batch", {"commands": [{"publish": PUBLISH}, {"publish": {"channel": 5}}]}),
        ("/api/batch", {"commands": [{"publish": PUBLISH}, {}]}),
        ("/api/batch", {"commands": [{"publish": PUBLISH}, {"info": {}, "publish": PUBLISH}]}),
        (
            "/api",
            b'{"method": "publish", "params": {"channel": "kept:a", "data": 1}}\n'
            b'{"method": "publish", "params": {"channel": 5}}',
        ),
    ],
)
async def test_nothing_is_done_of_a_request_that_cannot_be_read_whole(path: str, body: Any) -> None:
    async with running() as (gateway, backend):
        status, _, _ = await post(gateway, path, body, **{"X-API-Key": KEY})
        history = await backend.history(cent.HistoryRequest(channel="kept:a", limit=-1))
        assert (status, history.publications) == (400, [])


async def test_a_payload_of_several_lines_reaches_clients_as_one() -> None:
    async with running() as (gateway, _), await ann(gateway, "news") as client:
        body = b'{"channel": "news", "data": {\n  "a": "x\\ny",\r\n  "b": 1.50\n}}'
        await post(gateway, "/api/publish", body, **{"X-API-Key": KEY})
        message = await client.ws.recv()
        assert "\n" not in str(message)
        assert json.loads(message)["push"]["pub"]["data"] == {"a": "x\ny", "b": 1.5}
        encoded = base64.b64encode(b"null").decode()
        for data in ({"data": None}, {"b64data": encoded}):
            await post(gateway, "/api/publish", {"channel": "news", **data}, **{"X-API-Key": KEY})
        assert (await client.read())["push"]["pub"] == {"data": None}


# -- the description


def test_every_method_is_described_with_its_types() -> None:
    document = describe()
    assert set(document["paths"]) == {f"/api/{name}" for name in METHODS}
    for path in document["paths"].values():
        reference = path["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert reference.rpartition("/")[2] in document["components"]["schemas"]


async def test_the_description_is_served() -> None:
    async with (
        running() as (gateway, _),
        aiohttp.ClientSession() as http,
        http.get(url(gateway, "/api/openapi.json", "http")) as response,
    ):
        assert (await response.json())["openapi"].startswith("3.1")


def test_there_is_a_route_only_with_a_key() -> None:
    def paths(key: str) -> list[str]:
        node = World(load(flags={"http_api.key": key})).node
        return [getattr(route, "path", "") for route in make_app(node).routes]

    assert any(path.startswith("/api") for path in paths(KEY))
    assert not any(path.startswith("/api") for path in paths(""))

"""The admin page's door: who comes in, what it shows and does, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest

from gateway.admin import panel
from gateway.admin.entrance import Entrance, Throttle
from gateway.admin.listings import Listings
from gateway.admin.panel import COOKIE, HEADERS, PAGES, SHARED
from gateway.admin.recorder import COLUMNS, KEPT, Recorder
from gateway.config import AdminPage, Config, ConfigError, load
from gateway.server import Gateway
from tests.gateway.fakes import World
from tests.gateway.test_gateway import client, eventually
from tests.gateway.tokens import SECRET, token

PASSWORD = "a long password"
SETTINGS = {
    "dev": True,
    "http_server.port": 0,
    "admin.enabled": True,
    "admin.password": PASSWORD,
    "admin.secret": SECRET,
    "client.token.hmac_secret_key": SECRET,
    "channel.namespaces": [
        {"name": "kept", "history_size": 1000, "history_ttl": "1m", "presence": True}
    ],
}

# What somebody may call themselves, or a channel.
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "\"'><script>alert(1)</script>",
    "a/../b?c=d#e&f=%2e",
    "\u202eevil\x00\x1b[2J\r\nSet-Cookie: a=b",
    "😀" * 30,
]


class Browser:
    """Asks the admin endpoints, and keeps cookies."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self.http = http
        self.url = f"http://127.0.0.1:{port}/admin/"

    async def ask(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        async with self.http.request(method, f"{self.url}api/{path}", **options) as response:
            assert response.headers["Cache-Control"] == "no-store"
            for name, value in HEADERS.items():
                assert response.headers[name] == value
            return response.status, await response.json()

    async def get(self, path: str, **query: Any) -> Any:
        status, body = await self.ask(path, params=query)
        assert status == 200, body
        return body

    async def sign_in(self, password: str = PASSWORD) -> tuple[int, Any]:
        return await self.ask("login", "POST", json={"password": password})

    async def call(self, method: str, request: Any) -> tuple[int, Any]:
        return await self.ask(f"call/{method}", "POST", json=request)


@contextlib.asynccontextmanager
async def running(**changes: Any) -> AsyncIterator[tuple[Gateway, Browser]]:
    flags = {**SETTINGS, **{name.replace("__", "."): value for name, value in changes.items()}}
    async with (
        Gateway(load(flags=flags)) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
    ):
        yield gateway, Browser(http, gateway.internal_port or gateway.port)


def entrance(world: World, **settings: Any) -> Entrance:
    page = AdminPage(**{"password": PASSWORD, "secret": SECRET, **settings})
    return Entrance(page, lambda: world.now, lambda: world.now)


# -- who comes in


async def test_without_being_enabled_there_is_no_page() -> None:
    async with running(admin__enabled=False) as (gateway, browser):
        assert gateway.admin is None
        for path in ("", "app.js", "api/session", "api/stats"):
            async with browser.http.get(browser.url + path) as response:
                assert response.status == 404
        async with browser.http.get(f"http://127.0.0.1:{gateway.port}/static/admin/app.js") as r:
            assert r.status == 404


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "needs admin.password"),
        ({"admin.password": "short"}, "8 characters"),
        ({"admin.password": PASSWORD, "admin.secret": "short"}, "32 bytes"),
        ({"admin.password": PASSWORD, "admin.token_ttl": "10ms"}, "1 s or more"),
    ],
)
def test_it_can_not_be_enabled_without_protection(keys: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(flags={"admin.enabled": True, **keys})


async def test_nothing_is_told_or_done_without_the_password() -> None:
    async with running() as (gateway, browser):
        assert await browser.get("session") == {"signed_in": False, "insecure": False}
        paths = ["stats", "channels", "clients", "client", "channel", "history"]
        for path in paths:
            assert (await browser.ask(path))[0] == 401
        for method in [*sorted(panel.METHODS), "nonsense"]:
            assert (await browser.call(method, {"user": "ann"}))[0] == 401
        assert not gateway.node.revocations.is_blocked("ann")
        status, body = await browser.sign_in("a wrong one")
        assert (status, body["error"]["message"]) == (401, "this is not the password")
        assert (await browser.ask("stats"))[0] == 401

        assert await browser.sign_in() == (200, {"ttl": 43200})
        assert (await browser.get("session"))["signed_in"]
        for path in ("stats", "channels", "clients"):
            await browser.get(path)
        kept = {COOKIE: next(iter(browser.http.cookie_jar)).value}
        assert (await browser.ask("logout", "POST", json={}))[0] == 200
        assert (await browser.ask("stats"))[0] == 401
        browser.http.cookie_jar.update_cookies(kept)
        assert (await browser.ask("stats"))[0] == 401, "what was signed out stays so"


async def test_the_cookie_is_for_nobody_else() -> None:
    async with running() as (_, browser):
        url = f"{browser.url}api/login"
        async with browser.http.post(url, json={"password": PASSWORD}) as response:
            cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=" not in cookie, "the folder of the endpoint, and no more"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"password": 1}', 400),
        (b"\xff", 400),
        (b"[" * 4000, 400),
        (b"{}", 401),
        (b'{"password": "\\u0000"}', 401),
        (b'{"password": "' + b"x" * 4096, 413),
    ],
)
async def test_a_login_that_is_none_is_refused(body: bytes, expected: int) -> None:
    async with running() as (_, browser):
        headers = {"Content-Type": "application/json"}
        status, answer = await browser.ask("login", "POST", data=body, headers=headers)
        assert status == expected
        assert answer["error"]["message"]


async def test_pages_of_other_origins_may_not_ask() -> None:
    async with running() as (_, browser):
        await browser.sign_in()
        for site in ("cross-site", "same-site"):
            assert (await browser.ask("stats", headers={"Sec-Fetch-Site": site}))[0] == 403
        # What a form of another page could send.
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            status, _ = await browser.ask(
                "call/disconnect", "POST", data=b"{}", headers={"Content-Type": kind}
            )
            assert status == 403


async def test_without_passwords_it_is_for_addresses_and_not_for_names() -> None:
    async with running(admin__insecure=True, admin__password="") as (_, browser):
        assert await browser.get("session") == {"signed_in": True, "insecure": True}
        await browser.get("stats")
        for host in ("localhost", "localhost:80", "[::1]:80", "10.0.0.1"):
            assert (await browser.ask("stats", headers={"Host": host}))[0] == 200
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.x"):
            assert (await browser.ask("stats", headers={"Host": host}))[0] == 403


async def test_guessing_is_limited() -> None:
    async with running() as (gateway, browser):
        for _ in range(5):
            assert (await browser.sign_in("wrong guess"))[0] == 401
        url = f"{browser.url}api/login"
        async with browser.http.post(url, json={"password": PASSWORD}) as response:
            assert response.status == 429, "not even with the right one"
            assert 1 <= int(response.headers["Retry-After"]) <= 12
        assert gateway.admin is not None
        assert gateway.admin.entrance.wait("192.0.2.1") == 0, "others may try"


def test_attempts_are_forgiven_one_by_one_and_kept_for_so_many_names() -> None:
    throttle = Throttle(10.0, 3, names=4)
    for _ in range(3):
        assert throttle.wait("ann", 0.0) == 0
        throttle.failed("ann", 0.0)
    assert throttle.wait("ann", 0.0) == 10
    assert throttle.wait("ann", 9.0) == 1
    assert throttle.wait("ann", 10.0) == 0
    for number in range(100):
        throttle.failed(str(number), 0.0)
    assert len(throttle) == 4


def test_guesses_of_one_network_count_together_and_those_of_all_too() -> None:
    world = World()
    door = entrance(world)
    for number in range(5):
        door.knows("wrong", f"2001:db8::{number}")
    assert door.wait("2001:db8::ffff") > 0
    assert door.wait("2001:db8:0:1::") == 0
    for number in range(60):
        door.knows("wrong", f"192.0.2.{number}")
    assert door.wait("198.51.100.1") > 0
    world.now += 60
    assert door.wait("198.51.100.1") == 0


def test_a_token_ends_and_is_good_for_this_secret_and_password_only() -> None:
    world = World()
    door = entrance(world, token_ttl=60)
    made, ttl = door.issue()
    assert ttl == 60
    assert door.admits(made)
    assert entrance(world).admits(made), "another process with the same secret"
    assert not entrance(world, secret=SECRET + "!").admits(made)
    assert not entrance(world, secret="").admits(made)
    assert not entrance(world, password="changed since").admits(made)
    world.now += 59
    assert door.admits(made)
    world.now += 1
    assert not door.admits(made)


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "a.b.c",
        "é" * 100,
        token("admin", aud="fastws-admin", jti="1", exp=2**40),  # the secret itself signs nothing
        jwt.encode({"aud": "fastws-admin", "jti": "1", "exp": 2**40}, "", "none"),
    ],
)
def test_a_token_that_is_not_ours_is_not_believed(forged: str) -> None:
    door = entrance(World())
    assert not door.admits(forged)
    door.end(forged)


async def test_an_expired_session_is_401() -> None:
    async with running(admin__token_ttl=60) as (gateway, browser):
        await browser.sign_in()
        await browser.get("stats")
        wall = gateway.node.wall
        assert gateway.admin is not None
        gateway.admin.entrance._wall = lambda: wall() + 61
        assert (await browser.ask("stats"))[0] == 401


# -- its files


async def test_every_file_comes_with_headers_that_let_nothing_else_in() -> None:
    async with running() as (gateway, browser):
        for name in ["", *SHARED, *(path.name for path in PAGES.iterdir())]:
            async with browser.http.get(browser.url + name) as response:
                assert response.status == 200
                text = await response.text()
                for header, value in HEADERS.items():
                    assert response.headers[header] == value
                policy = response.headers["Content-Security-Policy"]
                assert "unsafe" not in policy
                assert "default-src 'none'" in policy
            assert "innerHTML" not in text
            assert "//cdn" not in text
        async with browser.http.get(browser.url[:-1], allow_redirects=False) as response:
            assert response.headers["Location"] == "admin/"
        async with browser.http.get(browser.url + "..%2fapp.js") as response:
            assert response.status == 404
        assert gateway.internal_port == 0


async def test_with_an_internal_port_it_is_there_only() -> None:
    internal = {"http_server__internal_address": "127.0.0.1", "http_server__internal_port": 0}
    async with running(**internal) as (gateway, browser):
        assert str(gateway.internal_port) in browser.url
        await browser.sign_in()
        await browser.get("stats")
        async with browser.http.get(browser.url + "icon.svg") as response:
            assert (response.status, "<svg" in await response.text()) == (200, True)
        async with browser.http.get(f"http://127.0.0.1:{gateway.port}/admin/") as response:
            assert response.status == 404


# -- what it shows


async def test_it_shows_who_is_where_whatever_they_are_called() -> None:
    async with running() as (gateway, browser):
        await browser.sign_in()
        for name in HOSTILE:
            async with await client(gateway) as someone, await client(gateway) as other:
                user = token(name, info={"name": name})
                await other.ws.close()
                hostile = await client_of(gateway, user, name)
                async with hostile:
                    [row] = (await browser.get("clients", search=name))["rows"]
                    assert row["user"] == name
                    page = await browser.get("client", client=row["client"])
                    assert [each["name"] for each in page["channels"]] == [name]
                    assert json.loads(page["info"]) == {"name": name}
                    [channel] = (await browser.get("channels", search=name))["rows"]
                    assert channel == {"name": name, "subscribers": 1}
                    shown = await browser.get("channel", channel=name)
                    assert [each["user"] for each in shown["members"]] == [name]
                    await someone.ask({"ping": {}})
            await eventually(lambda: not gateway.node.hub.channels)


async def client_of(gateway: Gateway, with_token: str, *channels: str) -> Any:
    from tests.gateway.test_gateway import Client, connect, url

    made = Client(await connect(url(gateway), compression=None))
    assert "connect" in await made.ask({"connect": {"token": with_token}})
    for channel in channels:
        assert "subscribe" in await made.ask({"subscribe": {"channel": channel}})
    return made


async def test_what_is_published_arrives_and_is_in_the_history() -> None:
    async with running() as (gateway, browser), await client(gateway, "kept:a") as reader:
        await browser.sign_in()
        assert (await browser.call("publish", {"channel": "kept:a", "data": {"n": 0}}))[0] == 200
        assert (await reader.read())["push"]["pub"]["data"] == {"n": 0}
        for number in range(1, 45):
            await browser.call("publish", {"channel": "kept:a", "data": {"n": number}})
        seen: list[int] = []
        page: dict[str, Any] = {"rows": [{"offset": 0}], "epoch": ""}
        while page["rows"]:
            before = page["rows"][-1]["offset"]
            query = {"channel": "kept:a", "before": before, "epoch": page["epoch"]}
            page = await browser.get("history", limit=20, **query)
            assert page["offset"] == 45
            seen += [json.loads(row["data"])["n"] for row in page["rows"]]
        assert seen == list(range(44, -1, -1))
        await browser.call("history_remove", {"channel": "kept:a"})
        assert (await browser.get("history", channel="kept:a"))["rows"] == []
        query = {"channel": "kept:a", "before": 3, "epoch": "another"}
        status, body = await browser.ask("history", params=query)
        assert (status, body["error"]["code"]) == (400, 112)


async def test_large_payloads_are_cut() -> None:
    async with running() as (_, browser):
        await browser.sign_in()
        await browser.call("publish", {"channel": "kept:a", "data": "x" * 100_000})
        [row] = (await browser.get("history", channel="kept:a"))["rows"]
        assert (len(row["data"]), row["size"]) == (16384, 100_002)


async def test_who_is_sent_away_goes_and_who_is_blocked_stays_away() -> None:
    async with running() as (gateway, browser):
        await browser.sign_in()
        first, second = [await client_of(gateway, token("ann"), "news") for _ in range(2)]
        rows = (await browser.get("clients", search="ann"))["rows"]
        assert len(rows) == 2
        client_id = rows[-1]["client"]
        assert (await browser.get("client", client=client_id))["of_user"] == 2
        request = {"client": client_id, "channel": "news"}
        assert (await browser.call("unsubscribe", request))[0] == 200
        assert (await browser.get("client", client=client_id))["channels"] == []
        assert (await browser.call("disconnect", {"client": client_id}))[0] == 200
        status, body = await browser.ask("client", params={"client": client_id})
        assert (status, body["error"]["message"]) == (404, "no such client")
        assert (await browser.call("block_user", {"user": "ann"}))[0] == 200
        codes = sorted([(await each.closed())[0] or 0 for each in (first, second)])
        assert codes == [3503, 3507]
        assert (await browser.get("clients", search="ann"))["blocked"]
        await browser.call("unblock_user", {"user": "ann"})
        assert not (await browser.get("clients", search="ann"))["blocked"]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("stats", {"since": "-1"}),
        ("stats", {"since": "1e3"}),
        ("channels", {"limit": "101"}),
        ("channels", {"limit": "0"}),
        ("channels", {"offset": "1001"}),
        ("channels", {"search": "x" * 1025}),
        ("clients", {"limit": "²"}),
        ("clients", {"offset": "9" * 5000}),
        ("channel", {}),
        ("channel", {"channel": "x" * 300}),
        ("history", {"channel": ""}),
        ("history", {"channel": "nowhere:x"}),
        ("history", {"channel": "a", "before": "99999999999999999999"}),
        ("history", {"channel": "kept:a", "limit": "-1"}),
        ("nothing", {}),
        ("client", {"client": "nobody"}),
    ],
)
async def test_bad_questions_are_answered_shortly(path: str, query: dict[str, str]) -> None:
    async with running() as (_, browser):
        await browser.sign_in()
        # As a browser without limits of its own would send it.
        status, body = await browser.ask(path, params=query)
        assert status in (400, 404)
        assert body["error"]["message"]
        assert len(body["error"]["message"]) < 200


@pytest.mark.parametrize(
    ("method", "request_", "status"),
    [
        ("publish", {"channel": "a"}, 400),
        ("publish", {"channel": "x" * 256, "data": 1}, 400),
        ("publish", {"channel": 1, "data": 1}, 400),
        ("disconnect", {}, 400),
        ("block_user", {"user": ""}, 400),
        ("block_user", [1], 400),
        ("connections", {}, 404),
        ("refresh", {"user": "ann"}, 404),
    ],
)
async def test_bad_calls_are_refused(method: str, request_: Any, status: int) -> None:
    async with running() as (_, browser):
        await browser.sign_in()
        assert (await browser.call(method, request_))[0] == status


# -- what it costs


def named(world: World, count: int) -> None:
    """Clients who are each in a channel of their own, and all in one."""
    for number in range(count):
        one = world.client(data={"n": number})
        for channel in (f"room-{number}", "all"):
            one.ask({"subscribe": {"channel": channel}})
        one.take()


async def test_lists_have_pages_and_the_fullest_channels_come_first() -> None:
    async with World() as world:
        named(world, 120)
        lists = Listings(world.node)
        first = await lists.channels("", 0, 50)
        assert (first.rows[0].name, first.rows[0].subscribers) == ("all", 120)
        assert (len(first.rows), first.total, first.all) == (50, 121, 121)
        names = [row.name for row in first.rows]
        for offset in (50, 100):
            names += [row.name for row in (await lists.channels("", offset, 50)).rows]
        assert len(set(names)) == 121
        found = await lists.channels("ROOM-11", 0, 50)
        assert found.total == len(found.rows) == 11
        everyone = await lists.clients("", 0, 50)
        assert (len(everyone.rows), everyone.total) == (50, 120)
        assert len((await lists.clients("", 100, 50)).rows) == 20
        members = await lists.channel("all", 100, 50)
        assert (len(members.members), members.total) == (20, 120)


async def test_of_a_channel_with_too_many_for_presence_those_here_are_shown() -> None:
    async with World(load(flags={"dev": True, "channel.presence_max_clients": 10})) as world:
        named(world, 12)
        page = await Listings(world.node).channel("all", 0, 5)
        assert (len(page.members), page.total, page.presence) == (5, 12, False)


async def test_a_search_lets_others_have_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.admin.listings._AT_ONCE", 10)
    async with World() as world:
        named(world, 100)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await Listings(world.node).clients("nobody", 0, 50)
        assert turns >= 9
        turns = 0
        await Listings(world.node).channels("nothing", 0, 50)
        assert turns >= 9
        counting.cancel()


async def test_who_leaves_during_a_search_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.admin.listings._AT_ONCE", 10)
    async with World() as world:
        named(world, 50)
        search = asyncio.create_task(Listings(world.node).clients("", 0, 50))
        searches = [asyncio.create_task(Listings(world.node).channels("r", 0, 50))]
        await asyncio.sleep(0)
        for session in list(world.node.clients):
            world.node.leave(session, 1001)
        assert len((await search).rows) == 50
        await asyncio.gather(*searches)


async def test_rows_are_kept_for_ten_minutes_and_no_longer() -> None:
    async with World() as world:
        recorder = Recorder(world.node)
        one = world.client()
        for _ in range(KEPT + 20):
            world.now += 1
            one.send({"id": 1, "ping": {}})
            world.node.counters.frames_in += 1
            recorder.look()
            recorder.sample()
        rows = recorder.since(0)
        assert (len(rows), recorder.count) == (KEPT, KEPT + 20)
        newest = dict(zip(COLUMNS, rows[-1], strict=True))
        assert newest["time"] == world.now
        assert (newest["connections"], newest["received"], newest["sent"]) == (1, 1, 1)
        assert newest["memory"] > 1e6
        assert len(recorder.since(recorder.count - 3)) == 3
        assert recorder.since(recorder.count) == recorder.since(2**53) == []


async def test_queues_are_looked_at_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.admin.recorder._SLICE", 10)
    async with World() as world:
        clients = [world.client() for _ in range(25)]
        for number, each in enumerate(clients):
            each.connection.buffered_amount = number  # type: ignore[attr-defined]
        recorder = Recorder(world.node)
        recorder.look()
        recorder.look()
        assert recorder.slowest == [], "the round is not over"
        recorder.look()
        assert recorder.slowest[0] == (24, clients[24].session.id)
        assert len(recorder.slowest) == 10
        recorder.sample()
        assert recorder.since(0)[0][COLUMNS.index("queued")] == sum(range(25))


async def test_a_new_process_gives_all_it_has_to_a_page_that_knew_another() -> None:
    async with running() as (gateway, browser):
        await browser.sign_in()
        assert gateway.admin is not None
        for _ in range(5):
            gateway.admin.recorder.sample()
        stats = await browser.get("stats")
        since = stats["count"]
        assert (await browser.get("stats", since=since + 1, uid=stats["uid"]))["rows"] == []
        assert len((await browser.get("stats", since=since, uid="another"))["rows"]) >= 5


def test_defaults_leave_it_off() -> None:
    assert not Config().admin.enabled
    assert not Config().admin.insecure

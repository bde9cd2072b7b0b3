"""Several backends: which namespace asks which, and that none is troubled by another."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from gateway.app import App, RefreshReply, RpcEvent, RpcReply, SubscribeReply
from gateway.app.base import Headers
from gateway.app.webhooks import Hook, Webhooks
from gateway.config import Config, ConfigError, load
from gateway.metrics import NodeCollector
from gateway.server import Gateway
from tests.gateway.fakes import World
from tests.gateway.test_app import FAILURES, Rules, ask, backend, settle
from tests.gateway.test_gateway import Client, connect, url
from tests.gateway.test_helpers import run
from tests.gateway.tokens import SECRET, token

DEAD = "http://127.0.0.1:9/"
DOCS = Path(__file__).parents[2] / "docs" / "gateway.md"


def config(**options: Any) -> Config:
    keys = {key.replace("__", "."): value for key, value in options.items()}
    return load(
        flags={"http_server.port": 0, "client.token.hmac_secret_key": SECRET, **keys},
    )


def namespace(name: str, proxy: str, *events: str) -> dict[str, Any]:
    """A namespace that asks one proxy about these events."""
    options: dict[str, Any] = {"name": name}
    for event in events or ("subscribe", "publish"):
        options |= {f"{event}_proxy_enabled": True, f"{event}_proxy_name": proxy}
    return options


async def enter(gateway: Gateway, **headers: str) -> Client:
    client = Client(await connect(url(gateway), additional_headers=headers))
    await client.ask({"connect": {"token": token("ann")}})
    return client


def yes(event: str, content: dict[str, Any]) -> Any:
    return {"result": {}}


async def subscribe(client: Client, channel: str) -> Any:
    """The error of a subscribe command, None if there is none."""
    return (await client.ask({"subscribe": {"channel": channel}})).get("error")


def hooks_of(gateway: Gateway) -> dict[tuple[str, str], Hook]:
    assert isinstance(gateway.app, Webhooks)
    return {(hook.event, hook.proxy): hook for hook in gateway.app.all_hooks}


# -- who is asked


async def test_each_backend_is_asked_about_its_namespaces_only() -> None:
    async with backend(yes) as (one, asked_one), backend(yes) as (two, asked_two):
        settings = config(
            proxies=[
                {"name": "one", "endpoint": f"{one}/named"},
                {"name": "two", "endpoint": f"{two}/named"},
            ],
            channel__namespaces=[
                namespace("aa", "one"),
                namespace("bb", "two"),
                namespace("cc", "one", "subscribe") | namespace("cc", "default", "publish"),
            ],
            channel__proxy__publish__enabled=True,
            channel__proxy__publish__endpoint=f"{two}/publish",
        )
        async with Gateway(settings) as gateway, await enter(gateway) as client:
            for channel in "aa:x", "bb:x", "cc:x":
                assert await subscribe(client, channel) is None
                assert "push" in await client.ask({"publish": {"channel": channel, "data": 1}})
                assert "publish" in await client.read()
            channels = [(path, content["channel"]) for path, content, _ in asked_one]
            assert channels == [("named", "aa:x"), ("named", "aa:x"), ("named", "cc:x")]
            channels = [(path, content["channel"]) for path, content, _ in asked_two]
            assert channels == [("named", "bb:x"), ("named", "bb:x"), ("publish", "cc:x")]
            counted = {each: hook.calls for each, hook in hooks_of(gateway).items()}
            assert counted == {
                ("publish", "default"): 1,
                ("subscribe", "one"): 2,
                ("publish", "one"): 1,
                ("subscribe", "two"): 1,
                ("publish", "two"): 1,
            }


async def test_a_backend_sees_the_headers_that_its_own_proxy_lists() -> None:
    async with backend(yes) as (one, asked_one), backend(yes) as (two, asked_two):
        static = {"X-Key": "secret", "x-language": "en"}
        settings = config(
            proxies=[
                {
                    "name": "one",
                    "endpoint": f"{one}/x",
                    "http_headers": ["cookie", "X-Language"],
                    "http": {"static_headers": static},
                },
                {"name": "two", "endpoint": f"{two}/x", "http_headers": ["Cookie"]},
            ],
            channel__namespaces=[namespace("aa", "one"), namespace("bb", "two")],
        )
        theirs = {"Cookie": "session=1", "X-Language": "sk", "X-Key": "guess", "X-Other": "1"}
        async with Gateway(settings) as gateway, await enter(gateway, **theirs) as client:
            assert await subscribe(client, "aa:x") is None
            assert await subscribe(client, "bb:x") is None
    [(_, _, first)], [(_, _, second)] = asked_one, asked_two
    assert first.getall("Cookie") == second.getall("Cookie") == ["session=1"]
    assert first.getall("X-Language") == ["sk"], "the client's goes before the static one"
    assert first.getall("X-Key") == ["secret"]
    assert first.getall("Content-Type") == ["application/json"]
    assert not {"X-Key", "X-Language", "X-Other"} & set(second)


class Offices(App):
    """Applications by the names of proxies."""

    def __init__(self) -> None:
        self.named = {name: Rules() for name in ("in", "out")}

    def behind(self, proxy: str) -> App:
        return self.named[proxy]


async def test_the_proxy_of_a_renewal_is_chosen_on_its_own() -> None:
    offices = Offices()
    options = namespace("aa", "in", "subscribe") | namespace("aa", "out", "sub_refresh")
    proxies = [{"name": name, "endpoint": DEAD} for name in offices.named]
    settings = config(proxies=proxies, channel__namespaces=[options])
    async with World(settings, app=offices) as world:
        client = world.client(token=token("bob"))
        reply = SubscribeReply(expire_at=int(world.now) + 60)
        offices.named["in"].subscribe_reply = reply
        assert (await ask(client, {"subscribe": {"channel": "aa:x"}}))["subscribe"] == {}
        offices.named["out"].refresh_reply = RefreshReply(expire_at=int(world.now) + 300)
        world.turn(61)
        await settle()
        assert [len(office.asked) for office in offices.named.values()] == [1, 1]
        assert client.take() == []


async def test_an_application_in_the_process_takes_the_place_of_all_proxies() -> None:
    rules = Rules()
    settings = config(
        proxies=[{"name": "one", "endpoint": DEAD}], channel__namespaces=[namespace("aa", "one")]
    )
    async with World(settings, app=rules) as world:
        client = world.client(token=token("bob"))
        assert "subscribe" in await ask(client, {"subscribe": {"channel": "aa:x"}})
        assert len(rules.asked) == 1


async def test_an_event_that_has_no_webhook_is_not_available() -> None:
    settings = config(
        rpc__proxy__enabled=True,
        rpc__proxy__endpoint=DEAD,
        channel__without_namespace__subscribe_proxy_enabled=True,
    )
    async with Gateway(settings) as gateway, await enter(gateway) as client:
        assert (await subscribe(client, "x"))["code"] == 108


# -- methods


class Echo(App):
    def __init__(self, name: str = "default") -> None:
        self.name = name

    def behind(self, proxy: str) -> App:
        return Echo(proxy)

    async def rpc(self, event: RpcEvent, headers: Headers) -> RpcReply:
        return RpcReply(data=Raw(f'"{self.name}"'.encode()))


@pytest.mark.parametrize(
    ("rpc", "answers"),
    [
        ({}, {"m": "default", "a:m": "default", "b:m": "default", "": "default"}),
        (
            {"namespaces": [{"name": "aa", "proxy_enabled": True, "proxy_name": "one"}]},
            {"m": "default", "aa:m": "one", "aa:m:n": "one", "aa": "default", "b:m": 104, ":": 104},
        ),
        (
            {
                "namespaces": [{"name": "aa"}, {"name": "bb", "proxy_enabled": True}],
                "without_namespace.proxy_name": "one",
            },
            {"m": "one", "aa:m": 104, "bb:m": "default"},
        ),
        (
            {
                "namespaces": [{"name": "aa", "proxy_enabled": True}],
                "without_namespace.proxy_enabled": False,
                "namespace_boundary": "/",
            },
            {"m": 104, "aa/m": "default", "aa:m": 104},
        ),
    ],
)
async def test_namespaces_of_methods_have_proxies(
    rpc: dict[str, Any], answers: dict[str, Any]
) -> None:
    keys = {f"rpc.{name}": value for name, value in rpc.items()}
    settings = config(proxies=[{"name": "one", "endpoint": DEAD}], **keys)
    async with World(settings, app=Echo()) as world:
        client = world.client(token=token("bob"))
        for method, wanted in answers.items():
            reply = await ask(client, {"rpc": {"method": method}})
            given = reply["error"]["code"] if "error" in reply else reply["rpc"]["data"]
            assert given == wanted, method


async def test_methods_go_to_the_backend_of_their_namespace() -> None:
    def answer(event: str, content: dict[str, Any]) -> Any:
        return {"result": {"data": [event, content["method"]]}}

    async with backend(answer) as (address, _):
        settings = config(
            proxies=[{"name": "one", "endpoint": f"{address}/one"}],
            rpc__namespaces=[
                {"name": "aa", "proxy_enabled": True, "proxy_name": "one"},
                {"name": "bb", "proxy_enabled": True},
            ],
        )
        async with Gateway(settings) as gateway, await enter(gateway) as client:
            reply = await client.ask({"rpc": {"method": "aa:m", "data": 1}})
            assert reply["rpc"]["data"] == ["one", "aa:m"]
            for method in "bb:m", "m":  # there is no rpc.proxy
                assert (await client.ask({"rpc": {"method": method}}))["error"]["code"] == 104


# -- trouble


async def test_a_dead_backend_is_left_alone_and_the_other_goes_on() -> None:
    async with backend(yes) as (address, asked):
        settings = config(
            proxies=[
                {"name": "dead", "endpoint": DEAD},
                {"name": "well", "endpoint": f"{address}/x"},
            ],
            channel__namespaces=[namespace("aa", "dead"), namespace("bb", "well")],
        )
        async with Gateway(settings) as gateway, await enter(gateway) as client:
            for number in range(FAILURES + 3):
                error = await subscribe(client, f"aa:{number}")
                assert (error["code"], error["temporary"]) == (100, True)
                assert await subscribe(client, f"bb:{number}") is None
            await client.ask({"publish": {"channel": "aa:x", "data": 1}})
            hooks = hooks_of(gateway)
            dead, well = hooks["subscribe", "dead"], hooks["subscribe", "well"]
            assert (dead.calls, dead.failures) == (FAILURES, FAILURES)
            assert (well.calls, well.failures) == (len(asked), 0) == (FAILURES + 3, 0)
            assert hooks["publish", "dead"].calls == 0, "it is the same backend"


async def test_a_backend_that_hangs_takes_no_room_from_the_other() -> None:
    def hang(event: str, content: dict[str, Any]) -> Any:
        return 30.0

    async with backend(hang) as (slow, asked_slow), backend(yes) as (address, _):
        settings = config(
            proxies=[
                {
                    "name": "slow",
                    "endpoint": f"{slow}/x",
                    "timeout": "400ms",
                    "in_flight_limit": 1,
                },
                {"name": "well", "endpoint": f"{address}/x"},
            ],
            channel__namespaces=[namespace("aa", "slow"), namespace("bb", "well")],
        )
        async with (
            Gateway(settings) as gateway,
            await enter(gateway) as first,
            await enter(gateway) as second,
            await enter(gateway) as third,
        ):
            waiting = [asyncio.create_task(subscribe(each, "aa:x")) for each in (first, second)]
            while not asked_slow:
                await asyncio.sleep(0.01)
            assert await subscribe(third, "bb:x") is None
            assert not any(task.done() for task in waiting)
            assert [(await task)["code"] for task in waiting] == [100, 100]
            assert len(asked_slow) == 1, "the other had no room, and its time was over as well"


def test_metrics_have_labels_of_the_configuration_only() -> None:
    chosen = ("aa", "one"), ("bb", "one"), ("cc", "two")
    settings = config(
        proxies=[{"name": name, "endpoint": DEAD} for name in ("one", "two", "three")],
        channel__namespaces=[namespace(name, proxy) for name, proxy in chosen],
        client__proxy__connect__enabled=True,
        client__proxy__connect__endpoint=DEAD,
    )
    node = World(settings, app=Webhooks(settings)).node
    families = {each.name: each for each in NodeCollector(node).collect()}
    for name in "fastws_webhooks", "fastws_webhooks_failed", "fastws_webhooks_in_flight":
        labels = {tuple(sample.labels.values()) for sample in families[name].samples}
        assert labels == {
            ("connect", "default"),
            *((event, proxy) for event in ("subscribe", "publish") for proxy in ("one", "two")),
        }


# -- a configuration that changes


async def test_a_reload_adds_changes_and_removes_proxies_and_drops_nobody() -> None:
    async with backend(yes) as (one, asked_one), backend(yes) as (two, asked_two):

        def settings(**endpoints: str) -> Config:
            return config(
                proxies=[{"name": name, "endpoint": to} for name, to in endpoints.items()],
                channel__namespaces=[namespace(name, name) for name in endpoints],
            )

        async with Gateway(config()) as gateway, await enter(gateway) as client:
            assert (await subscribe(client, "first:a"))["code"] == 102
            gateway.reload(settings(first=f"{one}/x", second=f"{one}/y"))
            assert await subscribe(client, "first:a") is None
            assert await subscribe(client, "second:a") is None
            gateway.reload(settings(first=f"{one}/x", second=f"{two}/y"))
            assert await subscribe(client, "second:b") is None
            gateway.reload(settings(second=f"{two}/y"))
            assert await subscribe(client, "second:c") is None
            assert (await subscribe(client, "first:b"))["code"] == 102
            assert [path for path, _, _ in asked_one] == ["x", "y"]
            assert [path for path, _, _ in asked_two] == ["y", "y"]
            [hook] = [each for each in hooks_of(gateway).values() if each.event == "subscribe"]
            assert hook.calls == 3, "a counter goes on"
            gateway.reload(config())
            assert "unsubscribe" in await client.ask({"unsubscribe": {"channel": "first:a"}})


async def test_a_question_under_way_outlives_its_proxy() -> None:
    def slowly(event: str, content: dict[str, Any]) -> Any:
        return 0.2

    async with backend(slowly) as (address, asked):
        settings = config(
            proxies=[{"name": "one", "endpoint": f"{address}/x"}],
            channel__namespaces=[namespace("aa", "one")],
        )
        async with Gateway(settings) as gateway, await enter(gateway) as client:
            waiting = asyncio.create_task(subscribe(client, "aa:x"))
            while not asked:
                await asyncio.sleep(0.01)
            gateway.reload(config())
            assert await waiting is None


async def test_a_reload_changes_the_webhooks_of_events_too() -> None:
    async with backend(yes) as (address, asked):
        before = config(rpc__proxy__enabled=True, rpc__proxy__endpoint=DEAD)
        after = config(rpc__proxy__enabled=True, rpc__proxy__endpoint=f"{address}/rpc")
        async with Gateway(before) as gateway, await enter(gateway) as client:
            assert (await client.ask({"rpc": {"method": "m"}}))["error"]["code"] == 100
            gateway.reload(after)
            assert "rpc" in await client.ask({"rpc": {"method": "m"}})
            assert len(asked) == 1


async def test_a_reload_keeps_what_is_known_of_a_dead_backend_that_stays() -> None:
    def settings(endpoint: str = DEAD, **more: Any) -> Config:
        return config(
            proxies=[{"name": "one", "endpoint": endpoint}],
            channel__namespaces=[namespace("aa", "one")],
            **more,
        )

    async with (
        backend(yes) as (address, _),
        Gateway(settings()) as gateway,
        await enter(gateway) as client,
    ):
        for _ in range(FAILURES):
            assert (await subscribe(client, "aa:x"))["code"] == 100
        gateway.reload(settings(client__channel_limit=5))
        assert (await subscribe(client, "aa:x"))["code"] == 100
        assert hooks_of(gateway)["subscribe", "one"].calls == FAILURES, "it is left alone"
        gateway.reload(settings(f"{address}/x"))
        assert await subscribe(client, "aa:x") is None, "another address is another backend"


async def test_a_reload_with_a_fault_changes_no_proxy() -> None:
    async with backend(yes) as (address, asked):
        settings = config(
            proxies=[{"name": "one", "endpoint": f"{address}/x"}],
            channel__namespaces=[namespace("aa", "one")],
        )
        async with Gateway(settings) as gateway, await enter(gateway) as client:
            fault = {"client.token.rsa_public_key": "x"}
            with pytest.raises(ConfigError):
                gateway.reload(config(**fault))
            assert await subscribe(client, "aa:x") is None
            assert len(asked) == 1


# -- a configuration that is wrong


ONE = [{"name": "moderation", "endpoint": DEAD}]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"channel.namespaces": [{"name": "aa", "subscribe_proxy_name": "moderaton"}]},
            r"channel\.namespaces\.aa\.subscribe_proxy_name = 'moderaton': there is no such proxy, "
            "did you mean 'moderation'\\?",
        ),
        (
            {"channel.without_namespace.publish_proxy_name": "defualt"},
            "without_namespace.publish_proxy_name = 'defualt': .*did you mean 'default'",
        ),
        (
            {"channel.namespaces": [{"name": "aa", "sub_refresh_proxy_name": ""}]},
            "aa.sub_refresh_proxy_name = '': there is no such proxy$",
        ),
        (
            {"rpc.namespaces": [{"name": "aa", "proxy_name": "moderations"}]},
            r"rpc\.namespaces\.aa\.proxy_name = .*did you mean 'moderation'",
        ),
        ({"rpc.without_namespace.proxy_name": "x"}, r"rpc\.without_namespace\.proxy_name = 'x'"),
        ({"rpc.namespaces": [{}]}, r"rpc\.namespaces\[0\]: it needs a name"),
        (
            {"rpc.namespaces": [{"name": "aa"}, {"name": "aa"}]},
            r"rpc\.namespaces\[1\]\.name = 'aa' is there twice",
        ),
        ({"proxies": [*ONE, *ONE]}, r"proxies\[1\]\.name = 'moderation' is there twice"),
        ({"proxies": [{"endpoint": DEAD}]}, r"proxies\[0\]: it needs a name"),
        ({"proxies": [{"name": "default", "endpoint": DEAD}]}, r"'default': this name stands for"),
        ({"proxies": [{"name": "a b", "endpoint": DEAD}]}, r"proxies\[0\]\.name = 'a b'"),
        ({"proxies": [{"name": "aa"}]}, r"proxies\.aa\.endpoint = '': not an http\(s\) address"),
        (
            {"proxies": [{"name": "aa", "endpont": DEAD}]},
            r"proxies\[0\]: unknown key 'endpont', did you mean 'endpoint'\?",
        ),
        (
            {"proxies": [{"name": "aa", "http": {"static_header": {}}}]},
            r"proxies\[0\]\.http: unknown key 'static_header', did you mean 'static_headers'",
        ),
        ({"proxies": [{"name": "aa", "enabled": True}]}, "unknown key 'enabled'"),
        ({"proxies": [{"name": "aa", "timeout": "soon"}]}, r"proxies\[0\]\.timeout = 'soon'"),
    ],
)
def test_a_wrong_proxy_is_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(flags={"proxies": ONE, **keys})


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X Key": "v"}, "'X Key' is no name of a header"),
        ({"X-Key": "v\r\nX-Other: v"}, "X-Key has a character"),
        ({"X-Key": "\ud800"}, "X-Key has a character"),
        ({"Content-length": "5"}, "Content-length is for the gateway to set"),
        ({"X-Key": 5}, "Expected `str`, got `int`"),
        ("hush", "not valid JSON"),
        ('["hush"]', "Expected `object`, got `array`"),
    ],
)
def test_a_wrong_header_is_named_and_its_value_kept(headers: Any, message: str) -> None:
    for keys in (
        {"client.proxy.connect.http.static_headers": headers},
        {"proxies": [{"name": "aa", "endpoint": DEAD, "http": {"static_headers": headers}}]},
    ):
        with pytest.raises(ConfigError, match=message) as error:
            load(flags=keys)
        assert "static_headers" in str(error.value) and "hush" not in str(error.value)


def test_proxies_and_headers_come_from_the_environment_as_json() -> None:
    environ = {
        "FASTWS_PROXIES": '[{"name": "aa", "endpoint": "http://b/", "http_headers": ["Cookie"]}]',
        "FASTWS_RPC_PROXY_HTTP_STATIC_HEADERS": '{"X-Key": "secret"}',
    }
    settings = load(environ=environ)
    assert settings.proxies[0].http_headers == ["Cookie"]
    assert settings.rpc.proxy.http.static_headers == {"X-Key": "secret"}


def test_checkconfig_suggests_a_name(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[[proxies]]\nname = "chat"\nendpoint = "http://b/"\n'
        '[[channel.namespaces]]\nname = "chat"\nsubscribe_proxy_name = "chatt"\n'
    )
    status, _, said = run("checkconfig", "-c", str(file))
    assert (status, "did you mean 'chat'?" in said, said.count("\n")) == (2, True, 1)


def test_the_example_in_the_docs_is_good(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(\[\[proxies\]\]\n.*?)```", DOCS.read_text(), re.DOTALL)
    file = tmp_path / "gateway.toml"
    file.write_text(example)
    [proxy] = load(file).proxies
    assert (proxy.name, proxy.timeout, list(proxy.http.static_headers)) == ("chat", 0.5, ["X-Key"])

"""Commands of a client while its engine takes time: in order, one by one, and others go on."""

from __future__ import annotations

import asyncio

from gateway.config import load
from gateway.engines import MemoryEngine
from gateway.stepping import start
from tests.gateway.fakes import SlowEngine, World


async def test_work_that_never_waits_needs_no_task() -> None:
    done = []

    async def work() -> None:
        done.append(asyncio.current_task() is None)

    async def outer() -> None:
        await work()

    before = asyncio.all_tasks()
    assert start(outer()) is None
    assert done == [False]  # here it is the task of this test
    assert asyncio.all_tasks() == before


async def test_work_that_waits_goes_on_in_a_task() -> None:
    future = asyncio.get_running_loop().create_future()
    steps: list[object] = []

    async def work() -> None:
        steps.append(await future)
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            steps.append("end")

    task = start(work(), lambda: steps.append("wait"))
    assert task is not None
    assert steps == ["wait"]
    future.set_result("result")
    await task
    assert steps == ["wait", "result", "wait", "end"]


async def test_cancelling_the_task_cancels_the_work() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    task = start(work())
    assert task is not None
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended == ["cancelled"]


async def test_commands_wait_for_the_one_before() -> None:
    engine = SlowEngine()
    async with World(engine=engine) as world:
        client = world.client()
        client.send({"id": 2, "presence": {"channel": "a"}})
        client.send({"id": 3, "ping": {}})
        client.send({"id": 4, "presence_stats": {"channel": "a"}}, {"id": 5, "ping": {}})
        for _ in range(2):  # presence asks how many there are first
            assert client.take() == []
            await engine.let_go()
        assert [reply["id"] for reply in client.take()] == [2, 3]
        await engine.let_go()
        assert [reply["id"] for reply in client.take()] == [4, 5]
        assert client.session.task is None
        assert client.session.inbox is None


async def test_other_clients_do_not_wait() -> None:
    engine = SlowEngine()
    async with World(engine=engine) as world:
        client, other = world.client(), world.client()
        client.send({"id": 2, "presence": {"channel": "a"}})
        assert other.ask({"ping": {}}) == {"ping": {}}
        await engine.let_go()


async def test_replies_are_sent_before_a_wait() -> None:
    engine = SlowEngine()
    async with World(engine=engine) as world:
        client = world.client()
        client.send({"id": 2, "ping": {}}, {"id": 3, "presence": {"channel": "a"}})
        assert client.take() == [{"id": 2, "ping": {}}]
        for _ in range(2):
            await engine.let_go()
        assert client.take()[0]["id"] == 3


async def test_a_client_that_leaves_while_it_subscribes_leaves_nothing_behind() -> None:
    engine = SlowEngine()
    async with World(engine=engine) as world:
        client = world.client()
        client.send({"id": 2, "subscribe": {"channel": "a"}})
        client.leave()
        for _ in range(5):
            await engine.let_go()
        assert world.node.hub.channels == {}
        assert world.node.hub.subscriptions == 0
        assert (await MemoryEngine.presence_stats(engine, "a")).num_clients == 0
        assert engine.calls[-2:] == ["unsubscribe", "presence_remove"]


async def test_an_engine_out_of_reach_is_a_temporary_error() -> None:
    engine = SlowEngine()
    engine.error = ConnectionRefusedError("no one there")
    async with World(engine=engine) as world:
        client = world.client()
        client.send({"id": 2, "publish": {"channel": "a", "data": 1}})
        await engine.let_go()
        assert client.take()[0]["error"]["code"] == 100
        client.send({"id": 3, "subscribe": {"channel": "a"}})
        for _ in range(3):
            await engine.let_go()
        assert client.take()[0]["error"]["temporary"] is True
        assert world.node.hub.channels == {}
        assert client.closed is None


async def test_a_client_that_sends_on_and_on_meanwhile_is_closed() -> None:
    engine = SlowEngine()
    async with World(load(flags={"dev": True, "client.queue_max_size": 1000}), engine) as world:
        client = world.client()
        client.send({"id": 2, "presence": {"channel": "a"}})
        for _ in range(100):
            client.send({"id": 3, "ping": {}})
        assert client.closed == (3013, "too many requests")
        assert client.session.inbox is None
        await engine.let_go()
        assert client.take() == []

"""The Centrifuge protocol: what a client says, and what it is answered."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gateway.config import Channel as ChannelRules
from gateway.config import ChannelOptions, Config, load
from gateway.config import Client as ClientRules
from tests.gateway.fakes import World

# RFC 9562 5.4
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

BAD = {"error": {"code": 107, "message": "bad request"}}


async def test_connect_is_answered_with_a_client_id_and_the_heartbeat_rules() -> None:
    async with World() as world:
        reply = world.open().ask({"connect": {}})["connect"]
        assert UUID.fullmatch(reply.pop("client"))
        assert reply.pop("version")
        assert reply == {"ping": 25, "pong": True}


async def test_without_pings_the_client_is_not_told_to_expect_any() -> None:
    config = load(flags={"dev": True, "client.ping_interval": "0s"})
    async with World(config) as world:
        reply = world.open().ask({"connect": {}})["connect"]
        assert set(reply) == {"client", "version"}


async def test_client_ids_are_unique() -> None:
    async with World() as world:
        assert len({world.open().connect() for _ in range(100)}) == 100


async def test_publications_reach_all_subscribers_with_the_publisher_in_them() -> None:
    async with World() as world:
        ann, bob = world.open(), world.open()
        ann_id = ann.connect(data={"name": "ann"})
        bob.connect()
        assert ann.ask({"subscribe": {"channel": "news"}}) == {"subscribe": {}}
        assert bob.ask({"subscribe": {"channel": "news"}}) == {"subscribe": {}}
        ann.send({"id": 3, "publish": {"channel": "news", "data": {"text": "hi"}}})
        info = {"client": ann_id, "user": "", "conn_info": {"name": "ann"}}
        push = {"push": {"channel": "news", "pub": {"data": {"text": "hi"}, "info": info}}}
        assert ann.take() == [push, {"id": 3, "publish": {}}]
        assert bob.take() == [push]


async def test_a_publication_is_encoded_once_for_all() -> None:
    async with World() as world:
        clients = [world.client() for _ in range(10)]
        for client in clients:
            client.ask({"subscribe": {"channel": "news"}})
        world.client().ask({"publish": {"channel": "news", "data": 1}})
        assert len(world.endpoint.payloads) == 1
        assert len({id(client.take_frames()[0]) for client in clients}) == 1


async def test_publishing_needs_no_subscription_and_other_channels_hear_nothing() -> None:
    async with World() as world:
        listener, publisher = world.client(), world.client()
        listener.ask({"subscribe": {"channel": "a"}})
        assert publisher.ask({"publish": {"channel": "b", "data": 1}}) == {"publish": {}}
        assert listener.take() == []


async def test_after_unsubscribe_nothing_comes() -> None:
    async with World() as world:
        client = world.client()
        client.ask({"subscribe": {"channel": "a"}})
        assert client.ask({"unsubscribe": {"channel": "a"}}) == {"unsubscribe": {}}
        assert client.ask({"publish": {"channel": "a", "data": 1}}) == {"publish": {}}
        assert world.node.hub.channels == {}


async def test_unsubscribe_without_subscription_is_no_error() -> None:
    async with World() as world:
        assert world.client().ask({"unsubscribe": {"channel": "a"}}) == {"unsubscribe": {}}


async def test_subscribing_twice_is_refused() -> None:
    async with World() as world:
        client = world.client()
        client.ask({"subscribe": {"channel": "a"}})
        error = {"code": 105, "message": "already subscribed"}
        assert client.ask({"subscribe": {"channel": "a"}}) == {"error": error}


async def test_a_frame_of_commands_is_answered_in_one_frame() -> None:
    async with World() as world:
        client = world.client()
        client.send(
            {"id": 2, "subscribe": {"channel": "a"}},
            {"id": 3, "subscribe": {"channel": "b"}},
            {"id": 4, "ping": {}},
        )
        [frame] = client.take_frames()
        replies = [json.loads(line) for line in frame.split(b"\n")]
        assert replies == [
            {"id": 2, "subscribe": {}},
            {"id": 3, "subscribe": {}},
            {"id": 4, "ping": {}},
        ]


async def test_connect_may_share_a_frame_with_what_follows() -> None:
    async with World() as world:
        client = world.open()
        client.send({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "a"}})
        assert [reply["id"] for reply in client.take()] == [1, 2]


async def test_the_reply_to_subscribe_comes_before_the_first_publication() -> None:
    async with World() as world:
        client = world.client()
        client.send(
            {"id": 2, "subscribe": {"channel": "a"}},
            {"id": 3, "publish": {"channel": "a", "data": 1}},
        )
        told = client.take()
        assert [reply.get("id") for reply in told] == [2, None, 3]
        assert told[1]["push"]["pub"]["data"] == 1


@pytest.mark.parametrize("end", ["\n", "\n\n"])
async def test_empty_lines_are_passed_over(end: str) -> None:
    async with World() as world:
        client = world.client()
        client.receive('{"id":2,"ping":{}}' + end + '{"id":3,"ping":{}}' + end)
        assert [reply["id"] for reply in client.take()] == [2, 3]


async def test_binary_frames_are_read_and_answered_in_text() -> None:
    async with World() as world:
        client = world.client()
        client.receive(b'{"id":2,"ping":{}}')
        assert client.take() == [{"id": 2, "ping": {}}]


async def test_pongs_are_not_answered() -> None:
    async with World() as world:
        client = world.client()
        client.receive("{}")
        client.receive("{}\n{}")
        client.receive(b"{}")
        assert client.take() == []
        assert client.closed is None


async def test_who_sends_a_message_that_nobody_listens_to_is_told_by_3508() -> None:
    async with World() as world:
        client = world.client()
        client.send({"send": {"data": {"a": 1}}})
        assert client.closed == (3508, "not available")


async def test_unknown_fields_are_ignored() -> None:
    async with World() as world:
        client = world.open()
        client.send({"id": 1, "connect": {"headers": {"a": "b"}, "subs": {}}, "later": [1]})
        assert client.take()[0]["id"] == 1


# -- presence


async def test_presence_tells_who_is_there() -> None:
    async with World() as world:
        ann, bob = world.open(), world.open()
        ann_id, bob_id = ann.connect(data={"name": "ann"}), bob.connect()
        for client in ann, bob:
            client.ask({"subscribe": {"channel": "room"}})
        assert bob.ask({"presence": {"channel": "room"}}) == {
            "presence": {
                "presence": {
                    ann_id: {"client": ann_id, "user": "", "conn_info": {"name": "ann"}},
                    bob_id: {"client": bob_id, "user": ""},
                }
            }
        }
        stats = {"presence_stats": {"num_clients": 2, "num_users": 1}}
        assert bob.ask({"presence_stats": {"channel": "room"}}) == stats
        ann.leave()
        stats["presence_stats"]["num_clients"] = 1
        assert bob.ask({"presence_stats": {"channel": "room"}}) == stats


async def test_presence_of_an_empty_channel_is_empty() -> None:
    async with World() as world:
        client = world.client()
        assert client.ask({"presence": {"channel": "x"}}) == {"presence": {"presence": {}}}
        none = {"presence_stats": {"num_clients": 0, "num_users": 0}}
        assert client.ask({"presence_stats": {"channel": "x"}}) == none


async def test_join_and_leave_reach_only_those_who_asked() -> None:
    async with World() as world:
        watcher, other, guest = world.open(), world.client(), world.open()
        watcher_id, guest_id = watcher.connect(), guest.connect()
        watcher.send({"id": 2, "subscribe": {"channel": "room", "join_leave": True}})
        info = {"client": watcher_id, "user": ""}
        joined = {"push": {"channel": "room", "join": {"info": info}}}
        assert watcher.take() == [{"id": 2, "subscribe": {}}, joined]

        other.ask({"subscribe": {"channel": "room"}})
        watcher.take()
        guest.ask({"subscribe": {"channel": "room"}})
        info = {"client": guest_id, "user": ""}
        assert watcher.take() == [{"push": {"channel": "room", "join": {"info": info}}}]
        guest.leave()
        assert watcher.take() == [{"push": {"channel": "room", "leave": {"info": info}}}]
        assert other.take() == []


async def test_unsubscribing_is_a_leave_that_one_does_not_hear_oneself() -> None:
    async with World() as world:
        watcher, guest = world.client(), world.client()
        for client in watcher, guest:
            client.send({"id": 2, "subscribe": {"channel": "room", "join_leave": True}})
            client.take()
        watcher.take()
        guest.ask({"unsubscribe": {"channel": "room"}})
        assert "leave" in watcher.take()[0]["push"]


async def test_what_a_channel_does_not_offer_is_not_available() -> None:
    options = ChannelOptions(
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        allow_presence_for_client=True,
        allow_presence_for_anonymous=True,
        allow_history_for_client=True,
        allow_history_for_anonymous=True,
    )
    config = Config(
        client=ClientRules(allow_anonymous_connect_without_token=True),
        channel=ChannelRules(without_namespace=options),
    )
    async with World(config) as world:
        client = world.client()
        assert client.ask({"subscribe": {"channel": "a", "join_leave": True}}) == {"subscribe": {}}
        error = {"error": {"code": 108, "message": "not available"}}
        assert client.ask({"presence": {"channel": "a"}}) == error
        assert client.ask({"presence_stats": {"channel": "a"}}) == error
        assert client.ask({"history": {"channel": "a"}}) == error


# -- history


async def test_history_is_read_by_limit_direction_and_position() -> None:
    options = ChannelOptions(history_size=3, history_ttl=60.0)
    async with World(Config(dev=True, channel=ChannelRules(without_namespace=options))) as world:
        client = world.client()
        for number in range(1, 6):
            client.ask({"publish": {"channel": "a", "data": number}})

        def read(**request: Any) -> list[tuple[int, int]]:
            reply = client.ask({"history": {"channel": "a", **request}})["history"]
            assert reply["offset"] == 5
            return [(found["offset"], found["data"]) for found in reply["publications"]]

        epoch = client.ask({"history": {"channel": "a"}})["history"]["epoch"]
        assert read() == []
        assert read(limit=-1) == [(3, 3), (4, 4), (5, 5)]
        assert read(limit=2) == [(3, 3), (4, 4)]
        assert read(limit=2, reverse=True) == [(5, 5), (4, 4)]
        assert read(limit=-1, since={"offset": 4, "epoch": epoch}) == [(5, 5)]
        assert read(limit=-1, since={"offset": 5}, reverse=True) == [(4, 4), (3, 3)]
        assert read(limit=-1, since={"offset": 1}, reverse=True) == []
        before = {"channel": "a", "since": {"offset": 0, "epoch": epoch}, "reverse": True}
        assert client.ask({"history": before}) == BAD
        wrong = {"channel": "a", "since": {"offset": 4, "epoch": "other"}}
        error = {"code": 112, "message": "unrecoverable position"}
        assert client.ask({"history": wrong}) == {"error": error}


async def test_publications_carry_their_offset_where_history_is_kept() -> None:
    options = ChannelOptions(history_size=3, history_ttl=60.0)
    async with World(Config(dev=True, channel=ChannelRules(without_namespace=options))) as world:
        client = world.client()
        client.ask({"subscribe": {"channel": "a"}})
        client.send({"id": 2, "publish": {"channel": "a", "data": 1}})
        assert client.take()[0]["push"]["pub"]["offset"] == 1


# -- what is not there yet


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"rpc": {"method": "x", "data": {}}}, 104),
        ({"sub_refresh": {"channel": "a", "token": "x"}}, 103),
        ({"unheard_of": {}}, 104),
    ],
)
async def test_commands_without_anyone_behind_them(command: dict[str, Any], code: int) -> None:
    async with World() as world:
        assert world.client().ask(command)["error"]["code"] == code


async def test_publishing_nothing_is_107() -> None:
    async with World() as world:
        client = world.client()
        client.ask({"subscribe": {"channel": "a"}})
        assert client.ask({"publish": {"channel": "a"}}) == BAD


# -- limits


async def test_names_are_limited_in_bytes() -> None:
    async with World() as world:
        client = world.client()
        assert client.ask({"subscribe": {"channel": "x" * 255}}) == {"subscribe": {}}
        assert client.ask({"subscribe": {"channel": "x" * 256}}) == BAD
        assert client.ask({"subscribe": {"channel": "ü" * 127}}) == {"subscribe": {}}
        assert client.ask({"subscribe": {"channel": "ü" * 128}}) == BAD
        assert client.ask({"publish": {"channel": "ü" * 128, "data": 1}}) == BAD
        assert client.ask({"presence": {"channel": "ü" * 128}}) == BAD


async def test_a_client_has_128_channels_at_most() -> None:
    async with World() as world:
        client = world.client()
        for number in range(128):
            assert client.ask({"subscribe": {"channel": f"c{number}"}}) == {"subscribe": {}}
        error = {"error": {"code": 106, "message": "limit exceeded"}}
        assert client.ask({"subscribe": {"channel": "one more"}}) == error
        assert "one more" not in world.node.hub.channels
        client.ask({"unsubscribe": {"channel": "c0"}})
        assert client.ask({"subscribe": {"channel": "one more"}}) == {"subscribe": {}}


# -- a client's faults


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "\n",
        "garbage",
        "[]",
        "null",
        '"text"',
        "{",
        '{"id":2,"ping":{}}}',
        '{"id":2,"ping":{}}\n{"id":',
        '{"id":-1,"ping":{}}',
        '{"id":4294967296,"ping":{}}',
        '{"id":"2","ping":{}}',
        '{"id":2,"subscribe":{"channel":5}}',
        '{"id":2,"subscribe":[]}',
        '{"id":2,"subscribe":{}}',
        '{"id":2,"unsubscribe":{"channel":""}}',
        '{"id":2,"publish":{"data":1}}',
        '{"id":2,"publish":{"channel":"a","data":NaN}}',
        '{"id":2,"publish":{"channel":"a","data":"\\q"}}',
        '{"id":2,"publish":{"channel":"a","data":\n1}}',
        '{"id":2,"presence":{}}',
        '{"id":2,"presence_stats":{}}',
        '{"id":2,"history":{}}',
        '{"id":2,"connect":{}}',  # a second time
        '{"subscribe":{"channel":"a"}}',  # no id
        '{"id":2,"publish":{"channel":"a","data":' + "[" * 5000 + "]" * 5000 + "}}",
        b'{"id":2,"publish":{"channel":"a","data":"\xff"}}',
        b"\x00\x01\x02",
    ],
)
async def test_bad_input_closes_with_3501(frame: str | bytes) -> None:
    async with World() as world:
        client, witness = world.client(), world.client()
        witness.ask({"subscribe": {"channel": "a"}})
        client.receive(frame)
        assert client.closed == (3501, "bad request")
        assert witness.take() == []
        assert world.node.counters.disconnects == {"3501": 1}


@pytest.mark.parametrize(
    "frame", ["{}", '{"id":1,"ping":{}}', '{"id":1,"subscribe":{"channel":"a"}}', '{"send":{}}']
)
async def test_a_client_has_to_connect_first(frame: str) -> None:
    async with World() as world:
        client = world.open()
        client.receive(frame)
        assert client.closed == (3501, "bad request")


async def test_replies_due_before_a_fault_are_still_sent() -> None:
    async with World() as world:
        client = world.client()
        client.send({"id": 2, "ping": {}}, {"id": 3, "subscribe": {}}, {"id": 4, "ping": {}})
        assert client.take() == [{"id": 2, "ping": {}}]
        assert client.closed == (3501, "bad request")


async def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    """JSON.stringify("😀".slice(0, 1)) is valid JSON, and browsers send it."""
    async with World() as world:
        client = world.client()
        client.ask({"subscribe": {"channel": "a"}})
        text = r'"\ud83d \ud83d\ude00 \\ud83d \udc00"'
        client.receive('{"id":2,"publish":{"channel":"a","data":' + text + "}}")
        assert client.take()[0]["push"]["pub"]["data"] == "\ufffd \U0001f600 \\ud83d \ufffd"


async def test_a_payload_can_not_break_the_framing_of_others() -> None:
    """Frames are lines: a line end inside a payload would end a subscriber's JSON early."""
    async with World() as world:
        client, witness = world.client(), world.client()
        witness.ask({"subscribe": {"channel": "a"}})
        client.receive('{"id":2,"publish":{"channel":"a","data":{"x": \r\t"\\n\u2028"}}}')
        [frame] = witness.take_frames()
        assert b"\n" not in frame
        assert json.loads(frame)["push"]["pub"]["data"] == {"x": "\n\u2028"}


async def test_nothing_is_sent_or_done_after_a_close() -> None:
    async with World() as world:
        client, witness = world.client(), world.client()
        for each in client, witness:
            each.ask({"subscribe": {"channel": "a"}})
        client.receive("garbage")
        client.send({"id": 2, "publish": {"channel": "a", "data": 1}})
        assert witness.take() == []
        witness.ask({"unsubscribe": {"channel": "a"}})
        assert world.node.hub.channels == {}
        client.leave()
        assert world.node.counters.connections == 1
        assert world.node.counters.disconnects == {"3501": 1}


async def test_a_fault_of_ours_is_answered_with_100_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World() as world:
        client = world.client()

        async def fail(*args: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(world.node.engine, "presence", fail)
        error = {"code": 100, "message": "internal server error", "temporary": True}
        assert client.ask({"presence": {"channel": "a"}}) == {"error": error}
        assert client.ask({"ping": {}}) == {"ping": {}}

"""Times and weighs the gateway's channels: `python -m bench.scale` prints one line of JSON.

A million distinct channels, 125 for each of 8,000 clients, are subscribed to and left again; then
100,000 clients come into one channel, and its presence is asked for. Everything but the sockets is
the gateway's own: protocol, permissions, hub, engine. Times are of CPU.
"""

import gc
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from gateway.collector import Collector
from gateway.config import Config, load
from gateway.engines import MemoryEngine
from gateway.node import Node
from gateway.protocols.base import ClientProtocol
from gateway.protocols.centrifuge import CentrifugeJson
from gateway.session import Session
from gateway.transports.base import Transport

CLIENTS, EACH = 8000, 125
CROWD = 100_000


class _Socket:
    """A transport that keeps the last frame, if it is to."""

    def __init__(self) -> None:
        self.last = b""
        self.keeps = False

    def send(self, message: bytes, text: bool | None = None, /) -> None:
        if self.keeps:
            self.last = message

    def close(self, code: int, reason: str, /) -> None:
        raise AssertionError(f"closed with {code} {reason}")


class _Endpoint:
    protocol: ClientProtocol

    def __init__(self, protocol: ClientProtocol) -> None:
        self.protocol = protocol

    def fan_out(self, transports: Iterable[Transport], payload: bytes) -> None:
        raise AssertionError("nothing is published here")

    def fan_out_ready(self, transports: Iterable[Transport], payload: bytes) -> list[Transport]:
        raise AssertionError("nothing is published here")


class Gateway:
    """A gateway without sockets, and clients of it."""

    def __init__(self, config: Config) -> None:
        self.node = Node(config, MemoryEngine())
        self.protocol = CentrifugeJson(self.node)
        self._endpoint = _Endpoint(self.protocol)

    def client(self) -> tuple[Session, _Socket]:
        """One that has connected."""
        session, socket = Session(self._endpoint), _Socket()
        self.node.open(session, socket, 0)
        self.protocol.receive(session, '{"id":1,"connect":{}}')
        return session, socket

    def subscribe(self, session: Session, channel: str) -> None:
        """Raises AssertionError when it is refused."""
        command = f'{{"id":2,"subscribe":{{"channel":"{channel}"}}}}'
        self.protocol.receive(session, command)


def resident() -> int:
    """Bytes of this process in memory, after a collection."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _timed(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def many_channels(gateway: Gateway, clients: int, each: int) -> dict[str, float]:
    """Into `clients` x `each` channels and out again."""
    sessions = [gateway.client()[0] for _ in range(clients)]
    total = clients * each
    before = resident()

    pauses: list[float] = []
    began = 0.0

    def watch(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.process_time()
        else:
            pauses.append(time.process_time() - began)

    gc.callbacks.append(watch)

    collector = Collector()

    def enter() -> None:
        for number, session in enumerate(sessions):
            if number % 400 == 0:  # 50,000 subscriptions: less than a second's worth
                collector.tick(gateway.node.hub.subscriptions)
            for one in range(each):
                gateway.subscribe(session, f"room-{number}-{one}")

    entering = _timed(enter)
    gc.callbacks.remove(watch)
    assert len(gateway.node.hub.channels) == total
    ticking = _timed(gateway.node.tick)
    inside = resident()

    def leave() -> None:
        for number, session in enumerate(sessions):
            for one in range(each):
                command = f'{{"id":3,"unsubscribe":{{"channel":"room-{number}-{one}"}}}}'
                gateway.protocol.receive(session, command)

    leaving = _timed(leave)
    assert not gateway.node.hub.channels
    gateway.node.tick()
    collector.close()
    after = resident()
    for session in sessions:
        gateway.node.leave(session, 1000)
    return {
        "channels": total,
        "subscribe_us": entering / total * 1e6,
        "unsubscribe_us": leaving / total * 1e6,
        "bytes_per_channel": (inside - before) / total,
        "left_bytes_per_channel": (after - before) / total,
        "tick_ms": ticking * 1e3,
        "collector_share": sum(pauses) / entering,
        "collector_longest_ms": max(pauses, default=0.0) * 1e3,
    }


def one_crowd(gateway: Gateway, clients: int) -> dict[str, float]:
    """So many clients in one channel, and what it takes to tell of them."""
    sessions = [gateway.client() for _ in range(clients)]
    for session, _ in sessions:
        gateway.subscribe(session, "crowd")
    session, socket = sessions[0]
    socket.keeps = True

    def ask(what: str) -> float:
        command = f'{{"id":4,"{what}":{{"channel":"crowd"}}}}'
        return _timed(lambda: gateway.protocol.receive(session, command)) * 1e3

    first, again = ask("presence_stats"), ask("presence_stats")
    refused = ask("presence")
    assert b'"code":106' in socket.last
    for other, _ in sessions[gateway.node.config.channel.presence_max_clients :]:
        gateway.node.leave(other, 1000)
    result = {
        "crowd": clients,
        "stats_first_ms": first,
        "stats_ms": again,
        "presence_refused_ms": refused,
        "presence_largest_ms": ask("presence"),
        "presence_largest_bytes": len(socket.last),
    }
    assert b'"code":106' not in socket.last
    return result


def main() -> None:
    """Measures and prints."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    config = load(flags={"dev": True})
    result = {
        **many_channels(Gateway(config), CLIENTS, EACH),
        **one_crowd(Gateway(config), CROWD),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

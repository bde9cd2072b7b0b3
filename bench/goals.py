"""Figures that the project has set itself, checked against a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound on one figure of one server, absolute or relative to another server's."""

    what: str
    case: str
    peer: str
    key: str
    bound: float
    at_most: bool
    against: str = ""
    unit: str = ""
    over: str = ""
    """Another case of the same server, whose figure is subtracted."""


def _cpu(case: str, peer: str, bound: float) -> Goal:
    return Goal(f"{case}: CPU/message", case, peer, "server_cpu_us", bound, True, "limit")


def _rate(case: str, peer: str, bound: float, against: str) -> Goal:
    return Goal(f"{case}: rate", case, peer, "per_second", bound, False, against)


def _deflate(case: str) -> tuple[Goal, ...]:
    peers = ("websockets_asyncio", "aiohttp_server", "picows_websockets")
    return tuple(_rate(case, "fastws_listener", 2, peer) for peer in peers)


def _less_memory(case: str, *peers: str) -> tuple[Goal, ...]:
    key, what = "pss_per_connection", f"{case}: each"
    return tuple(Goal(what, case, "fastws_listener", key, 1, True, peer) for peer in peers)


def _memory(case: str, peer: str, bound: float) -> Goal:
    return Goal(f"{case}: each", case, peer, "pss_per_connection", bound, True, unit="bytes")


GOALS = (
    _cpu("lockstep", "fastws_listener", 1.10),
    _rate("pipelined", "fastws_listener", 0.80, "limit"),
    _rate("pipelined", "fastws_listener", 9, "picows_core"),
    _rate("pipelined-text", "fastws_listener", 0.80, "limit"),
    _rate("pipelined-text", "fastws_listener", 9, "picows_core"),
    _cpu("lockstep", "fastws_coroutine", 1.30),
    _rate("pipelined", "fastws_coroutine", 15, "websockets_asyncio"),
    _rate("pipelined", "fastws_coroutine", 5, "picows_core"),
    _cpu("large", "fastws_listener", 1.15),
    _memory("memory", "fastws_listener", 400),
    _rate("handshakes", "fastws_listener", 0.85, "limit"),
    *_deflate("deflate-1k"),
    *_deflate("deflate-8k"),
    *_deflate("deflate-takeover"),
    Goal(
        "deflate, unused: each more",
        "memory-deflate",
        "fastws_listener",
        "pss_per_connection",
        100,
        True,
        unit="bytes",
        over="memory-silent",
    ),
    _rate("tls-lockstep", "fastws_listener", 1, "picows_core"),
    _rate("tls-pipelined", "fastws_listener", 2, "picows_core"),
    *_less_memory(
        "memory-tls", "picows_core", "websockets_asyncio", "aiohttp_server", "uvicorn_default"
    ),
    _rate("asgi-pipelined", "uvicorn_fastws", 3, "uvicorn_default"),
    _cpu("gateway-fanout", "gateway", 1.25),
    Goal("publish: CPU", "gateway-publish", "gateway", "server_cpu_us", 5, True, unit="us"),
    Goal("subscribe: CPU", "gateway-subscribe", "gateway", "server_cpu_us", 5, True, unit="us"),
    _memory("gateway-memory", "gateway", 1536),
    Goal("heartbeat sweep", "sweep", "gateway", "median_ms", 1, True, unit="ms"),
)

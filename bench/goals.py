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


_LISTENER, _COROUTINE, _SOCKETIFY = "fastws_listener", "fastws_coroutine", "socketify_server"
_PYTHON = ("picows_core", "websockets_asyncio", "aiohttp_server", "tornado_server")


def _fanout(case: str, bound: float, against: str) -> Goal:
    """CPU per delivery at most a `bound`th of another server's."""
    return Goal(f"{case}: CPU", case, _LISTENER, "server_cpu_us", 1 / bound, True, against)


GOALS = (
    _cpu("lockstep-16b", _LISTENER, 1.05),
    _cpu("lockstep", _LISTENER, 1.05),
    _cpu("lockstep-1kib", _LISTENER, 1.05),
    _cpu("lockstep-16kib", _LISTENER, 1.05),
    _cpu("lockstep-1mib", _LISTENER, 1.10),
    _rate("pipelined", _LISTENER, 0.92, "limit"),
    _rate("pipelined", _LISTENER, 12, "picows_core"),
    _rate("pipelined", _LISTENER, 8, _SOCKETIFY),
    _rate("pipelined-text", _LISTENER, 0.92, "limit"),
    _rate("pipelined-text", _LISTENER, 12, "picows_core"),
    _rate("pipelined-text", _LISTENER, 8, _SOCKETIFY),
    *(_rate("lockstep-1mib", _LISTENER, 1, peer) for peer in (*_PYTHON, _SOCKETIFY)),
    *(
        _rate(f"pipelined-{kind}", _LISTENER, 2, peer)
        for kind in ("cjk", "emoji")
        for peer in _PYTHON
    ),
    _cpu("lockstep", _COROUTINE, 1.20),
    _rate("pipelined", _COROUTINE, 20, "websockets_asyncio"),
    _rate("pipelined", _COROUTINE, 8, "picows_core"),
    _fanout("fanout-10k-burst", 5, "picows_core"),
    _fanout("fanout-10k-burst", 5, _SOCKETIFY),
    _memory("memory", _LISTENER, 300),
    *_less_memory("memory", _SOCKETIFY),
    _rate("handshakes", _LISTENER, 0.95, "limit"),
    *_deflate("deflate-1k"),
    *_deflate("deflate-8k"),
    *_deflate("deflate-takeover"),
    Goal(
        "deflate, unused: each more",
        "memory-deflate",
        _LISTENER,
        "pss_per_connection",
        100,
        True,
        unit="bytes",
        over="memory-silent",
    ),
    _rate("tls-lockstep", _LISTENER, 1, "picows_core"),
    _rate("tls-pipelined", _LISTENER, 2, "picows_core"),
    *_less_memory(
        "memory-tls",
        "picows_core",
        "websockets_asyncio",
        "aiohttp_server",
        "uvicorn_default",
        _SOCKETIFY,
    ),
    _rate("asgi-pipelined", "uvicorn_fastws", 3, "uvicorn_default"),
    _cpu("gateway-fanout", "gateway", 1.25),
    Goal("publish: CPU", "gateway-publish", "gateway", "server_cpu_us", 5, True, unit="us"),
    Goal("subscribe: CPU", "gateway-subscribe", "gateway", "server_cpu_us", 5, True, unit="us"),
    _memory("gateway-memory", "gateway", 1536),
    Goal("heartbeat sweep", "sweep", "gateway", "median_ms", 1, True, unit="ms"),
)

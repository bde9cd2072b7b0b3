"""The servers under test. Each module runs one: `python -m bench.peers.<name> --port PORT`.

With `--role echo` (the default, also for `idle`) a server sends every message back. With
`--role broadcast` it sends every message to all connections, the sender's own included. `asgi` is
the echo of an ASGI application.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from bench.dialects import CENTRIFUGE, PLAIN, Dialect


@dataclass(frozen=True)
class Peer:
    """One server under test."""

    name: str
    """Its module in this package."""
    label: str
    """Its name in tables."""
    needs: tuple[str, ...] = ()
    """Packages that it imports."""
    roles: tuple[str, ...] = ("echo", "idle", "broadcast")
    """What cases may ask of it."""
    dialect: Dialect = PLAIN

    def missing(self) -> str:
        """Why it can't run here; empty when it can."""
        absent = [package for package in self.needs if find_spec(package) is None]
        return f"not installed: {', '.join(absent)}" if absent else ""

    def versions(self) -> dict[str, str]:
        """Versions of what it runs on, by package."""
        found = {}
        for package in self.needs:
            try:
                found[package] = version(_DISTRIBUTIONS.get(package, package))
            except PackageNotFoundError:
                found[package] = "source tree"
        return found


_DISTRIBUTIONS = {"fastws": "fastws-gateway", "gateway": "fastws-gateway"}

LIMIT = Peer("limit", "C epoll (limit)")
PEERS = {
    peer.name: peer
    for peer in (
        LIMIT,
        Peer("fastws_listener", "fastws Listener", ("fastws", "uvloop")),
        Peer("fastws_coroutine", "fastws coroutine", ("fastws", "uvloop")),
        Peer("picows_core", "picows", ("picows", "uvloop")),
        Peer("websockets_asyncio", "websockets", ("websockets", "uvloop")),
        Peer("aiohttp_server", "aiohttp", ("aiohttp", "uvloop")),
        Peer(
            "uvicorn_fastws",
            "FastAPI on uvicorn, fastws",
            ("fastws", "fastapi", "uvicorn", "httptools", "uvloop"),
            ("asgi",),
        ),
        Peer(
            "uvicorn_default",
            "FastAPI on uvicorn, its default",
            ("fastapi", "uvicorn", "httptools", "uvloop", "websockets"),
            ("asgi",),
        ),
        Peer(
            "gateway",
            "gateway",
            ("gateway", "uvloop", "numpy"),
            ("idle", "broadcast", "sweep"),
            CENTRIFUGE,
        ),
    )
}

"""The servers under test. Each module runs one: `python -m bench.peers.<name> --port PORT`.

With `--role echo` (the default, also for `idle`) a server sends every message back. With
`--role broadcast` it sends every message to all connections, the sender's own included. `asgi` is
the echo of an ASGI application. `--tls PEM` and `--deflate` are for those that have the feature.
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
    features: tuple[str, ...] = ()
    """What cases may ask of it besides: "tls", "deflate"."""

    def missing(self) -> str:
        """Why it can't run here; empty when it can."""
        absent = [package for package in self.needs if not _found(package)]
        return f"not installed: {', '.join(absent)}" if absent else ""

    def versions(self) -> dict[str, str]:
        """Versions of what it runs on, by package."""
        found = {}
        for package in self.needs:
            distribution = package.partition(".")[0]
            try:
                found[distribution] = version(_DISTRIBUTIONS.get(distribution, distribution))
            except PackageNotFoundError:
                found[distribution] = "source tree"
        return found


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


_DISTRIBUTIONS = {"fastws": "fastws-gateway", "gateway": "fastws-gateway"}

LIMIT = Peer("limit", "C epoll (limit)")
_ALL = ("tls", "deflate")
_ECHO = ("echo", "idle")


def _fastws(name: str, label: str) -> Peer:
    return Peer(name, label, ("fastws", "uvloop"), features=_ALL)


def _uvicorn(
    name: str,
    which: str,
    needs: tuple[str, ...],
    roles: tuple[str, ...] = ("asgi",),
    features: tuple[str, ...] = (),
) -> Peer:
    packages = ("fastapi", "uvicorn", "httptools", "uvloop", *needs)
    return Peer(name, f"FastAPI on uvicorn, {which}", packages, roles, features=features)


PEERS = {
    peer.name: peer
    for peer in (
        LIMIT,
        _fastws("fastws_listener", "fastws Listener"),
        _fastws("fastws_coroutine", "fastws coroutine"),
        Peer(
            "fastws_transport",
            "fastws Listener, uvloop's TLS",
            ("fastws", "uvloop"),
            _ECHO,
            features=("tls",),
        ),
        Peer("picows_core", "picows", ("picows", "aiofastnet", "uvloop"), features=("tls",)),
        Peer("picows_websockets", "picows.websockets", ("picows", "uvloop"), _ECHO, features=_ALL),
        Peer("websockets_asyncio", "websockets", ("websockets", "uvloop"), features=_ALL),
        Peer("aiohttp_server", "aiohttp", ("aiohttp", "uvloop"), features=_ALL),
        _uvicorn("uvicorn_fastws", "fastws", ("fastws.uvicorn",)),
        _uvicorn("uvicorn_default", "its default", ("websockets",), ("asgi", "idle"), ("tls",)),
        _uvicorn("uvicorn_wsproto", "wsproto", ("wsproto",)),
        Peer(
            "gateway",
            "gateway",
            ("gateway", "uvloop", "numpy"),
            ("idle", "broadcast", "commands", "sweep"),
            CENTRIFUGE,
        ),
    )
}

"""The servers under test. Each module runs one: `python -m bench.peers.<name> --port PORT`.

With `--role echo` (the default, also for `idle`) a server sends every message back. With
`--role broadcast` it sends every message to all connections, the sender's own included. `asgi` is
the echo of an ASGI application. `--tls PEM` and `--deflate` are for those that have the feature;
`--ping SECONDS` and `--workers N` for gateways in the case of heartbeats.

`python -m bench.peers install` installs all that can be installed, in the versions named in
`requirements.txt`, `requirements-3.12.txt`, `node/package-lock.json` and `_programs.py`.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from bench.dialects import CENTRIFUGE, PLAIN, PUSHPIN, SOCKET_IO, TAGGED, Dialect
from bench.peers import _programs
from bench.peers._programs import Program


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
    only: str = ""
    """A feature without which there is nothing to compare in a case."""
    program: Program | None = None
    """What it runs on besides."""

    def missing(self) -> str:
        """Why it can't run here; empty when it can."""
        absent = [package for package in self.needs if not _found(package)]
        if absent:
            reason = _programs.reasons().get("packages")
            return f"not installed: {', '.join(absent)}{f' ({reason})' if reason else ''}"
        return self.program.missing() if self.program else ""

    def versions(self) -> dict[str, str]:
        """Versions of what it runs on, by package."""
        found = {}
        for package in self.needs:
            distribution = package.partition(".")[0]
            try:
                found[distribution] = version(_DISTRIBUTIONS.get(distribution, distribution))
            except PackageNotFoundError:
                found[distribution] = "source tree"
        if self.program and not self.program.missing():
            found[self.label] = self.program.version()
        return found


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


_DISTRIBUTIONS = {
    "fastws": "fastws-gateway",
    "gateway": "fastws-gateway",
    "socketio": "python-socketio",
}

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
            only="tls",
        ),
        Peer("picows_core", "picows", ("picows", "aiofastnet", "uvloop"), features=("tls",)),
        Peer("picows_websockets", "picows.websockets", ("picows", "uvloop"), _ECHO, features=_ALL),
        Peer("websockets_asyncio", "websockets", ("websockets", "uvloop"), features=_ALL),
        Peer("aiohttp_server", "aiohttp", ("aiohttp", "uvloop"), features=_ALL),
        Peer("tornado_server", "tornado", ("tornado", "uvloop"), features=_ALL),
        Peer("socketify_server", "uWebSockets by socketify", ("socketify",), features=_ALL),
        Peer("uwebsockets_cpp", "uWebSockets in C++", features=_ALL, program=_programs.UWEBSOCKETS),
        Peer("granian_rsgi", "granian, RSGI", ("granian", "uvloop"), features=("tls",)),
        Peer("ws_node", "ws on Node.js", features=_ALL, program=_programs.NODE_MODULES),
        _uvicorn("uvicorn_fastws", "fastws", ("fastws.uvicorn",)),
        _uvicorn("uvicorn_default", "its default", ("websockets",), ("asgi", "idle"), ("tls",)),
        _uvicorn("uvicorn_wsproto", "wsproto", ("wsproto",)),
        Peer("granian_fastapi", "FastAPI on granian", ("fastapi", "granian", "uvloop"), ("asgi",)),
        Peer(
            "hypercorn_fastapi",
            "FastAPI on hypercorn",
            ("fastapi", "hypercorn", "uvloop"),
            ("asgi",),
        ),
        Peer(
            "gateway",
            "gateway",
            ("gateway", "uvloop", "numpy"),
            ("idle", "broadcast", "commands", "tokens", "sweep", "heartbeat"),
            CENTRIFUGE,
        ),
        Peer(
            "centrifugo",
            "Centrifugo",
            roles=("idle", "broadcast", "tokens", "heartbeat"),
            dialect=CENTRIFUGE,
            program=_programs.CENTRIFUGO,
        ),
        Peer(
            "nginx_nchan",
            "nginx with nchan",
            roles=("idle", "broadcast"),
            dialect=TAGGED,
            program=_programs.NGINX,
        ),
        Peer(
            "pushpin_server",
            "Pushpin",
            roles=("idle", "broadcast"),
            dialect=PUSHPIN,
            program=_programs.PUSHPIN,
        ),
        Peer(
            "socketio_python",
            "python-socketio",
            ("socketio", "uvicorn", "websockets", "httptools", "uvloop"),
            ("idle", "broadcast"),
            SOCKET_IO,
        ),
        Peer(
            "socketio_node",
            "socket.io on Node.js",
            roles=("idle", "broadcast"),
            dialect=SOCKET_IO,
            program=_programs.SOCKETIO_NODE,
        ),
        Peer(
            "wse_server",
            "wse-server",
            roles=("idle", "broadcast"),
            dialect=TAGGED,
            program=_programs.WSE,
        ),
    )
}

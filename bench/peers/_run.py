"""Command line and event loop of the Python servers under test."""

import argparse
import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

HOST = "127.0.0.1"
BACKLOG = 4096
MAX_SIZE = 64 * 2**20
"""Largest message that servers accept, so that no case runs into a limit."""


@dataclass(frozen=True)
class Options:
    """What a server is asked to do."""

    port: int
    broadcast: bool
    tls: str | None
    """File of the certificate and its key, for TLS."""
    deflate: bool
    """Whether permessage-deflate is agreed to, with the settings that the server has by itself."""
    ping: int = 25
    """Gateways: seconds between pings of an idle client."""
    workers: int = 1
    """Gateways: processes."""
    tokens: bool = False
    """Gateways: whether clients need tokens, and channels have presence and history."""

    def ssl(self) -> ssl.SSLContext | None:
        """Context for TLS, if that was asked for."""
        if self.tls is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls)
        return context


def parse() -> Options:
    """Reads the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    roles = ("echo", "idle", "broadcast", "commands", "tokens", "asgi")
    parser.add_argument("--role", choices=roles, default="echo")
    parser.add_argument("--tls", metavar="PEM")
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--ping", type=int, default=25)
    parser.add_argument("--workers", type=int, default=1)
    told = parser.parse_args()
    broadcast = told.role == "broadcast"
    tokens = told.role == "tokens"
    return Options(told.port, broadcast, told.tls, told.deflate, told.ping, told.workers, tokens)


def run(serve: Callable[[Options], Awaitable[object]]) -> None:
    """Starts a server on uvloop and keeps it running until the process is killed.

    `serve` returns when the server listens; what it returns is kept alive.
    """
    options = parse()

    async def main() -> None:
        server = await serve(options)
        await asyncio.Event().wait()
        del server

    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())

"""Plain HTTP on the gateway's port: what is not a WebSocket upgrade is answered by a Starlette app.

`fastws` reads the head of a request; when it is no upgrade, it hands the connection with all bytes
read to uvicorn's protocol. The app has no lifespan of its own: the gateway starts and stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.admin import Admin
from gateway.api import api_routes
from gateway.metrics import NodeCollector
from gateway.node import Node

STATIC = Path(__file__).with_name("static")

# The page and its scripts change with the gateway: browsers ask each time (304 is cheap). The rest
# needs real headers; the page has the other half of its policy in a meta tag.
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'none'",
}

WEBSOCKET_PATH = "/connection/websocket"


def make_app(
    node: Node, *, public: bool = True, internal: bool = True, admin: Admin | None = None
) -> Starlette:
    """The pages and probes of a node: those for clients, those for operators and backends.

    ``admin`` is the admin page, for operators, where there is one.
    """
    registry = CollectorRegistry()
    registry.register(NodeCollector(node))

    async def health(request: Request) -> Response:
        return JSONResponse({})

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def demo(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    async def upgrade_required(request: Request) -> Response:
        text = "This is a WebSocket endpoint: the request must be an upgrade.\n"
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}  # RFC 9110 15.5.22
        return PlainTextResponse(text, 426, headers)

    routes: list[BaseRoute] = [Route("/health", health)]
    if public:
        routes += [
            Route("/", demo),
            Route(WEBSOCKET_PATH, upgrade_required),
            Mount("/static", _Pages(directory=STATIC, check_dir=False)),
        ]
    if internal:
        routes += [Route("/metrics", metrics), *api_routes(node)]
        if admin is not None:
            routes += admin.routes()
    return Starlette(routes=routes)


class _Pages(StaticFiles):
    """The files of the demo page, with its headers."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if Path(path).parts[:1] == ("admin",):  # a page of its own, if there is one
            raise HTTPException(404)
        return await super().get_response(path, scope)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(PAGE_HEADERS)
        return response


class HttpSide:
    """What uvicorn's `Server` would keep: the shared state of its HTTP connections."""

    def __init__(self, app: ASGIApp) -> None:
        self._config = UvicornConfig(
            app, log_config=None, access_log=False, lifespan="off", ws="none", proxy_headers=False
        )
        self._config.load()
        self._state = ServerState()
        self.tick()

    @property
    def protocol_factory(self) -> Callable[[], asyncio.Protocol]:
        """Makes the protocol for a connection that is handed over."""
        return lambda: HttpToolsProtocol(self._config, self._state, {})

    def tick(self) -> None:
        """Once a second: the Date header of responses (RFC 9110 6.6.1)."""
        date = formatdate(usegmt=True).encode()
        self._state.default_headers = [(b"date", date), *self._config.encoded_headers]

    def abort(self) -> None:
        """Cut the connections that are left."""
        for connection in list(self._state.connections):
            connection.transport.abort()

    def finish(self) -> None:
        """Close idle connections, and others when their response is complete."""
        for connection in list(self._state.connections):
            connection.shutdown()

    async def close(self) -> None:
        """Let running responses finish, and close idle connections."""
        self.finish()
        while self._state.connections or self._state.tasks:  # noqa: ASYNC110, uvicorn has no event
            await asyncio.sleep(0.02)

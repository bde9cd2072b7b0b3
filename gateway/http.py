"""Plain HTTP on the gateway's port: what is not a WebSocket upgrade is answered by a Starlette app.

`fastws` reads the head of a request; when it is no upgrade, it hands the connection with all bytes
read to uvicorn's protocol (`gateway.http_server`). The app has no lifespan of its own: the gateway
starts and stops.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

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
    node: Node,
    *,
    public: bool = True,
    internal: bool = True,
    api: bool = True,
    admin: Admin | None = None,
) -> Starlette:
    """The pages and probes of a node: those for clients, for operators, and for backends.

    ``admin`` is the admin page, for operators, where there is one.
    """
    registry = CollectorRegistry()
    collector = NodeCollector(node)
    registry.register(collector)

    async def health(request: Request) -> Response:
        return JSONResponse({})

    async def metrics(request: Request) -> Response:
        await collector.prepare()
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
        routes.append(Route("/metrics", metrics))
        if admin is not None:
            routes += admin.routes()
    if api:
        routes += api_routes(node)
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

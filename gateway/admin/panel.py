"""The admin page over HTTP: its files, and the JSON that they ask for once a second.

The page polls. A WebSocket would be one of the connections that it counts, would not exist on the
internal port, and would have to be kept apart from those of clients; a request a second costs
nothing that one could measure, and a browser stops it for a tab that nobody sees.

Reading is ``GET /admin/api/…``, doing is ``POST /admin/api/call/{method}`` with a request of the
HTTP API. A failure is ``{"error": {"code", "message"}}``, with status 400 for bad input, 401
without a session, 403 for another site's page, 404, 413, 429 after wrong passwords, and 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from gateway import __version__, codes
from gateway.admin.entrance import Entrance
from gateway.admin.listings import MAX_LIMIT, MAX_OFFSET, Listings, no_such
from gateway.admin.recorder import COLUMNS, KEPT, Recorder
from gateway.api.door import BadBody, Calls, read_body
from gateway.api.methods import Api
from gateway.codes import Error, Refused
from gateway.node import Node

log = structlog.get_logger("gateway.admin")

STATIC = Path(__file__).parents[1] / "static"
PAGES = STATIC / "admin"

# Files of the demo page that are the admin page's too, which may be on another port.
SHARED = ("icon.svg", "base.css")

COOKIE = "fastws_admin"

# What the page may do; the HTTP API has the rest.
METHODS = frozenset(
    ("publish", "history_remove", "disconnect", "unsubscribe", "block_user", "unblock_user")
)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_MAX_BODY = 1 << 20  # bytes
_MAX_LOGIN = 4096  # of those who have not shown who they are
_MAX_SEARCH = 1024  # characters

_encode = msgspec.json.Encoder().encode

Endpoint = Callable[[Request], Awaitable[Any]]


class TooLarge(Exception):
    """A body with too many bytes. The text is told to the caller."""


class Login(msgspec.Struct):
    password: str = ""


class Failure(NamedTuple):
    """What is answered in place of a result."""

    status: int
    error: Error
    headers: Mapping[str, str] = MappingProxyType({})


_login = msgspec.json.Decoder(Login)


class Admin:
    """The page of one node. `start` it in the loop: from then on it keeps what charts show."""

    def __init__(self, node: Node) -> None:
        settings = node.config.admin
        self._node = node
        self.entrance = Entrance(settings, node.clock, node.wall)
        self.recorder = Recorder(node)
        self._listings = Listings(node)
        self._calls = Calls(node, Api(node))
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self.entrance.insecure:
            log.warning(
                "admin.insecure: anyone who reaches this port may see all clients and channels, "
                "publish and disconnect; for development only"
            )
        self._task = asyncio.get_running_loop().create_task(self.recorder.run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def routes(self) -> list[BaseRoute]:
        """Where it is on a port."""

        def route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
            return Route(f"/api/{path}", self._guarded(endpoint), methods=[method])

        inside: list[BaseRoute] = [
            Route("/api/session", self._open_to_all(self._session), methods=["GET"]),
            Route("/api/login", self._open_to_all(self._sign_in), methods=["POST"]),
            Route("/api/logout", self._open_to_all(self._sign_out), methods=["POST"]),
            route("stats", self._stats),
            route("channels", self._channels),
            route("clients", self._clients),
            route("client", self._client),
            route("channel", self._channel),
            route("history", self._history),
            route("call/{method}", self._call, "POST"),
            Route("/api/{path:path}", self._open_to_all(_nothing)),
            *(Route(f"/{name}", partial(_shared, name)) for name in SHARED),
            Mount("/", _Pages(directory=PAGES, html=True, check_dir=False)),
        ]
        return [Route("/admin", _with_slash), Mount("/admin", routes=inside)]

    # -- who may ask

    def _guarded(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint for those who have signed in."""

        async def checked(request: Request) -> Any:
            if not self._is_signed_in(request):
                return Failure(401, codes.UNAUTHORIZED)
            return await endpoint(request)

        return self._open_to_all(checked)

    def _open_to_all(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint for anyone, except for pages of other sites."""

        async def answer(request: Request) -> Response:
            wrong = self._is_foreign(request)
            if wrong:
                return _respond(Failure(403, Error(codes.PERMISSION_DENIED.code, wrong)))
            try:
                return _respond(await endpoint(request))
            except BadBody as fault:
                return _respond(_bad(str(fault)))
            except TooLarge as fault:
                return _respond(Failure(413, Error(codes.BAD_REQUEST.code, str(fault))))
            except Refused as refusal:
                return _respond(Failure(400, refusal.error))
            except OSError as error:
                log.warning("engine failed", path=request.url.path, error=str(error))
                return _respond(Failure(503, codes.INTERNAL))

        return answer

    def _is_foreign(self, request: Request) -> str:
        """What is wrong with where a request comes from; empty if nothing is.

        The cookie does not come along from other sites, but from other ports of this one, and
        without passwords there is none.
        """
        headers = request.headers
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "pages of other origins may not ask"
        if self.entrance.insecure and not _is_plain_host(headers.get("host", "")):
            # A name can be made to mean this machine while its page is open (DNS rebinding).
            return "without a password this is for localhost and IP addresses only"
        if request.method == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":  # which pages of others cannot send unasked
                return "the content type must be application/json"
        return ""

    def _is_signed_in(self, request: Request) -> bool:
        if self.entrance.insecure:
            return True
        token = request.cookies.get(COOKIE, "")
        return bool(token) and self.entrance.admits(token)

    # -- coming and going

    async def _session(self, request: Request) -> Any:
        return {
            "signed_in": self._is_signed_in(request),
            "insecure": self.entrance.insecure,
        }

    async def _sign_in(self, request: Request) -> Any:
        address = request.client.host if request.client is not None else "unix"
        password = _decode(_login, await _body(request, _MAX_LOGIN)).password
        wait = self.entrance.wait(address)
        if wait:
            seconds = math.ceil(wait)
            text = f"too many wrong passwords: try again in {seconds} s"
            error = Error(codes.TOO_MANY_REQUESTS.code, text, temporary=True)
            return Failure(429, error, {"Retry-After": str(seconds)})
        if not self.entrance.knows(password, address):
            log.warning("wrong admin password", address=address)
            return Failure(401, Error(codes.UNAUTHORIZED.code, "this is not the password"))
        log.info("admin signed in", address=address)
        token, ttl = self.entrance.issue()
        response = _respond({"ttl": ttl})
        # Without a path it is for `…/admin/api/`, wherever a proxy has put that.
        secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, token, max_age=ttl, path=None, secure=secure, httponly=True, samesite="strict"
        )
        return response

    async def _sign_out(self, request: Request) -> Any:
        self.entrance.end(request.cookies.get(COOKIE, ""))
        response = _respond({})
        response.delete_cookie(COOKIE, path=None, httponly=True, samesite="strict")  # type: ignore[arg-type]  # as above
        return response

    # -- what is shown

    async def _stats(self, request: Request) -> Any:
        node, recorder = self._node, self.recorder
        since = _number(request, "since", 0, 0, 2**53)
        if request.query_params.get("uid", node.uid) != node.uid:
            since = 0  # it was another process that the page has seen
        return {
            "uid": node.uid,
            "version": __version__,
            "pid": os.getpid(),
            "cores": os.cpu_count() or 1,
            "uptime": node.clock() - node.started_at,
            "time": node.wall(),
            "columns": COLUMNS,
            "kept": KEPT,
            "count": recorder.count,
            "rows": recorder.since(since),
            "slowest": [
                {"client": name, "queued": queued, "user": known.user}
                for queued, name in recorder.slowest
                if (known := node.clients.get(name)) is not None
            ],
            "totals": {
                "received": node.counters.frames_in,
                "replies": node.counters.replies,
                "deliveries": node.hub.deliveries,
                "publications": node.counters.publications,
                "dropped": node.hub.dropped,
                "lagging": node.hub.lagging,
                "disconnects": dict(node.counters.disconnects.most_common(20)),
                "limits_reached": dict(node.limits.reached),
            },
        }

    async def _channels(self, request: Request) -> Any:
        return await self._listings.channels(_search(request), *_page(request))

    async def _clients(self, request: Request) -> Any:
        return await self._listings.clients(_search(request), *_page(request))

    async def _client(self, request: Request) -> Any:
        page = self._listings.client(request.query_params.get("client", ""))
        return page if page is not None else Failure(404, no_such("client").error)

    async def _channel(self, request: Request) -> Any:
        return await self._listings.channel(_name(request), *_page(request))

    async def _history(self, request: Request) -> Any:
        before = _number(request, "before", 0, 0, 2**63 - 1)
        epoch = request.query_params.get("epoch", "")
        limit = _number(request, "limit", 20, 1, MAX_LIMIT)
        return await self._listings.history(_name(request), before, epoch, limit)

    # -- what is done

    async def _call(self, request: Request) -> Any:
        method = request.path_params["method"]
        if method not in METHODS:
            return Failure(404, codes.METHOD_NOT_FOUND)
        body = await _body(request, _MAX_BODY)
        reply = await self._calls.run(method, self._calls.read(method, body))
        address = request.client.host if request.client is not None else "unix"
        error = reply.get("error")
        about = {} if error is None else {"error": error.message}
        log.info("admin call", method=method, address=address, **_targets(body), **about)
        if error is None:
            return reply["result"]
        return Failure(503 if error == codes.INTERNAL else 400, error)


class _Pages(StaticFiles):
    """The files of the page, with its headers. They change with the gateway: 304 is cheap."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update({**HEADERS, "Cache-Control": "no-cache"})
        return response


async def _shared(name: str, request: Request) -> Response:
    return FileResponse(STATIC / name, headers={**HEADERS, "Cache-Control": "no-cache"})


async def _with_slash(request: Request) -> Response:
    return RedirectResponse("admin/", 308, HEADERS)  # relative: a proxy may have put it elsewhere


async def _nothing(request: Request) -> Failure:
    return Failure(404, no_such("path").error)


def _respond(result: Any) -> Response:
    """A result or a failure as JSON; a response stays as it is."""
    if isinstance(result, Response):
        return result
    headers = {**HEADERS, "Cache-Control": "no-store"}
    status = 200
    if isinstance(result, Failure):
        status, headers = result.status, {**headers, **result.headers}
        result = {"error": result.error}
    return Response(_encode(result), status, headers, "application/json")


def _bad(what: str) -> Failure:
    return Failure(400, Error(codes.BAD_REQUEST.code, f"bad request: {what}"))


async def _body(request: Request, limit: int) -> bytes:
    body = await read_body(request.receive, limit)
    if body is None:
        raise TooLarge(f"the request has more than {limit} bytes")
    return body


def _decode(decoder: msgspec.json.Decoder[Login], body: bytes) -> Login:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(str(error)) from None


def _targets(body: bytes) -> dict[str, str]:
    """Whom or what a call was about, for the log."""
    try:
        values = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    names = ("channel", "user", "client")
    return {name: str(values[name])[:_MAX_SEARCH] for name in names if values.get(name)}


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise BadBody(f"{name} must be a number from {least} to {most}")
    return int(text)


def _page(request: Request) -> tuple[int, int]:
    offset = _number(request, "offset", 0, 0, MAX_OFFSET)
    return offset, _number(request, "limit", 50, 1, MAX_LIMIT)


def _search(request: Request) -> str:
    text = request.query_params.get("search", "")
    if len(text) > _MAX_SEARCH:
        raise BadBody(f"search has more than {_MAX_SEARCH} characters")
    return text


def _name(request: Request) -> str:
    name = request.query_params.get("channel", "")
    if not name or len(name) > 65535:
        raise BadBody("channel is missing, or too long")
    return name


def _is_plain_host(host: str) -> bool:
    """Whether a Host header names no one's domain: localhost, or an IP address."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True

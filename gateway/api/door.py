"""The API over HTTP: who may call it, and how a request becomes a call.

``POST /api/<method>`` with a request gives ``{"result": …}`` or ``{"error": {"code", "message"}}``,
both with status 200, as Centrifugo does. Another status means that the request has not come through
to a method: 400 not JSON or of a wrong type, 401 no key, 404 no such method, 413 too large.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from msgspec import Raw, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import codes
from gateway.api.methods import METHODS, Api, bind
from gateway.api.openapi import describe
from gateway.codes import Error, Refused
from gateway.node import Node

log = structlog.get_logger("gateway.api")

_encode = msgspec.json.Encoder().encode
_decoders = {name: msgspec.json.Decoder(request) for name, (request, _) in METHODS.items()}


class BatchRequest(Struct):
    """Several commands, done one after the other: each has a method's name and its request."""

    commands: list[dict[str, Raw]] = []
    parallel: bool = False  # accepted: replies come in the order of the commands in any case


class OldCommand(Struct):
    """A command of the older form, at ``/api`` itself, one to a line."""

    method: str = ""
    params: Raw = Raw(b"{}")


class BadBody(Exception):
    """A request that cannot be read. The text is told to the caller."""


_batch = msgspec.json.Decoder(BatchRequest)
_old = msgspec.json.Decoder(OldCommand)


def api_routes(node: Node) -> list[Route]:
    """The routes of the API; none without a key."""
    settings = node.config.http_api
    if not settings.key:
        return []
    door = _Door(node, Api(node))

    async def openapi(request: Request) -> Response:
        return _json(_encode(describe()))

    return [
        Route("/api", door.old, methods=["POST"]),
        Route("/api/batch", door.batch, methods=["POST"]),
        Route("/api/openapi.json", openapi),
        Route("/api/{method}", door.call, methods=["POST"]),
    ]


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _failure(error: Error, status: int = 200) -> Response:
    return _json(_encode({"error": error}), status)


async def read_body(request: Request, limit: int) -> bytes | None:
    """The body of a request, or None if it has more bytes than the limit."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)


class _Door:
    """Turns HTTP requests into calls."""

    def __init__(self, node: Node, api: Api) -> None:
        self._node = node
        self._calls = Calls(node, api)
        self._key = node.config.http_api.key.encode()
        self._limit = node.config.http_api.body_size_limit

    # -- endpoints

    async def call(self, request: Request) -> Response:
        return await self._traced("/api/{method}", request, self._call)

    async def batch(self, request: Request) -> Response:
        return await self._traced("/api/batch", request, self._batch)

    async def old(self, request: Request) -> Response:
        return await self._traced("/api", request, self._old)

    async def _traced(
        self, route: str, request: Request, work: Callable[[Request, bytes], Awaitable[bytes]]
    ) -> Response:
        with self._node.tracing.serve(f"POST {route}", request.headers) as span:
            span.set("http.request.method", "POST")
            span.set("http.route", route)
            response = await self._answer(request, work)
            span.set("http.response.status_code", response.status_code)
            return response

    async def _answer(
        self, request: Request, work: Callable[[Request, bytes], Awaitable[bytes]]
    ) -> Response:
        if not self._knows(request):
            return _failure(codes.UNAUTHORIZED, 401)
        method = request.path_params.get("method")
        if method is not None and method not in METHODS:
            return _failure(codes.METHOD_NOT_FOUND, 404)
        body = await read_body(request, self._limit)
        if body is None:
            return _failure(Error(codes.BAD_REQUEST.code, "the request is too large"), 413)
        try:
            return _json(await work(request, body))
        except BadBody as fault:
            return _failure(Error(codes.BAD_REQUEST.code, f"bad request: {fault}"), 400)

    def _knows(self, request: Request) -> bool:
        key = request.headers.get("x-api-key")
        if key is None:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "apikey":
                return False
        return hmac.compare_digest(key.encode(), self._key)

    # -- what they do

    async def _call(self, request: Request, body: bytes) -> bytes:
        return _encode(await self._calls.run(request.path_params["method"], body))

    async def _batch(self, request: Request, body: bytes) -> bytes:
        replies = []
        for command in _decode(_batch, body).commands:
            if len(command) != 1:
                raise BadBody("a command is one method and its request")
            [(method, arguments)] = command.items()
            reply = await self._calls.run(method, bytes(arguments))
            replies.append({method: reply["result"]} if "result" in reply else reply)
        return _encode({"replies": replies})

    async def _old(self, request: Request, body: bytes) -> bytes:
        commands = [_decode(_old, line) for line in body.split(b"\n") if line.strip()]
        if not commands:
            raise BadBody("no command")
        replies = [await self._calls.run(each.method, bytes(each.params)) for each in commands]
        return b"\n".join(map(_encode, replies))

class Calls:
    """Calls methods by their names, with requests as bytes."""

    def __init__(self, node: Node, api: Api) -> None:
        self._node = node
        self._methods = bind(api)

    async def run(self, method: str, arguments: bytes) -> dict[str, Any]:
        """The reply of one call. Raises `BadBody`."""
        if method not in METHODS:
            return {"error": codes.METHOD_NOT_FOUND}
        request = _decode(_decoders[method], arguments or b"{}")
        self._node.counters.api_calls[method] += 1
        with self._node.tracing.call(method) as span:
            reply = await self._reply(method, request)
            if "error" in reply:
                span.fail(str(reply["error"].code))
            return reply

    async def _reply(self, method: str, request: Any) -> dict[str, Any]:
        try:
            return {"result": await self._methods[method](request)}
        except Refused as refusal:
            return {"error": refusal.error}
        except OSError as error:
            log.warning("engine failed", method=method, error=str(error))
            return {"error": codes.INTERNAL}
        except Exception:
            log.exception("api call failed", method=method)
            return {"error": codes.INTERNAL}


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(str(error)) from None

"""The API over HTTP: who may call it, and how a request becomes a call.

``POST /api/<method>`` with a request gives ``{"result": …}`` or ``{"error": {"code", "message"}}``,
both with status 200, as Centrifugo does. Another status means that the request has not come through
to a method: 400 not JSON or of a wrong type, 401 no key, 404 no such method, 413 too large. In the
error mode "transport" an error has a status of its own, and is the whole body.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Annotated, Any, TypeAlias
from urllib.parse import parse_qs

import msgspec
import structlog
from msgspec import Meta, Raw, Struct
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway import codes
from gateway.api.methods import METHODS, NOT_AVAILABLE, Api, bind
from gateway.api.openapi import describe
from gateway.codes import Error, Refused
from gateway.metrics import error_label
from gateway.node import Node

log = structlog.get_logger("gateway.api")

# What is done with a body; to the status and the body of the response.
_Work: TypeAlias = Callable[[Scope, bytes], Awaitable[tuple[int, bytes]]]

# Statuses of errors in the error mode "transport". Others are 500.
_STATUSES = {
    codes.UNKNOWN_CHANNEL.code: 404,
    codes.METHOD_NOT_FOUND.code: 404,
    codes.LIMIT_EXCEEDED.code: 400,
    codes.BAD_REQUEST.code: 400,
    codes.NOT_AVAILABLE.code: 400,
    codes.UNRECOVERABLE_POSITION.code: 416,
}

_encode = msgspec.json.Encoder().encode
_decoders = {name: msgspec.json.Decoder(request) for name, (request, _) in METHODS.items()}


class BatchRequest(Struct):
    """Several commands, done one after the other: each has a method's name and its request."""

    commands: list[dict[str, Raw]] = []
    parallel: bool = False  # accepted: replies come in the order of the commands in any case


class OldCommand(Struct):
    """A command of the older form, at ``/api`` itself, one to a line. The reply has its ``id``."""

    id: Annotated[int, Meta(ge=0)] = 0
    method: str = ""
    params: Raw = Raw(b"{}")


class BadBody(Exception):
    """A request that cannot be read. The text is told to the caller."""


_batch = msgspec.json.Decoder(BatchRequest)
_old = msgspec.json.Decoder(OldCommand)


def make_door(node: Node) -> Door | None:
    """The API; None without a key."""
    return Door(node) if node.config.http_api.key else None


def api_routes(node: Node) -> list[Route]:
    """The routes of the API; none without a key."""
    door = make_door(node)
    if door is None:
        return []

    async def openapi(request: Request) -> Response:
        return Response(_encode(describe(door.prefix)), media_type="application/json")

    return [
        Route(door.prefix, door, methods=["POST"]),
        Route(f"{door.prefix}/batch", door, methods=["POST"]),
        Route(f"{door.prefix}/openapi.json", openapi),
        Route(f"{door.prefix}/{{method}}", door, methods=["POST"]),
    ]


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The body of a request, or None if it has more bytes than the limit.

    Raises `ClientDisconnect`.
    """
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _failure(error: Error) -> bytes:
    return _encode({"error": error})


_TYPE = (b"content-type", b"application/json")


class Door:
    """Turns HTTP requests into calls: an ASGI app.

    It knows its paths itself and asks for nothing but a body and a few headers, as a router and its
    objects for requests and responses cost several times what a call does.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._calls = Calls(node, Api(node))
        self._key = node.config.http_api.key.encode()
        self._limit = node.config.http_api.body_size_limit
        self.prefix = prefix = node.config.http_api.handler_prefix.rstrip("/")
        self._method = f"{prefix}/{{method}}"
        self._by_status = node.config.http_api.error_mode == "transport"
        self._works: dict[str, tuple[str, _Work]] = {
            prefix: (prefix, self._old),
            f"{prefix}/batch": (f"{prefix}/batch", self._batch),
            **{
                f"{prefix}/{name}": (self._method, partial(self._call, name))
                for name in (*METHODS, *NOT_AVAILABLE)
            },
        }

    def takes(self, scope: Mapping[str, object]) -> bool:
        """Whether a request is for a method that there is, so that no router has to be asked."""
        return scope["path"] in self._works and scope["method"] == "POST"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, content = await self.answer(scope, receive)
        except ClientDisconnect:
            return
        await self.respond(send, status, content)

    async def respond(self, send: Send, status: int, content: bytes) -> None:
        """Send what `answer` has given."""
        headers = [_TYPE, (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def answer(
        self, scope: Scope, receive: Receive, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """The status and the JSON of a response. Raises `ClientDisconnect`.

        ``body`` is there if it need not be received.
        """
        route, work = self._works.get(scope["path"], (self._method, None))
        tracing = self._node.tracing
        if not tracing.records:
            return await self._answer(work, scope, receive, body)
        with tracing.serve(f"POST {route}", Headers(scope=scope)) as span:
            span.set("http.request.method", "POST")
            span.set("http.route", route)
            status, content = await self._answer(work, scope, receive, body)
            span.set("http.response.status_code", status)
            return status, content

    async def _answer(
        self, work: _Work | None, scope: Scope, receive: Receive, body: bytes | None
    ) -> tuple[int, bytes]:
        if not self._knows(scope):
            return 401, _failure(codes.UNAUTHORIZED)
        if work is None:
            return 404, _failure(codes.METHOD_NOT_FOUND)
        if body is None:
            body = await read_body(receive, self._limit)
        if body is None or len(body) > self._limit:
            self._node.limits.reach("body_size_limit")
            return 413, _failure(Error(codes.BAD_REQUEST.code, "the request is too large"))
        try:
            return await work(scope, body)
        except BadBody as fault:
            return 400, _failure(Error(codes.BAD_REQUEST.code, f"bad request: {fault}"))

    def _knows(self, scope: Scope) -> bool:
        key = _header(scope["headers"], b"x-api-key")
        if not key:
            scheme, _, key = _header(scope["headers"], b"authorization").partition(b" ")
            if scheme.lower() != b"apikey":
                key = b""
        if hmac.compare_digest(key, self._key):
            return True
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return hmac.compare_digest(query.get("api_key", [""])[0].encode(), self._key)

    # -- what they do

    async def _call(self, method: str, scope: Scope, body: bytes) -> tuple[int, bytes]:
        reply = await self._calls.run(method, self._calls.read(method, body))
        if "error" in reply and (
            self._by_status or _header(scope["headers"], b"x-centrifugo-error-mode") == b"transport"
        ):
            error = reply["error"]
            return _STATUSES.get(error.code, 500), _encode(error)
        return 200, _encode(reply)

    async def _batch(self, scope: Scope, body: bytes) -> tuple[int, bytes]:
        # All are read before the first one runs: what is wrong with one stops all.
        requests = [self._read(command) for command in _decode(_batch, body).commands]
        replies = []
        for method, request in requests:
            reply = await self._calls.run(method, request)
            replies.append({method: reply["result"]} if "result" in reply else reply)
        return 200, _encode({"replies": replies})

    def _read(self, command: dict[str, Raw]) -> tuple[str, Any]:
        if len(command) != 1:
            raise BadBody("a command is one method and its request")
        [(method, arguments)] = command.items()
        return method, self._calls.read(method, arguments)

    async def _old(self, scope: Scope, body: bytes) -> tuple[int, bytes]:
        commands = [_decode(_old, line) for line in body.split(b"\n") if line.strip()]
        if not commands:
            raise BadBody("no command")
        requests = [self._calls.read(each.method, each.params) for each in commands]
        replies = []
        for command, request in zip(commands, requests, strict=True):
            reply = await self._calls.run(command.method, request)
            replies.append({"id": command.id, **reply} if command.id else reply)
        return 200, b"\n".join(map(_encode, replies))


def _header(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    """The first header of this name, which the server has in lower case; empty without one."""
    for name, value in headers:
        if name == wanted:
            return value
    return b""


class Calls:
    """Calls methods by their names, with requests that were read before."""

    def __init__(self, node: Node, api: Api) -> None:
        self._node = node
        self._methods = bind(api)

    def read(self, method: str, arguments: bytes | Raw) -> Any:
        """The request of a method; None for one that there is not. Raises `BadBody`."""
        decoder = _decoders.get(method)
        return None if decoder is None else _decode(decoder, arguments or b"{}")

    async def run(self, method: str, request: Any) -> dict[str, Any]:
        """The reply of one call with what `read` has given."""
        if request is None:
            missing = method in NOT_AVAILABLE
            return {"error": codes.NOT_AVAILABLE if missing else codes.METHOD_NOT_FOUND}
        counters = self._node.counters
        counters.api_calls[method] += 1
        began = perf_counter()
        reply = await self._traced(method, request)
        counters.api_times[method].add(perf_counter() - began)
        if "error" in reply:
            counters.api_errors[method, error_label(reply["error"].code)] += 1
        return reply

    async def _traced(self, method: str, request: Any) -> dict[str, Any]:
        tracing = self._node.tracing
        if not tracing.records:
            return await self._reply(method, request)
        with tracing.call(method) as span:
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


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes | Raw) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(str(error)) from None

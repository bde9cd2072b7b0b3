"""JSON-RPC 2.0 both ways on one connection: a client that calls, and a server that answers.

``python json_rpc.py serve [PORT]``, then ``python json_rpc.py ws://127.0.0.1:8765 METHOD …`` with
one of the methods below and its arguments in JSON.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from fastws import ClientConnection, ConnectionClosed, ServerConnection, connect, serve

PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602


async def add(*numbers: float) -> float:
    return sum(numbers)


async def sleep(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"slept {seconds} s"


METHODS: dict[str, Callable[..., Awaitable[Any]]] = {"add": add, "sleep": sleep}


async def answer(message: str | bytes) -> dict[str, Any] | None:
    """The response to one request; ``None`` to a notification, which has no id."""
    response: dict[str, Any] = {"jsonrpc": "2.0", "id": None}
    try:
        request = json.loads(message)
    except ValueError:
        return {**response, "error": {"code": PARSE_ERROR, "message": "not JSON"}}
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        return {**response, "error": {"code": INVALID_REQUEST, "message": "not a request"}}
    response["id"] = request.get("id")
    method = METHODS.get(request["method"])
    if method is None:
        response["error"] = {"code": NO_METHOD, "message": f"no method {request['method']}"}
    else:
        try:
            response["result"] = await method(*request.get("params", []))
        except TypeError as error:
            response["error"] = {"code": INVALID_PARAMS, "message": str(error)}
    return response if "id" in request else None


async def handler(ws: ServerConnection) -> None:
    """Requests run side by side: a slow one does not hold up the next."""

    async def reply(message: str | bytes) -> None:
        response = await answer(message)
        if response is not None:
            await ws.send(json.dumps(response))

    try:
        async with asyncio.TaskGroup() as running:
            async for message in ws:
                running.create_task(reply(message))
    except* ConnectionClosed:
        pass


class Client:
    """Calls over one connection; any number of them may wait for their results."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.ids = itertools.count(1)
        self.waiting: dict[int, asyncio.Future[Any]] = {}

    async def call(self, method: str, *params: Any) -> Any:
        """``RuntimeError`` if the server answers with an error."""
        number = next(self.ids)
        result = self.waiting[number] = asyncio.get_running_loop().create_future()
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        await self.ws.send(json.dumps(request))
        return await result

    async def listen(self) -> None:
        """Hands each response to its call, until the connection ends."""
        async for message in self.ws:
            response = json.loads(message)
            waiting = self.waiting.pop(response["id"])
            if "error" in response:
                waiting.set_exception(RuntimeError(response["error"]["message"]))
            else:
                waiting.set_result(response["result"])


async def call(uri: str, method: str, params: list[Any]) -> None:
    async with connect(uri, proxy=None) as ws:
        client = Client(ws)
        listening = asyncio.create_task(client.listen())
        # Both at once: the answer to the first call comes last.
        slow, result = await asyncio.gather(
            client.call("sleep", 0.1), client.call(method, *params), return_exceptions=True
        )
        print(slow)
        print(result)
        await ws.close()
        await listening


async def main(what: str, arguments: list[str]) -> None:
    if what == "serve":
        port = int(arguments[0]) if arguments else 8765
        async with serve(handler, "127.0.0.1", port) as server:
            await server.serve_forever()
    else:
        await call(what, arguments[0], [json.loads(argument) for argument in arguments[1:]])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))

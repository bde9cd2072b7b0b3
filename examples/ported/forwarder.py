"""Stands between clients and a server: passes on what either says, the subprotocol, and the end.

``python forwarder.py ws://HOST:PORT [PORT]``, then connect to ws://127.0.0.1:8765.
"""

import asyncio
import sys
from functools import partial

from fastws import (
    ClientConnection,
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    Request,
    Response,
    ServerConnection,
    connect,
    serve,
)

Side = ClientConnection | ServerConnection


async def dial(backend: str, ws: ServerConnection, request: Request) -> Response | None:
    """Before the handshake's end, so that a refusal reaches the client as it is."""
    offered = request.headers.get_all("Sec-WebSocket-Protocol")
    names = [name.strip() for line in offered for name in line.split(",")]
    try:
        ws.backend = await connect(
            backend + request.path,
            subprotocols=names or None,
            additional_headers={"X-Forwarded-For": ws.remote_address[0]},
            proxy=None,
            max_size=None,
        )
    except InvalidStatus as error:
        body = error.response.body or b""
        return ws.respond(error.response.status_code, body.decode(errors="replace"))
    except (OSError, InvalidHandshake):
        return ws.respond(502, "the server behind this one does not answer\n")
    return None


async def pump(source: Side, target: Side) -> None:
    """All of ``source`` to ``target``, and then its end."""
    try:
        async for message in source:
            await target.send(message)
    except ConnectionClosed:
        pass
    code = source.close_code
    if code in {None, 1005, 1006, 1015}:  # which are never in a frame
        code = 1000 if code == 1005 else 1001
    await target.close(code, source.close_reason or "")


async def handler(ws: ServerConnection) -> None:
    await asyncio.gather(pump(ws, ws.backend), pump(ws.backend, ws))


def agreed(ws: ServerConnection, offered: list[str]) -> str | None:
    """The subprotocol that the server behind has chosen."""
    return ws.backend.subprotocol


async def main(backend: str, port: int) -> None:
    async with serve(
        handler,
        "127.0.0.1",
        port,
        process_request=partial(dial, backend.rstrip("/")),
        select_subprotocol=agreed,
        max_size=None,
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8765))

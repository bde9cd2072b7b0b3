"""python-socketio as an ASGI application under uvicorn, WebSocket only."""

from typing import Any

import socketio
import uvicorn

from bench.peers._run import BACKLOG, HOST, MAX_SIZE, parse

server = socketio.AsyncServer(
    async_mode="asgi", transports=["websocket"], max_http_buffer_size=MAX_SIZE
)


async def _to_all(sid: str, data: Any) -> None:
    await server.emit("message", data)


server.on("message", _to_all)


if __name__ == "__main__":
    options = parse()
    uvicorn.run(
        socketio.ASGIApp(server),
        host=HOST,
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        backlog=BACKLOG,
        log_level="warning",
    )

"""A FastAPI echo under uvicorn, for the WebSocket implementation that is compared."""

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from bench.peers._run import BACKLOG, HOST, MAX_SIZE, parse

app = FastAPI()


@app.websocket("/")
async def echo(ws: WebSocket) -> None:
    await ws.accept()
    try:
        while (message := await ws.receive())["type"] == "websocket.receive":
            if message.get("bytes") is not None:
                await ws.send_bytes(message["bytes"])
            else:
                await ws.send_text(message["text"])
    except WebSocketDisconnect:
        pass


def run(ws: str) -> None:
    """`ws` is uvicorn's `--ws`."""
    options = parse()
    uvicorn.run(
        app,
        host=HOST,
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws=ws,
        ws_max_size=MAX_SIZE,
        ws_ping_interval=None,
        ws_per_message_deflate=options.deflate,
        backlog=BACKLOG,
        log_level="warning",
        lifespan="off",
        ssl_certfile=options.tls,
    )

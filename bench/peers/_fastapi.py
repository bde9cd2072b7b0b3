"""A FastAPI echo under uvicorn, for the WebSocket implementation that is compared."""

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from bench.peers._run import BACKLOG, HOST, MAX_SIZE, parse

app = FastAPI()


@app.websocket("/")
async def echo(ws: WebSocket) -> None:
    await ws.accept()
    try:
        while True:
            await ws.send_bytes(await ws.receive_bytes())
    except WebSocketDisconnect:
        pass


def run(ws: str) -> None:
    """`ws` is uvicorn's `--ws`."""
    uvicorn.run(
        app,
        host=HOST,
        port=parse().port,
        loop="uvloop",
        http="httptools",
        ws=ws,
        ws_max_size=MAX_SIZE,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        backlog=BACKLOG,
        log_level="warning",
        lifespan="off",
    )

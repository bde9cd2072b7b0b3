"""An echo in FastAPI under uvicorn, with the WebSocket implementation of choice."""

import asyncio

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from bench.peers._run import BACKLOG, HOST, MAX_SIZE, Options, run

app = FastAPI()


@app.websocket("/")
async def echo(ws: WebSocket) -> None:
    await ws.accept()
    try:
        while True:
            message = await ws.receive()
            if message["type"] == "websocket.disconnect":
                break
            if message.get("bytes") is not None:
                await ws.send_bytes(message["bytes"])
            else:
                await ws.send_text(message["text"])
    except WebSocketDisconnect:
        pass


def serve(implementation: str) -> None:
    """Runs the echo with `--ws implementation`, access log and keepalive pings off."""

    async def start(options: Options) -> object:
        config = uvicorn.Config(
            app,
            HOST,
            options.port,
            ws=implementation,
            ws_max_size=MAX_SIZE,
            ws_ping_interval=None,
            ws_per_message_deflate=options.deflate,
            backlog=BACKLOG,
            log_level="warning",
            lifespan="off",
            ssl_certfile=options.tls,
        )
        return asyncio.ensure_future(uvicorn.Server(config).serve())

    run(start)

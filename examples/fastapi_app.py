"""Chat rooms in FastAPI, on our WebSockets.

    pip install fastapi uvicorn
    uvicorn --app-dir examples fastapi_app:app --ws fastws.uvicorn:WebSocketProtocol

Then connect WebSocket clients to ws://127.0.0.1:8000/rooms/lobby?name=ann. Nothing in here knows
which WebSockets run it: leave ``--ws`` out, and uvicorn's own do.
"""

import asyncio
from collections import defaultdict
from typing import Annotated

from fastapi import FastAPI, Query, WebSocket, WebSocketDisconnect, WebSocketException, status

app = FastAPI()
rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def tell(room: str, text: str) -> None:
    """To all at once: one slow reader does not hold up the others."""
    sending = [ws.send_text(text) for ws in rooms[room]]
    await asyncio.gather(*sending, return_exceptions=True)


@app.get("/rooms")
async def members() -> dict[str, int]:
    """How many are in each room."""
    return {room: len(inside) for room, inside in rooms.items() if inside}


@app.websocket("/rooms/{room}")
async def join(ws: WebSocket, room: str, name: Annotated[str, Query()] = "") -> None:
    if not name.isalnum():
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "a name, please")  # gets 403
    await ws.accept()
    rooms[room].add(ws)
    try:
        await tell(room, f"* {name} joined")
        while True:
            await tell(room, f"{name}: {await ws.receive_text()}")
    except WebSocketDisconnect:
        pass
    finally:
        rooms[room].discard(ws)
        await tell(room, f"* {name} left")

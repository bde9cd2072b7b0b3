"""A JSON calculator in Starlette, on our WebSockets: a class, a subprotocol, and a refusal in HTTP.

    pip install starlette uvicorn
    uvicorn --app-dir examples starlette_app:app --ws fastws.uvicorn:WebSocketProtocol

Connect a client that speaks the subprotocol ``sums`` to ws://127.0.0.1:8000/sum, and send
``[1, 2, 3]``. One that does not speak it gets an HTTP response that says why.
"""

from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

SUBPROTOCOL = "sums"


class Sum(WebSocketEndpoint):
    encoding = "json"

    async def on_connect(self, websocket: WebSocket) -> None:
        if SUBPROTOCOL in websocket.scope["subprotocols"]:
            await websocket.accept(SUBPROTOCOL)
        else:
            problem = JSONResponse({"error": f"speak {SUBPROTOCOL}"}, status_code=400)
            await websocket.send_denial_response(problem)

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        try:
            await websocket.send_json({"sum": sum(data)})
        except TypeError:
            await websocket.close(1003, "not a list of numbers")


app = Starlette(routes=[WebSocketRoute("/sum", Sum)])

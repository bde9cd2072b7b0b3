"""An echo server in both styles.

``python examples/echo.py`` uses callbacks, the fastest way; with ``--coroutine`` each connection
has a coroutine. Connect any WebSocket client to ws://127.0.0.1:8765.
"""

import asyncio
import sys

import fastws


class Echo(fastws.Listener):
    """One instance for each connection. ``send`` does not block, so there is nothing to await."""

    def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
        ws.send(message)


async def echo(ws: fastws.Connection) -> None:
    """Ends when the client closes. Awaiting ``send`` waits while the client reads too slowly."""
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    handler = echo if "--coroutine" in sys.argv else Echo
    async with fastws.serve(handler, "127.0.0.1", 8765) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

"""A clock that any number of clients can watch: one frame, sent to all of them.

Run ``python examples/broadcast.py``, then connect WebSocket clients to ws://127.0.0.1:8765.
"""

import asyncio
import datetime

import fastws


class Watcher(fastws.Listener):
    """All connections share one instance: they need no state of their own."""

    def on_open(self, ws: fastws.Connection) -> None:
        ws.send("welcome")

    def on_overflow(self, ws: fastws.Connection) -> None:
        ws.close(1013, "you read too slowly")  # try again later


async def tick(server: fastws.Server, period: float = 1.0) -> None:
    """Tell everybody the time, every ``period`` seconds."""
    while True:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        fastws.broadcast(server.connections, now)  # framed once; never waits for a slow client
        await asyncio.sleep(period)


async def main() -> None:
    async with fastws.serve(Watcher(), "127.0.0.1", 8765) as server:
        await tick(server)


if __name__ == "__main__":
    asyncio.run(main())

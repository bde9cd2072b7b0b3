"""Follows a feed of numbered events for ever: reconnects, and asks for what it has missed.

``python consumer.py serve [PORT]`` runs a feed that hangs up on everyone now and then,
``python consumer.py ws://127.0.0.1:8765`` follows it and prints each event once.
"""

import asyncio
import itertools
import json
import random
import sys

from fastws import ConnectionClosed, ServerConnection, connect, serve


def delays():
    """Seconds before each attempt, up to a second, with jitter."""
    for attempt in itertools.count():
        yield random.uniform(0, min(0.05 * 2**attempt, 1.0))


async def follow(uri: str) -> None:
    last = 0
    async for ws in connect(uri, proxy=None, reconnect_delays=delays):
        try:
            await ws.send(json.dumps({"after": last}))
            async for message in ws:
                event = json.loads(message)
                if event["id"] != last + 1:
                    raise ValueError(f"event {last + 1} is missing")
                last = event["id"]
                print(last)
        except ConnectionClosed:
            pass  # the loop connects again


async def feed(ws: ServerConnection) -> None:
    """Events from the one that the client asks for, until the line breaks."""
    after = json.loads(await ws.recv())["after"]
    for number in itertools.count(after + 1):
        await ws.send(json.dumps({"id": number}))
        await asyncio.sleep(0.01)
        if number % 10 == 0:
            await ws.close(1012, "restarting")
            return


async def main(what: str, port: int) -> None:
    if what == "serve":
        async with serve(feed, "127.0.0.1", port) as server:
            await server.serve_forever()
    else:
        await follow(what)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8765))

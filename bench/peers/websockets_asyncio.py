"""`websockets`, its asyncio server, no keepalive pings."""

import websockets
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers._run import BACKLOG, HOST, MAX_SIZE, Options, run


async def _serve(options: Options) -> object:
    connections: set[ServerConnection] = set()

    async def echo(ws: ServerConnection) -> None:
        try:
            async for message in ws:
                await ws.send(message)
        except websockets.ConnectionClosed:
            pass

    async def to_all(ws: ServerConnection) -> None:
        connections.add(ws)
        try:
            async for message in ws:
                broadcast(connections, message)
        except websockets.ConnectionClosed:
            pass
        finally:
            connections.discard(ws)

    return await serve(
        to_all if options.broadcast else echo,
        HOST,
        options.port,
        compression="deflate" if options.deflate else None,
        ping_interval=None,
        max_size=MAX_SIZE,
        backlog=BACKLOG,
        server_header=None,
        ssl=options.ssl(),
    )


if __name__ == "__main__":
    run(_serve)

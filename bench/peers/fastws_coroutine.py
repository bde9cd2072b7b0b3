"""`fastws` in the style of `websockets`: a coroutine for each connection."""

import fastws
from bench.peers._run import BACKLOG, HOST, MAX_SIZE, Options, run


async def _serve(options: Options) -> object:
    connections: set[fastws.Connection] = set()

    async def echo(ws: fastws.Connection) -> None:
        async for message in ws:
            await ws.send(message)

    async def to_all(ws: fastws.Connection) -> None:
        connections.add(ws)
        try:
            async for message in ws:
                fastws.broadcast(connections, message)
        finally:
            connections.discard(ws)

    return await fastws.serve(
        to_all if options.broadcast else echo,
        HOST,
        options.port,
        max_size=MAX_SIZE,
        backlog=BACKLOG,
        ping_interval=None,
        compression="deflate" if options.deflate else None,
        ssl=options.ssl(),
    )


if __name__ == "__main__":
    run(_serve)

"""`picows.websockets`, picows' API in the style of `websockets`, no keepalive pings."""

import picows.websockets
from picows.websockets import ServerConnection, serve

from bench.peers._run import BACKLOG, HOST, MAX_SIZE, Options, run


async def _serve(options: Options) -> object:
    async def echo(ws: ServerConnection) -> None:
        try:
            async for message in ws:
                await ws.send(message)
        except picows.websockets.ConnectionClosed:
            pass

    return await serve(
        echo,
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

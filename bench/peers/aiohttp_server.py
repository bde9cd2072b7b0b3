"""aiohttp's server, access log off."""

from aiohttp import WSMsgType, web

from bench.peers._run import BACKLOG, HOST, MAX_SIZE, Options, run


async def _serve(options: Options) -> object:
    connections: set[web.WebSocketResponse] = set()

    async def open_socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=options.deflate, max_msg_size=MAX_SIZE)
        await ws.prepare(request)
        return ws

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = await open_socket(request)
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
        return ws

    async def to_all(request: web.Request) -> web.WebSocketResponse:
        ws = await open_socket(request)
        connections.add(ws)
        try:
            async for message in ws:
                if message.type is WSMsgType.BINARY:
                    for other in connections:
                        await other.send_bytes(message.data)
                elif message.type is WSMsgType.TEXT:
                    for other in connections:
                        await other.send_str(message.data)
        finally:
            connections.discard(ws)
        return ws

    app = web.Application()
    app.router.add_get("/", to_all if options.broadcast else echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, options.port, backlog=BACKLOG, ssl_context=options.ssl())
    await site.start()
    return site


if __name__ == "__main__":
    run(_serve)

"""picows, its core API: payloads are echoed from its read buffer, without a Python object each.

TLS is `aiofastnet`'s, which it takes by itself.
"""

from typing import ClassVar

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.peers._run import BACKLOG, HOST, MAX_SIZE, Options, run


class _Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)


class _ToAll(WSListener):
    connections: ClassVar[set[WSTransport]] = set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.connections.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.connections.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind, payload = frame.msg_type, frame.get_payload_as_memoryview()
        for other in self.connections:
            other.send(kind, payload)


async def _serve(options: Options) -> object:
    def listener(request: WSUpgradeRequest) -> WSListener:
        return _ToAll() if options.broadcast else _Echo()

    server = await ws_create_server(
        listener,
        HOST,
        options.port,
        max_frame_size=MAX_SIZE,
        backlog=BACKLOG,
        ssl=options.ssl(),
    )
    await server.start_serving()
    return server


if __name__ == "__main__":
    run(_serve)

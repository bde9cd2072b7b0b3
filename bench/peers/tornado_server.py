"""tornado on uvloop, access log off, no keepalive pings."""

import asyncio
from typing import Any, ClassVar

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from bench.peers._run import BACKLOG, HOST, MAX_SIZE, Options, run


class _Echo(WebSocketHandler):  # type: ignore[misc, unused-ignore]
    deflate: ClassVar[bool] = False

    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)

    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if self.deflate else None

    def on_message(self, message: str | bytes) -> None:
        try:
            self.write_message(message, isinstance(message, bytes))
        except (WebSocketClosedError, StreamClosedError):
            pass


class _ToAll(_Echo):
    connections: ClassVar[set[WebSocketHandler]] = set()

    def open(self, *args: str, **kwargs: str) -> None:
        super().open()
        self.connections.add(self)

    def on_close(self) -> None:
        self.connections.discard(self)

    def on_message(self, message: str | bytes) -> None:
        binary = isinstance(message, bytes)
        for other in self.connections:
            try:
                other.write_message(message, binary)
            except (WebSocketClosedError, StreamClosedError):
                pass


async def _serve(options: Options) -> object:
    _Echo.deflate = options.deflate
    application = Application(
        [("/", _ToAll if options.broadcast else _Echo)],
        log_function=lambda handler: None,
        websocket_max_message_size=MAX_SIZE,
    )
    server = HTTPServer(application, ssl_options=options.ssl(), max_buffer_size=2 * MAX_SIZE)
    server.listen(options.port, HOST, backlog=BACKLOG)
    await asyncio.sleep(0)
    return server


if __name__ == "__main__":
    run(_serve)

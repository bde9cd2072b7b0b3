"""`fastws` in its fast style: a Listener, its callbacks called from the reactor."""

from typing import ClassVar

import fastws
from bench.peers._run import BACKLOG, HOST, MAX_SIZE, Options, run


class _Echo(fastws.Listener):
    def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
        ws.send(message)


class _ToAll(fastws.Listener):
    connections: ClassVar[set[fastws.Connection]] = set()

    def on_open(self, ws: fastws.Connection) -> None:
        self.connections.add(ws)

    def on_close(self, ws: fastws.Connection, code: int, reason: str) -> None:
        self.connections.discard(ws)

    def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
        fastws.broadcast(self.connections, message)


async def serve(options: Options, carrier: str = "auto") -> object:
    """Starts the server on a carrier of choice."""
    listener = _ToAll() if options.broadcast else _Echo()
    return await fastws.serve(
        listener,
        HOST,
        options.port,
        max_size=MAX_SIZE,
        backlog=BACKLOG,
        ping_interval=None,
        carrier=carrier,
        compression="deflate" if options.deflate else None,
        ssl=options.ssl(),
    )


if __name__ == "__main__":
    run(serve)

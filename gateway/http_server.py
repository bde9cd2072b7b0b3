"""The server side of plain HTTP: uvicorn's protocol, and what its `Server` would keep.

uvicorn starts a task for each request, and sends a response in two events, which become two writes.
For a call of the API, which takes some microseconds, that would be most of the cost. A call whose
request has come whole is therefore run where it stands (`gateway.stepping`), and answered by one
write. Parsing, pipelining, timeouts, and all other requests are uvicorn's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from email.utils import formatdate
from functools import partial
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from gateway.api import Door
from gateway.stepping import start


class HttpSide:
    """What is shared by the HTTP connections of a port.

    ``door`` answers calls of the API before ``app`` is asked.
    """

    def __init__(self, app: ASGIApp, door: Door | None = None) -> None:
        self.config = Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", proxy_headers=False
        )
        self.config.load()
        self.state = ServerState()
        self.door = door
        self.tick()

    @property
    def protocol_factory(self) -> Callable[[], asyncio.Protocol]:
        """Makes the protocol for a connection that is handed over."""
        return partial(HttpConnection, self)

    def tick(self) -> None:
        """Once a second: the Date header of responses (RFC 9110 6.6.1)."""
        date = formatdate(usegmt=True).encode()
        headers = [(b"date", date), *self.config.encoded_headers]
        self.state.default_headers = headers
        self.head = b"".join(b"%b: %b\r\n" % pair for pair in headers)

    def abort(self) -> None:
        """Cut the connections that are left."""
        for connection in list(self.state.connections):
            connection.transport.abort()

    def finish(self) -> None:
        """Close idle connections, and others when their response is complete."""
        for connection in list(self.state.connections):
            connection.shutdown()

    async def close(self) -> None:
        """Let running responses finish, and close idle connections."""
        self.finish()
        while self.state.connections or self.state.tasks:  # noqa: ASYNC110, uvicorn has no event
            await asyncio.sleep(0.02)


class HttpConnection(HttpToolsProtocol):
    """One connection. Runs what the door of its ``side`` takes at once."""

    def __init__(self, side: HttpSide) -> None:
        super().__init__(side.config, side.state, {})
        self._side = side
        self._reading = False
        self._call: RequestResponseCycle | None = None  # to be run when all is read

    def data_received(self, data: bytes) -> None:
        self._reading = True
        super().data_received(data)
        self._reading = False
        cycle, self._call = self._call, None
        if cycle is None:
            pass
        elif cycle.more_body:
            super()._start_asgi_task(cycle, cast(Any, self._side.door))
        else:
            self._run(cycle)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # uvicorn calls it with the head of a request, one at a time, and after a response for the
        # next of a pipeline: that gets a task, as others are to have their turn. Versions that have
        # no such method start a task in any case: the app has the API as well.
        door = self._side.door
        if door is None or not door.takes(cycle.scope):
            super()._start_asgi_task(cycle, app)
        elif self._reading:
            self._call = cycle
        else:
            super()._start_asgi_task(cycle, cast(Any, door))

    def _run(self, cycle: RequestResponseCycle) -> None:
        serve = cast(Any, partial(self._serve, cycle))
        # As in a task, what the call sets in its context is not there for the next one.
        task = start(cycle.run_asgi(serve), context=copy_context())
        if task is not None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _serve(
        self, cycle: RequestResponseCycle, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """An ASGI app for one request whose body is here."""
        door = self._side.door
        assert door is not None
        status, content = await door.answer(scope, receive, bytes(cycle.body))
        if self.flow.write_paused or cycle.disconnected or cycle.access_log:
            await door.respond(send, status, content)
        else:
            self._respond(cycle, status, content)

    def _respond(self, cycle: RequestResponseCycle, status: int, content: bytes) -> None:
        """What `send` of a cycle does, for a response that is whole and has headers of ours."""
        cycle.response_started = cycle.response_complete = True
        self.transport.write(
            b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
            % (
                STATUS_LINE[status],
                self._side.head,
                len(content),
                b"" if cycle.keep_alive else b"connection: close\r\n",
                content,
            )
        )
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

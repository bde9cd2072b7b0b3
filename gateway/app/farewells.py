"""Tells the application of clients that are gone: at its pace, and as long as there is room.

This is best effort, and not for state that has to be right. One event may be lost: with this
process, when the backend fails (it is not tried again), or when more clients go than are told of.
It may also come after the same user has connected anew; ``client`` tells connections apart.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog
from msgspec import UNSET

from gateway.app.base import App, Headers
from gateway.app.events import DisconnectEvent
from gateway.codes import Disconnected, Refused
from gateway.limits import Bucket
from gateway.session import Session

log = structlog.get_logger("gateway.app")

# Events that wait their turn: with the default rate about 40 s of them, and a few megabytes.
_QUEUE = 4096
# Calls of the application under way at once.
_AT_ONCE = 16


class Farewells:
    """The disconnect events of one node.

    ``rate``: events per second, after as many at once; 0 for no limit. ``clock`` is monotonic,
    ``wall`` gives Unix time.
    """

    def __init__(
        self, app: App, rate: int, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.dropped = 0  # events that there was no room for, or no time at the end
        self._app = app
        self._rate = rate
        self._clock = clock
        self._wall = wall
        self._bucket = Bucket(rate, clock())
        self._queue: deque[tuple[DisconnectEvent, Headers]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def tell(self, session: Session, code: int, reason: str) -> None:
        """A client that had connected is gone. Returns at once."""
        if not self._app.handles("disconnect"):
            return
        if len(self._queue) >= _QUEUE:
            self.dropped += 1
            return
        credentials = session.credentials
        event = DisconnectEvent(
            client=session.id,
            address=session.address,
            user=session.user,
            meta=credentials.meta if credentials is not None else UNSET,
            code=code,
            reason=reason,
            time=int(self._wall()),
        )
        self._queue.append((event, session.headers))
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._queue:
                if self._rate and not self._bucket.take(self._rate, self._clock()):
                    await asyncio.sleep(1 / self._rate)
                    continue
                while len(self._calls) >= _AT_ONCE:
                    await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
                call = asyncio.create_task(self._call(*self._queue.popleft()))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
        finally:
            self._worker = None

    async def _call(self, event: DisconnectEvent, headers: Headers) -> None:
        try:
            await self._app.disconnect(event, headers)
        except (Refused, Disconnected, OSError) as error:
            log.debug("disconnect was not told", client=event.client, error=str(error))
        except Exception:
            log.exception("the application failed", event_name="disconnect", client=event.client)

    async def finish(self) -> None:
        """Until all that is known has been told."""
        while (worker := self._worker) is not None or self._calls:
            await asyncio.wait([*self._calls, *([worker] if worker is not None else [])])

    def close(self) -> None:
        """Give up what is left."""
        self.dropped += len(self._queue) + len(self._calls)
        self._queue.clear()
        for task in [*self._calls, *([self._worker] if self._worker is not None else [])]:
            task.cancel()

"""Lines from a pipe or file, and messages to one."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Final

__all__ = ["Pipe"]

_READ: Final = 65536  # bytes at a time
_AHEAD: Final = 4  # reads whose lines have not been taken yet


class Pipe:
    """Standard input and output where they are no terminal."""

    prompting = False

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    async def __aenter__(self) -> Pipe:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def lines(self) -> AsyncIterator[str | bytes]:
        """The lines of the input without their ends; as bytes where they are not UTF-8."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[list[bytes]] = asyncio.Queue()
        room = threading.Semaphore(_AHEAD)
        ended = False

        def put(lines: list[bytes]) -> bool:
            room.acquire()
            if ended:
                return False
            try:
                loop.call_soon_threadsafe(queue.put_nowait, lines)
            except RuntimeError:  # the loop is closed
                return False
            return True

        # A thread, because not everything that input can be has a descriptor to wait for; a daemon
        # that reads the descriptor itself, so that the command can end while it waits.
        threading.Thread(target=_read_lines, args=(put,), daemon=True).start()
        try:
            while lines := await queue.get():
                room.release()
                for line in lines:
                    try:
                        yield line.decode()
                    except UnicodeDecodeError:
                        yield line
        finally:
            ended = True
            room.release()

    def show_message(self, message: str | bytes) -> None:
        """A message that came."""
        data = message.encode() if isinstance(message, str) else message
        sys.stdout.buffer.write(data + b"\n")
        sys.stdout.buffer.flush()

    def show_status(self, text: str) -> None:
        """What happens to the connection."""
        if not self._quiet:
            self.show_error(text)

    def show_error(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _read_lines(put: Callable[[list[bytes]], bool]) -> None:
    """Give lines to ``put``, as many as come at once; none at the end. Until it takes no more."""
    rest = b""
    while data := os.read(sys.stdin.fileno(), _READ):
        *lines, rest = (rest + data).split(b"\n")
        if lines and not put([line.removesuffix(b"\r") for line in lines]):
            return
    if not rest or put([rest]):
        put([])

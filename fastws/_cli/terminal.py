"""Lines that are typed, and messages shown above the one being typed."""

from __future__ import annotations

import asyncio
import codecs
import os
import shutil
import sys
import termios
import tty
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from .editor import END_OF_INPUT, LineEditor, visible

__all__ = ["Terminal"]

_PROMPT: Final = "> "
_BINARY_SHOWN: Final = 64  # bytes
_ERASE_LINE: Final = "\r\x1b[K"


class Terminal:
    """A terminal in which lines are typed while messages come.

    The line takes one row, whatever its length: to show a message, that row is erased, the message
    written, and the row drawn again below it.
    """

    prompting = True

    def __init__(self, *, quiet: bool, history: Path | None) -> None:
        self._quiet = quiet
        self._history = history
        self._editor = LineEditor(self._load())
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._input = sys.stdin.fileno()
        self._before: list[Any] = []
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> Terminal:
        self._before = termios.tcgetattr(self._input)
        # Each key at once and not echoed; Ctrl-C still interrupts.
        tty.setcbreak(self._input)
        asyncio.get_running_loop().add_reader(self._input, self._typed)
        self._draw()
        return self

    async def __aexit__(self, *exc: object) -> None:
        asyncio.get_running_loop().remove_reader(self._input)
        self._write(_ERASE_LINE)
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)
        self._save()

    async def lines(self) -> AsyncIterator[str | bytes]:
        """What is typed, until Ctrl-D."""
        while (line := await self._queue.get()) != END_OF_INPUT:
            yield line

    def show_message(self, message: str | bytes) -> None:
        """A message that came."""
        if isinstance(message, bytes):
            shown = message[:_BINARY_SHOWN].hex(" ")
            more = " …" if len(message) > _BINARY_SHOWN else ""
            self._show(f"< binary, {len(message)} bytes: {shown}{more}")
        else:
            self._show(f"< {visible(message)}")

    def show_status(self, text: str) -> None:
        """What happens to the connection."""
        if not self._quiet:
            self.show_error(text)

    def show_error(self, text: str) -> None:
        self._show(f"* {visible(text)}")

    def _show(self, text: str) -> None:
        self._write(f"{_ERASE_LINE}{text}\n")
        self._draw()

    def _typed(self) -> None:
        try:
            data = os.read(self._input, 4096)
        except OSError:  # the terminal is gone
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._input)
            self._queue.put_nowait(END_OF_INPUT)
            return
        for line in self._editor.feed(self._decode(data)):
            if line != END_OF_INPUT:
                self._write(f"{_ERASE_LINE}{_PROMPT}{visible(line)}\n")
            self._queue.put_nowait(line)
        self._draw()

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - len(_PROMPT)
        text, column = self._editor.render(max(width, 1))
        self._write(f"{_ERASE_LINE}{_PROMPT}{text}\r\x1b[{len(_PROMPT) + column}C")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    # --- the history

    def _load(self) -> list[str]:
        if self._history is None:
            return []
        try:
            return self._history.read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            self._history = None  # what cannot be read is not to be overwritten
            _complain(f"the history is not read: {error}")
            return []

    def _save(self) -> None:
        if self._history is None:
            return
        try:
            # For nobody else's eyes: what is typed may be a password.
            descriptor = os.open(self._history, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.writelines(f"{line}\n" for line in self._editor.history)
        except OSError as error:
            _complain(f"the history is not kept: {error}")


def _complain(text: str) -> None:
    print(f"fastws: {visible(text)}", file=sys.stderr)

"""The line being typed: keys in, lines out; without a terminal."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["END_OF_INPUT", "LineEditor", "visible"]

END_OF_INPUT: Final = "\x04"

# What a key sends (ECMA-48 5.4, 8.2): whole sequences, then one that has only begun.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\[O\x1b])", re.DOTALL)
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?$")

_HISTORY: Final = 1000  # lines


class LineEditor:
    """One line with its history.

    Left, right, Home, End, Backspace, Delete, Up and Down, and of the Emacs keys Ctrl-A, E, B, F,
    P, N, K, U, W and D.
    """

    def __init__(self, history: list[str] | None = None) -> None:
        self.history = (history or [])[-_HISTORY:]
        self._text = ""
        self._cursor = 0
        self._place = len(self.history)  # in the history; behind it: the line being typed
        self._typed = ""  # that line, while another one is looked at
        self._unread = ""
        self._keys = {
            **dict.fromkeys(("\x1b[D", "\x1bOD", "\x02"), self._left),
            **dict.fromkeys(("\x1b[C", "\x1bOC", "\x06"), self._right),
            **dict.fromkeys(("\x1b[A", "\x1bOA", "\x10"), self._older),
            **dict.fromkeys(("\x1b[B", "\x1bOB", "\x0e"), self._newer),
            **dict.fromkeys(("\x1b[H", "\x1bOH", "\x1b[1~", "\x01"), self._home),
            **dict.fromkeys(("\x1b[F", "\x1bOF", "\x1b[4~", "\x05"), self._end),
            **dict.fromkeys(("\x7f", "\x08"), self._backspace),
            **dict.fromkeys(("\x1b[3~", "\x04"), self._delete),
            "\x0b": self._kill,
            "\x15": self._kill_back,
            "\x17": self._kill_word,
        }

    def feed(self, data: str) -> list[str]:
        """Take what was typed or pasted. The lines that it ends; ``END_OF_INPUT`` for a Ctrl-D
        on an empty line.
        """
        lines: list[str] = []
        data = self._unread + data
        self._unread = ""
        at = 0
        while at < len(data):
            if data[at] == "\x1b":
                sequence = _SEQUENCE.match(data, at)
                if sequence is None:
                    if _BEGUN.match(data, at):
                        self._unread = data[at:]
                        break
                    at += 1
                    continue
                key = sequence[0]
            else:
                key = data[at]
            at += len(key)
            self._press(key, lines)
        return lines

    def _press(self, key: str, lines: list[str]) -> None:
        if key in ("\r", "\n"):
            lines.append(self._enter())
        elif key == "\x04" and not self._text:
            lines.append(END_OF_INPUT)
        elif key in self._keys:
            self._keys[key]()
        elif key == "\t" or (len(key) == 1 and unicodedata.category(key) != "Cc"):
            self._text = self._text[: self._cursor] + key + self._text[self._cursor :]
            self._cursor += 1

    def render(self, width: int) -> tuple[str, int]:
        """The part of the line around the cursor that fits into ``width`` columns, and the column
        of the cursor in it.
        """
        start, used = self._cursor, 0
        while start and used + _width(self._text[start - 1]) < width:
            start -= 1
            used += _width(self._text[start])
        column, stop = used, self._cursor
        while stop < len(self._text) and used + _width(self._text[stop]) < width:
            used += _width(self._text[stop])
            stop += 1
        return self._text[start:stop].replace("\t", " "), column

    # --- keys

    def _enter(self) -> str:
        line, self._text, self._cursor, self._typed = self._text, "", 0, ""
        if line and line != (self.history or [""])[-1]:
            self.history.append(line)
            del self.history[:-_HISTORY]
        self._place = len(self.history)
        return line

    def _left(self) -> None:
        self._cursor = max(self._cursor - 1, 0)

    def _right(self) -> None:
        self._cursor = min(self._cursor + 1, len(self._text))

    def _home(self) -> None:
        self._cursor = 0

    def _end(self) -> None:
        self._cursor = len(self._text)

    def _older(self) -> None:
        self._look_at(self._place - 1)

    def _newer(self) -> None:
        self._look_at(self._place + 1)

    def _look_at(self, place: int) -> None:
        if not 0 <= place <= len(self.history):
            return
        if self._place == len(self.history):
            self._typed = self._text
        self._place = place
        self._text = self._typed if place == len(self.history) else self.history[place]
        self._cursor = len(self._text)

    def _backspace(self) -> None:
        if self._cursor:
            self._cut(self._cursor - 1, self._cursor)

    def _delete(self) -> None:
        self._cut(self._cursor, self._cursor + 1)

    def _kill(self) -> None:
        self._cut(self._cursor, len(self._text))

    def _kill_back(self) -> None:
        self._cut(0, self._cursor)

    def _kill_word(self) -> None:
        before = self._text[: self._cursor].rstrip()
        self._cut(before.rfind(" ") + 1, self._cursor)

    def _cut(self, start: int, stop: int) -> None:
        self._text = self._text[:start] + self._text[stop:]
        self._cursor = start


def _width(char: str) -> int:
    """Columns on a terminal."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def visible(text: str) -> str:
    """``text`` with its control characters spelt out: a server shall not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) == "Cc" and char not in "\n\t" else char
        for char in text
    )

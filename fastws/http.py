"""Requests, responses and headers of the opening handshake (RFC 9110, RFC 9112)."""

from __future__ import annotations

import dataclasses
import http
from collections.abc import Iterable, Iterator, Mapping, MutableMapping

from ._impl import Head

__all__ = [
    "Headers",
    "MultipleValuesError",
    "Request",
    "Response",
    "reason_phrase",
    "serialize_head",
]


class MultipleValuesError(LookupError):
    """``headers[name]`` where several lines have that name; see ``Headers.get_all``."""


class Headers(MutableMapping[str, str]):
    """Header lines in order; names compare without regard to case.

    ``headers[name]`` is the one value; ``headers[name] = value`` adds a line; ``get_all`` gives
    every value.
    """

    __slots__ = ("_lines", "_names")

    def __init__(
        self, lines: Mapping[str, str] | Iterable[tuple[str, str]] = (), **named: str
    ) -> None:
        self._lines: list[tuple[str, str]] = []
        self._names: dict[str, list[str]] = {}
        for name, value in lines.items() if isinstance(lines, Mapping) else lines:
            self[name] = value
        for name, value in named.items():
            self[name] = value

    def __getitem__(self, name: str) -> str:
        values = self._names[name.lower()]
        if len(values) > 1:
            raise MultipleValuesError(name)
        return values[0]

    def __setitem__(self, name: str, value: str) -> None:
        self._names.setdefault(name.lower(), []).append(value)
        self._lines.append((name, value))

    def __delitem__(self, name: str) -> None:
        name = name.lower()
        del self._names[name]
        self._lines = [line for line in self._lines if line[0].lower() != name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._names

    def __str__(self) -> str:
        """The lines as they go over the wire, with the empty one behind them."""
        return "".join(f"{name}: {value}\r\n" for name, value in self._lines) + "\r\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._lines!r})"

    def get_all(self, name: str) -> list[str]:
        """Every value of ``name``, in order; empty if there is none."""
        return list(self._names.get(name.lower(), ()))

    def copy(self) -> Headers:
        """Others with the same lines."""
        return Headers(self._lines)

    def serialize(self) -> bytes:
        """The lines as they go over the wire, with the empty one behind them. ``ValueError`` if one
        would be more than one.
        """
        return _serialize(f"{name}: {value}" for name, value in self._lines) + b"\r\n"

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Every line, in order."""
        return iter(self._lines)


@dataclasses.dataclass(slots=True)
class Request:
    """The request of an opening handshake: ``path`` is the request target with its query."""

    path: str
    headers: Headers

    @classmethod
    def from_head(cls, head: Head) -> Request:
        return cls(head.target, Headers(head.lines()))

    def serialize(self) -> bytes:
        """``ValueError`` for a path or header that would break out of its line."""
        return serialize_head(f"GET {self.path} HTTP/1.1", self.headers)


@dataclasses.dataclass(slots=True)
class Response:
    """An HTTP response in place of, or accepting, an opening handshake."""

    status_code: int
    reason_phrase: str
    headers: Headers = dataclasses.field(default_factory=Headers)
    body: bytes = b""

    @classmethod
    def of_text(cls, status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> Response:
        """A plain-text response that closes the connection."""
        body = text.encode()
        lines = Headers(headers)
        lines["Connection"] = "close"
        lines["Content-Length"] = str(len(body))
        lines["Content-Type"] = "text/plain; charset=utf-8"
        return cls(status, reason_phrase(status), lines, body)

    def serialize(self) -> bytes:
        """``ValueError`` for a phrase or header that would break out of its line."""
        first = f"HTTP/1.1 {self.status_code} {self.reason_phrase}"
        return serialize_head(first, self.headers) + self.body


def reason_phrase(status: int) -> str:
    """The usual reason phrase of ``status``; empty if it has none (RFC 9112 4)."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def serialize_head(first: str, headers: Headers) -> bytes:
    """The head of a message; ``ValueError`` if one of its lines would be more than one."""
    return _serialize([first]) + headers.serialize()


def _serialize(lines: Iterable[str]) -> bytes:
    """``lines`` with their ends."""
    text = ""
    for line in lines:
        if any(char in "\r\n\0" for char in line):
            raise ValueError(f"{line!r} has a control character in it")
        text += f"{line}\r\n"
    return text.encode("latin-1", "replace")

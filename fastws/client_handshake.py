"""The client's side of the opening handshake (RFC 6455 4.1), without I/O.

The server's is ``handshake``.
"""

from __future__ import annotations

import base64
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ._grammar import is_field_value, is_token
from ._response import ResponseParser
from ._version import __version__
from .deflate import Deflate, Extension, Parameters, parse_extensions
from .exceptions import (
    InvalidHeader,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
)
from .handshake import accept_key
from .http import Headers, Request, Response
from .uri import WebSocketURI, basic_credentials

__all__ = ["USER_AGENT", "ClientHandshake", "HeadersLike"]

USER_AGENT: Final = f"Python/{platform.python_version()} fastws/{__version__}"

HeadersLike = Headers | Mapping[str, str] | Iterable[tuple[str, str]]

# Ours alone: the answer is checked against what we wrote there.
_OWN = re.compile(r"upgrade|connection|sec-websocket-.*", re.IGNORECASE).fullmatch


class ClientHandshake:
    """One opening handshake: the request, and what its response must be.

    Args:
        uri: where to.
        headers: further header lines; ``Host``, ``Origin``, ``User-Agent`` and ``Authorization``
            among them replace ours, the handshake's own are refused.
        origin: value of ``Origin``, or ``None``.
        subprotocols: offered, the most wanted first.
        user_agent: value of ``User-Agent``, or ``None``.
        deflate: permessage-deflate as it is offered, or ``None``.

    Attributes:
        request: to be sent first.
        parser: takes what comes back.
        subprotocol: agreed on, once ``check`` has been called; ``deflated``, likewise: the
            parameters of compressed messages, or ``None``.

    ``ValueError`` for a header that cannot be sent.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        headers: Headers,
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        user_agent: str | None = USER_AGENT,
        deflate: Deflate | None = None,
    ) -> None:
        self.deflate = deflate
        self.deflated: Parameters | None = None
        self.parser = ResponseParser(switching=(101,))
        self.subprotocol: str | None = None
        self._subprotocols = subprotocols
        # 16 random bytes, new for each connection (RFC 6455 4.1).
        self._key = base64.b64encode(os.urandom(16))
        lines = Headers()
        _set_default(lines, headers, "Host", uri.authority)
        lines["Upgrade"] = "websocket"
        lines["Connection"] = "Upgrade"
        lines["Sec-WebSocket-Key"] = self._key.decode("ascii")
        lines["Sec-WebSocket-Version"] = "13"
        if subprotocols:
            lines["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
        if deflate is not None:
            lines["Sec-WebSocket-Extensions"] = str(deflate.offer())
        _set_default(lines, headers, "Origin", origin)
        if uri.username is not None:
            credentials = basic_credentials(uri.username, uri.password or "")
            _set_default(lines, headers, "Authorization", credentials)
        _set_default(lines, headers, "User-Agent", user_agent)
        for name, value in headers.raw_items():
            _check_name(name)
            lines[name] = value
        for name, value in lines.raw_items():
            _check_value(name, value)
        self.request = Request(uri.resource_name, lines)

    def check(self, response: Response) -> None:
        """``InvalidHandshake`` of the fitting kind unless ``response`` opens the WebSocket."""
        if response.status_code != 101:
            raise InvalidStatus(response)
        if self.parser.minor == 0:
            raise InvalidMessage("the server answered 101 in HTTP/1.0")
        headers = response.headers
        upgrade = [item.lower() for item in _items(headers, "Upgrade")]
        if upgrade != ["websocket"]:
            raise InvalidUpgrade(_wrong(headers, "Upgrade", "websocket"))
        if "upgrade" not in [item.lower() for item in _items(headers, "Connection")]:
            raise InvalidUpgrade(_wrong(headers, "Connection", "Upgrade"))
        accept = accept_key(self._key).decode("ascii")
        if headers.get_all("Sec-WebSocket-Accept") != [accept]:
            raise InvalidHeader(_wrong(headers, "Sec-WebSocket-Accept", "the answer to our key"))
        answers = parse_extensions(", ".join(headers.get_all("Sec-WebSocket-Extensions")))
        self.deflated = self._check_extensions(answers)
        self.subprotocol = self._check_subprotocol(_items(headers, "Sec-WebSocket-Protocol"))

    def _check_extensions(self, answers: list[Extension]) -> Parameters | None:
        if self.deflate is not None:
            return self.deflate.agree(answers)
        if answers:
            raise NegotiationError(f"extension {answers[0][0]!r} was not offered")
        return None

    def _check_subprotocol(self, accepted: list[str]) -> str | None:
        if not accepted:
            return None
        if len(accepted) > 1:
            raise NegotiationError(f"the server chose {len(accepted)} subprotocols")
        if accepted[0] not in self._subprotocols:
            raise NegotiationError(f"subprotocol {accepted[0]!r} was not offered")
        return accepted[0]


def _set_default(lines: Headers, given: Headers, name: str, value: str | None) -> None:
    if value is not None and name not in given:
        lines[name] = value


def _check_name(name: str) -> None:
    if _OWN(name):
        raise ValueError(f"header {name} is the handshake's own")
    if not is_token(name.encode()):
        raise ValueError(f"{name!r} is not the name of a header (RFC 9110 5.1)")


def _check_value(name: str, value: str) -> None:
    try:
        data = value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"header {name} has a character beyond ISO-8859-1 in it") from None
    if not is_field_value(data):
        raise ValueError(f"header {name} has a control character in it")


def _items(headers: Headers, name: str) -> list[str]:
    """Of a list by commas, on one line or several (RFC 9110 5.6.1)."""
    items = [item.strip(" \t") for value in headers.get_all(name) for item in value.split(",")]
    return [item for item in items if item]


def _wrong(headers: Headers, name: str, expected: str) -> str:
    values = headers.get_all(name)
    if not values:
        return f"header {name} is missing"
    return f"header {name} is {', '.join(values)[:100]!r}, not {expected}"

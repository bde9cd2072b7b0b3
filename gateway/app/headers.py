"""Headers of clients, which backends may see."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gateway import codes
from gateway.codes import Disconnected
from gateway.config.check import HEADER_VALUE

# Bytes of names and values. A backend would not take many more, and seem to fail.
_MAX_EMULATED = 8192

_Headers = Mapping[str, str]


class ClientHeaders(dict[str, str]):
    """What a client's opening request says, and where that says nothing, its connect command.

    SDKs in browsers, which cannot set headers of a WebSocket, "emulate" them in that command. What
    stands there is the client's word: a proxy in front of us has not seen it. So both are also kept
    apart, in ``request`` and ``emulated``.
    """

    __slots__ = ("emulated", "request")

    def __init__(self, request: _Headers, emulated: _Headers) -> None:
        super().__init__(merge(emulated, request))
        self.request = request
        self.emulated = emulated


def merge(*parts: _Headers) -> dict[str, str]:
    """Headers of all parts; the last of a name, in whatever case, wins."""
    named = {name.lower(): (name, value) for part in parts for name, value in part.items()}
    return dict(named.values())


def with_emulated(
    request: dict[str, str] | None, given: _Headers, wanted: Collection[str]
) -> dict[str, str] | None:
    """Headers of a request, and those of a connect command that are ``wanted`` (in lower case).

    Raises `Disconnected` (3501) for what no header may have.
    """
    emulated = {name: value for name, value in given.items() if name.lower() in wanted}
    if not emulated:
        return request
    if sum(len(name) + len(value.encode()) for name, value in emulated.items()) > _MAX_EMULATED:
        raise Disconnected(codes.INVALID_REQUEST, "too many headers")
    if not all(map(HEADER_VALUE.fullmatch, emulated.values())):
        raise Disconnected(codes.INVALID_REQUEST, "a header has a character that none may have")
    return ClientHeaders(request or {}, emulated)

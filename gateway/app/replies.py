"""What a backend answers over HTTP: ``{"result": …}``, ``{"error": …}``, ``{"disconnect": …}``."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.app.calls import BadReply, check_disconnect, content
from gateway.app.events import ConnectReply, ConnectSubscription, RefreshReply, SubscribeReply
from gateway.codes import Disconnect, Disconnected, Error, Refused

_T = TypeVar("_T")

# Fields that Centrifugo has, and that say what a client may do: where they can not be had, it is
# told of a failure rather than given other rights.
NOT_HERE: dict[type[Struct], tuple[str, ...]] = {
    ConnectReply: ("caps", "labels"),
    ConnectSubscription: ("server_tags_filter",),
    RefreshReply: ("caps",),
    SubscribeReply: ("allow", "server_tags_filter"),
}

_NULL = b"null"
_NOTHING = (_NULL, b"[]", b"{}", b'""')


class _Answer(Struct):
    result: Raw | UnsetType = UNSET
    error: Error | None = None
    disconnect: Disconnect | None = None


_decode = msgspec.json.Decoder(_Answer).decode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def read(answer: bytes, kind: type[_T]) -> _T | None:
    """The result, None where there is none.

    Raises `Refused` and `Disconnected` as the backend wants it, and `BadReply` for what is no
    reply.
    """
    try:
        reply = _decode(answer.decode())  # as text: payloads are passed on, and have to be UTF-8
        if reply.disconnect is not None:
            check_disconnect(reply.disconnect)
            raise Disconnected(reply.disconnect, "the backend wants it")
        if reply.error is not None:
            if not 0 < reply.error.code < 2**32:
                raise BadReply(f"error {reply.error.code}: there is no such code")
            raise Refused(reply.error)
        if isinstance(reply.result, UnsetType) or bytes(reply.result) == _NULL:
            return None
        return _result(reply.result, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadReply(str(error)) from None


def _result(raw: Raw, kind: type[_T]) -> _T:
    fields = _present(raw, kind)
    if kind is ConnectReply and "subs" in fields:
        subs = _fields(fields["subs"])
        each = {name: _present(sub, ConnectSubscription) for name, sub in subs.items()}
        fields["subs"] = Raw(_encode(each))
    result = msgspec.json.decode(_encode(fields), type=kind)
    for part in (result, *getattr(result, "subs", {}).values()):
        for name in ("info", "data"):
            content(UNSET, getattr(part, f"b64{name}", ""))
    return result


def _present(raw: Raw, kind: type) -> dict[str, Raw]:
    """The fields that are not null, which is as if they were not there."""
    fields = _fields(raw)
    for name in NOT_HERE.get(kind, ()):
        if bytes(fields.get(name, _NULL)) not in _NOTHING:
            raise BadReply(f"{name}: this gateway does not have it")
    return {name: value for name, value in fields.items() if bytes(value) != _NULL}

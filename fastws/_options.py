"""Options in the shapes that ``websockets`` takes them in, as `Settings` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Limits", "MaxQueue", "MaxSize", "WriteLimit", "limits", "no_extensions"]

MaxSize = int | tuple[int | None, int | None] | None
MaxQueue = int | tuple[int | None, int | None] | None
WriteLimit = int | tuple[int, int | None]
Limits = dict[str, Any]


def limits(max_size: MaxSize, max_queue: MaxQueue, write_limit: WriteLimit) -> Limits:
    """The keyword arguments of `Settings` of these names; ``ValueError`` or ``TypeError`` for a
    pair that cannot be had.
    """
    return {
        "max_size": _message_size(max_size),
        "max_queue": _queue_length(max_queue),
        "write_limit": _marks(write_limit),
    }


def _message_size(max_size: MaxSize) -> int | None:
    if not isinstance(max_size, tuple):
        return max_size
    message, fragment = _pair("max_size", max_size)
    if fragment is not None and (message is None or fragment < message):
        raise ValueError(
            f"max_size: {max_size}: fragments have no limit of their own; max_size is that of the "
            "message, max_fragments that of their number"
        )
    return message


def _queue_length(max_queue: MaxQueue) -> int | None:
    if not isinstance(max_queue, tuple):
        return max_queue
    high, low = _pair("max_queue", max_queue)
    if high is None and low is not None:
        high = 4 * low
    if high is not None and low is not None and not 0 <= low <= high:
        raise ValueError(f"max_queue: low-water mark {low} is not in 0..{high}")
    return high


def _marks(write_limit: WriteLimit) -> int | tuple[int, int]:
    if not isinstance(write_limit, tuple):
        return write_limit
    high, low = _pair("write_limit", write_limit)
    if high is None:
        raise TypeError("write_limit: the high-water mark is None; it is a number of bytes")
    return high if low is None else (high, low)


def _pair(name: str, pair: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if len(pair) != 2:
        raise TypeError(f"{name}: {pair} is neither a number nor a pair")
    return pair


def no_extensions(extensions: Sequence[Any] | None) -> None:
    """``TypeError`` if an extension is asked for in the way of ``websockets``."""
    if extensions:
        raise TypeError(
            "extensions: permessage-deflate is the only one there is; give its settings as "
            "compression=fastws.Deflate(…)"
        )

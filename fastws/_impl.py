"""Which implementation of the hot path runs: compiled, or its pure-Python twin.

``FASTWS_PURE=1`` chooses the twin; so does a wheel without extensions. An extension that is there
but does not load is an error, not a reason to be slow in silence.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

__all__ = [
    "COMPILED",
    "Carrier",
    "Core",
    "Decoder",
    "Head",
    "PreparedMessage",
    "Reactor",
    "Settings",
    "TransportCarrier",
    "Utf8Validator",
    "broadcast",
    "broadcast_ready",
    "codec_name",
    "decode_utf8",
    "encode_close",
    "encode_frame",
    "mask",
    "mask_inplace",
    "own_send",
    "parse_close",
    "parse_head",
]


def _compiled() -> bool:
    if os.environ.get("FASTWS_PURE", "") not in ("", "0"):
        return False
    try:
        from ._codec import kernel_name  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}._codec":
            raise
        return False
    return True


COMPILED: Final = _compiled()

if TYPE_CHECKING or COMPILED:
    from ._carrier import Carrier, TransportCarrier
    from ._codec import (
        Decoder,
        Utf8Validator,
        decode_utf8,
        encode_close,
        encode_frame,
        mask,
        mask_inplace,
        parse_close,
    )
    from ._core import Core, Settings, broadcast, broadcast_ready, own_send
    from ._head import Head, parse_head
    from ._prepared import PreparedMessage
    from ._reactor import Reactor
else:
    from ._pure.codec import (
        Decoder,
        Utf8Validator,
        decode_utf8,
        encode_close,
        encode_frame,
        mask,
        mask_inplace,
        parse_close,
    )
    from ._pure.core import (
        Carrier,
        Core,
        PreparedMessage,
        Reactor,
        Settings,
        TransportCarrier,
        broadcast,
        broadcast_ready,
        own_send,
    )
    from ._pure.head import Head, parse_head

codec_name: Final = "cython" if COMPILED else "python"

"""Names for clients and nodes."""

from __future__ import annotations

import os


def new_id() -> str:
    """A random UUID (RFC 9562 5.4), at half the cost of `uuid.uuid4`."""
    bits = int.from_bytes(os.urandom(16)) & ~(0xF << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

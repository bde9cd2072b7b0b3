"""What a codec says when it refuses bytes: one text per rule, for both codecs.

A decoder checks a frame in the order in which the functions stand here, and reports the first rule
that is broken. All texts fit into a close reason (123 bytes of UTF-8, RFC 6455 5.5).
"""

from __future__ import annotations

# --- the first two bytes of a frame; close code 1002


def reserved_bits(bits: int) -> str:
    """RFC 6455 5.2: no extension gave these bits a meaning. `bits` is the first byte & 0x70."""
    return f"reserved bits 0x{bits:02x} are set without an extension"


def reserved_opcode(opcode: int) -> str:
    """RFC 6455 5.2: opcodes 3-7 and 11-15."""
    return f"reserved opcode 0x{opcode:x}"


def fragmented_control(opcode: int) -> str:
    """RFC 6455 5.5: control frames must not be fragmented."""
    return f"control frame with opcode 0x{opcode:x} is fragmented"


def oversized_control(opcode: int) -> str:
    """RFC 6455 5.5: the 7-bit length of a control frame is 126 or 127."""
    return f"control frame with opcode 0x{opcode:x} is longer than 125 bytes"


def unmasked() -> str:
    """RFC 6455 5.1: seen by a server."""
    return "frame from a client is not masked"


def masked() -> str:
    """RFC 6455 5.1: seen by a client."""
    return "frame from a server is masked"


def unexpected_continuation() -> str:
    """RFC 6455 5.4: opcode 0 while no message is open."""
    return "continuation frame without a message to continue"


def interrupted_message(opcode: int) -> str:
    """RFC 6455 5.4: opcode 1 or 2 while a fragmented message is open."""
    return f"frame with opcode 0x{opcode:x} inside an unfinished message"


def short_close() -> str:
    """RFC 6455 5.5.1: the 7-bit length of a close frame is 1, too short for a code."""
    return "close payload of 1 byte has no room for a close code"


def too_many_fragments(limit: int) -> str:
    """Close code 1009: this frame is number `limit` + 1 of its message."""
    return f"message of more than {limit} fragments"


# --- the length


def length_top_bit(length: int) -> str:
    """RFC 6455 5.2, 1002: a 64-bit length of 2**63 or more."""
    return f"frame length {length} has its most significant bit set"


def length_not_minimal(length: int) -> str:
    """RFC 6455 5.2, 1002: a 16-bit length below 126 or a 64-bit length below 65,536."""
    return f"frame length {length} is not in its shortest form"


def message_too_big(size: int, limit: int) -> str:
    """Close code 1009. `size`: bytes of the frames before and of this one, as declared."""
    return f"message of at least {size} bytes exceeds the limit of {limit} bytes"


def too_many_streams() -> str:
    """Close code 1009: blocks with BFINAL set, each of which makes work."""
    return "compressed message ends its deflate stream too often"


# --- the payload


def invalid_deflate() -> str:
    """RFC 7692 7.2.2, 1007: no deflate stream, or one that ends inside a block."""
    return "compressed message is not a valid deflate stream"


def inflated_too_big() -> str:
    """Close code 1009: found out while decompressing, which goes no further."""
    return "compressed message exceeds the limit on a message"


def invalid_text() -> str:
    """RFC 6455 8.1, 1007: a bad byte, or the message ends inside a code point."""
    return "text message is not valid UTF-8"


def invalid_close_code(code: int) -> str:
    """RFC 6455 7.4, 1002: received or about to be sent."""
    return f"close code {code} is not allowed on the wire"


def invalid_close_reason() -> str:
    """RFC 6455 7.1.6, 1007."""
    return "close reason is not valid UTF-8"


def oversized_close_reason(size: int) -> str:
    """RFC 6455 5.5, 1002: about to be sent; `size` in bytes of UTF-8."""
    return f"close reason of {size} bytes is longer than 123 bytes"

"""The codec for Cython code of others: ``from fastws.codec cimport …``.

Functions on C types that hold no Python object: all may be called without the GIL. Nothing in here includes a header of
ours, so that the module that cimports it needs no include path; ``fastws.codec`` has to be there when it is imported.
These declarations are kept from version to version; those of modules with an underscore are not.
"""

from libc.stdint cimport uint8_t, uint64_t


cdef enum:
    MAX_HEADER_SIZE = 14     # 2 + 8 bytes of length + 4 of mask key (RFC 6455 5.2)


ctypedef struct FrameHeader:
    uint64_t length          # bytes of payload, below 2 ** 63
    uint8_t opcode           # 0, 1, 2, 8, 9 or 10
    uint8_t fin              # 1 for the last frame of a message, else 0
    uint8_t reserved         # RSV1 to RSV3 as 0x40, 0x20 and 0x10; RSV1: the message is compressed (RFC 7692 6)
    uint8_t masked           # 1: the payload is masked by key, as a client's is (RFC 6455 5.1), else 0
    uint8_t key[4]


ctypedef struct Utf8:
    uint8_t state[4]         # begin with all of it 0


# Read a frame header from the first `available` bytes at `data`. Returns its size, with `header` filled in; 0 if it
# needs more bytes; -1 if it breaks RFC 6455 5.2 or 5.5 (close code 1002): a reserved opcode, a control frame that is
# fragmented or has more than 125 bytes, a length that is not in its shortest form or has its top bit set. Whether the
# frame must be masked, may have reserved bits and may come now depends on the connection: that is the caller's to check.
cdef Py_ssize_t parse_header(const uint8_t *data, size_t available, FrameHeader *header) noexcept nogil

# Write a frame header, with its mask key if it is masked. Returns its size, at most MAX_HEADER_SIZE, which is the room
# that `out` must have. Nothing of `header` is checked.
cdef Py_ssize_t write_header(uint8_t *out, const FrameHeader *header) noexcept nogil

# XOR `length` bytes of payload with the mask key (RFC 6455 5.3), which masks and unmasks. `offset`: where in the payload
# `src` begins. `dst` is `src`, for doing it in place, or does not overlap it. Any alignment will do.
cdef void mask(uint8_t *dst, const uint8_t *src, size_t length, const uint8_t *key, uint64_t offset) noexcept nogil

# Whether `length` bytes are valid UTF-8 (RFC 3629): no overlong form, no surrogate, nothing above U+10FFFF.
cdef bint is_utf8(const uint8_t *data, size_t length) noexcept nogil

# The same for text that comes in pieces, cut anywhere. False in the call that brings the first byte after which the text
# cannot become valid, and in every call after it.
cdef bint utf8_feed(Utf8 *text, const uint8_t *data, size_t length) noexcept nogil

# Whether the text so far is valid and ends with a whole code point.
cdef bint utf8_is_whole(const Utf8 *text) noexcept nogil

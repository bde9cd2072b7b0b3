"""The codec for other Cython modules: frames in, messages out, without Python calls between."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "kernels/utf8.h" nogil:
    ctypedef struct fastws_utf8:
        uint8_t need                  # continuation bytes that the open code point still wants


cdef enum:
    OP_CONT = 0x0
    OP_TEXT = 0x1
    OP_BINARY = 0x2
    OP_CLOSE = 0x8
    OP_PING = 0x9
    OP_PONG = 0xA

cdef enum:
    MAX_HEADER = 14          # 2 + 8 bytes of length + 4 of mask key (RFC 6455 5.2)
    MAX_CONTROL = 125        # RFC 6455 5.5


cdef Py_ssize_t write_long_header(uint8_t *out, Py_ssize_t length, int mask_bit) noexcept nogil

cdef inline Py_ssize_t header_size(Py_ssize_t length) noexcept nogil:
    """Bytes of a header without a mask key."""
    return 2 if length < 126 else 4 if length < 65536 else 10

cdef inline Py_ssize_t write_header(
    uint8_t *out, int first_byte, Py_ssize_t length, bint masked
) noexcept nogil:
    """Write all of a frame header but the mask key; returns its size, at most 10 bytes (RFC 6455 5.2)."""
    cdef int mask_bit = 0x80 if masked else 0
    out[0] = <uint8_t> first_byte
    if length < 126:
        out[1] = <uint8_t> (length | mask_bit)
        return 2
    if length < 65536:
        out[1] = <uint8_t> (126 | mask_bit)
        out[2] = <uint8_t> (length >> 8)
        out[3] = <uint8_t> length
        return 4
    return write_long_header(out, length, mask_bit)

cdef inline Py_ssize_t header_of(const uint8_t *frame) noexcept nogil:
    """Bytes of the header that ``frame``, not masked, begins with."""
    return 4 if frame[1] == 126 else 10 if frame[1] == 127 else 2

cdef void mask_copy(uint8_t *dst, const uint8_t *src, Py_ssize_t length, const uint8_t *key) noexcept nogil
cdef bint utf8_add(fastws_utf8 *text, const uint8_t *data, size_t length) noexcept nogil
cdef bint utf8_whole(const fastws_utf8 *text) noexcept nogil
cpdef bytes encode_close(code, str reason=*)
cpdef tuple parse_close(bytes payload)


cdef struct Parts:                    # of what is not complete: an idle connection has none
    PyObject *target                  # bytes or str that is being filled, never seen by anyone yet; NULL: no room
    PyObject *control                 # payload of an unfinished control frame
    uint64_t size                     # bytes of the message: declared by its frames so far, or inflated
    Py_ssize_t filled                 # bytes, or code points, in target
    Py_ssize_t capacity               # that it has room for
    uint32_t fragments
    fastws_utf8 utf8                  # checks the code point that is in tail
    uint8_t tail[4]                   # code point of which not all bytes are here
    uint8_t tail_length
    uint8_t kind                      # bytes per code point in target; 0: text that is ASCII so far, or no text
    uint8_t head[MAX_HEADER]
    uint8_t head_length               # bytes of an unfinished header
    uint8_t control_filled
    uint8_t parted                    # some of the message has left in fragments


cdef class Decoder:
    cdef readonly object error        # ProtocolError, once a peer broke a rule
    cdef list events                  # where feed() collects
    cdef Parts *parts
    cdef object deflate               # deflate.Agreement, if the connection has one
    cdef object inflater              # deflate.Inflater, while one is needed
    cdef uint64_t max_size
    cdef uint64_t remaining           # payload bytes of the current frame still to come
    cdef uint32_t max_fragments
    cdef uint32_t inflated            # bytes inflated since somebody set it to 0
    cdef uint32_t key                 # mask key in memory order, turned to the next payload byte
    cdef uint8_t opcode               # of the current frame
    cdef uint8_t message              # opcode of the message being put together, 0 if none
    cdef uint8_t close_seen           # flags from here
    cdef uint8_t client                  # frames come from a server: not masked
    cdef uint8_t in_payload
    cdef uint8_t stopped                 # error or closed: ignore what follows
    cdef uint8_t held                    # on_event asks decode to stop
    cdef uint8_t fin                     # of the current frame
    cdef uint8_t compressed              # the message being put together
    cdef uint8_t streaming               # fragments leave as they come, not the message they make
    cdef uint8_t tired                   # enough was inflated for now: held is set for that
    cdef uint8_t discarding              # messages are not wanted any more: nothing is inflated

    cdef inline bint decoding(self) noexcept:
        """Whether payload bytes are not what the target takes: it is text, and not ASCII."""
        return self.parts.kind != 0 or self.parts.tail_length != 0

    cdef int on_event(self, int opcode, object payload) except -1
    cdef Py_ssize_t decode(self, const uint8_t *data, Py_ssize_t length) except -1
    cdef Py_ssize_t direct_space(self, uint8_t **where) noexcept
    cdef int direct_filled(self, Py_ssize_t length) except -1

    cdef const uint8_t *_header(self, const uint8_t *data, const uint8_t *end) except? NULL
    cdef Py_ssize_t _parse_header(self, const uint8_t *data, Py_ssize_t available) except -2
    cdef int _begin_payload(self) except -1
    cdef const uint8_t *_payload(self, const uint8_t *data, const uint8_t *end) except? NULL
    cdef int _taken(self, Py_ssize_t length) except -1
    cdef int _plain(self, uint8_t *where, const uint8_t *data, Py_ssize_t length, bint masked) except -1
    cdef int _masked_text(self, const uint8_t *data, Py_ssize_t length) except -1
    cdef int _text(self, const uint8_t *data, Py_ssize_t length) except -1
    cdef int _convert(self, const uint8_t *data, Py_ssize_t length) except -1
    cdef int _end_frame(self) except -1
    cdef object _finish(self)
    cdef bytes _inflate(self, const uint8_t *data, Py_ssize_t length, bint last, uint64_t before)
    cdef int _append(self, bytes data) except -1
    cdef int _whole_compressed(self, const uint8_t *data, Py_ssize_t length) except -1
    cdef int _end_fragment(self, bint final) except -1
    cdef int _whole(self, const uint8_t *data, Py_ssize_t length) except -1
    cdef int _undecodable(self) except -1
    cdef int _control_frame(self, bytes payload) except -1
    cdef uint8_t *_tip(self) noexcept
    cdef int _reserve(self, uint64_t needed) except -1
    cdef int _make_room(self, uint64_t capacity) except -1
    cdef int _widen(self, int kind, uint64_t capacity) except -1
    cdef int _fail(self, int code, str message) except -2
    cdef int _need_parts(self) except -1
    cdef void _free_if_idle(self) noexcept
    cdef void _drop_message(self) noexcept
    cdef void _drop(self) noexcept

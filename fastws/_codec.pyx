"""Frames to messages and back (RFC 6455 section 5), compiled.

The hot path. Bytes come in as a pointer and a length; a message leaves as the ``str`` or ``bytes`` that the
user gets, written once: unmasking, the copy and (for text) the UTF-8 check are one pass. ``fastws/_pure/codec.py``
is the twin in plain Python; one test suite runs on both.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import os
import warnings

from . import _messages
from ._fragment import Fragment
from .exceptions import ProtocolError


cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_DATA(PyObject *text) nogil
    const Py_ssize_t PY_SSIZE_T_MAX
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1
    int PyUnicode_Resize(PyObject **text, Py_ssize_t length) except -1
    Py_ssize_t PyUnicode_CopyCharacters(
        PyObject *to, Py_ssize_t to_start, object source, Py_ssize_t start, Py_ssize_t count
    ) except -1


cdef extern from "kernels/cpu.h" nogil:
    ctypedef void (*fastws_mask_fn)(uint8_t *, const uint8_t *, size_t, uint32_t)
    int fastws_kernels_init(const char *force)
    const char *fastws_kernel_name()
    size_t fastws_kernel_list(const char **names, size_t room)
    ctypedef struct fastws_kernel:
        fastws_mask_fn mask
    const fastws_kernel *fastws_kernel_by_name(const char *name)
    const fastws_kernel *fastws_active_kernel


cdef extern from "kernels/mask.h" nogil:
    void fastws_mask(uint8_t *dst, const uint8_t *src, size_t length, uint32_t key)
    int fastws_mask_ascii(uint8_t *dst, const uint8_t *src, size_t length, uint32_t key)
    int fastws_copy_ascii(uint8_t *dst, const uint8_t *src, size_t length)
    uint32_t fastws_rotate_key(uint32_t key, size_t offset)


cdef extern from "kernels/utf8.h" nogil:
    void fastws_utf8_init(fastws_utf8 *state)
    int fastws_utf8_feed(fastws_utf8 *state, const uint8_t *data, size_t length)
    int fastws_utf8_finish(const fastws_utf8 *state)
    void fastws_utf8_scan(const uint8_t *data, size_t length, size_t *code_points, uint8_t *max_byte)
    int fastws_utf8_to_latin1(const uint8_t *data, size_t length, void *out, size_t out_length)
    int fastws_utf8_to_ucs2(const uint8_t *data, size_t length, void *out, size_t out_length)
    int fastws_utf8_to_ucs4(const uint8_t *data, size_t length, void *out, size_t out_length)
    size_t fastws_utf8_open_tail(const uint8_t *data, size_t length)


cdef extern from "kernels/utf8_str.h":
    object fastws_decode_utf8(const uint8_t *data, size_t length)
    PyObject *fastws_decode_masked_utf8(const uint8_t *data, size_t length, uint32_t key)


cdef enum:
    # Bytes allocated on the word of a header. Pages not written take no memory; a longer frame grows as it comes.
    EAGER = 1 << 24
    SMALL = 65536                     # up to here, a message of several frames grows by doubling,
    AMPLE = 1 << 20                   # then it gets this much at once
    SCRATCH = 8192                    # bytes of text unmasked at a time
    INFLATED_AT_ONCE = 1 << 20        # bytes, before others get their turn
    MESSAGE_COST = 512                # what a compressed message costs besides, in such bytes

# The widest code point of a str by its bytes per code point (0: ASCII).
cdef Py_UCS4[5] WIDEST = [127, 255, 65535, 0, 0x10FFFF]


cdef extern from *:
    """
    #include <stdlib.h>
    /* Messages of up to 1 MiB are written into room for as many code points, of up to 4 bytes. glibc takes blocks of
       that size from the system and gives them back each time, and new pages cost more than what is written into
       them (measured: 0.6 ms for 1 MiB), until a program has freed one: then it keeps such blocks for the next. */
    static void keep_pages(void)
    {
    #ifdef __GLIBC__
        void *volatile block = malloc((4u << 20) + 65536);
        free(block);
    #endif
    }
    """
    void keep_pages()


keep_pages()


cdef str init_kernels():
    cdef bytes forced = os.environ.get("FASTWS_KERNEL", "").encode()
    cdef int result = fastws_kernels_init(PyBytes_AS_STRING(forced))
    chosen = fastws_kernel_name().decode()
    if result != 0:
        warnings.warn(
            f"FASTWS_KERNEL={forced.decode()}: not a kernel of this processor; using {chosen}"
            f" (there are {', '.join(available_kernels())})",
            RuntimeWarning,
            stacklevel=2,
        )
    return chosen


def available_kernels() -> list:
    """The instruction sets that masking and UTF-8 can run on here, slowest first."""
    cdef const char *names[16]
    return [names[index].decode() for index in range(fastws_kernel_list(names, 16))]


# The one that they run on; FASTWS_KERNEL forces another.
kernel_name = init_kernels()


cdef const fastws_kernel *kernel_called(str name) except NULL:
    cdef bytes encoded = name.encode()
    cdef const fastws_kernel *kernel = fastws_kernel_by_name(PyBytes_AS_STRING(encoded))
    if kernel == NULL:
        raise ValueError(f"{name!r} is not a kernel of this processor: {', '.join(available_kernels())}")
    return kernel


def mask_with(str kernel not None, data, bytes key not None, Py_ssize_t offset=0) -> bytes:
    """``mask`` on a kernel of one's choice; for tests and benchmarks."""
    cdef fastws_mask_fn function = kernel_called(kernel).mask
    cdef uint32_t word = key_word(key, offset)
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        result = PyBytes_FromStringAndSize(NULL, view.len)
        function(<uint8_t *> PyBytes_AS_STRING(result), <uint8_t *> view.buf, view.len, word)
        return result
    finally:
        PyBuffer_Release(&view)


def decode_utf8_with(str kernel not None, data) -> str:
    """``decode_utf8`` on a kernel of one's choice; for tests and benchmarks. Not for two threads at once."""
    global fastws_active_kernel
    cdef const fastws_kernel *usual = fastws_active_kernel
    fastws_active_kernel = kernel_called(kernel)
    try:
        return decode_utf8(data)
    finally:
        fastws_active_kernel = usual


def validate_utf8_with(str kernel not None, data) -> bool:
    """Whether ``data`` is whole, valid UTF-8, by a kernel of one's choice. Not for two threads at once."""
    global fastws_active_kernel
    cdef const fastws_kernel *usual = fastws_active_kernel
    fastws_active_kernel = kernel_called(kernel)
    try:
        validator = Utf8Validator()
        return validator.feed(data) and validator.finish()
    finally:
        fastws_active_kernel = usual


# --- building blocks


cdef Py_ssize_t write_long_header(uint8_t *out, Py_ssize_t length, int mask_bit) noexcept nogil:
    """The rest of a header with a 64-bit length."""
    cdef int shift
    out[1] = <uint8_t> (127 | mask_bit)
    for shift in range(8):
        out[2 + shift] = <uint8_t> (<uint64_t> length >> (56 - 8 * shift))
    return 10


cdef void mask_copy(
    uint8_t *dst, const uint8_t *src, Py_ssize_t length, const uint8_t *key
) noexcept nogil:
    cdef uint32_t word
    memcpy(&word, key, 4)
    fastws_mask(dst, src, length, word)


cdef bint utf8_add(fastws_utf8 *text, const uint8_t *data, size_t length) noexcept nogil:
    """Whether ``text`` can still become valid with ``data`` added."""
    return fastws_utf8_feed(text, data, length) == 0


cdef bint utf8_whole(const fastws_utf8 *text) noexcept nogil:
    return fastws_utf8_finish(text) == 0


cdef inline void mask_or_copy(
    uint8_t *dst, const uint8_t *src, Py_ssize_t length, uint32_t key, bint masked
) noexcept nogil:
    """``dst`` may be ``src``."""
    if masked:
        fastws_mask(dst, src, length, key)
    elif dst != src:
        memcpy(dst, src, length)


cdef uint32_t key_word(bytes key, Py_ssize_t offset) except? 0:
    cdef uint32_t word
    if len(key) != 4:
        raise ValueError(f"a mask key has 4 bytes (RFC 6455 5.3), not {len(key)}")
    memcpy(&word, PyBytes_AS_STRING(key), 4)
    return fastws_rotate_key(word, <size_t> (offset & 3))


def mask(data, bytes key not None, Py_ssize_t offset=0) -> bytes:
    """XOR ``data`` with ``key`` (4 bytes), starting at ``key[offset % 4]`` (RFC 6455 5.3)."""
    cdef uint32_t word = key_word(key, offset)
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        result = PyBytes_FromStringAndSize(NULL, view.len)
        fastws_mask(<uint8_t *> PyBytes_AS_STRING(result), <uint8_t *> view.buf, view.len, word)
        return result
    finally:
        PyBuffer_Release(&view)


def mask_inplace(data, bytes key not None, Py_ssize_t offset=0) -> None:
    """The same, in place, in a writable buffer."""
    cdef uint32_t word = key_word(key, offset)
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_WRITABLE)
    fastws_mask(<uint8_t *> view.buf, <uint8_t *> view.buf, view.len, word)
    PyBuffer_Release(&view)


def decode_utf8(data) -> str:
    """``bytes.decode()`` in UTF-8, faster for text that is not ASCII (RFC 3629)."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return fastws_decode_utf8(<uint8_t *> view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef class Utf8Validator:
    """UTF-8 checked as it arrives: across calls, failing at the first bad byte (RFC 3629)."""

    cdef fastws_utf8 state

    def __cinit__(self):
        fastws_utf8_init(&self.state)

    def feed(self, data) -> bool:
        """Whether the text is still valid with these bytes; once ``False``, it stays so."""
        cdef Py_buffer view
        cdef int result
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        result = fastws_utf8_feed(&self.state, <uint8_t *> view.buf, view.len)
        PyBuffer_Release(&view)
        return result == 0

    def finish(self) -> bool:
        """Whether the text is valid and does not end inside a code point."""
        return fastws_utf8_finish(&self.state) == 0

    def reset(self) -> None:
        """Begin a new text."""
        fastws_utf8_init(&self.state)


def encode_frame(
    int opcode, payload, *, bint fin=True, bint rsv1=False, bytes mask_key=None
) -> bytes:
    """One frame (RFC 6455 5.2).

    ``payload`` is bytes-like; ``mask_key`` (4 bytes) is for frames from a client. ``ValueError`` for an opcode
    outside 0..15 or a control frame that is fragmented or longer than 125 bytes.
    """
    cdef Py_buffer view
    cdef uint8_t header[MAX_HEADER]
    cdef uint8_t *out
    cdef uint32_t word = 0
    cdef Py_ssize_t size
    if opcode & ~0xF:
        raise ValueError(f"opcode {opcode} is not in 0..15")
    if mask_key is not None:
        word = key_word(mask_key, 0)
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        if opcode & 8 and not fin:
            raise ValueError(_messages.fragmented_control(opcode))
        if opcode & 8 and view.len > MAX_CONTROL:
            raise ValueError(_messages.oversized_control(opcode))
        size = write_header(
            header, (0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode, view.len,
            mask_key is not None,
        )
        if mask_key is not None:
            memcpy(header + size, PyBytes_AS_STRING(mask_key), 4)
            size += 4
        frame = PyBytes_FromStringAndSize(NULL, size + view.len)
        out = <uint8_t *> PyBytes_AS_STRING(frame)
        memcpy(out, header, size)
        if mask_key is not None:
            fastws_mask(out + size, <uint8_t *> view.buf, view.len, word)
        else:
            memcpy(out + size, view.buf, view.len)
        return frame
    finally:
        PyBuffer_Release(&view)


cdef bint sendable_code(int code) noexcept nogil:
    """RFC 6455 7.4: codes that may stand in a close frame."""
    if 3000 <= code <= 4999:
        return True
    return 1000 <= code <= 1014 and not 1004 <= code <= 1006


cpdef bytes encode_close(code, str reason=""):
    """The payload of a close frame (RFC 6455 5.5.1).

    ``ProtocolError`` (1002) for a code that must not go out, or a reason over 123 bytes of UTF-8.
    """
    cdef bytes text = reason.encode()
    if not 0 <= code <= 0xFFFF or not sendable_code(code):
        raise ProtocolError(1002, _messages.invalid_close_code(code))
    if len(text) > 123:
        raise ProtocolError(1002, _messages.oversized_close_reason(len(text)))
    return int(code).to_bytes(2, "big") + text


cpdef tuple parse_close(bytes payload):
    """``(code, reason)`` of a close payload; ``(1005, "")`` if it is empty (RFC 6455 7.1.5).

    ``ProtocolError`` with 1002 for a lone byte or a forbidden code, with 1007 for a reason that is not UTF-8.
    """
    cdef const uint8_t *data = <const uint8_t *> PyBytes_AS_STRING(payload)
    cdef Py_ssize_t length = len(payload)
    cdef int code
    if length == 0:
        return 1005, ""
    if length == 1:
        raise ProtocolError(1002, _messages.short_close())
    code = data[0] << 8 | data[1]
    if not sendable_code(code):
        raise ProtocolError(1002, _messages.invalid_close_code(code))
    try:
        return code, fastws_decode_utf8(data + 2, length - 2)
    except UnicodeDecodeError:
        raise ProtocolError(1007, _messages.invalid_close_reason()) from None


# --- the decoder


cdef int raise_set_error() except -1:
    """The exception that is set already."""
    return -1


cdef class Decoder:
    """Bytes to messages and control frames, with every rule of RFC 6455 5.2 to 5.5.

    Args:
        client: decode what a server sends (frames not masked); otherwise what a client sends (masked).
        max_size: bytes in a message, over which it is refused (1009) before its payload is read; ``None``: no limit.
        max_fragments: frames in a message; ``None``: no limit.
        deflate: what was agreed on for compressed messages (RFC 7692), a ``fastws.deflate.Agreement``.

    An idle decoder holds no buffer. A message is written, while it arrives, into the object that the user gets; text
    that is not ASCII is decoded into it piece by piece.
    """

    def __init__(self, *, bint client=False, max_size=2**20, max_fragments=4096, deflate=None):
        self.client = client
        self.max_size = <uint64_t> -1 if max_size is None else max_size
        self.max_fragments = <uint32_t> -1 if max_fragments is None else max_fragments
        self.deflate = deflate

    def __dealloc__(self):
        self._drop()

    @property
    def closed(self) -> bool:
        """Whether a close frame has been seen."""
        return self.close_seen != 0

    def feed(self, data) -> list:
        """The events that these bytes complete, in order, as ``(opcode, payload)``.

        A text payload is ``str``, every other ``bytes``. A fault of the peer is never raised: it is in ``error``,
        and the events before it are returned. After a fault or a close frame the rest is ignored.
        """
        cdef Py_buffer view
        cdef Py_ssize_t at = 0
        cdef list events = []
        self.events = events
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while at < view.len:
                at += self.decode(<const uint8_t *> view.buf + at, view.len - at)
                self.held = self.tired = False
                self.inflated = 0
        except BaseException:
            # Memory is out: where the next frame begins is not known any more.
            self.stopped = True
            self._drop()
            raise
        finally:
            PyBuffer_Release(&view)
            self.events = None
        return events

    cdef int on_event(self, int opcode, object payload) except -1:
        """Take a message or control frame. Subclasses may set ``held`` to stop ``decode`` after it."""
        self.events.append((opcode, payload))
        return 0

    @cython.final
    cdef Py_ssize_t decode(self, const uint8_t *data, Py_ssize_t length) except -1:
        """Decode; returns how many bytes were consumed: all, unless ``held`` was set on the way."""
        cdef const uint8_t *at = data
        cdef const uint8_t *end = data + length
        while at != end and not self.held:
            if self.stopped:
                return length
            if self.in_payload:
                at = self._payload(at, end)
            else:
                at = self._header(at, end)
        return at - data

    @cython.final
    cdef Py_ssize_t direct_space(self, uint8_t **where) noexcept:
        """Where, and how many, payload bytes can be received without a copy; 0 if none."""
        if not self.in_payload or self.stopped or self.opcode & 8 or self.parts.target == NULL:
            return 0
        if self.compressed or self.decoding():
            return 0
        where[0] = self._tip()
        return <Py_ssize_t> min(self.remaining, <uint64_t> (self.parts.capacity - self.parts.filled))

    @cython.final
    cdef int direct_filled(self, Py_ssize_t length) except -1:
        """``length`` masked bytes have been received at ``direct_space``'s place."""
        cdef uint8_t *where = self._tip()
        self._plain(where, where, length, not self.client)
        return self._taken(length)

    @cython.final
    cdef const uint8_t *_header(self, const uint8_t *data, const uint8_t *end) except? NULL:
        """Take a header, and the payload too if all of it is here; or keep what there is of the header."""
        cdef Py_ssize_t available = end - data
        cdef Py_ssize_t kept = 0 if self.parts == NULL else self.parts.head_length
        cdef Py_ssize_t size
        if kept == 0:
            size = self._parse_header(data, available)
            if size == 0:
                self._need_parts()
                memcpy(self.parts.head, data, available)
                self.parts.head_length = <uint8_t> available
                return end
        else:
            if available > MAX_HEADER - kept:
                available = MAX_HEADER - kept
            memcpy(self.parts.head + kept, data, available)
            size = self._parse_header(self.parts.head, kept + available)
            if size == 0:
                self.parts.head_length = <uint8_t> (kept + available)
                return data + available
            size -= kept
            if not self.stopped:
                self.parts.head_length = 0
                self._free_if_idle()
        if size < 0 or self.stopped:
            return end
        data += size
        if self.remaining <= <uint64_t> (end - data) and (self.opcode & 8 or (self.fin and self.opcode)):
            size = <Py_ssize_t> self.remaining
            self.remaining = 0
            self._whole(data, size)
            return data + size
        self._begin_payload()
        if self.remaining == 0:
            if self.compressed and self.fin and not self.opcode & 8:
                self._append(self._inflate(NULL, 0, True, self.parts.size))
            if not self.stopped:
                self._end_frame()
        return data

    @cython.final
    cdef Py_ssize_t _parse_header(self, const uint8_t *data, Py_ssize_t available) except -2:
        """Size of the header, 0 if it is unfinished, -1 if it breaks a rule; in the order of ``_messages``."""
        cdef int first, second, opcode, shift
        cdef uint64_t length, total
        cdef Py_ssize_t size = 2
        if available < 2:
            return 0
        first = data[0]
        second = data[1]
        opcode = first & 0xF
        if first & 0x70 and (first & 0x70 != 0x40 or self.deflate is None or opcode - 1 not in (0, 1)):
            return self._fail(1002, _messages.reserved_bits(first & 0x70))
        if opcode & 7 > 2:
            return self._fail(1002, _messages.reserved_opcode(opcode))
        length = second & 0x7F
        if opcode & 8:
            if not first & 0x80:
                return self._fail(1002, _messages.fragmented_control(opcode))
            if length > MAX_CONTROL:
                return self._fail(1002, _messages.oversized_control(opcode))
        if (second >> 7) == self.client:
            return self._fail(1002, _messages.masked() if self.client else _messages.unmasked())
        if opcode & 8:
            if opcode == OP_CLOSE and length == 1:
                return self._fail(1002, _messages.short_close())
        else:
            if opcode == 0:
                if self.message == 0:
                    return self._fail(1002, _messages.unexpected_continuation())
                if self.parts.fragments >= self.max_fragments:
                    return self._fail(1009, _messages.too_many_fragments(self.max_fragments))
            elif self.message != 0:
                return self._fail(1002, _messages.interrupted_message(opcode))
            elif self.max_fragments == 0:
                return self._fail(1009, _messages.too_many_fragments(0))
            if length == 126:
                size = 4
                if available < size:
                    return 0
                length = data[2] << 8 | data[3]
                if length < 126:
                    return self._fail(1002, _messages.length_not_minimal(length))
            elif length == 127:
                size = 10
                if available < size:
                    return 0
                length = 0
                for shift in range(8):
                    length = length << 8 | data[2 + shift]
                if length >> 63:
                    return self._fail(1002, _messages.length_top_bit(length))
                if length < 65536:
                    return self._fail(1002, _messages.length_not_minimal(length))
            total = length if opcode else self.parts.size + length
            if total > self.max_size and not (first & 0x40 if opcode else self.compressed):
                return self._fail(1009, _messages.message_too_big(total, self.max_size))
        if not self.client:
            if available < size + 4:
                return 0
            memcpy(&self.key, data + size, 4)
            size += 4
        if opcode - 1 in (0, 1):
            self.compressed = first & 0x40
        self.opcode = <uint8_t> opcode
        self.fin = (first & 0x80) != 0
        self.remaining = length
        return size

    @cython.final
    cdef int _begin_payload(self) except -1:
        """Enter a frame whose payload is not all here, or which is part of a longer message."""
        cdef object target
        self._need_parts()
        if self.opcode & 8:
            target = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> self.remaining)
            Py_INCREF(target)
            self.parts.control = <PyObject *> target
            self.parts.control_filled = 0
        else:
            if self.opcode:
                self.message = self.opcode
                self.parts.fragments = 0
                self.parts.size = 0
            self.parts.fragments += 1
            if not self.compressed:
                self.parts.size += self.remaining
                self._reserve(<uint64_t> self.parts.filled + min(self.remaining, <uint64_t> EAGER))
        self.in_payload = True
        return 0

    @cython.final
    cdef const uint8_t *_payload(self, const uint8_t *data, const uint8_t *end) except? NULL:
        cdef uint64_t available = <uint64_t> (end - data)
        cdef Py_ssize_t length = <Py_ssize_t> (available if available < self.remaining else self.remaining)
        if self.opcode & 8:
            mask_or_copy(
                <uint8_t *> PyBytes_AS_STRING(<object> self.parts.control) + self.parts.control_filled,
                data, length, self.key, not self.client,
            )
            self.parts.control_filled += <uint8_t> length
        elif self.compressed:
            self._append(
                self._inflate(data, length, self.fin and <uint64_t> length == self.remaining, self.parts.size)
            )
        elif self.decoding():
            self._masked_text(data, length)
        else:
            self._reserve(<uint64_t> (self.parts.filled + length))
            self._plain(self._tip(), data, length, not self.client)
        self._taken(length)
        return data + length

    @cython.final
    cdef int _taken(self, Py_ssize_t length) except -1:
        """``length`` payload bytes have been dealt with; end the frame after its last one."""
        self.key = fastws_rotate_key(self.key, length)
        self.remaining -= length
        if self.remaining == 0 and not self.stopped:
            return self._end_frame()
        return 0

    @cython.final
    cdef int _plain(self, uint8_t *where, const uint8_t *data, Py_ssize_t length, bint masked) except -1:
        """Bytes of a binary message, or of a text that was ASCII so far, to ``where``, the end of the target."""
        cdef PyObject *old
        cdef int high
        if self.message != OP_TEXT:
            mask_or_copy(where, data, length, self.key, masked)
        else:
            if masked:
                high = fastws_mask_ascii(where, data, length, self.key)
            else:
                high = fastws_copy_ascii(where, data, length)
            if high:
                # They stand in the target as UTF-8: decode them from there into its successor.
                old = self.parts.target
                Py_INCREF(<object> old)
                try:
                    return self._text(where, length)
                finally:
                    Py_DECREF(<object> old)
        self.parts.filled += length
        return 0

    @cython.final
    cdef int _masked_text(self, const uint8_t *data, Py_ssize_t length) except -1:
        """The same where the text is not ASCII: by way of a buffer that stays in the processor's cache."""
        cdef uint8_t scratch[SCRATCH]
        cdef Py_ssize_t part
        if self.client:
            return self._text(data, length)
        while length and not self.stopped:
            part = length if length < SCRATCH else SCRATCH
            fastws_mask(scratch, data, part, self.key)  # SCRATCH is a multiple of 4: the key need not turn
            self._text(scratch, part)
            data += part
            length -= part
        return 0

    @cython.final
    cdef int _text(self, const uint8_t *data, Py_ssize_t length) except -1:
        """Decode UTF-8 that may begin and end inside a code point; its first bad byte fails the connection."""
        cdef Py_ssize_t open_tail
        if self.parts.tail_length:
            while length and self.parts.utf8.need:
                self.parts.tail[self.parts.tail_length] = data[0]
                self.parts.tail_length += 1
                if fastws_utf8_feed(&self.parts.utf8, data, 1) != 0:
                    self._fail(1007, _messages.invalid_text())
                    return 0
                data += 1
                length -= 1
            if self.parts.utf8.need:
                return 0
            open_tail = self.parts.tail_length
            self.parts.tail_length = 0
            self._convert(self.parts.tail, open_tail)
            if self.stopped:
                return 0
        open_tail = <Py_ssize_t> fastws_utf8_open_tail(data, length)
        if length > open_tail:
            self._convert(data, length - open_tail)
        if open_tail and not self.stopped:
            memcpy(self.parts.tail, data + length - open_tail, open_tail)
            self.parts.tail_length = <uint8_t> open_tail
            fastws_utf8_init(&self.parts.utf8)
            if fastws_utf8_feed(&self.parts.utf8, self.parts.tail, open_tail) != 0:
                self._fail(1007, _messages.invalid_text())
        return 0

    @cython.final
    cdef int _convert(self, const uint8_t *data, Py_ssize_t length) except -1:
        """Whole code points, if they are valid, to the end of the target."""
        cdef size_t count
        cdef uint8_t greatest
        cdef int kind, result
        cdef uint64_t more
        fastws_utf8_scan(data, length, &count, &greatest)
        kind = 1 if greatest < 0xC4 else 2 if greatest < 0xF0 else 4
        if kind > self.parts.kind:
            # What the frame still brings is expected to be like this; should it not be, the target grows. Of a
            # compressed frame nobody knows.
            more = 0 if self.compressed else min(self.remaining, <uint64_t> EAGER) * count // <uint64_t> length
            self._widen(kind, <uint64_t> self.parts.filled + count + more + (more >> 6))
        self._reserve(<uint64_t> self.parts.filled + count)
        if self.parts.kind == 1:
            result = fastws_utf8_to_latin1(data, length, self._tip(), count)
        elif self.parts.kind == 2:
            result = fastws_utf8_to_ucs2(data, length, self._tip(), count)
        else:
            result = fastws_utf8_to_ucs4(data, length, self._tip(), count)
        if result != 0:
            self._fail(1007, _messages.invalid_text())
            return 0
        self.parts.filled += <Py_ssize_t> count
        return 0

    @cython.final
    cdef int _end_frame(self) except -1:
        cdef object payload
        cdef int opcode
        self.in_payload = False
        if self.opcode & 8:
            payload = <object> self.parts.control
            Py_XDECREF(self.parts.control)
            self.parts.control = NULL
            self._free_if_idle()
            return self._control_frame(payload)
        if self.fin and self.parts.tail_length:
            self._fail(1007, _messages.invalid_text())
            return 0
        if self.streaming and not (self.fin and self.opcode):
            return self._end_fragment(self.fin)
        if not self.fin:
            return 0
        payload = self._finish()
        opcode = self.message
        self.message = 0
        self._free_if_idle()
        return self.on_event(opcode, payload)

    @cython.final
    cdef object _finish(self):
        """The message, cut to its length."""
        cdef object payload
        if self.parts.filled == 0:
            payload = "" if self.message == OP_TEXT else b""
        else:
            if self.parts.filled != self.parts.capacity:
                if self.message == OP_TEXT:
                    PyUnicode_Resize(&self.parts.target, self.parts.filled)
                else:
                    _PyBytes_Resize(&self.parts.target, self.parts.filled)
            payload = <object> self.parts.target
        self._drop_message()
        return payload

    @cython.final
    cdef bytes _inflate(self, const uint8_t *data, Py_ssize_t length, bint last, uint64_t before):
        """What ``length`` bytes of a compressed message (the ``last`` ones) inflate to, behind ``before`` bytes of it;
        ``None`` if they are refused.
        """
        cdef bytes masked, inflated
        cdef uint64_t room = min(self.max_size, <uint64_t> PY_SSIZE_T_MAX) - before
        if self.discarding:
            return b""
        masked = PyBytes_FromStringAndSize(NULL, length)
        if length:
            mask_or_copy(<uint8_t *> PyBytes_AS_STRING(masked), data, length, self.key, not self.client)
        try:
            if last and self.inflater is None and not self.deflate.keeps_inflater:
                inflated = self.deflate.inflate(masked, room)
            else:
                if self.inflater is None:
                    self.inflater = self.deflate.new_inflater()
                inflated = self.inflater.inflate(masked, room, last)
        except ProtocolError as error:
            self._fail(error.code, error.message)
            return None
        if last and not self.deflate.keeps_inflater:
            self.inflater = None
        self.inflated += <uint32_t> min(len(inflated) + MESSAGE_COST, INFLATED_AT_ONCE)
        if self.inflated >= INFLATED_AT_ONCE:
            self.tired = self.held = True
        return inflated

    @cython.final
    cdef int _append(self, bytes data) except -1:
        """More of a compressed message."""
        cdef const uint8_t *at
        cdef Py_ssize_t length
        if data is None or len(data) == 0:
            return 0
        at = <const uint8_t *> PyBytes_AS_STRING(data)
        length = len(data)
        self.parts.size += <uint64_t> length
        if self.decoding():
            return self._text(at, length)
        self._reserve(<uint64_t> (self.parts.filled + length))
        return self._plain(self._tip(), at, length, False)

    @cython.final
    cdef int _whole_compressed(self, const uint8_t *data, Py_ssize_t length) except -1:
        """A compressed message of one frame that is all here."""
        cdef bytes payload = self._inflate(data, length, True, 0)
        if payload is None:
            return 0
        if self.opcode == OP_BINARY:
            return self.on_event(OP_BINARY, payload)
        try:
            text = fastws_decode_utf8(<const uint8_t *> PyBytes_AS_STRING(payload), len(payload))
        except UnicodeDecodeError:
            self._fail(1007, _messages.invalid_text())
            return 0
        return self.on_event(OP_TEXT, text)
    cdef int _end_fragment(self, bint final) except -1:
        """Let what has come of a fragmented message leave as a ``Fragment``: the event of opcode 0."""
        cdef uint8_t open_tail = self.parts.tail_length
        cdef object payload = self._finish()
        self.parts.tail_length = open_tail  # of a code point that the next fragment ends
        if final:
            self.message = 0
            self._free_if_idle()
        elif len(payload):
            self.parts.parted = True
        return self.on_event(OP_CONT, Fragment(payload, final))

    @cython.final
    cdef int _whole(self, const uint8_t *data, Py_ssize_t length) except -1:
        """A frame that is a message or control frame of its own, with all its payload at ``data``."""
        cdef object payload
        cdef PyObject *text
        if self.compressed and not self.opcode & 8:
            return self._whole_compressed(data, length)
        if self.opcode == OP_TEXT:
            # Not in a try block: setting one up costs as much as decoding a short text.
            text = fastws_decode_masked_utf8(data, length, 0 if self.client else self.key)
            if text == NULL:
                return self._undecodable()
            payload = <object> text
            Py_DECREF(payload)
            return self.on_event(OP_TEXT, payload)
        payload = PyBytes_FromStringAndSize(NULL, length)
        if length:
            if self.client:
                memcpy(PyBytes_AS_STRING(payload), data, length)
            else:
                fastws_mask(<uint8_t *> PyBytes_AS_STRING(payload), data, length, self.key)
        if self.opcode & 8:
            return self._control_frame(payload)
        return self.on_event(OP_BINARY, payload)

    @cython.final
    cdef int _undecodable(self) except -1:
        """A text could not be decoded: its fault, or memory is out."""
        try:
            raise_set_error()
        except UnicodeDecodeError:
            self._fail(1007, _messages.invalid_text())
        return 0

    @cython.final
    cdef int _control_frame(self, bytes payload) except -1:
        if self.opcode == OP_CLOSE:
            try:
                parse_close(payload)
            except ProtocolError as error:
                self._fail(error.code, error.message)
                return 0
            self.close_seen = True
            self.stopped = True
            self._drop()
        return self.on_event(self.opcode, payload)

    @cython.final
    cdef uint8_t *_tip(self) noexcept:
        """Where the target, if there is one, goes on."""
        if self.parts.target == NULL:
            return NULL
        if self.message == OP_TEXT:
            return <uint8_t *> PyUnicode_DATA(self.parts.target) + self.parts.filled * (self.parts.kind if self.parts.kind else 1)
        return <uint8_t *> PyBytes_AS_STRING(<object> self.parts.target) + self.parts.filled

    @cython.final
    cdef int _reserve(self, uint64_t needed) except -1:
        """Room in the target for ``needed`` bytes or code points.

        A message of one frame gets its length at once. One of several frames gets all that it may have by default once
        it is no longer small: pages that are not written take no memory, so nothing has to grow, and nothing is copied.
        """
        cdef uint64_t capacity = <uint64_t> self.parts.capacity
        if needed <= capacity:
            return 0
        if self.fin and self.parts.fragments == 1 and capacity == 0:
            return self._make_room(needed)
        capacity *= 2
        if capacity < needed:
            capacity = needed
        if SMALL < capacity < AMPLE:
            capacity = AMPLE
        if capacity > self.max_size:
            capacity = self.max_size
        return self._make_room(capacity)

    @cython.final
    cdef int _make_room(self, uint64_t capacity) except -1:
        cdef object target
        if capacity > <uint64_t> PY_SSIZE_T_MAX:
            raise MemoryError
        if self.parts.target != NULL:
            if self.message == OP_TEXT:
                PyUnicode_Resize(&self.parts.target, <Py_ssize_t> capacity)
            else:
                self.parts.capacity = 0     # a failure takes the bytes away
                _PyBytes_Resize(&self.parts.target, <Py_ssize_t> capacity)
        else:
            if self.message == OP_TEXT:
                target = PyUnicode_New(<Py_ssize_t> capacity, WIDEST[self.parts.kind])
            else:
                target = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> capacity)
            Py_INCREF(target)
            self.parts.target = <PyObject *> target
        self.parts.capacity = <Py_ssize_t> capacity
        return 0

    @cython.final
    cdef int _widen(self, int kind, uint64_t capacity) except -1:
        """Go on in a str with ``kind`` bytes per code point: at most three times in a message."""
        cdef object wider = PyUnicode_New(<Py_ssize_t> capacity, WIDEST[kind])
        if self.parts.filled:
            PyUnicode_CopyCharacters(<PyObject *> wider, 0, <object> self.parts.target, 0, self.parts.filled)
        Py_INCREF(wider)
        Py_XDECREF(self.parts.target)
        self.parts.target = <PyObject *> wider
        self.parts.capacity = <Py_ssize_t> capacity
        self.parts.kind = <uint8_t> kind
        return 0

    @cython.final
    cdef int _fail(self, int code, str message) except -2:
        """Refuse: remember why, let go of what was begun, ignore the rest. Returns -1."""
        self.error = ProtocolError(code, message)
        self.stopped = True
        self.in_payload = False
        self.inflater = None
        self._drop()
        return -1

    @cython.final
    cdef int _need_parts(self) except -1:
        if self.parts == NULL:
            self.parts = <Parts *> calloc(1, sizeof(Parts))
            if self.parts == NULL:
                raise MemoryError
        return 0

    @cython.final
    cdef void _free_if_idle(self) noexcept:
        """Between messages nothing is kept, unless it is the beginning of a header."""
        if self.message == 0 and self.parts.head_length == 0 and self.parts.control == NULL:
            free(self.parts)
            self.parts = NULL

    @cython.final
    cdef void _drop_message(self) noexcept:
        Py_XDECREF(self.parts.target)
        self.parts.target = NULL
        self.parts.filled = self.parts.capacity = 0
        self.parts.tail_length = 0
        self.parts.kind = 0

    @cython.final
    cdef void _drop(self) noexcept:
        cdef Parts *parts = self.parts
        if parts != NULL:
            self.parts = NULL
            Py_XDECREF(parts.target)
            Py_XDECREF(parts.control)
            free(parts)

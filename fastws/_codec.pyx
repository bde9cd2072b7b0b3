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
    bint PyBytes_Check(object)
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1


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


cdef extern from "kernels/utf8_str.h":
    object fastws_decode_utf8(const uint8_t *data, size_t length)
    PyObject *fastws_decode_masked_utf8(const uint8_t *data, size_t length, uint32_t key)


cdef enum:
    # Bytes allocated on the word of a header. Pages not written take no memory; a longer frame grows as it comes.
    EAGER = 1 << 24


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

    An idle decoder holds no buffer. A message of one frame is written, while it arrives, into the object that the
    user gets; one of several frames grows by half as it goes.
    """

    def __init__(self, *, bint client=False, max_size=2**20, max_fragments=4096):
        self.client = client
        self.max_size = <uint64_t> -1 if max_size is None else max_size
        self.max_fragments = <uint32_t> -1 if max_fragments is None else max_fragments

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
        cdef list events = []
        self.events = events
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.decode(<const uint8_t *> view.buf, view.len)
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
        if not self.in_payload or self.stopped or self.opcode & 8:
            return 0
        where[0] = self._base() + self.filled
        return <Py_ssize_t> min(self.remaining, <uint64_t> (self.capacity - self.filled))

    @cython.final
    cdef int direct_filled(self, Py_ssize_t length) except -1:
        """``length`` masked bytes have been received at ``direct_space``'s place."""
        cdef uint8_t *where = self._base() + self.filled
        self._advance(where, where, length)
        return 0

    @cython.final
    cdef const uint8_t *_header(self, const uint8_t *data, const uint8_t *end) except? NULL:
        """Take a header, and the payload too if all of it is here; or keep what there is of the header."""
        cdef Py_ssize_t available = end - data
        cdef Py_ssize_t kept = self.head_length
        cdef Py_ssize_t size
        if kept == 0:
            size = self._parse_header(data, available)
            if size == 0:
                memcpy(self.head, data, available)
                self.head_length = <uint8_t> available
                return end
        else:
            if available > MAX_HEADER - kept:
                available = MAX_HEADER - kept
            memcpy(self.head + kept, data, available)
            size = self._parse_header(self.head, kept + available)
            if size == 0:
                self.head_length = <uint8_t> (kept + available)
                return data + available
            self.head_length = 0
            size -= kept
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
        if first & 0x70:
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
                if self.fragments >= self.max_fragments:
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
            total = length if opcode else self.taken + <uint64_t> self.filled + length
            if total > self.max_size:
                return self._fail(1009, _messages.message_too_big(total, self.max_size))
        if not self.client:
            if available < size + 4:
                return 0
            memcpy(&self.key, data + size, 4)
            size += 4
        self.opcode = <uint8_t> opcode
        self.fin = (first & 0x80) != 0
        self.remaining = length
        return size

    @cython.final
    cdef int _begin_payload(self) except -1:
        """Make room for a frame whose payload is not all here, or which is part of a longer message."""
        cdef object target
        if self.opcode & 8:
            target = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> self.remaining)
            Py_INCREF(target)
            self.control = <PyObject *> target
            self.control_filled = 0
        elif self.opcode == 0:
            self.fragments += 1
            self._reserve(<uint64_t> self.filled + min(self.remaining, <uint64_t> EAGER))
        else:
            self.fragments = 1
            self.filled = 0
            self.single = self.fin and self.remaining <= EAGER
            self.wide = False
            fastws_utf8_init(&self.utf8)
            self.capacity = <Py_ssize_t> min(self.remaining, <uint64_t> EAGER)
            if self.single and self.opcode == OP_TEXT:
                target = PyUnicode_New(self.capacity, 127)
            else:
                target = PyBytes_FromStringAndSize(NULL, self.capacity)
            Py_INCREF(target)
            self.target = <PyObject *> target
            self.message = self.opcode
        self.in_payload = True
        return 0

    @cython.final
    cdef const uint8_t *_payload(self, const uint8_t *data, const uint8_t *end) except? NULL:
        cdef uint64_t available = <uint64_t> (end - data)
        cdef Py_ssize_t length = <Py_ssize_t> (available if available < self.remaining else self.remaining)
        cdef uint8_t *where
        if self.opcode & 8:
            where = <uint8_t *> PyBytes_AS_STRING(<object> self.control) + self.control_filled
        else:
            if length > self.capacity - self.filled:
                self._reserve(<uint64_t> (self.filled + length))
            where = self._base() + self.filled
        self._advance(where, data, length)
        return data + length

    @cython.final
    cdef int _advance(self, uint8_t *where, const uint8_t *data, Py_ssize_t length) except -1:
        """Unmask ``length`` payload bytes into ``where``, checking text; end the frame after its last one."""
        cdef bint high = False
        if self.message == OP_TEXT and not self.opcode & 8:
            if self.client:
                high = fastws_copy_ascii(where, data, length) != 0
            else:
                high = fastws_mask_ascii(where, data, length, self.key) != 0
            if high or self.wide:
                self.wide = True
                if fastws_utf8_feed(&self.utf8, where, length) != 0:
                    self._fail(1007, _messages.invalid_text())
                    return 0
        elif not self.client:
            fastws_mask(where, data, length, self.key)
        elif where != data:
            memcpy(where, data, length)
        self.key = fastws_rotate_key(self.key, length)
        self.remaining -= length
        if self.opcode & 8:
            self.control_filled += <uint8_t> length
        else:
            self.filled += length
        if self.remaining == 0:
            self._end_frame()
        return 0

    @cython.final
    cdef int _end_frame(self) except -1:
        cdef object payload
        cdef int opcode
        self.in_payload = False
        if self.opcode & 8:
            payload = <object> self.control
            Py_XDECREF(self.control)
            self.control = NULL
            return self._control_frame(payload)
        if self.streaming and not (self.fin and self.opcode):
            return self._end_fragment(self.fin)
        if not self.fin:
            return 0
        if self.message == OP_TEXT:
            if self.wide:
                if fastws_utf8_finish(&self.utf8) != 0:
                    self._fail(1007, _messages.invalid_text())
                    return 0
                payload = fastws_decode_utf8(self._base(), self.filled)
            elif self.single:
                payload = <object> self.target
            else:
                payload = PyUnicode_New(self.filled, 127)
                if self.filled:
                    memcpy(PyUnicode_DATA(<PyObject *> payload), self._base(), self.filled)
        else:
            if self.filled != self.capacity:
                _PyBytes_Resize(&self.target, self.filled)
            payload = <object> self.target
        Py_XDECREF(self.target)
        self.target = NULL
        self.filled = 0
        opcode = self.message
        self.message = 0
        return self.on_event(opcode, payload)

    @cython.final
    cdef int _end_fragment(self, bint final) except -1:
        """Let what has come of a fragmented message leave as a ``Fragment``: the event of opcode 0."""
        cdef object payload
        if final and self.wide and fastws_utf8_finish(&self.utf8) != 0:
            self._fail(1007, _messages.invalid_text())
            return 0
        # A copy, so that the next fragment is written into the same buffer.
        payload = PyBytes_FromStringAndSize(<char *> self._base(), self.filled)
        payload = Fragment(payload, self.message == OP_TEXT, final)
        self.taken += <uint64_t> self.filled
        self.filled = 0
        if final:
            Py_XDECREF(self.target)
            self.target = NULL
            self.message = 0
            self.taken = 0
        return self.on_event(OP_CONT, payload)

    @cython.final
    cdef int _whole(self, const uint8_t *data, Py_ssize_t length) except -1:
        """A frame that is a message or control frame of its own, with all its payload at ``data``."""
        cdef object payload
        cdef PyObject *text
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
        return self.on_event(self.opcode, payload)

    @cython.final
    cdef uint8_t *_base(self) noexcept:
        """First byte of the message being put together."""
        if PyBytes_Check(<object> self.target):
            return <uint8_t *> PyBytes_AS_STRING(<object> self.target)
        return <uint8_t *> PyUnicode_DATA(self.target)

    @cython.final
    cdef int _reserve(self, uint64_t length) except -1:
        """Room for ``length`` bytes of a fragmented message. Growing by half keeps many small fragments linear."""
        cdef uint64_t capacity = <uint64_t> self.capacity
        if length <= capacity:
            return 0
        capacity += capacity >> 1
        if capacity > self.max_size:
            capacity = self.max_size
        if capacity < length:
            capacity = length
        if capacity > <uint64_t> PY_SSIZE_T_MAX:
            raise MemoryError
        # The empty bytes object is shared, and so may not be resized in place.
        if self.capacity == 0:
            Py_XDECREF(self.target)
            self.target = NULL
            target = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> capacity)
            Py_INCREF(target)
            self.target = <PyObject *> target
        else:
            _PyBytes_Resize(&self.target, <Py_ssize_t> capacity)
        self.capacity = <Py_ssize_t> capacity
        return 0

    @cython.final
    cdef int _fail(self, int code, str message) except -2:
        """Refuse: remember why, let go of what was begun, ignore the rest. Returns -1."""
        self.error = ProtocolError(code, message)
        self.stopped = True
        self.in_payload = False
        self._drop()
        return -1

    @cython.final
    cdef void _drop(self) noexcept:
        Py_XDECREF(self.target)
        self.target = NULL
        Py_XDECREF(self.control)
        self.control = NULL

"""Compressed messages that refer to none before them, by code of our own.

Streams come first in the packages that there are, and a message alone is to them a stream with one item. Here it is all
there is: see ``kernels/deflate.h`` and ``kernels/inflate.h``. What does not fit is left to those.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc


cdef extern from "kernels/deflate.h":
    enum:
        FASTWS_DEFLATE_MAX
        FASTWS_DEFLATE_SLACK
    ctypedef struct fastws_deflater:
        pass
    size_t fastws_deflate_room(size_t n) noexcept
    size_t fastws_deflate(
        fastws_deflater *work, const uint8_t *data, size_t n, uint8_t *out, size_t room, size_t window
    ) noexcept


cdef extern from "kernels/inflate.h":
    enum:
        FASTWS_INFLATE_SLACK
    ctypedef struct fastws_inflater:
        pass
    Py_ssize_t fastws_inflate(
        fastws_inflater *work, const uint8_t *data, size_t n, uint8_t *out, size_t room
    ) noexcept


cdef enum:
    INFLATED = 65536                  # bytes that a message may have here
    COMPRESSED = 16384                # as it comes; more would seldom inflate to so few


cdef class OwnDeflater:
    """Compresses messages as ``fastws.deflate.Deflater`` does without context.

    ``make_other()`` makes such a one for messages of more than ``most`` bytes, when one comes.
    """
    cdef readonly object key
    cdef object make_other, other
    cdef Py_ssize_t most
    cdef size_t window
    cdef fastws_deflater *work
    cdef uint8_t *out

    def __cinit__(self):
        self.work = <fastws_deflater *> malloc(sizeof(fastws_deflater))
        # Pages of it that nothing is written to are not taken.
        self.out = <uint8_t *> malloc(fastws_deflate_room(FASTWS_DEFLATE_MAX) + FASTWS_DEFLATE_SLACK)
        if self.work == NULL or self.out == NULL:
            raise MemoryError

    def __init__(self, key, make_other, Py_ssize_t most=FASTWS_DEFLATE_MAX):
        self.key = key
        self.most = min(most, FASTWS_DEFLATE_MAX)
        self.window = <size_t> 1 << <int> key.window_bits
        self.make_other = make_other

    def __dealloc__(self):
        free(self.work)
        free(self.out)

    def compress(self, data):
        """The payload of a message (RFC 7692 7.2.1)."""
        cdef Py_buffer view
        cdef size_t size
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if view.len <= self.most:
                size = fastws_deflate(
                    self.work, <const uint8_t *> view.buf, view.len, self.out, fastws_deflate_room(view.len), self.window
                )
                if size:
                    return PyBytes_FromStringAndSize(<char *> self.out, <Py_ssize_t> size)
        finally:
            PyBuffer_Release(&view)
        if self.other is None:
            self.other = self.make_other()
        return self.other.compress(data)


cdef class OwnInflater:
    """Decompresses messages of any connection of a loop."""
    cdef fastws_inflater *work
    cdef uint8_t *out

    def __cinit__(self):
        self.work = <fastws_inflater *> malloc(sizeof(fastws_inflater))
        self.out = <uint8_t *> malloc(INFLATED + FASTWS_INFLATE_SLACK)
        if self.work == NULL or self.out == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.work)
        free(self.out)

    def inflate(self, bytes data, Py_ssize_t room):
        """A whole message of at most ``room`` bytes; ``None``: a stream is to say what it is, or what is wrong with it."""
        cdef Py_ssize_t size
        if len(data) > COMPRESSED:
            return None
        size = fastws_inflate(
            self.work, <const uint8_t *> PyBytes_AS_STRING(data), len(data), self.out, min(room, INFLATED)
        )
        if size < 0:
            return None
        return PyBytes_FromStringAndSize(<char *> self.out, size)

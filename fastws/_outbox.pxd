"""Bytes on their way out of one connection: copied when small, referred to when large or shared.

A queue of segments. Small frames are copied one behind the other into one buffer, so that a burst leaves in one
``send``; a prepared frame or a large payload is a reference to its owner. A connection with nothing to send has no
outbox; a drained one goes back to its reactor's free list with its buffer.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

cdef enum:
    INLINE_SEGMENTS = 4
    KEPT_BUFFER = 65536      # a larger buffer is not kept with a free outbox
    SHARED_FROM = 32768      # payloads from this size on are referred to, not copied

cdef struct Segment:
    PyObject *owner          # NULL: in the outbox's own buffer
    size_t start             # offset in the buffer, or address
    size_t length
    bint joined              # goes on with the frame whose header is in front of it

cdef struct Outbox:
    size_t total             # bytes not sent yet
    uint8_t *buffer
    size_t used
    size_t capacity
    Segment *segments
    int first                # the segment being sent
    int count                # segments from first on
    int room                 # segments allocated
    bint begun               # part of the first segment has been sent
    Outbox *next
    Segment few[INLINE_SEGMENTS]

cdef Outbox *outbox_new() noexcept
cdef void outbox_free(Outbox *box) noexcept
cdef void outbox_clear(Outbox *box) noexcept
cdef uint8_t *outbox_grow(Outbox *box, size_t length) noexcept

cdef inline uint8_t *outbox_extend(Outbox *box, size_t length) noexcept:
    """Room for ``length`` more bytes at the end, to be written by the caller at once; NULL if memory is out."""
    cdef Segment *last
    cdef uint8_t *where
    if box.count and length <= box.capacity - box.used:
        last = &box.segments[box.first + box.count - 1]
        if last.owner == NULL:
            where = box.buffer + box.used
            last.length += length
            box.used += length
            box.total += length
            return where
    return outbox_grow(box, length)

cdef int outbox_refer(
    Outbox *box, PyObject *owner, const uint8_t *data, size_t length, bint joined
) noexcept
cdef void outbox_sent(Outbox *box, size_t length) noexcept
cdef void outbox_drop_unsent(Outbox *box) noexcept

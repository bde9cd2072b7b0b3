"""The segments and buffer behind ``_outbox.pxd``. Plain C, no Python calls."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF, Py_XINCREF
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove


cdef Outbox *outbox_new() noexcept:
    cdef Outbox *box = <Outbox *> malloc(sizeof(Outbox))
    if box != NULL:
        box.total = box.used = box.capacity = 0
        box.buffer = NULL
        box.segments = box.few
        box.first = box.count = 0
        box.room = INLINE_SEGMENTS
        box.begun = False
        box.next = NULL
    return box


cdef void outbox_clear(Outbox *box) noexcept:
    """Let go of everything queued; keep the buffer unless it is large."""
    cdef int index
    for index in range(box.first, box.first + box.count):
        Py_XDECREF(box.segments[index].owner)
    box.first = box.count = 0
    box.total = box.used = 0
    box.begun = False
    if box.capacity > KEPT_BUFFER:
        free(box.buffer)
        box.buffer = NULL
        box.capacity = 0
    if box.segments != box.few:
        free(box.segments)
        box.segments = box.few
        box.room = INLINE_SEGMENTS


cdef void outbox_free(Outbox *box) noexcept:
    outbox_clear(box)
    free(box.buffer)
    free(box)


cdef Segment *new_segment(Outbox *box) noexcept:
    """The next free segment; NULL if memory is out."""
    cdef Segment *grown
    cdef int last = box.first + box.count
    if last == box.room:
        if box.first >= box.room >> 1 and box.first > 0:
            memmove(box.segments, box.segments + box.first, box.count * sizeof(Segment))
            box.first = 0
        else:
            if box.segments == box.few:
                grown = <Segment *> malloc(2 * box.room * sizeof(Segment))
                if grown != NULL:
                    memcpy(grown, box.few, box.room * sizeof(Segment))
            else:
                grown = <Segment *> realloc(box.segments, 2 * box.room * sizeof(Segment))
            if grown == NULL:
                return NULL
            box.segments = grown
            box.room *= 2
        last = box.first + box.count
    box.count += 1
    return &box.segments[last]


cdef void compact(Outbox *box) noexcept:
    """Reclaim the sent front of the buffer once it is half of it: a queue that never empties stays bounded."""
    cdef size_t begin = box.used
    cdef int index
    for index in range(box.first, box.first + box.count):
        if box.segments[index].owner == NULL:
            begin = box.segments[index].start
            break
    if begin == 0 or begin < box.used >> 1:
        return
    memmove(box.buffer, box.buffer + begin, box.used - begin)
    box.used -= begin
    for index in range(box.first, box.first + box.count):
        if box.segments[index].owner == NULL:
            box.segments[index].start -= begin


cdef uint8_t *outbox_grow(Outbox *box, size_t length) noexcept:
    """``outbox_extend`` where the buffer is full, or does not go on from the last segment."""
    cdef size_t capacity
    cdef uint8_t *buffer
    cdef Segment *last
    cdef uint8_t *where
    if box.used + length > box.capacity:
        compact(box)
    if box.used + length > box.capacity:
        capacity = box.capacity * 2 if box.capacity else 1024
        while capacity < box.used + length:
            capacity *= 2
        buffer = <uint8_t *> realloc(box.buffer, capacity)
        if buffer == NULL:
            return NULL
        box.buffer = buffer
        box.capacity = capacity
    if box.count and box.segments[box.first + box.count - 1].owner == NULL:
        last = &box.segments[box.first + box.count - 1]
    else:
        last = new_segment(box)
        if last == NULL:
            return NULL
        last.owner = NULL
        last.start = box.used
        last.length = 0
        last.joined = False
    where = box.buffer + box.used
    last.length += length
    box.used += length
    box.total += length
    return where


cdef int outbox_refer(
    Outbox *box, PyObject *owner, const uint8_t *data, size_t length, bint joined
) noexcept:
    """Queue ``length`` bytes of ``owner``, which must not change; -1 if memory is out.

    ``joined``: they are the payload of the frame whose header was queued last.
    """
    cdef Segment *segment = new_segment(box)
    if segment == NULL:
        return -1
    Py_XINCREF(owner)
    segment.owner = owner
    segment.start = <size_t> data
    segment.length = length
    segment.joined = joined
    box.total += length
    return 0


cdef void outbox_sent(Outbox *box, size_t length) noexcept:
    """The first ``length`` bytes have left."""
    cdef Segment *segment
    box.total -= length
    while length:
        segment = &box.segments[box.first]
        if length < segment.length:
            segment.start += length
            segment.length -= length
            box.begun = True
            return
        length -= segment.length
        Py_XDECREF(segment.owner)
        box.first += 1
        box.count -= 1
        box.begun = False
    if box.count == 0:
        box.first = 0
        box.used = 0


cdef void outbox_drop_unsent(Outbox *box) noexcept:
    """Drop what has not begun to leave, but no part of a frame that has.

    The rest of a begun segment stays, as it may end inside a frame; so does the payload that belongs to it.
    """
    cdef int keep = 1 if box.begun else 0
    cdef int index
    while keep < box.count and box.segments[box.first + keep].joined:
        keep += 1
    for index in range(box.first + keep, box.first + box.count):
        box.total -= box.segments[index].length
        Py_XDECREF(box.segments[index].owner)
    box.count = keep
    box.used = 0
    for index in range(box.first, box.first + keep):
        if box.segments[index].owner == NULL:
            box.used = box.segments[index].start + box.segments[index].length
    if keep == 0:
        box.first = 0

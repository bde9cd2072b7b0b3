"""Messages that have come and were not received yet: a ring that grows, allocated when the first one waits."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF, Py_XINCREF
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc

cdef enum:
    FIRST_ROOM = 8

cdef struct Inbox:
    uint32_t first
    uint32_t count
    uint32_t room            # a power of two
    PyObject *items[1]       # as many as there is room for


cdef inline uint32_t inbox_count(Inbox *box) noexcept:
    return 0 if box == NULL else box.count


cdef inline PyObject *inbox_item(Inbox *box, uint32_t index) noexcept:
    """The item at ``index`` from the oldest on, borrowed."""
    return box.items[(box.first + index) & (box.room - 1)]


cdef inline Inbox *inbox_grown(Inbox *box) noexcept:
    """One of twice the room with what was in ``box``, which is gone; NULL, and ``box`` as it was, if memory is out."""
    cdef uint32_t room = FIRST_ROOM if box == NULL else 2 * box.room
    cdef Inbox *grown = <Inbox *> malloc(sizeof(Inbox) + (room - 1) * sizeof(PyObject *))
    cdef uint32_t index
    if grown == NULL:
        return NULL
    grown.first = 0
    grown.count = inbox_count(box)
    grown.room = room
    for index in range(grown.count):
        grown.items[index] = inbox_item(box, index)
    free(box)
    return grown


cdef inline int inbox_put(Inbox **place, PyObject *item) noexcept:
    """Add ``item``; -1 if memory is out."""
    cdef Inbox *box = place[0]
    if box == NULL or box.count == box.room:
        box = inbox_grown(box)
        if box == NULL:
            return -1
        place[0] = box
    Py_XINCREF(item)
    box.items[(box.first + box.count) & (box.room - 1)] = item
    box.count += 1
    return 0


cdef inline PyObject *inbox_take(Inbox *box) noexcept:
    """The oldest item, which is the caller's; there must be one."""
    cdef PyObject *item = box.items[box.first]
    box.first = (box.first + 1) & (box.room - 1)
    box.count -= 1
    return item


cdef inline void inbox_free(Inbox *box) noexcept:
    cdef uint32_t index
    for index in range(inbox_count(box)):
        Py_XDECREF(inbox_item(box, index))
    free(box)

# cython: language_level=3
"""What ``codec.py`` does for each of millions of inputs, without a Python step in between.

Every piece lies in memory of exactly its size, so that AddressSanitizer sees a read behind its end.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastws._codec cimport Decoder


cdef class Collector(Decoder):
    """A decoder that keeps what comes out, as opcode, payload, opcode, payload, …"""

    cdef list seen

    def __init__(self, **settings):
        super().__init__(**settings)
        self.seen = []

    cdef int on_event(self, int opcode, object payload) except -1:
        self.seen.append(opcode)
        self.seen.append(payload)
        return 0

    cdef int take(self, const uint8_t *data, Py_ssize_t length, bint direct) except -1:
        """A piece; ``direct``: as far as it goes, put where the poller reads payload to."""
        cdef uint8_t *copy
        cdef uint8_t *where
        cdef Py_ssize_t room
        while direct and length:
            room = self.direct_space(&where)
            if room <= 0:
                break
            room = min(room, length)
            memcpy(where, data, room)
            self.direct_filled(room)
            data += room
            length -= room
        copy = <uint8_t *> malloc(length)
        memcpy(copy, data, length)
        try:
            self.decode(copy, length)
        finally:
            free(copy)
        return 0


def decode(bytes stream not None, Py_ssize_t first, Py_ssize_t step, int cuts, bint direct, dict settings not None):
    """The events of ``stream``, and the fault: cut after ``first`` bytes, then ``cuts`` times after ``step``."""
    cdef Collector collector = Collector(**settings)
    cdef const uint8_t *data = stream
    cdef Py_ssize_t left = len(stream)
    cdef Py_ssize_t size = min(first, left)
    while True:
        collector.take(data, size, direct)
        data += size
        left -= size
        if left == 0:
            break
        size = min(step, left) if step and cuts > 0 else left
        cuts -= 1
    return collector.seen, collector.error and (collector.error.code, collector.error.message)

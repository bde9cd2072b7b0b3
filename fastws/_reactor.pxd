"""What the connections of one loop share."""

cdef class Reactor

from cpython.list cimport PyList_GET_ITEM
from libc.stdint cimport uint8_t, uint32_t

from fastws._carrier cimport Carrier
from fastws._core cimport Core
from fastws._outbox cimport Outbox

cdef enum:
    NO_SLOT = 0xFFFFFFFF


cdef class Reactor:
    cdef readonly object loop
    cdef readonly object context
    cdef readonly object last_seen
    cdef readonly dict deadlines
    cdef dict failures                # of connections that are lost when they are settled: what their carriers met
    cdef readonly dict shared         # what connections of this loop share beyond that, by key: compressors
    cdef public object poller
    cdef Carrier together             # sends for many connections in one system call, where there is one that can
    cdef object call_soon
    cdef object run_handle
    cdef object sweep_handle
    cdef list dirty
    cdef list awake
    cdef list resting                 # connections that go on in the next turn of the loop
    cdef list owners                  # by slot: keeps a connection alive, where the collector sees it; None when free
    cdef bint scheduled
    cdef bint ticking
    cdef object __weakref__
    cdef double now
    cdef double *seen                 # by slot
    cdef double *ping_at              # by slot: when to ping next, or when the pong is due
    cdef double *ping_sent            # by slot: when the ping left that waits for its pong, or 0
    cdef uint32_t *generations        # by slot, counts its owners
    cdef uint32_t *free_slots
    cdef uint32_t free_count
    cdef uint32_t used_slots          # slots ever used
    cdef uint32_t capacity
    cdef uint32_t keepalives
    cdef double granularity
    cdef object seen_memory
    cdef bytes keys                   # random bytes for mask keys
    cdef Py_ssize_t key_at
    cdef Outbox *free_boxes
    cdef int free_box_count

    cdef inline Core owner(self, uint32_t slot):
        """Of a slot that was used; ``None`` when it is free."""
        return <Core> PyList_GET_ITEM(self.owners, slot)

    cdef uint32_t acquire(self, Core core) except? 0xFFFFFFFF
    cdef void release(self, Core core) noexcept
    cdef Outbox *take_box(self) except NULL
    cdef void give_box(self, Outbox *box) noexcept
    cdef int touch(self, Core core) except -1
    cdef int rest(self, Core core) except -1
    cdef int schedule(self) except -1
    cdef int drain_awake(self) except -1
    cdef int flush(self) except -1
    cdef int begin_tick(self) except -1
    cdef int end_tick(self) except -1
    cdef int stop_ticking(self) except -1
    cdef void refresh_clock(self) noexcept
    cdef int draw_key(self, uint8_t *key) except -1
    cdef int keep_alive(self, Core core) except -1
    cdef int sweep_every(self, double delay) except -1
    cdef int sweep_later(self) except -1
    cdef list ping_due(self)

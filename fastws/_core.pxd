"""What a loop and a connection share, for the poller and other Cython modules."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t

from fastws._codec cimport Decoder
from fastws._outbox cimport Outbox


cdef enum:
    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3

cdef enum:
    KEEP = 0                 # what becomes of the TCP connection once the outbox is empty
    LINGER = 1               # send FIN, read and ignore until the peer's FIN or the deadline
    DROP = 2                 # close it


cdef class Settings:
    cdef readonly Py_ssize_t connections  # not closed
    cdef readonly bint client
    cdef readonly object max_size
    cdef readonly object max_fragments
    cdef readonly Py_ssize_t max_queue
    cdef readonly size_t write_high
    cdef readonly size_t write_low
    cdef readonly size_t max_backlog
    cdef readonly object ping_interval
    cdef readonly object ping_timeout
    cdef readonly object open_timeout
    cdef readonly object close_timeout


cdef class Reactor:
    cdef readonly object loop
    cdef readonly object context
    cdef readonly object last_seen
    cdef readonly dict deadlines
    cdef public object poller
    cdef object call_soon
    cdef object run_handle
    cdef object sweep_handle
    cdef list dirty
    cdef list awake
    cdef list owners                  # by slot: what keeps a connection alive, where the collector sees it
    cdef bint scheduled
    cdef bint ticking
    cdef object __weakref__
    cdef double now
    cdef double *seen                 # by slot
    cdef double *ping_at              # by slot: when to ping next, or when the pong is due
    cdef PyObject **cores             # by slot, borrowed from owners; NULL when free
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

    cdef uint32_t acquire(self, Core core) except? 0xFFFFFFFF
    cdef void release(self, Core core) noexcept
    cdef Outbox *take_box(self) except NULL
    cdef void give_box(self, Outbox *box) noexcept
    cdef int touch(self, Core core) except -1
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


cdef class Carrier:
    cdef int flush(self, Core core) except -1
    cdef int hold_reading(self, Core core, bint hold) except -1
    cdef int half_close(self, Core core) except -1
    cdef bint is_sending(self) except -1
    cdef int drop(self, Core core, bint orderly) except -1


cdef class TransportCarrier(Carrier):
    cdef readonly object transport
    cdef bint paused


cdef class Waiter:
    cdef public bint _asyncio_future_blocking
    cdef Core core
    cdef object callback
    cdef object context
    cdef bint woken
    cdef bint was_cancelled

    cdef int resume(self) except -1


cdef class PreparedMessage:
    cdef readonly bytes frame         # as a server sends it
    cdef readonly int opcode
    cdef readonly Py_ssize_t header


cdef class Core(Decoder):
    cdef readonly Settings settings
    cdef readonly Reactor reactor
    cdef readonly Carrier carrier
    cdef public object listener
    cdef object on_message            # called for each message
    cdef object receiver              # its first argument, None if it takes none
    cdef public object _details       # what few connections need: the cold part's
    cdef Waiter waiter                # in recv()
    cdef object drained               # future of a send() above the high-water mark
    cdef bytes spill                  # read but not decoded yet, while held: from spill_at on
    cdef Py_ssize_t spill_at
    cdef object failure               # what the carrier met while user code was running
    cdef Outbox *box
    cdef PyObject **ring              # messages not received yet
    cdef uint32_t ring_first
    cdef uint32_t ring_count
    cdef uint32_t ring_room
    cdef readonly uint32_t slot
    cdef int fd
    cdef double ping_sent             # 0: no keepalive ping is waiting for its pong
    cdef public double latency
    cdef public uint8_t _state
    cdef uint8_t ending               # KEEP, LINGER or DROP
    cdef uint8_t dirty
    cdef uint8_t above                # the outbox has passed the high-water mark and is not below the low one yet
    cdef uint8_t reading              # the carrier reads
    cdef readonly uint8_t muted                # bytes that come in are ignored
    cdef uint8_t watching             # the carrier waits until the socket is writable
    cdef uint8_t end_of_file          # the peer has sent FIN
    cdef uint8_t half_closed          # we have
    cdef uint8_t deferring            # user code is running: a failure is dealt with later
    cdef uint8_t failed
    cdef uint8_t overflowed           # the queue passed max_backlog and was dropped

    cdef int received(self, const uint8_t *data, Py_ssize_t length) except -1
    cdef int received_direct(self, Py_ssize_t length) except -1
    cdef int after_read(self, const uint8_t *rest, Py_ssize_t length, bytes source) except -1
    cdef int keep(self, const uint8_t *rest, Py_ssize_t length, bytes source) except -1
    cdef int resume(self) except -1
    cdef bint may_go_on(self) noexcept
    cdef bint closed_for_recv(self) noexcept
    cdef void free_ring(self) noexcept
    cdef int deliver(self, object message) except -1
    cdef int enqueue(self, object message) except -1
    cdef object dequeue(self)
    cdef int wake(self) except -1
    cdef int write(self, int first_byte, const uint8_t *data, Py_ssize_t length, PyObject *owner) except -1
    cdef int write_prepared(self, PreparedMessage message) except -1
    cdef int settle(self) except -1
    cdef int check_backlog(self) except -1
    cdef int fail_later(self, object error) except -1
    cdef int after_flush(self) except -1
    cdef int end_writing(self) except -1
    cdef int send_bytes(self, bytes data, int opcode) except -1
    cdef object wait_drained(self)
    cdef int ping_or_give_up(self) except -1
    cdef int end_reached(self) except -1
    cdef int lost(self, object error, bint orderly=*) except -1
    cdef int leave(self) except -1

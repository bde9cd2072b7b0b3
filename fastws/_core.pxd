"""The hot part of a connection, for the poller and other Cython modules."""

cdef class Core

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t

from fastws._carrier cimport Carrier
from fastws._codec cimport Decoder
from fastws._inbox cimport Inbox
from fastws._outbox cimport Outbox
from fastws._prepared cimport PreparedMessage
from fastws._reactor cimport Reactor
from fastws._waiting cimport Waiter


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


cdef class Core(Decoder):
    cdef readonly Settings settings
    cdef readonly Reactor reactor
    cdef readonly Carrier carrier
    cdef public object listener
    cdef object on_message            # called for each message
    cdef object receiver              # its first argument, None if it takes none
    cdef public object _details       # what few connections need: the cold part's
    cdef object deflater              # deflate.Deflater, if our messages refer to those before them
    cdef Waiter waiter                # in recv()
    cdef object drained               # future of a send() above the high-water mark
    cdef bytes spill                  # read but not decoded yet, while held: from spill_at on
    cdef Py_ssize_t spill_at
    cdef Outbox *box
    cdef Inbox *inbox                 # messages not received yet; NULL until there was one
    cdef public double latency
    cdef readonly uint32_t slot
    cdef int fd
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
    cdef uint8_t failed               # the reactor's failures say how
    cdef uint8_t overflowed           # the queue passed max_backlog and was dropped
    cdef public uint8_t _sending      # a message is going out in fragments: others wait

    cdef int received(self, const uint8_t *data, Py_ssize_t length) except -1
    cdef int received_direct(self, Py_ssize_t length) except -1
    cdef int after_read(self, const uint8_t *rest, Py_ssize_t length, bytes source) except -1
    cdef int keep(self, const uint8_t *rest, Py_ssize_t length, bytes source) except -1
    cdef int resume(self) except -1
    cdef bint may_go_on(self) noexcept
    cdef bint closed_for_recv(self) noexcept
    cdef int deliver(self, object message) except -1
    cdef int enqueue(self, object message) except -1
    cdef object dequeue(self)
    cdef int wake(self) except -1
    cdef int write(self, int first_byte, const uint8_t *data, Py_ssize_t length, PyObject *owner) except -1
    cdef int write_prepared(self, PreparedMessage message, compress=*) except -1
    cdef bint write_compressed(self, message, text, compress) except -1
    cdef int settle(self) except -1
    cdef int check_backlog(self) except -1
    cdef int fail_later(self, object error) except -1
    cdef int fail(self, object error) except -1
    cdef int after_flush(self) except -1
    cdef int end_writing(self) except -1
    cdef object send_message(self, message, text, compress)
    cdef int send_bytes(self, bytes data, int opcode) except -1
    cdef object wait_drained(self)
    cdef int ping_or_give_up(self) except -1
    cdef int end_reached(self) except -1
    cdef int lost(self, object error, bint orderly=*) except -1
    cdef int leave(self) except -1

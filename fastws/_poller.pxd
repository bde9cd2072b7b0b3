"""The poller, for the carrier that adds TLS to it."""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from fastws._carrier cimport Carrier
from fastws._core cimport Core
from fastws._outbox cimport Outbox, Segment
from fastws._reactor cimport Reactor
from fastws._ring cimport RING_ROOM, Ring


cdef extern from "<sys/epoll.h>" nogil:
    struct epoll_event

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen


cdef inline void *address(Outbox *box, Segment *segment) noexcept nogil:
    """Where the bytes of ``segment`` are."""
    if segment.owner == NULL:
        return box.buffer + segment.start
    return <void *> segment.start


cdef enum:
    READ_AHEAD = 16                   # sockets read from in one system call


cdef class Poller(Carrier):
    cdef readonly Reactor reactor
    cdef readonly object shared_tls   # what connections over TLS share, once there was one
    cdef int epfd
    cdef uint8_t *buffer              # that every socket is read into
    cdef uint8_t *ahead               # and those that are read from together, each its part; NULL without a ring
    cdef int32_t got[READ_AHEAD]      # what that brought each: bytes, or an error number, negative, or NOT_TRIED
    cdef epoll_event *events
    cdef dict listeners               # descriptor -> Listening
    cdef bint busy
    cdef readonly Ring ring           # None where there is none
    cdef PyObject *senders[RING_ROOM]  # those with a send in the ring, by order; borrowed
    cdef msghdr *messages             # of those that send several segments
    cdef iovec *vectors
    cdef bint together                # what this tick sends leaves at its end

    cdef int open_ring(self) except -1
    cdef int accept(self, Listening listening) except -1
    cdef int pause_accepting(self, Listening listening, int error) except -1
    cdef int add(self, Core core, int fd) except -1
    cdef uint64_t token(self, Core core) noexcept
    cdef int control(self, int operation, int fd, uint32_t events, uint64_t token) except -1
    cdef int watch(self, Core core) except -1
    cdef int dispatch_together(self, epoll_event *events, int count) except -1
    cdef int dispatch(self, epoll_event *event, int32_t got, const uint8_t *data) except -1
    cdef int read_together(self, epoll_event *events, int count) except -1
    cdef bint can_read(self, Core core) noexcept
    cdef int take(self, Core core, int32_t got, const uint8_t *data) except -1
    cdef int put_back(self, epoll_event *events, int count, int part) except -1
    cdef int send_together(self, list cores) except -1
    cdef bint can_send(self, Core core) noexcept
    cdef Py_ssize_t queue_sends(self, list cores, Py_ssize_t index) except -1


cdef class Listening:
    cdef readonly Poller poller
    cdef readonly object sock
    cdef readonly int fd
    cdef object accepted
    cdef object retry
    cdef bint complained

"""The carrier of plain sockets on Linux: an epoll instance of our own inside the asyncio loop.

An epoll instance is itself a descriptor that can be polled. All WebSocket sockets of a loop are in ours, and the
loop watches that one descriptor. When it wakes us, one call takes up to ``BATCH`` ready sockets: read into one shared
buffer, decode, call back, and leave with one ``send`` per connection, those of many connections in one system call
where the system lets us (``_ring.pyx``). No handle, transport, protocol object or buffer per connection, and one
wake-up of the loop for many sockets. With a ring, several sockets are also read from in one system call.

Events carry slot and generation of their connection, never a pointer: a connection that was closed, or whose slot or
descriptor has another owner, earlier in the same batch is not found. Level-triggered: what we leave undone comes again.
"""

import errno
import logging
import os
import socket

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno as c_errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from posix.unistd cimport close

from fastws._carrier cimport Carrier
from fastws._core cimport CLOSED, OPEN, Core
from fastws._outbox cimport Outbox, Segment, outbox_sent
from fastws._reactor cimport Reactor
from fastws._ring cimport OP_RECV, OP_SEND, OP_SENDMSG, RING_ROOM, NOT_TRIED, Ring


cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t length, int flags)
    ssize_t send(int fd, const void *buffer, size_t length, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int accept4(int fd, void *address, void *length, int flags)
    int shutdown(int fd, int how)
    int MSG_NOSIGNAL, SOCK_NONBLOCK, SOCK_CLOEXEC, SHUT_WR

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int operation, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int room, int timeout)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP

cdef extern from "Python.h":
    PyObject *borrowed_item "PyList_GET_ITEM"(PyObject *items, Py_ssize_t index)

cdef extern from "<string.h>" nogil:
    void *memset(void *where, int value, size_t length)


cdef enum:
    BATCH = 256                       # sockets served per wake-up, before the loop gets its turn
    READ_SIZE = 262144                # bytes read from one socket per wake-up, so that nobody starves
    DIRECT_FROM = 16384               # missing payload from which it is read straight into the message
    AHEAD_SIZE = 32768                # bytes read from one of several in one system call
    AHEAD_STRIDE = AHEAD_SIZE + 576   # between their parts of a buffer: not all in the same sets of a cache
    ACCEPT_BATCH = 64                 # connections accepted per wake-up
    VECTOR = 64                       # segments per sendmsg
    VECTORS = 1024                    # segments per submission to the ring
    WAITS_UP_TO = 16384               # larger outboxes leave at once, while they are in the cache

cdef size_t LONGEST_SEND = 1 << 30   # an entry of the ring has 32 bits for it
cdef uint32_t NO_SLOT = 0xFFFFFFFF
cdef uint32_t IS_LISTENER = 0x80000000

# Out of descriptors or memory: not accepting for so long, in seconds, lets others finish.
ACCEPT_PAUSE = 0.25

logger = logging.getLogger("fastws.server")


cdef int fill_vector(iovec *vector, Outbox *box) noexcept:
    """The first segments of ``box``, up to ``VECTOR`` of them; how many."""
    cdef int count = box.count if box.count < VECTOR else VECTOR
    cdef int index
    cdef Segment *segment
    for index in range(count):
        segment = &box.segments[box.first + index]
        vector[index].iov_base = address(box, segment)
        vector[index].iov_len = segment.length
    return count


cdef inline PyObject *owner_of(Reactor reactor, epoll_event *event) noexcept:
    """The connection that the event is of, borrowed; NULL if it is closed, or another one by now."""
    cdef uint32_t slot = <uint32_t> event.data.u64
    cdef PyObject *core
    if slot & IS_LISTENER or reactor.generations[slot] != <uint32_t> (event.data.u64 >> 32):
        return NULL
    core = borrowed_item(<PyObject *> reactor.owners, slot)
    if core == <PyObject *> None or (<Core> core)._state == CLOSED:
        return NULL
    return core


cdef class Poller(Carrier):
    """All sockets of one loop, and the carrier of those without TLS; ``_tls.pyx`` has the other."""

    def __cinit__(self, Reactor reactor not None):
        self.epfd = -1
        self.reactor = reactor
        self.listeners = {}
        self.buffer = <uint8_t *> malloc(READ_SIZE)
        self.events = <epoll_event *> malloc(BATCH * sizeof(epoll_event))
        if self.buffer == NULL or self.events == NULL:
            raise MemoryError
        self.open_ring()
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd < 0:
            raise OSError(c_errno, os.strerror(c_errno))
        reactor.loop.add_reader(self.epfd, self._ready)

    cdef int open_ring(self) except -1:
        """``FASTWS_IO_URING=0``, or a system that has none for us: every connection is sent to on its own."""
        if os.environ.get("FASTWS_IO_URING", "") == "0":
            return 0
        try:
            self.ring = Ring()
        except OSError:
            return 0
        self.messages = <msghdr *> calloc(RING_ROOM, sizeof(msghdr))
        self.vectors = <iovec *> malloc(VECTORS * sizeof(iovec))
        self.ahead = <uint8_t *> malloc(READ_AHEAD * AHEAD_STRIDE)
        if self.messages == NULL or self.vectors == NULL or self.ahead == NULL:
            raise MemoryError
        self.reactor.together = self
        return 0

    def __dealloc__(self):
        if self.epfd >= 0:
            close(self.epfd)
        free(self.buffer)
        free(self.ahead)
        free(self.events)
        free(self.messages)
        free(self.vectors)

    def close(self) -> None:
        """Stop; the connections must be gone already."""
        if self.epfd < 0:
            return
        for listening in list(self.listeners.values()):
            self.stop_listening(listening)
        if not self.reactor.loop.is_closed():
            self.reactor.loop.remove_reader(self.epfd)
        close(self.epfd)
        self.epfd = -1
        self.reactor.together = None
        if self.ring is not None:
            self.ring.close()
            self.ring = None

    # --- listening sockets

    def listen(self, sock, accepted):
        """Accept on ``sock`` (listening, non-blocking); ``accepted(fd)`` returns the ``Core`` of each connection.

        Accepted sockets inherit ``TCP_NODELAY`` from ``sock``.
        """
        cdef Listening listening = Listening(self, sock, accepted)
        self.listeners[listening.fd] = listening
        self.control(EPOLL_CTL_ADD, listening.fd, EPOLLIN, listening.fd | IS_LISTENER)
        return listening

    def stop_listening(self, Listening listening not None) -> None:
        """Take the socket out; it stays open and its owner's."""
        if self.listeners.pop(listening.fd, None) is None:
            return
        if listening.retry is not None:
            listening.retry.cancel()
            listening.retry = None
        else:
            self.control(EPOLL_CTL_DEL, listening.fd, 0, 0)

    cdef int accept(self, Listening listening) except -1:
        cdef int count, fd
        cdef Core core
        for count in range(ACCEPT_BATCH):
            if len(self.reactor) >= self.reactor.capacity:
                self.pause_accepting(listening, EMFILE)  # the rest waits in the backlog
                return 0
            fd = accept4(listening.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if c_errno == EAGAIN:
                    break
                if c_errno == EINTR or c_errno == ECONNABORTED:
                    continue
                self.pause_accepting(listening, c_errno)
                return 0
            try:
                core = listening.accepted(self)
            except BaseException:
                close(fd)
                raise
            try:
                self.add(core, fd)
            except OSError as error:
                close(fd)
                core.lost(error)
                self.pause_accepting(listening, error.errno)
                return 0
            if listening.fd not in self.listeners:
                return 0              # closed by what it accepted
        if listening.complained and count:
            listening.complained = False
            logger.warning("accepting connections again")
        return 0

    cdef int pause_accepting(self, Listening listening, int error) except -1:
        """Out of descriptors or memory: leave connections in the backlog for a moment, and say so once."""
        if not listening.complained:
            listening.complained = True
            logger.error(
                "not accepting connections for now: %s (%d are open)", os.strerror(error), len(self.reactor)
            )
        self.control(EPOLL_CTL_DEL, listening.fd, 0, 0)
        listening.retry = self.reactor.loop.call_later(ACCEPT_PAUSE, self._accept_again, listening)
        return 0

    def _accept_again(self, Listening listening) -> None:
        listening.retry = None
        if listening.fd in self.listeners:
            self.control(EPOLL_CTL_ADD, listening.fd, EPOLLIN, listening.fd | IS_LISTENER)

    # --- connections

    cdef int add(self, Core core, int fd) except -1:
        core.fd = fd
        try:
            self.control(EPOLL_CTL_ADD, fd, EPOLLIN, self.token(core))
        except BaseException:
            core.fd = -1
            raise
        return 0

    def adopt(self, Core core not None, int fd) -> None:
        """Carry ``core`` over the connected, non-blocking socket ``fd``, which is ours from now on."""
        self.add(core, fd)

    def detach(self, Core core not None) -> int:
        """Give the socket of ``core`` away; returns its descriptor, which is the caller's from now on."""
        cdef int fd = core.fd
        self.control(EPOLL_CTL_DEL, fd, 0, 0)
        core.fd = -1
        core._detach()
        return fd

    cdef uint64_t token(self, Core core) noexcept:
        return <uint64_t> self.reactor.generations[core.slot] << 32 | core.slot

    cdef int control(self, int operation, int fd, uint32_t events, uint64_t token) except -1:
        cdef epoll_event event
        event.events = events
        event.data.u64 = token
        if epoll_ctl(self.epfd, operation, fd, &event) < 0:
            raise OSError(c_errno, os.strerror(c_errno))
        return 0

    cdef int watch(self, Core core) except -1:
        """Tell epoll what ``core`` waits for."""
        cdef uint32_t events = 0
        if core.reading:
            events |= EPOLLIN
        if core.watching:
            events |= EPOLLOUT
        return self.control(EPOLL_CTL_MOD, core.fd, events, self.token(core))

    cdef int hold_reading(self, Core core, bint hold) except -1:
        if core.fd >= 0:
            self.watch(core)
        return 0

    cdef int half_close(self, Core core) except -1:
        shutdown(core.fd, SHUT_WR)
        return 0

    cdef int drop(self, Core core, bint orderly) except -1:
        cdef epoll_event event
        if core.fd >= 0:
            # Explicit: a forked child that still has the descriptor would keep it in the set.
            epoll_ctl(self.epfd, EPOLL_CTL_DEL, core.fd, &event)
            close(core.fd)
            core.fd = -1
        return 0

    cdef int flush(self, Core core) except -1:
        cdef Outbox *box = core.box
        cdef Segment *segment
        cdef iovec vector[VECTOR]
        cdef msghdr message
        cdef ssize_t sent
        cdef size_t length
        cdef int index
        while box.count:
            if box.count == 1:
                segment = &box.segments[box.first]
                length = segment.length
                sent = send(core.fd, address(box, segment), length, MSG_NOSIGNAL)
            else:
                memset(&message, 0, sizeof(message))
                message.msg_iov = vector
                message.msg_iovlen = fill_vector(vector, box)
                length = 0
                for index in range(<int> message.msg_iovlen):
                    length += vector[index].iov_len
                sent = sendmsg(core.fd, &message, MSG_NOSIGNAL)
            if sent < 0:
                if c_errno == EINTR:
                    continue
                if c_errno != EAGAIN:
                    core.lost(OSError(c_errno, os.strerror(c_errno)))
                    return 0
                sent = 0
            outbox_sent(box, sent)
            if <size_t> sent < length:
                if not core.watching:
                    core.watching = True
                    self.watch(core)
                return 0
        if core.watching:
            core.watching = False
            self.watch(core)
        return 0

    cdef int send_together(self, list cores) except -1:
        """Send what these have queued, in as few system calls as it takes; none may be among them twice.

        Each has to be settled then: what did not leave this way is sent by ``flush()``, which also finds out why.
        """
        cdef Py_ssize_t looked_at = 0
        cdef int index
        cdef int32_t result
        cdef Core core
        while looked_at < len(cores):
            looked_at = self.queue_sends(cores, looked_at)
            for index in range(self.ring.submit()):
                core = <Core> self.senders[index]
                result = self.ring.results[index]
                if result >= 0:
                    outbox_sent(core.box, result)
                elif result != -EAGAIN and result != -EINTR and result != NOT_TRIED:
                    # Kept: the system tells it only once.
                    core.fail(OSError(-result, os.strerror(-result)))
        return 0

    cdef bint can_send(self, Core core) noexcept:
        """Whether ``flush`` would be called for ``core`` now, and the carrier is this one."""
        return (
            core.box != NULL
            and core.box.count > 0
            and <PyObject *> core.carrier == <PyObject *> self
            and core._state != CLOSED
            and not (core.watching or core.failed or core.overflowed)
        )

    cdef Py_ssize_t queue_sends(self, list cores, Py_ssize_t index) except -1:
        """Queue sends for ``cores[index:]`` as far as there is room; where it ended."""
        cdef Core core
        cdef Outbox *box
        cdef Segment *segment
        cdef iovec *vector = self.vectors
        cdef iovec *end = self.vectors + VECTORS - VECTOR
        cdef msghdr *message
        cdef size_t length
        while index < len(cores) and self.ring.count < RING_ROOM and vector <= end:
            core = <Core> cores[index]
            index += 1
            if not self.can_send(core):
                continue
            self.senders[self.ring.count] = <PyObject *> core
            box = core.box
            if box.count == 1:
                segment = &box.segments[box.first]
                length = segment.length if segment.length < LONGEST_SEND else LONGEST_SEND
                self.ring.queue(OP_SEND, core.fd, address(box, segment), <uint32_t> length)
                continue
            message = &self.messages[self.ring.count]
            message.msg_iov = vector
            message.msg_iovlen = fill_vector(vector, box)
            vector += message.msg_iovlen
            self.ring.queue(OP_SENDMSG, core.fd, message, 1)
        return index

    cdef int resume_writing_to(self, Core core) except -1:
        if core.box != NULL:
            return self.flush(core)
        core.watching = False
        return self.watch(core)

    # --- one wake-up of the loop

    def _ready(self) -> None:
        cdef int count, index
        if self.busy:
            return                    # the loop was run from inside a callback of ours
        count = epoll_wait(self.epfd, self.events, BATCH, 0)
        if count <= 0:
            return
        self.busy = True
        self.together = count > 1 and self.ring is not None
        try:
            self.reactor.begin_tick()
            if self.together:
                for index in range(0, count, READ_AHEAD):
                    self.dispatch_together(&self.events[index], min(count - index, <int> READ_AHEAD))
            else:
                for index in range(count):
                    self.dispatch(&self.events[index], NOT_TRIED, NULL)
        finally:
            self.busy = False
            self.reactor.end_tick()

    cdef int dispatch_together(self, epoll_event *events, int count) except -1:
        """Read from these sockets together, then do for each what its event asks for."""
        cdef int part = -1
        self.read_together(events, count)
        try:
            for part in range(count):
                self.dispatch(&events[part], self.got[part], self.ahead + part * AHEAD_STRIDE)
        except BaseException:
            self.put_back(events, count, part + 1)
            raise
        return 0

    cdef int read_together(self, epoll_event *events, int count) except -1:
        """Read from those of these sockets that have something, if they are several, in one system call."""
        cdef int[READ_AHEAD] part
        cdef int index
        cdef int wanted = 0
        cdef PyObject *core
        for index in range(count):
            self.got[index] = NOT_TRIED
            if events[index].events & EPOLLIN:
                core = owner_of(self.reactor, &events[index])
                if core != NULL and self.can_read(<Core> core):
                    part[wanted] = index
                    wanted += 1
        if wanted < 2:
            return 0
        for index in range(wanted):
            core = owner_of(self.reactor, &events[part[index]])
            self.ring.queue(OP_RECV, (<Core> core).fd, self.ahead + part[index] * AHEAD_STRIDE, AHEAD_SIZE)
        self.ring.submit()
        for index in range(wanted):
            self.got[part[index]] = self.ring.results[index]
        return 0

    cdef bint can_read(self, Core core) noexcept:
        """Whether ``read`` would be called for ``core``, and would not read straight into a message."""
        cdef uint8_t *where
        return (
            <PyObject *> core.carrier == <PyObject *> self
            and core._state == OPEN       # before, its socket may be given to somebody else
            and core.reading
            and core.direct_space(&where) < DIRECT_FROM
        )

    cdef int put_back(self, epoll_event *events, int count, int part) except -1:
        """What was read but not dispatched, because of an exception, waits for the next tick."""
        cdef PyObject *found
        cdef Core core
        cdef int32_t got
        cdef int index
        for index in range(part, count):
            found = owner_of(self.reactor, &events[index])
            got = self.got[index]
            if found == NULL:
                continue
            core = <Core> found
            if got > 0:
                core.held = True
                core.keep(self.ahead + index * AHEAD_STRIDE, got, None)
                self.reactor.touch(core)
            elif got < 0 and got != -EAGAIN and got != -EINTR and got != NOT_TRIED:
                core.fail_later(OSError(-got, os.strerror(-got)))
        return 0

    cdef int dispatch(self, epoll_event *event, int32_t got, const uint8_t *data) except -1:
        """Do what the event asks for; ``got`` and ``data`` are what has been read already."""
        cdef uint32_t slot = <uint32_t> event.data.u64
        cdef PyObject *found
        cdef Core core
        cdef bint listed                  # to be settled already, by what another one's callback did: never twice
        if slot & IS_LISTENER:
            listening = self.listeners.get(slot & ~IS_LISTENER)
            if listening is not None:
                self.accept(<Listening> listening)
            return 0
        found = owner_of(self.reactor, event)
        if found == NULL:
            return 0
        core = <Core> found
        if not core.reading and event.events & (EPOLLERR | EPOLLHUP) and got == NOT_TRIED:
            return core.lost(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        if got != NOT_TRIED or core.reading and event.events & (EPOLLIN | EPOLLERR | EPOLLHUP):
            # Marked, so that what its own callbacks send leaves with the flush below.
            listed = core.dirty
            core.dirty = True
            try:
                if got != NOT_TRIED:
                    self.take(core, got, data)
                else:
                    core.carrier.read(core)
            except BaseException as error:
                core.lost(error)
                if not isinstance(error, Exception):
                    raise
                logger.error("connection dropped", exc_info=error)
            finally:
                core.dirty = listed
            self.reactor.drain_awake()
        if core._state == CLOSED:
            return 0
        if event.events & EPOLLOUT and core.watching:
            core.carrier.resume_writing_to(core)
        if self.together and core.box != NULL and core.box.total <= WAITS_UP_TO:
            return self.reactor.touch(core)
        return core.settle()

    cdef int take(self, Core core, int32_t got, const uint8_t *data) except -1:
        """What ``read_together`` brought for ``core``."""
        if got > 0:
            core.received(data, got)
            if got == AHEAD_SIZE and core.reading and core._state != CLOSED:
                return self.read(core)
            return 0
        if got == 0:
            return core.end_reached()
        if got == -EAGAIN or got == -EINTR:
            return 0                  # epoll says it again
        return core.lost(OSError(-got, os.strerror(-got)))

    cdef int read(self, Core core) except -1:
        cdef uint8_t *where
        cdef Py_ssize_t room = core.direct_space(&where)
        cdef bint direct = room >= DIRECT_FROM
        cdef ssize_t length
        if not direct:
            where = self.buffer
            room = READ_SIZE
        elif room > READ_SIZE * 4:
            room = READ_SIZE * 4
        while True:
            length = recv(core.fd, where, room, 0)
            if length > 0:
                if direct:
                    return core.received_direct(length)
                return core.received(where, length)
            if length == 0:
                return core.end_reached()
            if c_errno == EAGAIN:
                return 0
            if c_errno == EINTR:
                PyErr_CheckSignals()
                continue
            return core.lost(OSError(c_errno, os.strerror(c_errno)))


cdef class Listening:
    """One listening socket in the poller."""

    def __init__(self, Poller poller, sock, accepted):
        self.poller = poller
        self.sock = sock
        self.fd = sock.fileno()
        self.accepted = accepted

    def close(self) -> None:
        """Stop accepting and close the socket."""
        self.poller.stop_listening(self)
        self.sock.close()

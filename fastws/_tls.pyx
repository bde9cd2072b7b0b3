"""TLS in the poller: sockets stay in our epoll set, OpenSSL sees memory only.

A connection has an ``ssl.SSLObject`` and nothing else. The pair of memory BIOs that OpenSSL reads from and writes to,
and the buffer that it decrypts to, are one for all connections of a poller: each use leaves the BIOs empty, because
OpenSSL keeps a record that has come in part in a buffer of its own, which it frees when the record is complete
(``SSL_MODE_RELEASE_BUFFERS``, which ``ssl`` sets). So a burst costs one ``recv`` and one ``send`` as it does without
TLS, what the handlers of one tick send is sealed into as few records as hold it, and an idle connection costs what
OpenSSL needs for one.

Only the API of ``ssl`` is used, no symbol of OpenSSL and no layout of a C structure, so that it works with every build
of CPython and with OpenSSL, LibreSSL or AWS-LC. What that costs is in docs/benchmarks.md.
"""

import errno
import os
import ssl

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno as c_errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastws._core cimport CLOSED, KEEP
from fastws._outbox cimport Segment, outbox_sent
from fastws._poller cimport address


cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t length, int flags)
    ssize_t send(int fd, const void *buffer, size_t length, int flags)
    int shutdown(int fd, int how)
    int MSG_NOSIGNAL, SHUT_WR

cdef extern from "Python.h":
    const int PyBUF_READ, PyBUF_WRITE
    object PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags)
    char *PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)


cdef enum:
    RECORD = 16384                    # bytes of data in a TLS record, at most (RFC 8446 5.1)
    READ_SIZE = 65536                 # bytes read from one socket per wake-up; the poller's buffer has room for them
    PLAIN_SIZE = READ_SIZE + 2 * RECORD  # what they decrypt to, with the record that had begun before
    SEALED_AHEAD = 65536              # bytes of data encrypted before the socket is asked again
    # Bytes that may come without any data in them: certificates (OpenSSL takes 100 KiB), tickets, key updates. Whoever
    # sends more makes us derive keys (RFC 8446 4.6.3, 7.2) or refuse renegotiation for nothing.
    BARREN_LIMIT = 131072
    # Bytes of ours that may wait for a peer that makes OpenSSL answer and does not read.
    LEFT_LIMIT = 4 * SEALED_AHEAD

cdef object WantRead = ssl.SSLWantReadError
cdef object WantWrite = ssl.SSLWantWriteError
cdef object ZeroReturn = ssl.SSLZeroReturnError
cdef object MemoryBIO = ssl.MemoryBIO


cdef class Shared:
    """What the TLS connections of one poller share, one after the other."""

    def __cinit__(self):
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()
        self.plain = <uint8_t *> malloc(PLAIN_SIZE)
        self.record = <uint8_t *> malloc(RECORD)
        if self.plain == NULL or self.record == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.plain)
        free(self.record)

    cdef int empty(self) except -1:
        """What a connection that failed has left must not reach another."""
        self.incoming.read()
        self.outgoing.read()
        return 0


cdef class TlsCarrier(Carrier):
    """The carrier of one connection over TLS in ``poller``.

    ``context``: an ``ssl.SSLContext``; callbacks that it has are called in the poller's thread. For a client,
    ``server_side=False`` and ``server_hostname``, which is checked as the context says: give the connection to
    ``poller.adopt()`` and write the request to it, which begins the TLS handshake and waits for its end. A failure of
    the handshake is the error that the connection is lost with.
    """

    def __init__(self, Poller poller not None, context not None, *, bint server_side=True, server_hostname=None):
        if poller.shared_tls is None:
            poller.shared_tls = Shared()
        self.poller = poller
        self.shared = poller.shared_tls
        self.context = context
        self.server_side = server_side
        self.server_hostname = server_hostname
        if not server_side:
            self.begin()              # a name that cannot be checked raises here

    cdef int begin(self) except -1:
        """OpenSSL's part, which takes kilobytes: not for a client that says nothing."""
        self.ssl_object = self.context.wrap_bio(
            self.shared.incoming, self.shared.outgoing, self.server_side, self.server_hostname
        )
        # Its methods without a Python function around each.
        self.tls = getattr(self.ssl_object, "_sslobj", self.ssl_object)
        self.context = self.server_hostname = None
        return 0

    # --- the handshake

    cdef bint shake(self, Core core) except -1:
        """Go on with the TLS handshake; whether it is done."""
        try:
            self.tls.do_handshake()
        except WantRead:
            self.push(core)
            return False
        except OSError as error:      # which every error of ssl is
            self.push(core)           # the alert that says why
            core.lost(error)
            return False
        self.established = True
        self.push(core)
        return core._state != CLOSED

    # --- in

    cdef int read(self, Core core) except -1:
        cdef ssize_t length
        while True:
            length = recv(core.fd, self.poller.buffer, READ_SIZE, 0)
            if length >= 0:
                break
            if c_errno == EAGAIN:
                return 0
            if c_errno != EINTR:
                return core.lost(OSError(c_errno, os.strerror(c_errno)))
            PyErr_CheckSignals()
        if length == 0 and not self.established:
            return core.lost(ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the TCP connection ended in the TLS handshake"))
        if length == 0:
            # Truncation (RFC 8446 6.1) cannot pass for a regular end: that takes a close frame.
            return core.end_reached()
        if self.tls is None:
            self.begin()
        self.barren += length
        try:
            self.shared.incoming.write(PyMemoryView_FromMemory(<char *> self.poller.buffer, length, PyBUF_READ))
            if self.established or self.shake(core):
                self.take_in(core)
            elif core._state == CLOSED:
                self.shared.empty()
        except BaseException:
            self.shared.empty()
            raise
        if self.barren > BARREN_LIMIT:
            return core.lost(ConnectionAbortedError(errno.ECONNABORTED, "too many TLS records without data"))
        return 0

    cdef int take_in(self, Core core) except -1:
        """Decrypt what has come, all of it, then hand it to ``core`` at once."""
        cdef Shared shared = self.shared
        cdef Py_ssize_t filled = 0
        cdef Py_ssize_t count
        cdef bint ended = False
        cdef object failure = None
        # A read gives one record, whole, so that there is more only if there are bytes.
        while filled <= PLAIN_SIZE - RECORD and shared.incoming.pending:
            try:
                count = self.tls.read(
                    RECORD, PyMemoryView_FromMemory(<char *> shared.plain + filled, RECORD, PyBUF_WRITE)
                )
            except WantRead:
                break
            except ZeroReturn:
                count = 0
            except OSError as error:
                failure = error
                break
            if count == 0:
                ended = True          # close_notify; what is behind it counts for nothing
                break
            filled += count
        if ended or failure is not None:
            shared.incoming.read()
        if shared.outgoing.pending:   # an alert, or an answer to a key update
            self.push(core)
        if filled and core._state != CLOSED:
            self.barren = 0
            core.received(shared.plain, filled)
        if core._state == CLOSED:
            return 0
        if failure is not None:
            return core.lost(failure)
        if ended:
            return core.end_reached()
        return 0

    cdef int hold_reading(self, Core core, bint hold) except -1:
        return self.poller.hold_reading(core, hold)

    # --- out

    cdef int flush(self, Core core) except -1:
        if not self.established:
            if core.ending != KEEP:
                return core.lost(TimeoutError("TLS handshake timed out"))
            if self.server_side or self.barren or not self.shake(core):
                return 0
        while self.left is None and core.box.count:
            if self.seal(core.box) == 0:
                break
            self.push(core)
            if core._state == CLOSED:
                return 0
        if self.left is None and core.watching:
            core.watching = False
            self.poller.watch(core)
        return 0

    cdef int seal(self, Outbox *box) except -1:
        """Encrypt from the front of ``box``, small segments gathered into whole records; 0 if OpenSSL must read first."""
        cdef Segment *segment
        cdef size_t sealed = 0
        cdef size_t length, part
        cdef char *data
        cdef int index
        while box.count and sealed < SEALED_AHEAD:
            segment = &box.segments[box.first]
            if box.count == 1 or segment.length >= RECORD:
                data = <char *> address(box, segment)
                length = min(segment.length, <size_t> SEALED_AHEAD - sealed)
            else:
                data = <char *> self.shared.record
                length = 0
                for index in range(box.first, box.first + box.count):
                    segment = &box.segments[index]
                    part = min(segment.length, <size_t> RECORD - length)
                    memcpy(data + length, address(box, segment), part)
                    length += part
                    if length == RECORD:
                        break
            try:
                self.tls.write(PyMemoryView_FromMemory(data, length, PyBUF_READ))
            except (WantRead, WantWrite):
                return 0              # renegotiating (TLS 1.2); it is tried again when something has come
            outbox_sent(box, length)
            sealed += length
        return 1

    cdef int push(self, Core core) except -1:
        """Take what OpenSSL has made, and send it, or what there was to send."""
        cdef bytes records = self.shared.outgoing.read()
        if self.left is None:
            self.left = records
            self.left_at = 0
            return self.send_left(core)
        if records:
            self.left = self.left[self.left_at :] + records
            self.left_at = 0
            if PyBytes_GET_SIZE(self.left) > LEFT_LIMIT:
                self.left = None
                core.lost(ConnectionAbortedError(errno.ECONNABORTED, "the peer does not read"))
        return 0

    cdef int send_left(self, Core core) except -1:
        cdef Py_ssize_t length = PyBytes_GET_SIZE(self.left) - self.left_at
        cdef ssize_t sent = 0
        while length:
            sent = send(core.fd, PyBytes_AS_STRING(self.left) + self.left_at, length, MSG_NOSIGNAL)
            if sent >= 0:
                break
            if c_errno == EAGAIN:
                sent = 0
                break
            if c_errno != EINTR:
                self.left = None
                return core.lost(OSError(c_errno, os.strerror(c_errno)))
        if sent < length:
            self.left_at += sent
            if not core.watching:
                core.watching = True
                self.poller.watch(core)
            return 0
        self.left = None
        if self.fin_due:
            shutdown(core.fd, SHUT_WR)
        return 0

    cdef int resume_writing_to(self, Core core) except -1:
        if self.left is not None:
            self.send_left(core)
            if core._state == CLOSED or self.left is not None:
                return 0
        if core.box != NULL:
            return self.flush(core)
        core.watching = False
        return self.poller.watch(core)

    cdef bint is_sending(self) except -1:
        return self.left is not None  # settle() follows when it has left

    # --- the end

    cdef int say_goodbye(self) except -1:
        """close_notify (RFC 8446 6.1); the peer's is not waited for, a close frame has said it all."""
        if not self.established or self.said_goodbye:
            return 0
        self.said_goodbye = True
        try:
            self.ssl_object.unwrap()
        except OSError:
            pass                      # the peer's has not come, or TLS has failed before
        return 0

    cdef int half_close(self, Core core) except -1:
        self.say_goodbye()
        self.fin_due = True
        return self.push(core)

    cdef int drop(self, Core core, bint orderly) except -1:
        cdef bytes records
        if orderly and core.fd >= 0 and self.left is None:
            self.say_goodbye()
            records = self.shared.outgoing.read()
            if records:               # as much as the socket takes: nobody waits any more
                send(core.fd, PyBytes_AS_STRING(records), PyBytes_GET_SIZE(records), MSG_NOSIGNAL)
        self.left = None
        self.tls = self.ssl_object = None
        return self.poller.drop(core, orderly)

"""TLS in the poller."""

from libc.stdint cimport uint8_t

from fastws._carrier cimport Carrier
from fastws._core cimport Core
from fastws._outbox cimport Outbox
from fastws._poller cimport Poller


cdef class Shared:
    cdef readonly object incoming     # ssl.MemoryBIO that OpenSSL reads from
    cdef readonly object outgoing     # and writes to
    cdef uint8_t *plain               # what one read decrypts to
    cdef uint8_t *record              # small segments, gathered

    cdef int empty(self) except -1


cdef class TlsCarrier(Carrier):
    cdef readonly Poller poller
    cdef readonly object ssl_object   # of the public API
    cdef object tls                   # what it is a wrapper of
    cdef object context
    cdef object server_hostname
    cdef Shared shared
    cdef bytes left                   # records that the socket has not taken, from left_at on
    cdef Py_ssize_t left_at
    cdef Py_ssize_t barren            # bytes since some last brought data
    cdef readonly bint server_side
    cdef readonly bint established    # the TLS handshake is done
    cdef bint said_goodbye            # close_notify has been sent
    cdef bint fin_due                 # FIN follows what is left

    cdef int begin(self) except -1
    cdef bint shake(self, Core core) except -1
    cdef int take_in(self, Core core) except -1
    cdef int seal(self, Outbox *box) except -1
    cdef int push(self, Core core) except -1
    cdef int send_left(self, Core core) except -1
    cdef int say_goodbye(self) except -1

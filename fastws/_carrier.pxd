"""What moves the bytes of a connection."""

from fastws._core cimport Core


cdef class Carrier:
    cdef int flush(self, Core core) except -1
    cdef int send_together(self, list cores) except -1
    cdef int read(self, Core core) except -1
    cdef int resume_writing_to(self, Core core) except -1
    cdef int hold_reading(self, Core core, bint hold) except -1
    cdef int half_close(self, Core core) except -1
    cdef bint is_sending(self) except -1
    cdef int drop(self, Core core, bint orderly) except -1


cdef class TransportCarrier(Carrier):
    cdef readonly object transport
    cdef bint paused

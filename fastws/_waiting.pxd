"""Awaitables of the hot path."""

from fastws._core cimport Core


cdef class Completed:
    pass


cdef class Waiter:
    cdef public bint _asyncio_future_blocking
    cdef Core core
    cdef object callback
    cdef object context
    cdef bint woken
    cdef bint was_cancelled

    cdef int resume(self) except -1


cdef class Receive:
    cdef Core core
    cdef Waiter waiter
    cdef bint iterating               # from async for

    cdef void leave(self) noexcept


cdef object take_error()

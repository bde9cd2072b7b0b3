"""Awaitables of the hot path: what ``send()`` and ``recv()`` return, and what a task waits on.

An asyncio future costs an object, a callback through the loop and a context switch per message. ``Waiter`` is what
``asyncio.Task`` needs of a future and no more, and the reactor resumes it directly. The steps are C functions put
into the types' slots: a value leaves as StopIteration without a Python frame or traceback.
"""

import asyncio

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from fastws._core cimport CLOSING, Core
from fastws._inbox cimport inbox_count, inbox_free

from .exceptions import ConcurrencyError


cdef extern from "Python.h":
    ctypedef PyObject *(*iternextfunc)(PyObject *)
    ctypedef struct PyTypeSlots "PyTypeObject":
        iternextfunc tp_iternext
    void PyErr_SetObject(object kind, object value)
    void PyErr_SetNone(object kind)
    bint PyTuple_Check(object)
    PyObject *PyObject_CallOneArg(PyObject *callable, PyObject *argument)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef object CancelledError = asyncio.CancelledError


cdef class Completed:
    """What ``send()`` returns while nothing has to be waited for."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def send(self, value):
        raise StopIteration

    def throw(self, kind, value=None, traceback=None):
        raise kind if value is None else value

    def close(self):
        pass


cdef PyObject *completed_next(PyObject *self) noexcept:
    return NULL                       # with no exception set: StopIteration(None)


(<PyTypeSlots *> Completed).tp_iternext = completed_next


cdef class Waiter:
    """The future-like that a task waits on in ``recv()``: what ``asyncio.Task`` needs of one, and no more."""

    def get_loop(self):
        return self.core.reactor.loop

    def add_done_callback(self, callback, *, context=None):
        self.callback = callback
        self.context = context
        if self.woken:
            self.core.reactor.awake.append(self)
            self.core.reactor.schedule()

    def remove_done_callback(self, callback):
        if self.callback is None:
            return 0
        self.callback = None
        return 1

    def cancel(self, msg=None):
        if self.woken:
            return False
        self.was_cancelled = True
        self.woken = True
        if self.core.waiter is self:
            self.core.waiter = None
        self.core.reactor.awake.append(self)
        self.core.reactor.schedule()
        return True

    def cancelled(self):
        return self.was_cancelled

    def done(self):
        return self.woken

    def exception(self):
        return None

    def result(self):
        if self.was_cancelled:
            raise CancelledError
        return None

    cdef int resume(self) except -1:
        """Let the task take one step, in its own context."""
        cdef object callback = self.callback
        cdef object context = self.context
        cdef PyObject *result
        if callback is None:
            return 0
        self.callback = None
        self.context = None
        if context is None:
            callback(self)
            return 0
        PyContext_Enter(context)
        result = PyObject_CallOneArg(<PyObject *> callback, <PyObject *> self)
        if result == NULL:
            error = take_error()
            PyContext_Exit(context)
            raise error
        Py_DECREF(<object> result)
        PyContext_Exit(context)
        return 0


cdef object take_error():
    """The exception that is set, no longer set."""
    try:
        raise_set_error()
    except BaseException as error:
        return error


cdef int raise_set_error() except -1:
    return -1


cdef class Receive:
    """What ``recv()`` returns: awaitable once, also by ``create_task`` and ``gather``."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def send(self, value):
        return next(self)

    def throw(self, kind, value=None, traceback=None):
        self.leave()
        raise kind if value is None else value

    def close(self):
        self.leave()

    cdef void leave(self) noexcept:
        if self.waiter is not None:
            self.waiter.woken = True
            if self.core.waiter is self.waiter:
                self.core.waiter = None
            self.waiter = None


cdef PyObject *receive_next(PyObject *self) noexcept:
    """One step: the message by StopIteration, or a waiter to wait on."""
    cdef Receive awaitable = <Receive> self
    cdef Core core = awaitable.core
    cdef object message
    if inbox_count(core.inbox):
        awaitable.waiter = None
        message = core.dequeue()
        stop_with(message)
        return NULL
    return receive_wait(awaitable)


cdef PyObject *receive_wait(Receive awaitable) noexcept:
    cdef Core core = awaitable.core
    cdef Waiter waiter
    if core._state >= CLOSING and core.closed_for_recv():
        error = core._closed_error()
        if awaitable.iterating and core._ended_well():
            PyErr_SetNone(StopAsyncIteration)
        else:
            PyErr_SetObject(type(error), error)
        return NULL
    if core.waiter is not None:
        error = ConcurrencyError("another coroutine is waiting in recv() of this connection")
        PyErr_SetObject(type(error), error)
        return NULL
    inbox_free(core.inbox)
    core.inbox = NULL
    waiter = Waiter.__new__(Waiter)
    waiter._asyncio_future_blocking = True
    waiter.core = core
    core.waiter = waiter
    awaitable.waiter = waiter
    Py_INCREF(waiter)
    return <PyObject *> waiter


cdef void stop_with(object value) noexcept:
    """StopIteration(value). A tuple or exception would be taken for arguments: those need an instance."""
    if PyTuple_Check(value) or isinstance(value, BaseException):
        value = StopIteration(value)
    PyErr_SetObject(StopIteration, value)


(<PyTypeSlots *> Receive).tp_iternext = receive_next

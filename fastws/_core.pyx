"""The hot part of a connection, and what the connections of one loop share.

``Core`` takes bytes, hands messages to a listener or to ``recv()``, and queues what is sent. ``Reactor`` (one per
loop) sees to it that everything sent in one tick of the loop leaves in one ``send`` per connection, resumes the
coroutines whose message has come, and sweeps over all connections for time-outs, so that no connection has a timer,
task or buffer of its own. A ``Carrier`` moves the bytes: the poller in ``_poller.pyx``, or an asyncio transport.

Order of a tick: bytes are decoded and callbacks run; then coroutines that got something are resumed, one step each,
directly (in their own context, with no task current); then outboxes are flushed. User code is never re-entered: what
a call of the user's meets (a broken socket, a queue that is too long) is acted on at the end of the tick.
"""

import contextvars
import mmap
import os
import random
import time
from types import MethodType

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from fastws._codec cimport (
    MAX_HEADER,
    OP_BINARY,
    OP_CLOSE,
    OP_PING,
    OP_PONG,
    OP_TEXT,
    Decoder,
    mask_copy,
    write_header,
)
from fastws._outbox cimport (
    SHARED_FROM,
    Outbox,
    Segment,
    outbox_clear,
    outbox_drop_unsent,
    outbox_extend,
    outbox_free,
    outbox_new,
    outbox_refer,
    outbox_sent,
)

from ._awaitable import Later
from .exceptions import ConcurrencyError


cdef extern from *:
    """
    #ifdef _WIN32
    static void close_descriptor(int fd) { (void) fd; }  /* no poller there, so no descriptor */
    #else
    #include <unistd.h>
    static void close_descriptor(int fd) { close(fd); }
    #endif
    """
    void close_descriptor(int fd)


cdef extern from "Python.h":
    ctypedef PyObject *(*iternextfunc)(PyObject *)
    ctypedef struct PyTypeSlots "PyTypeObject":
        iternextfunc tp_iternext
    void PyErr_SetObject(object kind, object value)
    void PyErr_SetNone(object kind)
    const Py_ssize_t PY_SSIZE_T_MAX
    bint PyTuple_Check(object)
    bint PyBytes_Check(object)
    PyObject *PyObject_Vectorcall(PyObject *callable, PyObject *const *arguments, size_t count, PyObject *names)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    bint PyUnicode_IS_COMPACT_ASCII(object)
    void *PyUnicode_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    PyObject *PyObject_CallOneArg(PyObject *callable, PyObject *argument)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1


cdef enum:
    NO_SLOT = 0xFFFFFFFF

cdef enum:
    OVERFLOWED = 1                    # the queue was dropped
    TOLD = 2                          # and the cold part knows

cdef enum:
    FLUSHES_PER_TICK = 512            # outboxes flushed before the loop gets its turn again
    FREE_BOXES = 1024
    LARGE_BOXES = 16                  # free ones that may have a buffer of over SMALL_BUFFER bytes
    SMALL_BUFFER = 4096
    SEGMENT_COST = 64                 # bytes that a queued frame costs besides its own, for max_backlog

cdef object monotonic = time.monotonic
cdef object copy_context = contextvars.copy_context
cdef object urandom = os.urandom
cdef object random_unit = random.random

# The payload of keepalive pings, told from those that the user sends.
cdef bytes KEEPALIVE = b"fastws"


cdef class Settings:
    """What the connections of one server or client have in common.

    Sizes in bytes, times in seconds; ``None`` means no limit, or off. ``write_limit`` is a high-water mark, or a pair
    (high, low); low is a quarter of high by default.
    """

    def __init__(
        self,
        *,
        bint client=False,
        max_size=2**20,
        max_fragments=4096,
        max_queue=16,
        write_limit=65536,
        max_backlog=16 * 2**20,
        ping_interval=20.0,
        ping_timeout=20.0,
        open_timeout=10.0,
        close_timeout=10.0,
    ):
        if isinstance(write_limit, tuple):
            high, low = write_limit
        else:
            high = write_limit
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"write_limit: low-water mark {low} is not in 0..{high}")
        if max_queue is not None and max_queue < 1:
            raise ValueError(f"max_queue: {max_queue} messages; at least 1")
        for name, value in (
            ("max_size", max_size), ("max_fragments", max_fragments), ("max_backlog", max_backlog),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value}; at least 1, or None for no limit")
        for name, value in (
            ("ping_interval", ping_interval), ("ping_timeout", ping_timeout),
            ("open_timeout", open_timeout), ("close_timeout", close_timeout),
        ):
            if value is not None and value <= 0:
                raise ValueError(f"{name}: {value} s; more than 0, or None for none")
        self.client = client
        self.max_size = max_size
        self.max_fragments = max_fragments
        self.max_queue = PY_SSIZE_T_MAX if max_queue is None else max_queue
        self.write_high = high
        self.write_low = low
        self.max_backlog = <size_t> -1 if max_backlog is None else max_backlog
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.open_timeout = open_timeout
        self.close_timeout = close_timeout


cdef class PreparedMessage:
    """A message framed once, for sending to many connections (``data``: str, or bytes-like).

    ``text=True`` sends bytes as text (they must be UTF-8), ``text=False`` sends a str as binary.
    """

    def __init__(self, data, text=None):
        cdef Py_buffer view
        cdef uint8_t header[MAX_HEADER]
        cdef uint8_t *out
        if isinstance(data, str):
            self.opcode = OP_BINARY if text is False else OP_TEXT
            data = data.encode()
        else:
            self.opcode = OP_TEXT if text else OP_BINARY
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        self.header = write_header(header, 0x80 | self.opcode, view.len, False)
        self.frame = PyBytes_FromStringAndSize(NULL, self.header + view.len)
        out = <uint8_t *> PyBytes_AS_STRING(self.frame)
        memcpy(out, header, self.header)
        memcpy(out + self.header, view.buf, view.len)
        PyBuffer_Release(&view)

    def __len__(self):
        """Bytes of payload."""
        return len(self.frame) - self.header


def broadcast(connections, message, *, text=None) -> None:
    """Send ``message`` to every open connection in ``connections``.

    Framed once, whatever their number. Never blocks and never raises for one of them: a connection that does not read
    is dropped when its queue passes ``max_backlog``. What is sent in one tick of the loop leaves in one system call
    per connection.
    """
    cdef PreparedMessage prepared
    cdef Core core
    if isinstance(message, PreparedMessage):
        prepared = <PreparedMessage> message
    else:
        prepared = PreparedMessage(message, text)
    for connection in list(connections):
        core = <Core?> connection
        if core._state == OPEN:
            core.write_prepared(prepared)
            if core.box != NULL and core.box.total > core.settings.write_high:
                core.check_backlog()


# --- awaitables


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

cdef Completed COMPLETED = Completed()


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
            import asyncio

            raise asyncio.CancelledError
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


cdef inline PyObject *call_back(
    PyObject *function, PyObject *receiver, PyObject *ws, PyObject *message
) noexcept:
    """``function(receiver, ws, message)``, without ``receiver`` if it is None; NULL, the exception set, if it raised."""
    cdef PyObject *arguments[4]
    arguments[1] = receiver
    arguments[2] = ws
    arguments[3] = message
    if receiver == <PyObject *> None:
        return PyObject_Vectorcall(function, &arguments[2], 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    return PyObject_Vectorcall(function, &arguments[1], 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)


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

    cdef Core core
    cdef Waiter waiter
    cdef bint iterating               # from async for

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
    if core.ring_count:
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
    core.free_ring()
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


# --- one per loop


cdef class Reactor:
    """What the connections of one loop share; used from the loop's thread only.

    ``capacity``: connections at once. ``last_seen`` is a memoryview of doubles: ``time.monotonic()`` at which the
    last bytes of the connection in that slot came in; it stays at one address, so that numpy can look at it.
    """

    def __init__(self, loop, uint32_t capacity):
        cdef Py_buffer view
        self.loop = loop
        self.context = copy_context()
        self.call_soon = loop.call_soon
        self.deadlines = {}
        self.dirty = []
        self.awake = []
        self.owners = []
        self.granularity = 1.0
        self.capacity = capacity
        # Untouched pages of these take no memory.
        self.seen_memory = mmap.mmap(-1, max(capacity, 1) * sizeof(double))
        self.last_seen = memoryview(self.seen_memory).cast("d")
        PyObject_GetBuffer(self.seen_memory, &view, PyBUF_WRITABLE)
        self.seen = <double *> view.buf
        PyBuffer_Release(&view)
        self.ping_at = <double *> calloc(capacity, sizeof(double))
        self.cores = <PyObject **> calloc(capacity, sizeof(PyObject *))
        self.generations = <uint32_t *> calloc(capacity, sizeof(uint32_t))
        self.free_slots = <uint32_t *> calloc(capacity, sizeof(uint32_t))
        if not (self.ping_at and self.cores and self.generations and self.free_slots):
            raise MemoryError
        self.refresh_clock()

    def __dealloc__(self):
        cdef Outbox *box
        while self.free_boxes != NULL:
            box = self.free_boxes
            self.free_boxes = box.next
            outbox_free(box)
        free(self.ping_at)
        free(self.cores)
        free(self.generations)
        free(self.free_slots)

    def __len__(self):
        """Connections that hold a slot."""
        return self.used_slots - self.free_count

    def connections(self, Settings settings=None) -> list:
        """Those of one server, or all, that are not closed."""
        cdef uint32_t slot
        cdef Core core
        cdef list found = []
        for slot in range(self.used_slots):
            if self.cores[slot] != NULL:
                core = <Core> self.cores[slot]
                if core._state != CLOSED and (settings is None or core.settings is settings):
                    found.append(core)
        return found

    @cython.final
    cdef uint32_t acquire(self, Core core) except? 0xFFFFFFFF:
        cdef uint32_t slot
        self.refresh_clock()
        if self.free_count:
            self.free_count -= 1
            slot = self.free_slots[self.free_count]
        elif self.used_slots < self.capacity:
            slot = self.used_slots
            self.used_slots += 1
        else:
            raise OverflowError(f"{self.capacity} connections are open, more than this reactor was made for")
        if slot == <uint32_t> len(self.owners):
            self.owners.append(core)
        else:
            self.owners[slot] = core
        self.cores[slot] = <PyObject *> core
        self.generations[slot] += 1
        self.seen[slot] = self.now
        self.ping_at[slot] = 0
        return slot

    @cython.final
    cdef void release(self, Core core) noexcept:
        cdef uint32_t slot = core.slot
        if slot == NO_SLOT:
            return
        core.slot = NO_SLOT
        if self.ping_at[slot] != 0:
            self.ping_at[slot] = 0
            self.keepalives -= 1
        self.cores[slot] = NULL
        self.owners[slot] = None
        self.free_slots[self.free_count] = slot
        self.free_count += 1

    @cython.final
    cdef Outbox *take_box(self) except NULL:
        cdef Outbox *box = self.free_boxes
        if box != NULL:
            self.free_boxes = box.next
            self.free_box_count -= 1
            return box
        box = outbox_new()
        if box == NULL:
            raise MemoryError
        return box

    @cython.final
    cdef void give_box(self, Outbox *box) noexcept:
        if self.free_box_count >= FREE_BOXES or (
            self.free_box_count >= LARGE_BOXES and box.capacity > SMALL_BUFFER
        ):
            outbox_free(box)
            return
        outbox_clear(box)
        box.next = self.free_boxes
        self.free_boxes = box
        self.free_box_count += 1

    @cython.final
    cdef void refresh_clock(self) noexcept:
        self.now = monotonic()

    @cython.final
    cdef int touch(self, Core core) except -1:
        """Flush ``core`` (and let it go on reading, if it was held) at the end of this tick."""
        if not core.dirty:
            core.dirty = True
            self.dirty.append(core)
            self.schedule()
        return 0

    @cython.final
    cdef int schedule(self) except -1:
        if not self.ticking and not self.scheduled:
            self.scheduled = True
            self.run_handle = self.call_soon(self._run, context=self.context)
        return 0

    def _run(self):
        self.scheduled = False
        self.begin_tick()
        self.end_tick()

    @cython.final
    cdef int begin_tick(self) except -1:
        self.ticking = True
        self.refresh_clock()
        return 0

    @cython.final
    cdef int end_tick(self) except -1:
        """Resume and flush until there is nothing left, or it is the loop's turn."""
        try:
            self.drain_awake()
            if self.dirty:
                self.flush()
        finally:
            self.stop_ticking()
        return 0

    @cython.final
    cdef int stop_ticking(self) except -1:
        """What is left over, by an exception or by the slice being full, comes in the next tick."""
        self.ticking = False
        if self.dirty or self.awake:
            self.schedule()
        return 0

    @cython.final
    cdef int drain_awake(self) except -1:
        """Let every coroutine that got something take a step."""
        cdef list batch
        cdef Py_ssize_t index = 0
        while self.awake:
            if len(self.awake) == 1:
                (<Waiter> self.awake.pop()).resume()
                continue
            batch = self.awake
            self.awake = []
            index = 0
            try:
                while index < len(batch):
                    index += 1
                    (<Waiter> batch[index - 1]).resume()
            except BaseException:
                self.awake = batch[index:] + self.awake
                raise
        return 0

    @cython.final
    cdef int flush(self) except -1:
        """Flush what was touched, a slice at a time so that a wide fan-out lets the loop breathe."""
        cdef Py_ssize_t budget = FLUSHES_PER_TICK
        cdef Py_ssize_t index
        cdef list batch
        cdef Core core
        while self.dirty and budget > 0:
            batch = self.dirty
            if len(batch) > budget:
                self.dirty = batch[budget:]
                del batch[budget:]
            else:
                self.dirty = []
            budget -= len(batch)
            index = 0
            try:
                while index < len(batch):
                    core = <Core> batch[index]
                    index += 1
                    core.dirty = False
                    core.settle()
            except BaseException:
                self.dirty = batch[index:] + self.dirty
                raise
            self.drain_awake()
        return 0

    @cython.final
    cdef int draw_key(self, uint8_t *key) except -1:
        """A mask key from the system's source of randomness, drawn in bulk (RFC 6455 5.3, 10.3)."""
        if self.key_at + 4 > len(self.keys):
            self.keys = urandom(4096)
            self.key_at = 0
        memcpy(key, PyBytes_AS_STRING(self.keys) + self.key_at, 4)
        self.key_at += 4
        return 0

    # --- time-outs: one timer for all

    def set_deadline(self, Core core not None, delay) -> None:
        """Call ``core._on_deadline()`` after ``delay`` seconds unless another deadline or ``None`` comes first."""
        if delay is None:
            self.deadlines.pop(core, None)
            return
        self.deadlines[core] = monotonic() + delay
        self.sweep_every(delay)

    @cython.final
    cdef int keep_alive(self, Core core) except -1:
        """Begin to ping ``core``; the first time at a random point in the second half of the interval."""
        cdef double interval
        if core.settings.ping_interval is None or core.slot == NO_SLOT:
            return 0
        interval = core.settings.ping_interval
        self.refresh_clock()
        self.ping_at[core.slot] = self.now + interval * (0.5 + 0.5 * random_unit())
        self.keepalives += 1
        self.sweep_every(interval)
        if core.settings.ping_timeout is not None:
            self.sweep_every(core.settings.ping_timeout)
        return 0

    @cython.final
    cdef int sweep_every(self, double delay) except -1:
        """Sweep often enough that ``delay`` is kept to a quarter of itself, but no timer is set per connection."""
        cdef double granularity = min(max(delay / 4, 0.01), 1.0)
        if granularity < self.granularity:
            self.granularity = granularity
            if self.sweep_handle is not None:
                self.sweep_handle.cancel()
                self.sweep_handle = None
        if self.sweep_handle is None:
            self.sweep_later()
        return 0

    @cython.final
    cdef int sweep_later(self) except -1:
        self.sweep_handle = self.loop.call_later(self.granularity, self._sweep, context=self.context)
        return 0

    def _sweep(self):
        cdef list late = []
        cdef Core core
        self.sweep_handle = None
        self.begin_tick()
        try:
            for core, due in self.deadlines.items():
                if due <= self.now:
                    late.append(core)
            for core in late:
                if self.deadlines.pop(core, None) is not None:
                    core._on_deadline()
            if self.keepalives:
                for core in self.ping_due():
                    core.ping_or_give_up()
            self.end_tick()
        finally:
            self.stop_ticking()
            if not self.deadlines and not self.keepalives:
                self.granularity = 1.0
            elif self.sweep_handle is None:
                self.sweep_later()

    @cython.final
    cdef list ping_due(self):
        """Connections whose ping, or whose pong, is due."""
        cdef uint32_t slot
        cdef list due = []
        for slot in range(self.used_slots):
            if self.ping_at[slot] != 0 and self.ping_at[slot] <= self.now:
                due.append(<Core> self.cores[slot])
        return due

    def close(self) -> None:
        """Drop every connection and stop. For a loop that is closed, or about to be."""
        for core in self.connections():
            (<Core> core).lost(None)
        if self.sweep_handle is not None:
            self.sweep_handle.cancel()
            self.sweep_handle = None
        if self.poller is not None:
            self.poller.close()
            self.poller = None


# --- carriers


cdef class Carrier:
    """Moves bytes between a socket and a ``Core``; knows no protocol."""

    cdef int flush(self, Core core) except -1:
        """Send from ``core.box`` what the socket takes now."""
        raise NotImplementedError

    cdef int hold_reading(self, Core core, bint hold) except -1:
        """Stop reading, or go on."""
        raise NotImplementedError

    cdef int half_close(self, Core core) except -1:
        """Send FIN, go on reading."""
        raise NotImplementedError

    cdef bint is_sending(self) except -1:
        """Whether bytes that were taken have not left this process: then ``core._writable()`` is called when the last
        one has. Nothing more must be sent.
        """
        return False

    cdef int drop(self, Core core, bint orderly) except -1:
        """Close the socket now; ``core`` hears no more of it. ``orderly``: after what it was given has left."""
        raise NotImplementedError


cdef class TransportCarrier(Carrier):
    """An asyncio transport as carrier; one per connection.

    The transport's own buffer is kept small: above its high-water mark, bytes wait in the connection's outbox.
    """

    def __init__(self, transport):
        self.transport = transport

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    cdef int flush(self, Core core) except -1:
        cdef Outbox *box = core.box
        cdef Segment *segment
        cdef int index
        cdef list parts
        if self.paused or core.half_closed or self.transport.is_closing():
            return 0
        parts = []
        for index in range(box.first, box.first + box.count):
            segment = &box.segments[index]
            if segment.owner == NULL:
                parts.append(PyBytes_FromStringAndSize(<char *> box.buffer + segment.start, segment.length))
            elif PyBytes_Check(<object> segment.owner) and (
                <size_t> len(<bytes> segment.owner) == segment.length
            ):
                parts.append(<object> segment.owner)
            else:
                parts.append(PyBytes_FromStringAndSize(<char *> segment.start, segment.length))
        outbox_sent(box, box.total)
        self.transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
        return 0

    cdef int hold_reading(self, Core core, bint hold) except -1:
        if self.transport.is_closing():
            return 0
        if hold:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        return 0

    cdef int half_close(self, Core core) except -1:
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        return 0

    cdef bint is_sending(self) except -1:
        if self.transport.is_closing() or not self.transport.get_write_buffer_size():
            return False
        self.transport.set_write_buffer_limits(0)  # resume_writing() comes when it is empty
        return True

    cdef int drop(self, Core core, bint orderly) except -1:
        # Only an orderly end waits for TLS to end as well.
        if orderly:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.abort()
        return 0


# --- one per connection


cdef class Core(Decoder):
    """The hot part of a connection; ``fastws.connection.Connection`` adds the cold part.

    The cold part's hooks, all called outside of user code: ``_on_bytes`` (before the handshake is done),
    ``_on_close_frame``, ``_on_pong``, ``_on_protocol_error``, ``_on_handler_error``, ``_on_overflow``, ``_on_drained``,
    ``_on_deadline``, ``_on_ping_timeout`` and ``_on_lost``.
    """

    def __cinit__(self, Settings settings not None, Reactor reactor not None, Carrier carrier not None, *args):
        self.client = settings.client
        self.max_size = <uint64_t> -1 if settings.max_size is None else settings.max_size
        self.max_fragments = <uint32_t> -1 if settings.max_fragments is None else settings.max_fragments
        self.settings = settings
        self.reactor = reactor
        self.carrier = carrier
        self.fd = -1
        self.slot = NO_SLOT
        self.reading = True
        self.slot = reactor.acquire(self)
        settings.connections += 1

    def __dealloc__(self):
        if self.fd >= 0:
            close_descriptor(self.fd)  # the loop was closed, and all of us forgotten
        if self.box != NULL:
            outbox_free(self.box)
        self.free_ring()

    # --- in

    @cython.final
    cdef int received(self, const uint8_t *data, Py_ssize_t length) except -1:
        """Take bytes that the carrier has read. At the top of a tick, never from user code."""
        cdef Py_ssize_t used
        if self._state == CLOSED:
            return 0
        self.reactor.seen[self.slot] = self.reactor.now
        if self.muted:
            return 0
        if self._state == CONNECTING:
            self._on_bytes(PyBytes_FromStringAndSize(<char *> data, length))
            return 0
        if self.spill is not None:    # a transport that had more, in spite of being paused
            self.spill = self.spill[self.spill_at :] + PyBytes_FromStringAndSize(<char *> data, length)
            self.spill_at = 0
            return 0
        used = self.decode(data, length)
        return self.after_read(data + used, length - used, None)

    @cython.final
    cdef int received_direct(self, Py_ssize_t length) except -1:
        """``length`` bytes have been read to ``direct_space``'s place."""
        if self._state == CLOSED:
            return 0
        self.reactor.seen[self.slot] = self.reactor.now
        self.direct_filled(length)
        return self.after_read(NULL, 0, None)

    @cython.final
    cdef int after_read(self, const uint8_t *rest, Py_ssize_t length, bytes source) except -1:
        """Decode on while readers keep up; else keep what is left (the end of ``source``, if given) and stop reading."""
        cdef Py_ssize_t used
        while True:
            if self.error is not None and not self.muted:
                # What came before the error is answered before the close frame goes out.
                self.reactor.drain_awake()
                if not self.muted:
                    self.muted = True
                    self._on_protocol_error(self.error)
            if self.muted or not self.held:
                return 0
            self.reactor.drain_awake()
            if self.box != NULL and not self.watching:
                self.carrier.flush(self)
                self.after_flush()
            if self._state == CLOSED:
                return 0
            if not self.may_go_on():
                return self.keep(rest, length, source)
            self.held = False
            if length == 0:
                return 0
            used = self.decode(rest, length)
            rest += used
            length -= used

    @cython.final
    cdef int keep(self, const uint8_t *rest, Py_ssize_t length, bytes source) except -1:
        """Stop reading; what has been read already waits."""
        if length and source is not None:
            self.spill = source
            self.spill_at = len(source) - length
        elif length:
            self.spill = PyBytes_FromStringAndSize(<char *> rest, length)
            self.spill_at = 0
        if self.reading:
            self.reading = False
            self.carrier.hold_reading(self, True)
        return 0

    @cython.final
    cdef bint may_go_on(self) noexcept:
        """Whether readers, and the peer's reading, keep up with what comes in."""
        if self._state != OPEN:
            return True               # messages are dropped, and the close frame is waited for
        if self.above:
            return False
        return self.ring_count == 0 or <Py_ssize_t> self.ring_count < self.settings.max_queue

    @cython.final
    cdef int resume(self) except -1:
        """Readers have caught up: decode what was kept, then read on."""
        cdef bytes data = self.spill
        cdef const uint8_t *rest
        cdef Py_ssize_t length, used
        self.spill = None
        self.held = False
        if data is not None and not self.muted:
            rest = <const uint8_t *> PyBytes_AS_STRING(data) + self.spill_at
            length = len(data) - self.spill_at
            used = self.decode(rest, length)
            self.after_read(rest + used, length - used, data)
        if not self.held and not self.reading and self._state != CLOSED:
            self.reading = True
            self.carrier.hold_reading(self, False)
        return 0

    cdef int on_event(self, int opcode, object payload) except -1:
        if self._state == CLOSED:
            return 0
        if opcode <= OP_BINARY:
            return self.deliver(payload)
        if opcode == OP_PING:
            if self._state == OPEN:
                self.write(0x80 | OP_PONG, <const uint8_t *> PyBytes_AS_STRING(payload), len(payload), NULL)
                if self.above or self.box.total > self.settings.write_high:
                    self.above = self.held = True
        elif opcode == OP_PONG:
            if self.ping_sent != 0 and payload == KEEPALIVE:
                self.latency = monotonic() - self.ping_sent
                self.reactor.ping_at[self.slot] = self.ping_sent + <double> self.settings.ping_interval
                self.ping_sent = 0
            else:
                self._on_pong(payload)
        else:
            self._on_close_frame(payload)
        return 0

    @cython.final
    cdef int deliver(self, object message) except -1:
        """Hand a message to the listener, or to whoever is or will be in ``recv()``."""
        cdef PyObject *result
        cdef object function = self.on_message  # kept alive: the call may end the connection
        cdef object receiver = self.receiver
        if self._state != OPEN:
            return 0
        if function is None:
            if self.listener is None:
                return self.enqueue(message)
            return 0
        result = call_back(
            <PyObject *> function, <PyObject *> receiver, <PyObject *> self, <PyObject *> message
        )
        if result == NULL:
            error = take_error()
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise error
            self._on_handler_error(error)
            return 0
        Py_DECREF(<object> result)
        if self.above:
            self.held = True
        return 0

    @cython.final
    cdef int enqueue(self, object message) except -1:
        cdef uint32_t room
        cdef uint32_t index
        cdef PyObject **ring
        if self.ring_count == self.ring_room:
            room = self.ring_room * 2 if self.ring_room else 8
            ring = <PyObject **> malloc(room * sizeof(PyObject *))
            if ring == NULL:
                raise MemoryError
            for index in range(self.ring_count):
                ring[index] = self.ring[(self.ring_first + index) & (self.ring_room - 1)]
            free(self.ring)
            self.ring = ring
            self.ring_first = 0
            self.ring_room = room
        Py_INCREF(message)
        self.ring[(self.ring_first + self.ring_count) & (self.ring_room - 1)] = <PyObject *> message
        self.ring_count += 1
        if <Py_ssize_t> self.ring_count >= self.settings.max_queue:
            self.held = True
        if self.waiter is not None:
            self.wake()
        return 0

    @cython.final
    cdef object dequeue(self):
        """The oldest message; there must be one."""
        cdef PyObject *first = self.ring[self.ring_first]
        cdef object message = <object> first
        Py_DECREF(message)
        self.ring_first = (self.ring_first + 1) & (self.ring_room - 1)
        self.ring_count -= 1
        if self.held and self.spill is not None or not self.reading:
            if <Py_ssize_t> self.ring_count <= self.settings.max_queue >> 2:
                self.reactor.touch(self)
        return message

    @cython.final
    cdef void free_ring(self) noexcept:
        cdef uint32_t index
        for index in range(self.ring_count):
            Py_DECREF(<object> self.ring[(self.ring_first + index) & (self.ring_room - 1)])
        free(self.ring)
        self.ring = NULL
        self.ring_first = self.ring_count = self.ring_room = 0

    @cython.final
    cdef int wake(self) except -1:
        """Whoever is in ``recv()`` goes on at the end of this step of the tick."""
        cdef Waiter waiter = self.waiter
        self.waiter = None
        if waiter is not None and not waiter.woken:
            waiter.woken = True
            if waiter.callback is not None:
                self.reactor.awake.append(waiter)
                self.reactor.schedule()
        return 0

    def recv(self):
        """The next message, ``str`` or ``bytes``, when awaited.

        ``ConnectionClosed`` once the connection is closed and what came before has been received;
        ``ConcurrencyError`` while another coroutine waits. Cancelling it loses no message.
        """
        cdef Receive awaitable = Receive.__new__(Receive)
        awaitable.core = self
        return awaitable

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef Receive awaitable = Receive.__new__(Receive)
        awaitable.core = self
        awaitable.iterating = True
        return awaitable

    # --- out

    def send(self, message, text=None):
        """Send ``message``: ``str`` as text, bytes-like as binary, or a ``PreparedMessage``.

        ``text=True`` sends bytes as text (they must be UTF-8), ``text=False`` a str as binary. Takes effect at once and
        never blocks; what is sent in one tick of the loop leaves in one system call. Returns an awaitable that is done
        unless the connection is above its high-water mark: a coroutine that awaits it is slowed down to the speed of
        the peer, a callback may ignore it. ``ConnectionClosed`` once the connection is closing; ``TypeError`` for
        anything else.
        """
        cdef Py_buffer view
        cdef const uint8_t *data
        cdef Py_ssize_t length
        if self._state != OPEN:
            raise self._closed_error()
        if type(message) is str:
            if PyUnicode_IS_COMPACT_ASCII(message):
                data = <const uint8_t *> PyUnicode_DATA(message)
                length = PyUnicode_GET_LENGTH(message)
                self.write(
                    0x80 | (OP_BINARY if text is False else OP_TEXT), data, length, <PyObject *> message
                )
            else:
                self.send_bytes((<str> message).encode(), OP_BINARY if text is False else OP_TEXT)
        elif type(message) is bytes:
            self.send_bytes(message, OP_TEXT if text else OP_BINARY)
        elif isinstance(message, PreparedMessage):
            self.write_prepared(<PreparedMessage> message)
        elif isinstance(message, str):
            self.send_bytes(message.encode(), OP_BINARY if text is False else OP_TEXT)
        else:
            try:
                PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
            except (TypeError, BufferError):
                raise TypeError(
                    f"message must be str, bytes-like or PreparedMessage, not {type(message).__name__}"
                ) from None
            try:
                self.write(0x80 | (OP_TEXT if text else OP_BINARY), <uint8_t *> view.buf, view.len, NULL)
            finally:
                PyBuffer_Release(&view)
        if self.above or (self.box != NULL and self.box.total > self.settings.write_high):
            return self.wait_drained()
        return COMPLETED

    @cython.final
    cdef int send_bytes(self, bytes data, int opcode) except -1:
        return self.write(
            0x80 | opcode, <const uint8_t *> PyBytes_AS_STRING(data), len(data), <PyObject *> data
        )

    @cython.final
    cdef object wait_drained(self):
        """Above the high-water mark: try to get below it at once, else wait for the peer to read."""
        self.check_backlog()
        if not self.above:
            return COMPLETED          # or lost, which the next call will say
        if self.drained is None:
            self.drained = self.reactor.loop.create_future()
        return Later(self.drained)

    @cython.final
    cdef int check_backlog(self) except -1:
        """The queue is over the high-water mark: try to shorten it now; drop it if it is over ``max_backlog``.

        Called by user code, so nothing here calls back: that is left to the end of the tick.
        """
        if self.box == NULL:
            return 0
        if not self.watching:
            self.deferring = True
            try:
                self.carrier.flush(self)
            finally:
                self.deferring = False
        if self.box.total > self.settings.write_high:
            self.above = True
        if self.box.total + <size_t> self.box.count * SEGMENT_COST > self.settings.max_backlog and not self.overflowed:
            outbox_drop_unsent(self.box)
            self.overflowed = OVERFLOWED
            self.reactor.touch(self)
        return 0

    @cython.final
    cdef int write(
        self, int first_byte, const uint8_t *data, Py_ssize_t length, PyObject *owner
    ) except -1:
        """Queue one frame. ``owner``, if given, keeps ``data`` alive and unchanged, so it need not be copied."""
        cdef uint8_t header[MAX_HEADER]
        cdef uint8_t *out
        cdef Py_ssize_t size = write_header(header, first_byte, length, self.client)
        if self._state == CLOSED or (self.overflowed and not first_byte & 8):
            return 0
        if self.box == NULL:
            self.box = self.reactor.take_box()
        if self.client:
            self.reactor.draw_key(header + size)
            size += 4
        elif length >= SHARED_FROM and owner != NULL:
            out = outbox_extend(self.box, size)
            if out == NULL:
                raise MemoryError
            memcpy(out, header, size)
            if outbox_refer(self.box, owner, data, length, True) < 0:
                self.fail_later(MemoryError())  # a header without its payload is in the queue
                raise MemoryError
            return self.reactor.touch(self)
        out = outbox_extend(self.box, size + length)
        if out == NULL:
            raise MemoryError
        memcpy(out, header, size)
        if self.client:
            mask_copy(out + size, data, length, header + size - 4)
        elif length:
            memcpy(out + size, data, length)
        return self.reactor.touch(self)

    @cython.final
    cdef int write_prepared(self, PreparedMessage message) except -1:
        cdef bytes frame = message.frame
        cdef uint8_t *data = <uint8_t *> PyBytes_AS_STRING(frame)
        if self.client:
            return self.write(
                0x80 | message.opcode, data + message.header, len(frame) - message.header, NULL
            )
        if self._state == CLOSED or self.overflowed:
            return 0
        if self.box == NULL:
            self.box = self.reactor.take_box()
        if outbox_refer(self.box, <PyObject *> frame, data, len(frame), False) < 0:
            raise MemoryError
        return self.reactor.touch(self)

    @cython.final
    cdef int settle(self) except -1:
        """At the end of a tick: send what is queued, read on if that was held."""
        if self._state == CLOSED:
            return 0
        if self.failed:
            return self.lost(self.failure)
        if self.overflowed == OVERFLOWED:
            self.overflowed = TOLD
            self._on_overflow()
        if self.box != NULL:
            if not self.watching:
                self.carrier.flush(self)
            if self.box != NULL and self.box.total > self.settings.write_high:
                self.above = True
        self.after_flush()
        if not self.reading and not self.end_of_file and self._state != CLOSED and self.may_go_on():
            self.resume()
        return 0

    @cython.final
    cdef int fail_later(self, object error) except -1:
        """Lost, but user code is running: at the end of the tick."""
        self.failed = True
        self.failure = error
        return self.reactor.touch(self)

    @cython.final
    cdef int after_flush(self) except -1:
        """The outbox got shorter: tell those who wait for it."""
        cdef size_t left = 0
        if self._state == CLOSED:
            return 0
        if self.box != NULL:
            left = self.box.total
            if left == 0:
                self.reactor.give_box(self.box)
                self.box = NULL
        if self.above and left <= self.settings.write_low:
            self.above = False
            if self.drained is not None:
                if not self.drained.done():
                    self.drained.set_result(None)
                self.drained = None
            if not self.reading:
                self.reactor.touch(self)
            self._on_drained()        # which may send, close or drop
        if self.ending != KEEP and self._state != CLOSED and (self.box == NULL or self.box.total == 0):
            return self.end_writing()
        return 0

    @cython.final
    cdef int end_writing(self) except -1:
        """The last byte has left: do with the TCP connection what was decided."""
        if self.ending == DROP or self.end_of_file:
            # While the transport still has bytes: until the deadline.
            return 0 if self.carrier.is_sending() else self.lost(None, True)
        if not self.half_closed:
            self.half_closed = True
            self.carrier.half_close(self)
            if not self.reading:
                self.reading = True
                self.carrier.hold_reading(self, False)
        return 0

    # --- the end

    @cython.final
    cdef int end_reached(self) except -1:
        """The peer has sent FIN."""
        self.end_of_file = True
        if (self._state == CLOSING or self.ending != KEEP) and (
            (self.box != NULL and self.box.total) or self.carrier.is_sending()
        ):
            # Half-closed after a close frame: it may still read what we have for it, until the deadline.
            self.ending = DROP
            if self.reading:
                self.reading = False
                self.carrier.hold_reading(self, True)
            return 0
        return self.lost(None)

    @cython.final
    cdef int lost(self, object error, bint orderly=False) except -1:
        """The TCP connection is gone, or is dropped now; ``orderly``: everything queued has left us."""
        if self._state == CLOSED:
            return 0
        if self.deferring:
            return self.fail_later(error)
        self.carrier.drop(self, orderly)
        self.leave()
        if self.box != NULL:
            self.reactor.give_box(self.box)
            self.box = NULL
        self.above = False
        if self.drained is not None:
            if not self.drained.done():
                self.drained.set_exception(self._closed_error())
                self.drained.exception()
            self.drained = None
        self.wake()
        self.on_message = self.receiver = None  # with it goes the cycle through a listener that keeps us
        try:
            self._on_lost(error)
        finally:
            self.reactor.release(self)
        return 0

    @cython.final
    cdef int leave(self) except -1:
        """Nothing comes in or goes out any more."""
        self._state = CLOSED
        self.muted = True
        self.stopped = True
        self.spill = None
        self._drop()
        self.settings.connections -= 1
        self.reactor.deadlines.pop(self, None)
        return 0

    @cython.final
    cdef bint closed_for_recv(self) noexcept:
        """Whether nothing more can come: closed, or the peer's close frame has been seen."""
        return self._state == CLOSED or self.close_seen or self.muted

    @cython.final
    cdef int ping_or_give_up(self) except -1:
        """Keepalive (``ping_interval``): send a ping, or miss a pong."""
        cdef double now = self.reactor.now
        if self._state != OPEN:
            return 0
        if self.ping_sent != 0 and not self.reading and self.settings.ping_timeout is not None:
            # The pong may be waiting behind what we do not read: no fault of the peer's.
            self.reactor.ping_at[self.slot] = now + <double> self.settings.ping_timeout
            return 0
        if self.ping_sent != 0 and self.settings.ping_timeout is not None:
            self.reactor.keepalives -= 1
            self.reactor.ping_at[self.slot] = 0
            self._on_ping_timeout()
            return 0
        self.write(0x80 | OP_PING, <const uint8_t *> PyBytes_AS_STRING(KEEPALIVE), len(KEEPALIVE), NULL)
        self.ping_sent = now
        if self.settings.ping_timeout is not None:
            self.reactor.ping_at[self.slot] = now + <double> self.settings.ping_timeout
        else:
            self.reactor.ping_at[self.slot] = now + <double> self.settings.ping_interval
        return 0

    # --- for the cold part

    def _opened(self, on_message) -> None:
        """The handshake is done: messages go to ``on_message`` (``None``: to ``recv``, or nowhere if there is a listener)."""
        self._state = OPEN
        # A bound method is called as its function: one call less per message.
        if isinstance(on_message, MethodType):
            self.receiver = on_message.__self__
            on_message = on_message.__func__
        self.on_message = on_message
        self.reactor.keep_alive(self)

    def _receive(self, data) -> None:
        """Bytes from an asyncio transport, or those that followed the handshake."""
        cdef Py_buffer view
        cdef bint outer = not self.reactor.ticking
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if outer:
                self.reactor.begin_tick()
            try:
                self.received(<const uint8_t *> view.buf, view.len)
            except BaseException as error:
                self.lost(error)
                raise
            if outer:
                self.reactor.end_tick()
        finally:
            if outer:
                self.reactor.stop_ticking()
            PyBuffer_Release(&view)

    def _receive_eof(self) -> None:
        self.end_reached()

    def _writable(self) -> None:
        """The transport takes bytes again."""
        self.watching = False
        self.reactor.touch(self)

    def _write_bytes(self, bytes data not None) -> None:
        """Queue bytes that are not a frame: a handshake."""
        cdef uint8_t *out
        if self._state == CLOSED or not data:
            return
        if self.box == NULL:
            self.box = self.reactor.take_box()
        out = outbox_extend(self.box, len(data))
        if out == NULL:
            raise MemoryError
        memcpy(out, PyBytes_AS_STRING(data), len(data))
        self.reactor.touch(self)

    def _write_frame(self, int opcode, bytes payload not None) -> None:
        """Queue a control frame."""
        self.write(0x80 | opcode, <const uint8_t *> PyBytes_AS_STRING(payload), len(payload), NULL)

    def _end(self, bint linger) -> None:
        """Close the TCP connection once everything queued has left: at once, or after the peer's FIN."""
        self.ending = LINGER if linger else DROP
        self.reactor.touch(self)

    def _mute(self) -> None:
        """Ignore what comes in from now on."""
        self.muted = True
        self.spill = None
        if not self.reading and not self.end_of_file and self._state != CLOSED:
            self.reading = True
            self.carrier.hold_reading(self, False)

    def _wake(self) -> None:
        """Whoever is in ``recv()`` looks again."""
        self.wake()

    def _lose(self, error=None) -> None:
        """Drop the TCP connection now."""
        self.lost(error)

    def _detach(self) -> None:
        """Another protocol takes the socket over: leave without closing it or telling anyone."""
        self.leave()
        self.reactor.release(self)

    @property
    def buffered_amount(self) -> int:
        """Bytes queued here and not yet handed to the operating system (or the transport)."""
        return 0 if self.box == NULL else self.box.total

    @property
    def _fileno(self) -> int:
        return self.fd

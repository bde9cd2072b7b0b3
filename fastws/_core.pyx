"""The hot part of a connection.

``Core`` takes bytes, hands messages to a listener or to ``recv()``, and queues what is sent. The reactor of its loop
says when; a carrier moves the bytes.
"""

import time
from types import MethodDescriptorType, MethodType

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastws._carrier cimport Carrier
from fastws._codec cimport (
    OP_BINARY,
    OP_CLOSE,
    OP_PING,
    OP_PONG,
    OP_TEXT,
    Decoder,
    header_of,
    header_size,
    mask_copy,
    write_header,
)
from fastws._inbox cimport inbox_count, inbox_free, inbox_item, inbox_put, inbox_take
from fastws._outbox cimport (
    SHARED_FROM,
    Outbox,
    outbox_drop_unsent,
    outbox_extend,
    outbox_free,
    outbox_refer,
)
from fastws._prepared cimport PreparedMessage
from fastws._reactor cimport NO_SLOT, Reactor
from fastws._waiting cimport Completed, Receive, Waiter, take_error

from ._awaitable import Later
from ._fragment import Fragment
from .exceptions import ConcurrencyError


cdef extern from *:
    """
    #ifdef _WIN32
    static void close_descriptor(int fd) { (void) fd; }  /* no poller there, so no descriptor */
    #else
    #include <unistd.h>
    static void close_descriptor(int fd) { close(fd); }
    #endif

    /* A plain Python function is entered directly: PyObject_Vectorcall would look up as much, and check more. */
    static inline PyObject *call_vector(PyObject *callable, PyObject *const *arguments, size_t count)
    {
        if (Py_TYPE(callable) == &PyFunction_Type)
            return ((PyFunctionObject *) callable)->vectorcall(callable, arguments, count, NULL);
        return PyObject_Vectorcall(callable, arguments, count, NULL);
    }
    """
    void close_descriptor(int fd)
    PyObject *call_vector(PyObject *callable, PyObject *const *arguments, size_t count)


cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    ctypedef void *PyCFunction
    ctypedef struct PyMethodDef:
        PyCFunction ml_meth
        int ml_flags
    int METH_FASTCALL, METH_KEYWORDS
    ctypedef struct PyMethodDescrObject:
        PyMethodDef *d_method
    object PyDescr_NewMethod(type owner, PyMethodDef *method)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    bint PyUnicode_IS_COMPACT_ASCII(object)
    void *PyUnicode_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)


# As METH_FASTCALL | METH_KEYWORDS calls it.
ctypedef object (*fast_function)(Core, PyObject **, Py_ssize_t, PyObject *)


cdef enum:
    OVERFLOWED = 1                    # the queue was dropped
    TOLD = 2                          # and the cold part knows

cdef enum:
    SEGMENT_COST = 64                 # bytes that a queued frame costs besides its own, for max_backlog

cdef object monotonic = time.monotonic
# One for all: it has no state.
cdef Completed COMPLETED = Completed.__new__(Completed)

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


cdef PreparedMessage prepare(message, text):
    """What ``broadcast`` is given, framed."""
    return <PreparedMessage> message if isinstance(message, PreparedMessage) else PreparedMessage(message, text)


cdef inline int hand_out(Core core, PreparedMessage prepared) except -1:
    """To one open connection of a broadcast; it is dropped at the end of the tick if too much waits for it."""
    if core._sending:
        core._send_later(prepared, None)
        return 0
    core.write_prepared(prepared)
    if core.box != NULL and core.box.total > core.settings.write_high:
        core.check_backlog()
    return 0


def broadcast(connections, message, *, text=None, raise_exceptions=False) -> None:
    """Send ``message`` to every open connection in ``connections``.

    Framed once, whatever their number. Never blocks and never raises for one of them: a connection that does not read
    is dropped when its queue passes ``max_backlog``. What is sent in one tick of the loop leaves in one system call
    per connection. ``raise_exceptions`` changes nothing, and is there for programs written for ``websockets``.
    """
    cdef PreparedMessage prepared = prepare(message, text)
    cdef Core core
    for connection in list(connections):
        core = <Core?> connection
        if core._state == OPEN:
            hand_out(core, prepared)


def broadcast_ready(connections, message, *, text=None) -> list:
    """``broadcast`` to those that read fast enough; returns the open connections that it leaves out.

    They are those whose queue is over the high-water mark of ``write_limit``. Their listener's ``on_drain`` is called
    once it has fallen to the low one.
    """
    cdef PreparedMessage prepared = prepare(message, text)
    cdef Core core
    cdef list full = []
    for connection in list(connections):
        core = <Core?> connection
        if core._state == OPEN:
            if core.box != NULL and core.box.total > core.settings.write_high:
                full.append(core)
            else:
                hand_out(core, prepared)
    return full


cdef inline PyObject *call_back(
    PyObject *function, PyObject *receiver, PyObject *ws, PyObject *message
) noexcept:
    """``function(receiver, ws, message)``, without ``receiver`` if it is None; NULL, the exception set, if it raised."""
    cdef PyObject *arguments[4]
    arguments[1] = receiver
    arguments[2] = ws
    arguments[3] = message
    if receiver == <PyObject *> None:
        return call_vector(function, &arguments[2], 2 | PY_VECTORCALL_ARGUMENTS_OFFSET)
    return call_vector(function, &arguments[1], 3 | PY_VECTORCALL_ARGUMENTS_OFFSET)


cdef class Core(Decoder):
    """The hot part of a connection; ``fastws.connection.Connection`` adds the cold part.

    The cold part's hooks, all called outside of user code: ``_on_bytes`` (before the handshake is done),
    ``_on_close_frame``, ``_on_pong``, ``_on_protocol_error``, ``_on_handler_error``, ``_on_overflow``, ``_on_drained``,
    ``_on_deadline``, ``_on_ping_timeout`` and ``_on_lost``. What is rare in ``send`` and ``recv`` is there too:
    ``_send_fragments``, ``_send_later``, ``_recv_rarely`` and ``_next_rarely``.
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
        inbox_free(self.inbox)

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
        self.inflated = 0
        used = self.decode(data, length)
        return self.after_read(data + used, length - used, None)

    @cython.final
    cdef int received_direct(self, Py_ssize_t length) except -1:
        """``length`` bytes have been read to ``direct_space``'s place."""
        if self._state == CLOSED:
            return 0
        self.reactor.seen[self.slot] = self.reactor.now
        if self.muted:
            return 0
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
            if self.tired and self._state == OPEN:
                self.reactor.rest(self)
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
        if self.above or self.tired:
            return False
        return self.inbox == NULL or self.inbox.count == 0 or (
            <Py_ssize_t> self.inbox.count < self.settings.max_queue
        )

    @cython.final
    cdef int resume(self) except -1:
        """Readers have caught up: decode what was kept, then read on."""
        cdef bytes data = self.spill
        cdef const uint8_t *rest
        cdef Py_ssize_t length, used
        self.spill = None
        self.held = False
        self.inflated = 0
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
            sent = self.reactor.ping_sent[self.slot]
            if sent != 0 and payload == KEEPALIVE:
                self.latency = monotonic() - sent
                self.reactor.ping_at[self.slot] = sent + <double> self.settings.ping_interval
                self.reactor.ping_sent[self.slot] = 0
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
        if inbox_put(&self.inbox, <PyObject *> message) < 0:
            raise MemoryError
        if <Py_ssize_t> self.inbox.count >= self.settings.max_queue:
            self.held = True
        if self.waiter is not None:
            self.wake()
        return 0

    @cython.final
    cdef object dequeue(self):
        """The oldest message; there must be one."""
        cdef PyObject *first = inbox_take(self.inbox)
        cdef object message = <object> first
        Py_DECREF(message)
        if self.held and self.spill is not None or not self.reading:
            if <Py_ssize_t> self.inbox.count <= self.settings.max_queue >> 2:
                self.reactor.touch(self)
        return message

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

    def recv(self, decode=None):
        """The next message, ``str`` or ``bytes``, when awaited.

        ``decode=False`` gives a text as bytes of UTF-8, ``decode=True`` binary as str; the connection fails with 1007
        if it is not UTF-8. ``ConnectionClosed`` once the connection is closed and what came before has been received;
        ``ConcurrencyError`` while another coroutine waits. Cancelling it loses no message.
        """
        cdef Receive awaitable
        if decode is not None or self.streaming:
            return self._recv_rarely(decode)
        awaitable = Receive.__new__(Receive)
        awaitable.core = self
        return awaitable

    def _next_item(self):
        """The next message, or the next ``Fragment`` of one."""
        cdef Receive awaitable = Receive.__new__(Receive)
        awaitable.core = self
        return awaitable

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef Receive awaitable
        if self.streaming:
            return self._next_rarely()
        awaitable = Receive.__new__(Receive)
        awaitable.core = self
        awaitable.iterating = True
        return awaitable

    def _stream(self) -> None:
        """From now on fragments are received as they come; ``ConcurrencyError`` if somebody waits for a message."""
        if self.waiter is not None:
            raise ConcurrencyError("another coroutine is waiting in recv() of this connection")
        self.streaming = True
        if self.message and self.parts.filled and not (self.in_payload and not self.opcode & 8):
            self._end_fragment(False)  # what came of a message before

    def _stop_streaming(self) -> None:
        """From now on messages are received whole, if none is under way in fragments."""
        cdef uint32_t index
        for index in range(inbox_count(self.inbox)):
            if isinstance(<object> inbox_item(self.inbox, index), Fragment):
                return
        self.streaming = self.parts != NULL and self.parts.parted

    # --- out

    def send(self, message, text=None, compress=None):
        """Send ``message``: ``str`` as text, bytes-like as binary, or a ``PreparedMessage``; or each item of an
        iterable or asynchronous iterable as a fragment of one message (RFC 6455 5.4), which must be awaited.

        ``text=True`` sends bytes as text (they must be UTF-8), ``text=False`` a str as binary. ``compress``: whether to
        compress it, if permessage-deflate was agreed on; by default from the threshold on, which of fragments the first
        must reach. Takes effect at once and never blocks; what is sent in one tick of the loop leaves in one system call. Returns an awaitable that is done
        unless the connection is above its high-water mark: a coroutine that awaits it is slowed down to the speed of
        the peer, a callback may ignore it. ``ConnectionClosed`` once the connection is closing; ``TypeError`` for
        anything else.
        """
        return self.send_message(message, text, compress)

    @cython.final
    cdef object send_message(self, message, text, compress):
        cdef Py_buffer view
        cdef const uint8_t *data
        cdef Py_ssize_t length
        if self._state != OPEN:
            raise self._closed_error()
        if self._sending:
            return self._send_later(message, text, compress)
        if self.deflate is not None and compress is not False and self.write_compressed(message, text, compress):
            pass
        elif type(message) is str:
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
            self.write_prepared(<PreparedMessage> message, compress)
        elif isinstance(message, str):
            self.send_bytes(message.encode(), OP_BINARY if text is False else OP_TEXT)
        else:
            try:
                PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
            except (TypeError, ValueError, BufferError):
                return self._send_fragments(message, text, compress)
            try:
                self.write(0x80 | (OP_TEXT if text else OP_BINARY), <uint8_t *> view.buf, view.len, NULL)
            finally:
                PyBuffer_Release(&view)
        if self.above or (self.box != NULL and self.box.total > self.settings.write_high):
            return self.wait_drained()
        return COMPLETED

    def _drain(self):
        """What ``send`` returns: done unless the connection is above its high-water mark."""
        if self._state != CLOSED and (
            self.above or (self.box != NULL and self.box.total > self.settings.write_high)
        ):
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
        cdef Py_ssize_t size = header_size(length)
        cdef bint shared = length >= SHARED_FROM and owner != NULL and not self.client
        cdef uint8_t *out
        if self._state == CLOSED or (self.overflowed and not first_byte & 8):
            return 0
        if self.box == NULL:
            self.box = self.reactor.take_box()
        out = outbox_extend(self.box, size if shared else size + (4 if self.client else 0) + length)
        if out == NULL:
            raise MemoryError
        write_header(out, first_byte, length, self.client)
        out += size
        if shared:
            if outbox_refer(self.box, owner, data, length, True) < 0:
                self.fail_later(MemoryError())  # a header without its payload is in the queue
                raise MemoryError
        elif self.client:
            self.reactor.draw_key(out)
            mask_copy(out + 4, data, length, out)
        else:
            memcpy(out, data, length)
        return 0 if self.dirty else self.reactor.touch(self)

    @cython.final
    cdef int write_prepared(self, PreparedMessage message, compress=None) except -1:
        cdef bytes frame = None
        cdef uint8_t *data
        cdef Py_ssize_t header
        if self._state == CLOSED or self.overflowed:
            return 0
        if (
            self.deflate is not None
            and compress is not False
            and self.deflate.deflater is not None
            and (compress or len(message) >= self.deflate.threshold)
        ):
            frame = message.frame_for(self.deflate.deflater)
        if frame is None:
            frame = message.frame
        else:
            if self.deflater is not None:
                self.deflater.forget()
        data = <uint8_t *> PyBytes_AS_STRING(frame)
        if self.client:
            header = header_of(data)
            return self.write(data[0], data + header, len(frame) - header, NULL)
        if self.box == NULL:
            self.box = self.reactor.take_box()
        if outbox_refer(self.box, <PyObject *> frame, data, len(frame), False) < 0:
            raise MemoryError
        return 0 if self.dirty else self.reactor.touch(self)

    @cython.final
    cdef bint write_compressed(self, message, text, compress) except -1:
        """Queue ``message`` compressed, if it is to be and gets shorter; whether that was done."""
        cdef bytes payload
        cdef object data = message
        cdef object deflate = self.deflate
        cdef int opcode = OP_TEXT if text else OP_BINARY
        if deflate.deflater is None or self.overflowed or isinstance(message, PreparedMessage):
            return False
        if isinstance(message, str):
            if not compress and 4 * len(message) < deflate.threshold:
                return False
            opcode = OP_BINARY if text is False else OP_TEXT
            data = message.encode()
        elif not isinstance(message, bytes):
            try:
                data = memoryview(message).cast("B")
            except (TypeError, ValueError, BufferError):
                return False          # send() knows what to do with it
        if len(data) == 0 or (not compress and len(data) < <Py_ssize_t> deflate.threshold):
            return False
        if not deflate.context:
            payload = deflate.deflater.compress(data)
            if len(payload) >= len(data):
                return False
            self.send_bytes(payload, 0x40 | opcode)
            return True
        # What ours remembers must be in the peer's window: should this message not get into the queue, ours is gone.
        deflater = self.deflater
        if deflater is None:
            deflater = deflate.new_deflater()
        self.deflater = None
        payload = deflater.compress(data)
        if len(payload) < len(data):
            self.send_bytes(payload, 0x40 | opcode)
        else:
            deflater.forget()
        self.deflater = deflater
        return len(payload) < len(data)

    @cython.final
    cdef int settle(self) except -1:
        """At the end of a tick: send what is queued, read on if that was held."""
        if self._state == CLOSED:
            return 0
        if self.failed:
            return self.lost(self.reactor.failures.get(self))
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
        self.fail(error)
        return self.reactor.touch(self)

    @cython.final
    cdef int fail(self, object error) except -1:
        """To be lost when it is settled."""
        self.failed = True
        self.reactor.failures[self] = error
        return 0

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
        self.leave()
        # After that: a transport may call us back from inside close().
        self.carrier.drop(self, orderly)
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
        self.inflater = self.deflater = None
        self._drop()
        self.settings.connections -= 1
        self.reactor.deadlines.pop(self, None)
        if self.failed:
            self.reactor.failures.pop(self, None)
        return 0

    @cython.final
    cdef bint closed_for_recv(self) noexcept:
        """Whether nothing more can come: closed, or the peer's close frame has been seen."""
        return self._state == CLOSED or self.close_seen or self.muted

    @cython.final
    cdef int ping_or_give_up(self) except -1:
        """Keepalive (``ping_interval``): send a ping, or miss a pong."""
        cdef double now = self.reactor.now
        cdef bint waiting
        if self._state != OPEN:
            return 0                  # another's time-out has closed it, and its slot may be free
        waiting = self.reactor.ping_sent[self.slot] != 0
        if waiting and not self.reading and self.settings.ping_timeout is not None:
            # The pong may be waiting behind what we do not read: no fault of the peer's.
            self.reactor.ping_at[self.slot] = now + <double> self.settings.ping_timeout
            return 0
        if waiting and self.settings.ping_timeout is not None:
            self.reactor.keepalives -= 1
            self.reactor.ping_at[self.slot] = 0
            self._on_ping_timeout()
            return 0
        self.write(0x80 | OP_PING, <const uint8_t *> PyBytes_AS_STRING(KEEPALIVE), len(KEEPALIVE), NULL)
        self.reactor.ping_sent[self.slot] = now
        if self.settings.ping_timeout is not None:
            self.reactor.ping_at[self.slot] = now + <double> self.settings.ping_timeout
        else:
            self.reactor.ping_at[self.slot] = now + <double> self.settings.ping_interval
        return 0

    # --- for the cold part

    def _use_deflate(self, deflate) -> None:
        """Messages may be compressed from now on, as ``deflate`` (a ``fastws.deflate.Agreement``) says."""
        self.deflate = deflate

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

    def _begin_compressed(self, size, compress):
        """The ``Deflater`` of a message in fragments, of which the first has ``size`` bytes; ``None``: it goes as it is.

        Should the message not get into the queue whole, what a connection's own remembers is gone: it is ours again when
        ``_end_compressed`` gets it back.
        """
        cdef object deflate = self.deflate
        cdef object deflater = self.deflater
        if deflate is None or deflate.deflater is None or compress is False:
            return None
        if not compress and size < deflate.threshold:
            return None
        self.deflater = None
        return deflate.new_deflater() if deflater is None else deflater

    def _end_compressed(self, deflater) -> None:
        if self.deflate.context and self._state != CLOSED:
            self.deflater = deflater

    def _write_frame(self, int opcode, bytes payload not None, bint fin=True, *, bint rsv1=False) -> None:
        """Queue a control frame or a fragment of a message; ``rsv1``: the first of one that is compressed."""
        if opcode == OP_CLOSE:
            self.discarding = True    # what still comes is dropped (RFC 6455 5.5.1)
        self.write(
            (0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode, <const uint8_t *> PyBytes_AS_STRING(payload),
            len(payload), <PyObject *> payload,
        )

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


cdef PyMethodDef own_send_method


cdef object send_quickly(Core self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    """``send`` as C calls it; the usual call, with a message and nothing else, without unpacking arguments."""
    if count == 1 and names == NULL:
        return self.send_message(<object> arguments[0], None, None)
    return inherited_send(self, arguments, count, names)


cdef fast_function inherited_send


cdef bint is_fast(method):
    """Whether C calls it with an array of arguments and the names of the last of them."""
    if not isinstance(method, MethodDescriptorType):
        return False
    return (<PyMethodDescrObject *> method).d_method.ml_flags == METH_FASTCALL | METH_KEYWORDS


def own_send(type connection) -> None:
    """Give the class ``connection`` a ``send`` of its own.

    CPython's specialised calls want a method of exactly the object's type; an inherited one costs a generic call.
    """
    global inherited_send, own_send_method
    inherited = Core.__dict__["send"]
    if is_fast(inherited):
        own_send_method = (<PyMethodDescrObject *> inherited).d_method[0]
        inherited_send = <fast_function> <void *> own_send_method.ml_meth
        own_send_method.ml_meth = <PyCFunction> <void *> send_quickly
        connection.send = PyDescr_NewMethod(connection, &own_send_method)

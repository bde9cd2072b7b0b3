"""What the connections of one loop share.

The reactor sees to it that everything sent in one tick of the loop leaves in one ``send`` per connection, resumes the
coroutines whose message has come, and sweeps over all connections for time-outs, so that no connection has a timer,
task or buffer of its own.

Order of a tick: bytes are decoded and callbacks run; then coroutines that got something are resumed, one step each,
directly (in their own context, with no task current); then outboxes are flushed. User code is never re-entered: what
a call of the user's meets (a broken socket, a queue that is too long) is acted on at the end of the tick.
"""

import contextvars
import mmap
import os
import random
import time

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastws._core cimport CLOSED, Core, Settings
from fastws._outbox cimport Outbox, outbox_clear, outbox_free, outbox_new
from fastws._waiting cimport Waiter

cdef enum:
    FLUSHES_PER_TICK = 512            # outboxes flushed before the loop gets its turn again
    FREE_BOXES = 1024
    LARGE_BOXES = 16                  # free ones that may have a buffer of over SMALL_BUFFER bytes
    SMALL_BUFFER = 4096

cdef object monotonic = time.monotonic
cdef object copy_context = contextvars.copy_context
cdef object urandom = os.urandom
cdef object random_unit = random.random


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
        self.failures = {}
        self.shared = {}
        self.dirty = []
        self.awake = []
        self.resting = []
        self.owners = []
        self.keys = b""
        self.granularity = 1.0
        self.capacity = capacity
        # Untouched pages of these take no memory.
        self.seen_memory = mmap.mmap(-1, max(capacity, 1) * sizeof(double))
        self.last_seen = memoryview(self.seen_memory).cast("d")
        PyObject_GetBuffer(self.seen_memory, &view, PyBUF_WRITABLE)
        self.seen = <double *> view.buf
        PyBuffer_Release(&view)
        self.ping_at = <double *> calloc(capacity, sizeof(double))
        self.ping_sent = <double *> calloc(capacity, sizeof(double))
        self.generations = <uint32_t *> calloc(capacity, sizeof(uint32_t))
        self.free_slots = <uint32_t *> calloc(capacity, sizeof(uint32_t))
        if not (self.ping_at and self.ping_sent and self.generations and self.free_slots):
            raise MemoryError
        self.refresh_clock()

    def __dealloc__(self):
        cdef Outbox *box
        while self.free_boxes != NULL:
            box = self.free_boxes
            self.free_boxes = box.next
            outbox_free(box)
        free(self.ping_at)
        free(self.ping_sent)
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
            core = self.owner(slot)
            if core is not None:
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
        self.generations[slot] += 1
        self.seen[slot] = self.now
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
        if self.ping_sent[slot] != 0:
            self.ping_sent[slot] = 0
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
            self.dirty.append(core)
            core.dirty = True
            self.schedule()
        return 0

    @cython.final
    cdef int rest(self, Core core) except -1:
        """``core`` has had enough of this turn of the loop: it reads on in the next."""
        self.resting.append(core)
        return 0

    @cython.final
    cdef int schedule(self) except -1:
        if not self.ticking and not self.scheduled:
            self.run_handle = self.call_soon(self._run, context=self.context)
            self.scheduled = True
        return 0

    def _run(self):
        cdef list rested = self.resting
        cdef Core core
        self.scheduled = False
        self.begin_tick()
        self.resting = []
        for core in rested:
            core.tired = False
            self.touch(core)
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
        if self.dirty or self.awake or self.resting:
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
            if self.together is not None and len(batch) > 1:
                self.together.send_together(batch)
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
                due.append(self.owner(slot))
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

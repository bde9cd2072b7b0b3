"""What moves the bytes of a connection: the interface, and the carrier over an asyncio transport.

The other carriers are in ``_poller.pyx`` and ``_tls.pyx``.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject

from fastws._core cimport Core
from fastws._outbox cimport Outbox, Segment, outbox_sent


cdef extern from "Python.h":
    bint PyBytes_Check(object)


cdef class Carrier:
    """Moves bytes between a socket and a ``Core``; knows no protocol."""

    cdef int flush(self, Core core) except -1:
        """Send from ``core.box`` what the socket takes now."""
        raise NotImplementedError

    cdef int send_together(self, list cores) except -1:
        """Send what these have queued, as far as they are this carrier's. Of the one that is the reactor's ``together``."""
        raise NotImplementedError

    cdef int read(self, Core core) except -1:
        """The socket is readable: take what it has to ``core``. Of carriers in the poller."""
        raise NotImplementedError

    cdef int resume_writing_to(self, Core core) except -1:
        """The socket that ``core.watching`` waits for takes bytes again. Of carriers in the poller."""
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
            try:
                self.transport.write_eof()
            except OSError:
                pass                  # ENOTCONN: the peer has reset it, which reading is about to find out
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

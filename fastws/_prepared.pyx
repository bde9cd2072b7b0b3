"""A message framed once, for many connections."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from fastws._codec cimport MAX_HEADER, OP_BINARY, OP_TEXT, write_header

from ._codec import encode_frame


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

    cdef bytes frame_for(self, object deflater):
        """The frame with its payload compressed, once for each kind of ``Deflater``; ``None``: that is no shorter."""
        cdef bytes frame, payload
        key = deflater.key
        if self.compressed is None:
            self.compressed = {}
        elif key in self.compressed:
            return self.compressed[key]
        payload = deflater.compress(memoryview(self.frame)[self.header :])
        frame = None
        if len(payload) < len(self):
            frame = encode_frame(self.opcode, payload, rsv1=True)
        self.compressed[key] = frame
        return frame

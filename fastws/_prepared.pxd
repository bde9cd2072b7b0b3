"""A message framed once."""


cdef class PreparedMessage:
    cdef readonly bytes frame         # as a server sends it
    cdef readonly int opcode
    cdef readonly Py_ssize_t header
    cdef dict compressed              # Deflater.key -> frame, or None where that is no shorter

    cdef bytes frame_for(self, object deflater)

"""A message framed once."""


cdef class PreparedMessage:
    cdef readonly bytes frame         # as a server sends it
    cdef readonly int opcode
    cdef readonly Py_ssize_t header

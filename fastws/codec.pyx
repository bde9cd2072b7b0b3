"""Behind ``codec.pxd``, which says what each function does. Python code has nothing to find here."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from fastws cimport _codec
from fastws._codec cimport MAX_CONTROL, fastws_utf8, mask_copy, utf8_add, utf8_whole


cdef Py_ssize_t parse_header(const uint8_t *data, size_t available, FrameHeader *header) noexcept nogil:
    cdef size_t size = 2
    cdef size_t index
    cdef uint64_t length
    if available < 2:
        return 0
    header.fin = data[0] >> 7
    header.reserved = data[0] & 0x70
    header.opcode = data[0] & 0xF
    header.masked = data[1] >> 7
    length = data[1] & 0x7F
    if header.opcode & 7 > 2:
        return -1
    if header.opcode & 8 and (not header.fin or length > MAX_CONTROL):
        return -1
    if length > MAX_CONTROL:
        size = 4 if length == 126 else 10
        if available < size:
            return 0
        length = 0
        for index in range(2, size):
            length = length << 8 | data[index]
        if length < 126 or (size == 10 and (length < 65536 or length >> 63)):
            return -1
    header.length = length
    if header.masked:
        if available < size + 4:
            return 0
        memcpy(header.key, data + size, 4)
        size += 4
    return <Py_ssize_t> size


cdef Py_ssize_t write_header(uint8_t *out, const FrameHeader *header) noexcept nogil:
    cdef int first = (0x80 if header.fin else 0) | header.reserved | header.opcode
    cdef Py_ssize_t size = _codec.write_header(out, first, <Py_ssize_t> header.length, header.masked)
    if header.masked:
        memcpy(out + size, header.key, 4)
        size += 4
    return size


cdef void mask(
    uint8_t *dst, const uint8_t *src, size_t length, const uint8_t *key, uint64_t offset
) noexcept nogil:
    cdef uint8_t turned[4]
    cdef int index
    for index in range(4):
        turned[index] = key[(offset + index) & 3]
    mask_copy(dst, src, <Py_ssize_t> length, turned)


cdef bint is_utf8(const uint8_t *data, size_t length) noexcept nogil:
    cdef Utf8 text
    memset(&text, 0, sizeof(text))
    return utf8_feed(&text, data, length) and utf8_is_whole(&text)


# Utf8 is fastws_utf8, without its name: four bytes, which begin as 0.

cdef bint utf8_feed(Utf8 *text, const uint8_t *data, size_t length) noexcept nogil:
    return utf8_add(<fastws_utf8 *> text, data, length)


cdef bint utf8_is_whole(const Utf8 *text) noexcept nogil:
    return utf8_whole(<const fastws_utf8 *> text)

"""Deltas in Fossil's format: from one byte string to another, for clients that have the first.

``fastws/_pure/fossil.py`` is the twin; what they find to copy may differ. How it is found:

- What both begin and end with is copied at once. Most updates of a document leave no more to do.
- For the rest, every eighth position of the base is in a hash table by the 8 bytes there. The target is looked up at
  each position; the longest of what is found, extended both ways, is copied. No more than `CHAIN` places are looked at for
  one position, and what is copied is not looked at again, so that the work grows with the lengths alone.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

MAX_SIZE = 262144                    # bytes of either

cdef enum:
    SIZE_LIMIT = 262144
    BLOCK = 8
    WORTH_IT = 12                     # a shorter copy takes as many bytes as it saves
    CHAIN = 16

cdef const char* DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"

cdef struct Output:
    uint8_t* data
    Py_ssize_t size
    Py_ssize_t room                   # -1: it did not fit


cdef void put(Output* out, const uint8_t* data, Py_ssize_t size) noexcept:
    if out.room < 0:
        return
    if out.size + size > out.room:
        out.room = -1
        return
    memcpy(out.data + out.size, data, size)
    out.size += size


cdef void put_number(Output* out, uint32_t number, uint8_t mark) noexcept:
    """A number in base 64, the highest digit first, and the mark behind it."""
    cdef uint8_t text[7]
    cdef Py_ssize_t start = 6
    text[6] = mark
    while True:
        start -= 1
        text[start] = <uint8_t> DIGITS[number & 63]
        number >>= 6
        if number == 0:
            break
    put(out, text + start, 7 - start)


cdef void put_copy(Output* out, Py_ssize_t size, Py_ssize_t offset) noexcept:
    put_number(out, <uint32_t> size, c"@")
    put_number(out, <uint32_t> offset, c",")


cdef void put_literal(Output* out, const uint8_t* data, Py_ssize_t size) noexcept:
    if size:
        put_number(out, <uint32_t> size, c":")
        put(out, data, size)


cdef uint32_t checksum(const uint8_t* data, Py_ssize_t size) noexcept:
    """The sum of big-endian 32-bit words, the last one filled up with zeros."""
    cdef uint32_t total = 0
    cdef Py_ssize_t i
    for i in range(size):
        total += <uint32_t> data[i] << (24 - 8 * (i & 3))
    return total


cdef inline bint is_inside(const uint8_t* data, Py_ssize_t place, Py_ssize_t size) noexcept:
    """Whether a cut here would be inside of a character of UTF-8 (RFC 3629 3)."""
    return place < size and data[place] & 0xC0 == 0x80


cdef inline uint32_t slot_of(const uint8_t* data, int shift) noexcept:
    cdef uint64_t block
    memcpy(&block, data, BLOCK)
    return <uint32_t> ((block * <uint64_t> 0x9E3779B97F4A7C15) >> shift)


cdef int put_middle(
    Output* out,
    const uint8_t* base, Py_ssize_t base_size,
    const uint8_t* target, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t size,
) except -1:
    """What takes the place of target[begin:end], both of which are between characters."""
    cdef Py_ssize_t blocks = base_size // BLOCK
    cdef Py_ssize_t i, literal = begin, visited, ahead, behind, start, length, source
    cdef Py_ssize_t best, best_start, best_source
    cdef int32_t entry
    cdef int32_t* heads
    cdef int32_t* following
    cdef int bits = 4
    cdef uint32_t slot
    if end - begin < WORTH_IT or blocks == 0:
        put_literal(out, target + begin, end - begin)
        return 0
    while (<Py_ssize_t> 1 << bits) < blocks * 2:
        bits += 1
    heads = <int32_t*> PyMem_Malloc((((<size_t> 1) << bits) + <size_t> blocks) * sizeof(int32_t))
    if heads == NULL:
        raise MemoryError
    following = heads + ((<size_t> 1) << bits)
    memset(heads, 0xFF, ((<size_t> 1) << bits) * sizeof(int32_t))
    for i in range(blocks - 1, -1, -1):          # so that the earliest are at the head
        slot = slot_of(base + i * BLOCK, 64 - bits)
        following[i] = heads[slot]
        heads[slot] = <int32_t> i
    i = begin
    while i + BLOCK <= end and out.room >= 0:
        best = best_start = best_source = 0
        visited = 0
        entry = heads[slot_of(target + i, 64 - bits)]
        while entry >= 0 and visited < CHAIN:
            source = <Py_ssize_t> entry * BLOCK
            if memcmp(target + i, base + source, BLOCK) == 0:
                ahead = BLOCK
                while i + ahead < end and source + ahead < base_size and target[i + ahead] == base[source + ahead]:
                    ahead += 1
                behind = 0
                while i - behind > literal and source > behind and target[i - behind - 1] == base[source - behind - 1]:
                    behind += 1
                if ahead + behind > best:
                    best, best_start, best_source = ahead + behind, i - behind, source - behind
            visited += 1
            entry = following[entry]
        start, length, source = best_start, best, best_source
        if length >= WORTH_IT:
            while length and is_inside(target, start, size):
                start, source, length = start + 1, source + 1, length - 1
            while length and is_inside(target, start + length, size):
                length -= 1
        if length >= WORTH_IT:
            put_literal(out, target + literal, start - literal)
            put_copy(out, length, source)
            i = literal = start + length
        else:
            i += 1
    put_literal(out, target + literal, end - literal)
    PyMem_Free(heads)
    return 0


def create_delta(bytes base not None, bytes target not None):
    cdef const uint8_t* old = <const uint8_t*> PyBytes_AS_STRING(base)
    cdef const uint8_t* new = <const uint8_t*> PyBytes_AS_STRING(target)
    cdef Py_ssize_t old_size = len(base), size = len(target), shorter, prefix = 0, suffix = 0
    cdef Output out
    cdef bytes delta
    if size == 0 or old_size > SIZE_LIMIT or size > SIZE_LIMIT:
        return None
    shorter = min(old_size, size)
    while prefix < shorter and old[prefix] == new[prefix]:
        prefix += 1
    while prefix and is_inside(new, prefix, size):
        prefix -= 1
    if prefix < WORTH_IT:
        prefix = 0
    while suffix < shorter - prefix and old[old_size - suffix - 1] == new[size - suffix - 1]:
        suffix += 1
    while suffix and is_inside(new, size - suffix, size):
        suffix -= 1
    if suffix < WORTH_IT:
        suffix = 0
    delta = PyBytes_FromStringAndSize(NULL, size)
    out.data = <uint8_t*> PyBytes_AS_STRING(delta)
    out.size = 0
    out.room = size - 1                          # it has to be smaller
    put_number(&out, <uint32_t> size, c"\n")
    if prefix:
        put_copy(&out, prefix, 0)
    put_middle(&out, old, old_size, new, prefix, size - suffix, size)
    if suffix:
        put_copy(&out, suffix, old_size - suffix)
    put_number(&out, checksum(new, size), c";")
    return None if out.room < 0 else delta[:out.size]

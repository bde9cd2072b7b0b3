"""Sends, and reads, of many sockets in one system call, by io_uring."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef FASTWS_RING
    #define FASTWS_RING
    #include <stdint.h>
    #include <sys/socket.h>
    /* The kernel's ABI; the headers that wheels are built with may be older than it. */
    struct fastws_sqe {
        uint8_t opcode, flags;
        uint16_t ioprio;
        int32_t fd;
        uint64_t off, addr;
        uint32_t len, msg_flags;
        uint64_t user_data, unused[3];
    };
    struct fastws_cqe {
        uint64_t user_data;
        int32_t res;
        uint32_t flags;
    };
    #endif
    """
    struct sqe "fastws_sqe":
        uint8_t opcode
        int32_t fd
        uint64_t addr
        uint32_t len "len"
        uint32_t msg_flags
        uint64_t user_data
    struct cqe "fastws_cqe":
        uint64_t user_data
        int32_t res
    int MSG_NOSIGNAL, MSG_DONTWAIT
    struct msghdr:
        pass

cdef enum:
    RING_ROOM = 256          # of them per system call
    NOT_TRIED = -2147483648  # the result of one that the kernel did not look at

cdef enum:
    OP_SENDMSG = 9
    OP_SEND = 26
    OP_RECV = 27


cdef class Ring:
    cdef readonly int fd
    cdef uint32_t count               # queued since the last submission
    cdef readonly uint32_t tail       # of all that was ever queued, modulo 2 ** 32
    cdef uint32_t mask
    cdef uint32_t completed_mask
    cdef uint32_t *kernel_head
    cdef uint32_t *kernel_tail
    cdef uint32_t *completed_head
    cdef uint32_t *completed_tail
    cdef sqe *entries
    cdef cqe *completions
    cdef void *rings
    cdef size_t rings_size
    cdef size_t entries_size
    cdef int32_t results[RING_ROOM]   # by order of queueing: bytes moved, or an error number, negative

    cdef int submit(self) noexcept
    cdef int enter(self, uint32_t submit, uint32_t wait) noexcept
    cdef void close(self) noexcept

    cdef inline void queue(self, int opcode, int fd, const void *data, uint32_t length) noexcept:
        """Queue one; what ``data`` points to must stay until ``submit()`` returns. At most ``RING_ROOM`` fit."""
        cdef sqe *entry = &self.entries[(self.tail + self.count) & self.mask]
        entry.opcode = opcode
        entry.fd = fd
        entry.addr = <uint64_t> <size_t> data
        entry.len = length
        entry.msg_flags = MSG_NOSIGNAL | MSG_DONTWAIT
        entry.user_data = self.count
        self.results[self.count] = NOT_TRIED
        self.count += 1

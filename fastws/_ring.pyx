"""Sends, and reads, of many sockets in one system call, by io_uring.

A ring is used as a list of system calls, and never waits: with ``MSG_DONTWAIT``, each is over when ``io_uring_enter``
returns, so that there is nothing in flight, no buffer to keep, and the outcome is that of ``send``, ``sendmsg`` or
``recv``.

What it saves is the way into the kernel and back. Where there is no ring (before Linux 5.18, or forbidden, as the
default profiles of Docker and Podman and ``kernel.io_uring_disabled`` do), every socket has its own calls.
"""

import os

from libc.errno cimport EINTR, ENOMEM, errno as c_errno
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset
from posix.unistd cimport close

cdef extern from *:
    """
    #include <sys/mman.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    #ifndef __NR_io_uring_setup
    #define __NR_io_uring_setup 425  /* the same number on every architecture */
    #define __NR_io_uring_enter 426
    #endif

    struct fastws_ring_offsets {
        uint32_t head, tail, mask, entries, flags, dropped, array, unused[3];
    };
    struct fastws_completion_offsets {
        uint32_t head, tail, mask, entries, overflow, cqes, unused[4];
    };
    struct fastws_ring_parameters {
        uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, unused[3];
        struct fastws_ring_offsets sq;
        struct fastws_completion_offsets cq;
    };
    #define FASTWS_SUBMIT_ALL (1U << 7)    /* 5.18: one that fails does not keep back those behind it */
    #define FASTWS_SINGLE_MMAP (1U << 0)
    #define FASTWS_GETEVENTS (1U << 0)
    #define FASTWS_ENTRIES_AT 0x10000000

    static int fastws_ring_setup(unsigned entries, struct fastws_ring_parameters *parameters) {
        return (int)syscall(__NR_io_uring_setup, entries, parameters);
    }
    static int fastws_ring_enter(int fd, unsigned submit, unsigned wait) {
        return (int)syscall(__NR_io_uring_enter, fd, submit, wait, wait ? FASTWS_GETEVENTS : 0, NULL, 0);
    }
    static void *fastws_ring_map(int fd, size_t size, long offset) {
        void *where = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
        return where == MAP_FAILED ? NULL : where;
    }
    static uint32_t fastws_ring_load(uint32_t *from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
    static void fastws_ring_store(uint32_t *to, uint32_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
    """
    struct fastws_ring_offsets:
        uint32_t head, tail, mask, array
    struct fastws_completion_offsets:
        uint32_t head, tail, mask, cqes
    struct fastws_ring_parameters:
        uint32_t sq_entries, cq_entries, flags, features
        fastws_ring_offsets sq
        fastws_completion_offsets cq
    uint32_t FASTWS_SUBMIT_ALL, FASTWS_SINGLE_MMAP
    long FASTWS_ENTRIES_AT
    int fastws_ring_setup(unsigned entries, fastws_ring_parameters *parameters) nogil
    int fastws_ring_enter(int fd, unsigned submit, unsigned wait) nogil
    void *fastws_ring_map(int fd, size_t size, long offset) nogil
    uint32_t fastws_ring_load(uint32_t *source) nogil
    void fastws_ring_store(uint32_t *target, uint32_t value) nogil
    int munmap(void *where, size_t size) nogil


cdef class Ring:
    """One per poller. ``OSError`` if this system has none for us."""

    def __cinit__(self):
        cdef fastws_ring_parameters parameters
        cdef uint32_t index
        cdef uint8_t *rings
        self.fd = -1
        memset(&parameters, 0, sizeof(parameters))
        parameters.flags = FASTWS_SUBMIT_ALL
        self.fd = fastws_ring_setup(RING_ROOM, &parameters)
        if self.fd < 0:
            raise OSError(c_errno, os.strerror(c_errno))
        self.rings_size = max(
            parameters.sq.array + parameters.sq_entries * sizeof(uint32_t),
            parameters.cq.cqes + parameters.cq_entries * sizeof(cqe),
        )
        self.entries_size = parameters.sq_entries * sizeof(sqe)
        self.rings = fastws_ring_map(self.fd, self.rings_size, 0)
        self.entries = <sqe *> fastws_ring_map(self.fd, self.entries_size, FASTWS_ENTRIES_AT)
        if self.rings == NULL or self.entries == NULL or not parameters.features & FASTWS_SINGLE_MMAP:
            raise OSError(ENOMEM, os.strerror(ENOMEM))
        rings = <uint8_t *> self.rings
        self.kernel_head = <uint32_t *> (rings + parameters.sq.head)
        self.kernel_tail = <uint32_t *> (rings + parameters.sq.tail)
        self.mask = (<uint32_t *> (rings + parameters.sq.mask))[0]
        self.completed_head = <uint32_t *> (rings + parameters.cq.head)
        self.completed_tail = <uint32_t *> (rings + parameters.cq.tail)
        self.completed_mask = (<uint32_t *> (rings + parameters.cq.mask))[0]
        self.completions = <cqe *> (rings + parameters.cq.cqes)
        self.tail = self.kernel_tail[0]
        for index in range(parameters.sq_entries):
            (<uint32_t *> (rings + parameters.sq.array))[index] = index  # entries are used in their order

    def __dealloc__(self):
        self.close()

    cdef void close(self) noexcept:
        if self.entries != NULL:
            munmap(self.entries, self.entries_size)
            self.entries = NULL
        if self.rings != NULL:
            munmap(self.rings, self.rings_size)
            self.rings = NULL
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    cdef int enter(self, uint32_t submit, uint32_t wait) noexcept:
        cdef int taken = -1
        while True:
            taken = fastws_ring_enter(self.fd, submit, wait)
            if taken >= 0 or c_errno != EINTR:
                return taken

    cdef int submit(self) noexcept:
        """Do what is queued; how many there were. ``results`` has the outcomes."""
        cdef uint32_t count = self.count
        cdef uint32_t first = self.tail
        cdef uint32_t taken = 0
        cdef uint32_t head, done
        cdef int more
        cdef cqe *completion
        self.count = 0
        self.tail += count
        fastws_ring_store(self.kernel_tail, self.tail)
        while taken < count:
            more = self.enter(count - taken, 0)
            if more <= 0:
                break                 # out of memory: take the rest back
            taken += more
        if taken < count:
            self.tail = first + taken
            fastws_ring_store(self.kernel_tail, self.tail)
        done = 0
        head = self.completed_head[0]
        while done < taken:
            if fastws_ring_load(self.completed_tail) == head:
                if self.enter(0, taken - done) < 0:
                    break
                continue
            completion = &self.completions[head & self.completed_mask]
            if completion.user_data < count:
                self.results[completion.user_data] = completion.res
            head += 1
            done += 1
        fastws_ring_store(self.completed_head, head)
        return count

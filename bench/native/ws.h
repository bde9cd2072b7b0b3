/* What the three programs share: time, the opening handshake, frame headers, masking.
 *
 * Linux, little endian. Everything is static so that each program stays one translation unit.
 */
#ifndef BENCH_WS_H
#define BENCH_WS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

enum { OP_CONT = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

/* ---- process and time ---- */

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static inline uint64_t thread_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

__attribute__((noreturn)) static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "failed");
    exit(1);
}

static void *must(void *memory) {
    if (memory == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return memory;
}

/* Every program: no SIGPIPE, as many descriptors as allowed. */
static void process_setup(void) {
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static long number_argument(const char *name, const char *text, long low, long high) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || *text == 0 || *end != 0 || value < low || value > high) {
        fprintf(stderr, "%s: expected a number from %ld to %ld, not '%s'\n", name, low, high, text);
        exit(2);
    }
    return value;
}

/* ---- SHA-1 (FIPS 180-4) and base64 (RFC 4648), for one short block of text ---- */

static inline uint32_t rotl(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }

static void sha1_block(uint32_t state[5], const uint8_t *block) {
    uint32_t w[80];
    for (int i = 0; i < 16; i++) {
        uint32_t word;
        memcpy(&word, block + 4 * i, 4);
        w[i] = __builtin_bswap32(word);
    }
    for (int i = 16; i < 80; i++) w[i] = rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5A827999;
        } else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ED9EBA1;
        } else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8F1BBCDC;
        } else {
            f = b ^ c ^ d;
            k = 0xCA62C1D6;
        }
        uint32_t next = rotl(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = rotl(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* SHA-1 of at most 119 bytes. */
static void sha1(const uint8_t *data, size_t len, uint8_t digest[20]) {
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t padded[128] = {0};
    size_t blocks = len + 9 <= 64 ? 1 : 2;
    if (len > 119) die("sha1: input too long");
    memcpy(padded, data, len);
    padded[len] = 0x80;
    uint64_t bits = __builtin_bswap64((uint64_t)len * 8);
    memcpy(padded + blocks * 64 - 8, &bits, 8);
    for (size_t i = 0; i < blocks; i++) sha1_block(state, padded + 64 * i);
    for (int i = 0; i < 5; i++) {
        uint32_t word = __builtin_bswap32(state[i]);
        memcpy(digest + 4 * i, &word, 4);
    }
}

/* Writes 4 * ceil(len / 3) characters and a zero. */
static void base64(const uint8_t *data, size_t len, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)data[i] << 16;
        if (i + 1 < len) v |= (uint32_t)data[i + 1] << 8;
        if (i + 2 < len) v |= data[i + 2];
        *out++ = digits[v >> 18];
        *out++ = digits[(v >> 12) & 63];
        *out++ = i + 1 < len ? digits[(v >> 6) & 63] : '=';
        *out++ = i + 2 < len ? digits[v & 63] : '=';
    }
    *out = 0;
}

/* ---- opening handshake (RFC 6455 4) ---- */

/* Sec-WebSocket-Accept of a 24-character key: 28 characters and a zero. */
static void accept_of(const char *key, char accept[29]) {
    uint8_t text[60], digest[20];
    memcpy(text, key, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    sha1(text, sizeof text, digest);
    base64(digest, sizeof digest, accept);
}

/* Value of a header in a head of len bytes that ends with an empty line; NULL when absent. */
static const char *header_value(const char *head, size_t len, const char *name, size_t *value_len) {
    size_t name_len = strlen(name);
    const char *end = head + len;
    const char *line = memchr(head, '\n', len);
    while (line != NULL && ++line < end) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (stop == NULL) break;
        if ((size_t)(stop - line) > name_len && line[name_len] == ':' &&
            strncasecmp(line, name, name_len) == 0) {
            const char *value = line + name_len + 1;
            while (value < stop && (*value == ' ' || *value == '\t')) value++;
            while (stop > value && (stop[-1] == '\r' || stop[-1] == ' ' || stop[-1] == '\t')) stop--;
            *value_len = (size_t)(stop - value);
            return value;
        }
        line = stop;
    }
    return NULL;
}

/* Length of an HTTP head including its empty line, 0 when it is not complete. */
static size_t head_length(const uint8_t *data, size_t len) {
    const uint8_t *end = memmem(data, len, "\r\n\r\n", 4);
    return end == NULL ? 0 : (size_t)(end - data) + 4;
}

/* Answers a complete request head. Returns the length of the 101 response in out (at least 192
 * bytes), or 0 when the request is not a WebSocket upgrade. */
static inline size_t answer_upgrade(const char *head, size_t len, char *out) {
    size_t n;
    const char *value = header_value(head, len, "Upgrade", &n);
    if (strncmp(head, "GET ", 4) != 0 || value == NULL || n != 9 ||
        strncasecmp(value, "websocket", 9) != 0)
        return 0;
    value = header_value(head, len, "Sec-WebSocket-Version", &n);
    if (value == NULL || n != 2 || memcmp(value, "13", 2) != 0) return 0;
    value = header_value(head, len, "Sec-WebSocket-Key", &n);
    if (value == NULL || n != 24) return 0;
    char accept[29];
    accept_of(value, accept);
    return (size_t)sprintf(out,
                           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                           accept);
}

/* ---- frames (RFC 6455 5.2) ---- */

struct frame_head {
    uint64_t len;  /* payload bytes */
    uint32_t key;  /* masking key, 0 when there is none */
    uint8_t size;  /* bytes of the header with its key */
    uint8_t first; /* FIN, RSV, opcode */
    bool masked;
};

enum { RSV1 = 0x40 }; /* a compressed message (RFC 7692 6) */

/* 1: *h is set; 0: more bytes are needed; -1: the header breaks the protocol.
 *
 * Our servers (want_mask) agree to no extension; the load generator judges RSV1 of data itself. */
static inline int parse_frame_head(const uint8_t *p, size_t n, bool want_mask, struct frame_head *h) {
    if (UNLIKELY(n < 2)) return 0;
    h->first = p[0];
    h->masked = p[1] & 0x80;
    uint8_t opcode = p[0] & 15, short_len = p[1] & 127;
    uint8_t reserved = want_mask || opcode >= OP_CLOSE ? 0x70 : 0x70 & ~RSV1;
    if (UNLIKELY((p[0] & reserved) || h->masked != want_mask || (opcode > OP_BINARY && opcode < OP_CLOSE) ||
                 opcode > OP_PONG || (opcode >= OP_CLOSE && (short_len > 125 || !(p[0] & 0x80)))))
        return -1;
    size_t size = 2;
    uint64_t len = short_len;
    if (short_len == 126) {
        if (n < 4) return 0;
        len = (uint64_t)p[2] << 8 | p[3];
        if (len < 126) return -1;
        size = 4;
    } else if (short_len == 127) {
        if (n < 10) return 0;
        uint64_t big;
        memcpy(&big, p + 2, 8);
        len = __builtin_bswap64(big);
        if (len < 65536 || len >> 63) return -1;
        size = 10;
    }
    h->key = 0;
    if (want_mask) {
        if (n < size + 4) return 0;
        memcpy(&h->key, p + size, 4);
        size += 4;
    }
    h->len = len;
    h->size = (uint8_t)size;
    return 1;
}

/* Writes a header without a key; returns its length, at most 10. */
static inline size_t put_frame_head(uint8_t *p, uint8_t first, uint64_t len) {
    p[0] = first;
    if (len < 126) {
        p[1] = (uint8_t)len;
        return 2;
    }
    if (len < 65536) {
        p[1] = 126;
        p[2] = (uint8_t)(len >> 8);
        p[3] = (uint8_t)len;
        return 4;
    }
    p[1] = 127;
    uint64_t big = __builtin_bswap64(len);
    memcpy(p + 2, &big, 8);
    return 10;
}

typedef uint32_t vec64 __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint32_t vec16 __attribute__((vector_size(16), aligned(1), may_alias));

/* dst[i] = src[i] ^ key[i % 4]. dst may overlap src when it does not lie behind it. */
static inline void xor_mask(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key) {
    while (n >= 64) {
        *(vec64 *)dst = *(const vec64 *)src ^ key;
        dst += 64, src += 64, n -= 64;
    }
    while (n >= 16) {
        *(vec16 *)dst = *(const vec16 *)src ^ key;
        dst += 16, src += 16, n -= 16;
    }
    uint64_t key8 = (uint64_t)key << 32 | key;
    if (n >= 8) {
        uint64_t v;
        memcpy(&v, src, 8);
        v ^= key8;
        memcpy(dst, &v, 8);
        dst += 8, src += 8, n -= 8;
    }
    for (; n > 0; n--, key8 >>= 8) *dst++ = *src++ ^ (uint8_t)key8;
}

/* ---- sockets ---- */

static void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline void watch(int epoll, int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, operation, fd, &event) != 0) die("epoll_ctl");
}

static inline int listen_on(int port, int backlog) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
    if (listen(fd, backlog) != 0) die("listen");
    return fd;
}

#endif

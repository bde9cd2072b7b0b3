/* The limit: a WebSocket echo server in bare C, one thread, one epoll set.
 *
 * What an echo costs at least when it is done properly with ordinary system calls: level-triggered
 * epoll, one recv() per wake-up into one shared buffer, every frame of it parsed with bounds,
 * unmasked and framed again in place, and one send() for all of them. It keeps what a server needs
 * to be correct: frames that span reads, partial writes (reading stops until they are out), pings,
 * close, protocol errors. It does not validate UTF-8 and calls no handler: what a library does
 * beyond this is what it is to be measured by.
 */
#include "ws.h"

#include <getopt.h>
#include <malloc.h>

enum {
    READ_SIZE = 256 * 1024,       /* one recv() takes at most this much */
    SPILL_COPY_LIMIT = 32 * 1024, /* larger messages are read straight into a buffer of their own */
    MESSAGE_LIMIT = 64 << 20,
    HEAD_LIMIT = 8192,
    EVENTS = 512,
};

struct conn {
    uint8_t *in;  /* start of a request head or frame that is not complete yet; NULL mostly */
    uint8_t *out; /* what send() did not take; while there is any, nothing is read */
    uint32_t in_len, in_size;
    uint32_t out_len, out_off;
    bool open, closing;
};

static int epoll_fd, listen_fd;
static bool listening;
static struct conn *conns; /* by descriptor */
static size_t conn_slots;
static uint8_t shared[SPILL_COPY_LIMIT + READ_SIZE];

static void drop(int fd) {
    struct conn *c = &conns[fd];
    free(c->in);
    free(c->out);
    memset(c, 0, sizeof *c);
    close(fd);
    if (!listening) {
        watch(epoll_fd, EPOLL_CTL_ADD, listen_fd, EPOLLIN);
        listening = true;
    }
}

static void on_accept(void) {
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) { /* until a connection ends */
                watch(epoll_fd, EPOLL_CTL_DEL, listen_fd, 0);
                listening = false;
            }
            return;
        }
        if ((size_t)fd >= conn_slots) {
            close(fd);
            continue;
        }
        no_delay(fd);
        watch(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

/* Sends up to two pieces at once; keeps what the kernel does not take. False when dropped. A single
 * piece may lie in an allocation that may be kept instead of copied: then c->out becomes owned. */
static bool deliver(int fd, const struct iovec *piece, int pieces, uint8_t *owned) {
    struct conn *c = &conns[fd];
    size_t total = 0;
    for (int i = 0; i < pieces; i++) total += piece[i].iov_len;
    ssize_t sent;
    if (pieces == 1) {
        sent = send(fd, piece->iov_base, piece->iov_len, MSG_NOSIGNAL);
    } else {
        struct msghdr message = {.msg_iov = (struct iovec *)piece, .msg_iovlen = (size_t)pieces};
        sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    }
    if (UNLIKELY(sent < 0)) {
        if (errno != EAGAIN) {
            drop(fd);
            return false;
        }
        sent = 0;
    }
    if (LIKELY((size_t)sent == total)) {
        if (c->closing) {
            drop(fd);
            return false;
        }
        return true;
    }
    watch(epoll_fd, EPOLL_CTL_MOD, fd, EPOLLOUT);
    if (owned != NULL && pieces == 1) {
        size_t offset = (size_t)((uint8_t *)piece->iov_base - owned);
        c->out = owned;
        c->out_off = (uint32_t)(offset + (size_t)sent);
        c->out_len = (uint32_t)(offset + total);
        return true;
    }
    size_t skip = (size_t)sent;
    c->out = must(malloc(total - skip));
    c->out_len = c->out_off = 0;
    for (int i = 0; i < pieces; i++) {
        size_t from = skip < piece[i].iov_len ? skip : piece[i].iov_len;
        size_t n = piece[i].iov_len - from;
        memcpy(c->out + c->out_len, (uint8_t *)piece[i].iov_base + from, n);
        c->out_len += (uint32_t)n;
        skip -= from;
    }
    return true;
}

static void on_writable(int fd) {
    struct conn *c = &conns[fd];
    ssize_t sent = send(fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) drop(fd);
        return;
    }
    c->out_off += (uint32_t)sent;
    if (c->out_off < c->out_len) return;
    free(c->out);
    c->out = NULL;
    if (c->closing)
        drop(fd);
    else
        watch(epoll_fd, EPOLL_CTL_MOD, fd, EPOLLIN);
}

/* Turns the frames at data into their echoes, in place, beginning at data + 4: an echo is four
 * bytes shorter than its frame, so it never overtakes what is still to be read. Sets *used to the
 * bytes of complete frames and returns the end of the echoes. */
static uint8_t *echo_frames(struct conn *c, uint8_t *data, size_t len, size_t *used) {
    uint8_t *p = data, *end = data + len, *w = data + 4;
    while (p < end) {
        struct frame_head h;
        int known = parse_frame_head(p, (size_t)(end - p), true, &h);
        if (UNLIKELY(known < 0 || (known > 0 && h.len > MESSAGE_LIMIT))) {
            static const uint8_t protocol_error[] = {0x88, 2, 0x03, 0xEA}; /* close 1002 */
            memcpy(w, protocol_error, 4);
            w += 4;
            c->closing = true;
            p = end;
            break;
        }
        if (known == 0 || h.len > (size_t)(end - p) - h.size) break;
        const uint8_t *payload = p + h.size;
        p += h.size + h.len;
        uint8_t opcode = h.first & 15;
        if (UNLIKELY(opcode == OP_PONG)) continue;
        if (UNLIKELY(opcode == OP_PING)) h.first = 0x80 | OP_PONG;
        w += put_frame_head(w, h.first, h.len);
        xor_mask(w, payload, h.len, h.key);
        w += h.len;
        if (UNLIKELY(opcode == OP_CLOSE)) {
            c->closing = true;
            p = end;
        }
    }
    *used = (size_t)(p - data);
    return w;
}

/* Keeps an incomplete frame or head, with room for all of it when its length is known. */
static void keep(struct conn *c, const uint8_t *data, size_t len) {
    struct frame_head h;
    size_t size = len;
    if (c->open && parse_frame_head(data, len, true, &h) > 0) size = h.size + h.len;
    if (size > c->in_size) {
        free(c->in);
        c->in = must(malloc(size));
    }
    memcpy(c->in, data, len);
    c->in_len = (uint32_t)len;
    c->in_size = (uint32_t)size;
}

static void forget(struct conn *c) {
    free(c->in);
    c->in = NULL;
    c->in_len = c->in_size = 0;
}

/* Handles len bytes at data (start of a frame or head), after an echo that waits in first, which
 * lies in the allocation owned. */
static void on_data(int fd, uint8_t *data, size_t len, struct iovec first, uint8_t *owned) {
    struct conn *c = &conns[fd];
    if (UNLIKELY(!c->open)) {
        char response[192];
        size_t head = head_length(data, len);
        if (head == 0) {
            if (len > HEAD_LIMIT)
                drop(fd);
            else
                keep(c, data, len);
            return;
        }
        size_t n = answer_upgrade((char *)data, head, response);
        if (n == 0) {
            static const char bad[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
            memcpy(response, bad, n = sizeof bad - 1);
            c->closing = true;
            head = len;
        }
        c->open = true;
        forget(c);
        struct iovec piece = {response, n};
        if (!deliver(fd, &piece, 1, NULL) || head == len) return;
        if (c->out != NULL) { /* a client whose first 129 bytes do not fit is not worth code */
            drop(fd);
            return;
        }
        data += head;
        len -= head;
    }
    size_t used;
    uint8_t *end = echo_frames(c, data, len, &used);
    if (UNLIKELY(used < len))
        keep(c, data + used, len - used);
    else if (UNLIKELY(c->in != NULL))
        forget(c);
    struct iovec pieces[2] = {first, {data + 4, (size_t)(end - data - 4)}};
    if (LIKELY(first.iov_len == 0)) {
        if (pieces[1].iov_len) deliver(fd, pieces + 1, 1, NULL);
    } else {
        deliver(fd, pieces, pieces[1].iov_len ? 2 : 1, owned);
    }
}

/* A large message: the rest of it goes where it belongs, what follows it into the shared buffer. */
static void read_large(int fd) {
    struct conn *c = &conns[fd];
    uint32_t missing = c->in_size - c->in_len;
    struct iovec into[2] = {{c->in + c->in_len, missing}, {shared, READ_SIZE}};
    ssize_t n = readv(fd, into, 2);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    if ((size_t)n < missing) {
        c->in_len += (uint32_t)n;
        return;
    }
    uint8_t *message = c->in;
    size_t used, size = c->in_size;
    c->in = NULL;
    c->in_len = c->in_size = 0;
    uint8_t *end = echo_frames(c, message, size, &used);
    struct iovec first = {message + 4, (size_t)(end - message - 4)};
    on_data(fd, shared, (size_t)n - missing, first, message);
    if (c->out != message) free(message);
}

static void on_readable(int fd) {
    struct conn *c = &conns[fd];
    uint8_t *data = shared;
    if (UNLIKELY(c->in_len)) {
        if (c->in_size > SPILL_COPY_LIMIT && c->in_len < c->in_size) {
            read_large(fd);
            return;
        }
        memcpy(shared, c->in, c->in_len);
    }
    ssize_t n = recv(fd, data + c->in_len, READ_SIZE, 0);
    if (UNLIKELY(n <= 0)) {
        if (n == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    size_t len = c->in_len + (size_t)n;
    c->in_len = 0;
    on_data(fd, data, len, (struct iovec){NULL, 0}, NULL);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'}, {"backlog", required_argument, NULL, 'b'}, {0}};
    int port = 9001, backlog = 4096, option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p')
            port = (int)number_argument("--port", optarg, 1, 65535);
        else if (option == 'b')
            backlog = (int)number_argument("--backlog", optarg, 1, 65535);
        else
            return 2;
    }
    process_setup();
    mallopt(M_MMAP_THRESHOLD, MESSAGE_LIMIT); /* large buffers are reused, not mapped anew each time */
    mallopt(M_TRIM_THRESHOLD, 4 * MESSAGE_LIMIT);
    conn_slots = (size_t)sysconf(_SC_OPEN_MAX);
    conns = must(calloc(conn_slots, sizeof *conns));
    listen_fd = listen_on(port, backlog);
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    watch(epoll_fd, EPOLL_CTL_ADD, listen_fd, EPOLLIN);
    listening = true;
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listen_fd)
                on_accept();
            else if (conns[fd].out != NULL)
                on_writable(fd);
            else
                on_readable(fd);
        }
    }
}

/* The limit of fan-out: a loop of send() in bare C, one thread.
 *
 * Clients connect by WebSocket handshake. Whatever frames one of them sends in one read are framed
 * once and sent to every connection with one send() each. A socket whose buffer is full is skipped
 * and counted: a real server would queue, which costs more.
 *
 * With --connections N and --rounds R it needs no publisher: once N clients are connected, it sends
 * a frame of --size bytes to all of them R times, --interval seconds apart, and prints what that
 * cost as one line of JSON.
 */
#include "ws.h"

#include <getopt.h>

enum { READ_SIZE = 256 * 1024, EVENTS = 512 };

struct conn {
    int fd;
    uint32_t place; /* in targets, once open */
    bool open;
};

static int epoll_fd, listen_fd;
static struct conn **targets; /* every open connection */
static struct conn *conns;    /* by descriptor */
static size_t conn_slots;
static uint32_t target_count;
static uint64_t skipped;
static uint8_t shared[READ_SIZE];

static void drop(struct conn *c) {
    if (c->open) {
        struct conn *last = targets[--target_count];
        last->place = c->place;
        targets[c->place] = last;
        c->open = false;
    }
    close(c->fd);
}

static void on_accept(void) {
    int fd;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if ((size_t)fd >= conn_slots) die("too many connections");
        no_delay(fd);
        conns[fd].fd = fd;
        watch(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

static void send_to_all(const uint8_t *data, size_t len) {
    for (uint32_t i = 0; i < target_count; i++)
        if (UNLIKELY(send(targets[i]->fd, data, len, MSG_NOSIGNAL) != (ssize_t)len)) skipped++;
}

/* Turns masked data frames into unmasked ones in place; returns their end. Frames must not span
 * reads: publications are small. */
static uint8_t *reframe(uint8_t *data, size_t len, bool *bad) {
    uint8_t *p = data, *end = data + len, *w = data;
    while (p < end) {
        struct frame_head h;
        if (parse_frame_head(p, (size_t)(end - p), true, &h) <= 0 ||
            h.len > (size_t)(end - p) - h.size || (h.first & 15) >= OP_CLOSE) {
            *bad = true;
            break;
        }
        const uint8_t *payload = p + h.size;
        p += h.size + h.len;
        w += put_frame_head(w, h.first, h.len);
        xor_mask(w, payload, h.len, h.key);
        w += h.len;
    }
    return w;
}

static void on_readable(struct conn *c) {
    ssize_t n = recv(c->fd, shared, READ_SIZE, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) drop(c);
        return;
    }
    if (!c->open) {
        char response[192];
        size_t head = head_length(shared, (size_t)n);
        size_t len = head == (size_t)n ? answer_upgrade((char *)shared, head, response) : 0;
        if (len == 0 || send(c->fd, response, len, MSG_NOSIGNAL) != (ssize_t)len) {
            drop(c);
            return;
        }
        c->open = true;
        c->place = target_count;
        targets[target_count++] = c;
        return;
    }
    bool bad = false;
    uint8_t *end = reframe(shared, (size_t)n, &bad);
    if (bad)
        drop(c);
    else
        send_to_all(shared, (size_t)(end - shared));
}

static void turn(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int n = epoll_wait(epoll_fd, events, EVENTS, timeout_ms);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
        if (events[i].data.fd == listen_fd)
            on_accept();
        else
            on_readable(&conns[events[i].data.fd]);
    }
}

static void run_rounds(uint32_t connections, uint32_t rounds, size_t size, uint64_t interval) {
    uint8_t *frame = must(malloc(size + 10));
    size_t head = put_frame_head(frame, 0x80 | OP_BINARY, size);
    uint64_t cpu = 0, wall = 0, deliveries = 0;
    memset(frame + head, 'x', size);
    while (target_count < connections) turn(100);
    skipped = 0;
    for (uint32_t i = 0; i < rounds && target_count > 0; i++) {
        uint64_t begin = now_ns(), begin_cpu = thread_cpu_ns();
        deliveries += target_count;
        send_to_all(frame, head + size);
        cpu += thread_cpu_ns() - begin_cpu;
        wall += now_ns() - begin;
        while (now_ns() < begin + interval) turn((int)((begin + interval - now_ns()) / 1000000) + 1);
    }
    double n = deliveries ? (double)deliveries : 1;
    printf("{\"mode\": \"send\", \"connections\": %u, \"size\": %zu, \"deliveries\": %llu, "
           "\"skipped\": %llu, \"cpu_us\": %.4f, \"wall_us\": %.4f}\n",
           connections, size, (unsigned long long)deliveries, (unsigned long long)skipped,
           (double)cpu / n / 1e3, (double)wall / n / 1e3);
    free(frame);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", 1, NULL, 'p'},   {"backlog", 1, NULL, 'b'}, {"connections", 1, NULL, 'c'},
        {"rounds", 1, NULL, 'r'}, {"size", 1, NULL, 's'},    {"interval", 1, NULL, 'i'},
        {0}};
    int port = 9001, backlog = 4096, option, index;
    uint32_t connections = 0, rounds = 20;
    size_t size = 128;
    uint64_t interval = 200000000;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == '?') return 2;
        const char *name = options[index].name;
        switch (option) {
        case 'p': port = (int)number_argument(name, optarg, 1, 65535); break;
        case 'b': backlog = (int)number_argument(name, optarg, 1, 65535); break;
        case 'c': connections = (uint32_t)number_argument(name, optarg, 1, 1000000); break;
        case 'r': rounds = (uint32_t)number_argument(name, optarg, 1, 1000000); break;
        case 's': size = (size_t)number_argument(name, optarg, 0, 1 << 24); break;
        case 'i': interval = (uint64_t)(strtod(optarg, NULL) * 1e9); break;
        }
    }
    process_setup();
    conn_slots = (size_t)sysconf(_SC_OPEN_MAX);
    conns = must(calloc(conn_slots, sizeof *conns));
    targets = must(calloc(conn_slots, sizeof *targets));
    listen_fd = listen_on(port, backlog);
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    watch(epoll_fd, EPOLL_CTL_ADD, listen_fd, EPOLLIN);
    if (connections) {
        run_rounds(connections, rounds, size, interval);
        return 0;
    }
    for (;;) turn(-1);
}

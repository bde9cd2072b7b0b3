/* WebSocket load at C speed: one thread, one epoll set, against any server.
 *
 *   echo       closed loop: every connection keeps --depth messages in flight. Echoes that one read
 *              completes are answered by as many new messages in one send(). Length and opcode of
 *              every echo are checked, the content of every --verify-th, its first bytes always.
 *              With --ask TEXT and --answer TEXT, as many of each, the messages are the asks in turn,
 *              padded by the caller to one length, and what must come back are the answers.
 *              With --rate R an open loop: R messages a second are due, in turn over the connections,
 *              whatever the server does. A latency counts from when its message was due, also when
 *              --depth others were in flight and it had to wait (so nothing is left out while the
 *              server stalls: no "coordinated omission"). What is unanswered at the end counts with
 *              its age.
 *   idle       opens connections and holds them until a line or the end of standard input.
 *   handshake  connect, upgrade, reset, again: --opening at a time. With --ready, after the reply to
 *              --hello.
 *   fanout     connections that receive; the first one publishes, and a round ends when every
 *              connection has got everything. After --duration it ends before --rounds are done, if
 *              at least three are. With --interval rounds are due at fixed times, and
 *              times count from then. --stalled N: the last N connections never read once they are
 *              open, and nothing is expected of them. --publish-raw FILE --publish-port P: the bytes
 *              of the file, such as an HTTP request, are sent to that port instead, those of
 *              --publish-hello before them.
 *
 * --control is for a program that runs several of these at once: {"event": "ready"} in every mode, then
 * it waits for a line on standard input; {"event": "progress"} five times a second; SIGINT ends the
 * measured window early; --buckets adds the histogram itself to the result.
 *
 * --tls does the same over TLS. --deflate OFFER negotiates permessage-deflate (RFC 7692); what echo
 * sends then is ready-made compressed payloads, of --size bytes each, from the file --messages. They
 * refer to nothing before them, so that they may be sent whatever was agreed on context takeover.
 * Answers must be compressed too and are counted; what is in them is for the caller to check.
 *
 * Prints {"event": "ready"} when all connections are open (idle, fanout) and one line of JSON at the
 * end. Server CPU is that of the processes named by --pid, all threads, over exactly the measured
 * window. When this program itself used over 95 % of a core, "load_saturated" is true: then
 * messages/s say how fast the load is, and only CPU per message says how fast the server is.
 * "waited" is the time that load and server were kept from running by other processes, as a share
 * of the window: well over 0.05 means that messages/s are worth nothing on this machine just now.
 */
#include "ws.h"

#include "histogram.h"
#include "tls.h"

#include <getopt.h>
#include <netdb.h>
#include <poll.h>

enum { READ_SIZE = 256 * 1024, EVENTS = 512, MAX_PIDS = 64, MAX_HELLO = 8, MAX_ASKS = 64, STDIN = UINT32_MAX };
enum mode { ECHO, IDLE, HANDSHAKE, FANOUT };
enum state { CLOSED, UPGRADING, GREETING, OPEN };
enum { SECOND = 1000000000 };

static struct {
    enum mode mode;
    const char *path, *payload, *deflate, *messages, *host, *ca, *subprotocol, *origin;
    bool tls, insecure, control, buckets;
    int port, publish_port;
    uint32_t connections, depth, opening, verify, rounds, warmup_rounds, burst, stalled;
    size_t size;
    double rate;
    uint64_t warmup, duration, interval, timeout;
    const char *hello[MAX_HELLO], *ready, *match, *publish, *publish_raw, *publish_hello, *ping, *pong;
    int hellos;
    const char *ask[MAX_ASKS], *answer[MAX_ASKS];
    uint32_t asks, answers;
    clockid_t server[MAX_PIDS];
    pid_t server_pid[MAX_PIDS];
    int servers;
    struct sockaddr_storage address, source;
    socklen_t address_len, source_len;
} opt = {.mode = ECHO, .path = "/", .payload = "binary", .port = 9001, .connections = 100,
         .depth = 1, .opening = 64, .insecure = true, .rounds = 20, .warmup_rounds = 2, .burst = 1, .size = 128,
         .warmup = SECOND / 2, .duration = 2ull * SECOND, .timeout = 60ull * SECOND};

struct conn {
    int fd;
    uint8_t state;
    bool want_write, in_frame, connected, requested;
    tls_conn *tls;
    uint8_t head_len;
    uint8_t head[14];       /* start of a frame header that a read cut off */
    struct frame_head frame; /* the one whose payload is coming */
    uint64_t left;          /* of its payload */
    uint64_t nonce, since;  /* handshake */
    uint8_t *spill;         /* head or payload that a read cut off */
    size_t spill_len, spill_size;
    uint32_t next_send, next_recv, to_send; /* echo: positions in the ring, messages due */
    size_t sent;                            /* bytes of the message at next_send already sent */
    uint64_t *stamp;                        /* when each message in flight was due */
    uint32_t stamp_in, stamp_out, in_flight;
    uint64_t scheduled, issued;             /* open loop: messages due so far, of these sent */
};

static int epoll_fd;
static struct conn *conns;
static uint8_t buffer[READ_SIZE];
static struct histogram latency, last_arrival, lateness;
static uint64_t messages, received_bytes, mismatches, failures, lost, handshakes, pings, unanswered;
static uint32_t opened, ready_count, started, outstanding;
static int last_close_code;
static uint64_t random_state = 0x9E3779B97F4A7C15u;

static uint64_t next_random(void) { /* xorshift64 */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

/* ---- the measured window ---- */

static struct {
    uint64_t start, load_cpu, server_cpu, waited;
    double seconds, load_share, server_us, waited_share;
} window;

/* Nanoseconds that a process was ready to run but had no processor: others disturb the run. */
static uint64_t waited_ns(pid_t pid) {
    char path[48];
    unsigned long long ran, waited = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    if (fscanf(file, "%llu %llu", &ran, &waited) != 2) waited = 0;
    fclose(file);
    return waited;
}

static uint64_t waited_all(void) {
    uint64_t sum = waited_ns(getpid());
    for (int i = 0; i < opt.servers; i++) sum += waited_ns(opt.server_pid[i]);
    return sum;
}

static uint64_t server_cpu(void) {
    uint64_t sum = 0;
    for (int i = 0; i < opt.servers; i++) sum += clock_ns(opt.server[i]);
    return sum;
}

static void window_open(void) {
    histogram_clear(&latency);
    histogram_clear(&last_arrival);
    histogram_clear(&lateness);
    messages = received_bytes = handshakes = pings = 0;
    window.waited = waited_all();
    window.server_cpu = server_cpu();
    window.load_cpu = thread_cpu_ns();
    window.start = now_ns();
}

static void window_close(void) {
    uint64_t wall = now_ns() - window.start;
    window.seconds = (double)wall / 1e9;
    window.load_share = (double)(thread_cpu_ns() - window.load_cpu) / (double)wall;
    window.server_us = (double)(server_cpu() - window.server_cpu) / 1e3;
    window.waited_share = (double)(waited_all() - window.waited) / (double)wall;
}

/* ---- what echo sends: a ring of ready-made frames, so that any run of them is one send() ---- */

static struct {
    uint8_t *frames, *payloads;
    uint32_t count; /* distinct messages; the first --depth of them follow once more at the end */
    size_t frame_size;
    uint8_t first;
} ring;

/* Fills size bytes with text of the kind asked for, or with random bytes. */
static void fill_payload(uint8_t *p, size_t size, const char *kind) {
    static const struct {
        const char *name, *letters;
        size_t width, count;
    } kinds[] = {
        {"ascii", "abcdefghijklmnopqrstuvwxyz0123456789 {}\":,", 1, 42},
        {"latin", "\xC3\xA4\xC3\xB6\xC3\xBC\xC3\x9F\xC3\xA9\xD0\x96\xD1\x8F\xCE\xBB", 2, 8},
        {"cjk", "\xE4\xB8\xAD\xE6\x96\x87\xE6\xBC\xA2\xE5\xAD\x97\xE6\x97\xA5\xE6\x9C\xAC", 3, 6},
        {"emoji", "\xF0\x9F\x98\x80\xF0\x9F\x9A\x80\xF0\x9F\x8E\x89\xF0\x9F\x90\x8D", 4, 4},
    };
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        if (strcmp(kind, kinds[k].name) != 0) continue;
        size_t width = kinds[k].width, i = 0;
        for (; i + width <= size; i += width)
            memcpy(p + i, kinds[k].letters + width * (next_random() % kinds[k].count), width);
        memset(p + i, '.', size - i);
        return;
    }
    for (size_t i = 0; i < size; i++) p[i] = (uint8_t)(next_random() >> 24);
}

static bool is_binary(void) { return strcmp(opt.payload, "binary") == 0; }

/* Writes one masked frame; returns its length, at most len + 14. */
static size_t put_frame(uint8_t *p, uint8_t first, const uint8_t *payload, size_t len) {
    uint32_t key = (uint32_t)next_random() | 0x01010101; /* no byte of the key is zero */
    size_t n = put_frame_head(p, first, len);
    p[1] |= 0x80;
    memcpy(p + n, &key, 4);
    xor_mask(p + n + 4, payload, len, key);
    return n + 4 + len;
}

/* Ready-made payloads of opt.size bytes from a file; returns how many there are. */
static uint32_t load_payloads(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) die("--messages");
    size_t room = 1 << 20;
    ring.payloads = must(malloc(room));
    size_t len = fread(ring.payloads, 1, room, file);
    fclose(file);
    if (len < opt.size || len % opt.size != 0 || len == room) {
        fprintf(stderr, "--messages: %zu bytes are no multiple of --size, or over 1 MiB\n", len);
        exit(2);
    }
    return (uint32_t)(len / opt.size);
}

static void ring_setup(void) {
    size_t count = (256 * 1024) / (opt.size + 1);
    ring.count = count < 2 ? 2 : count > 64 ? 64 : (uint32_t)count;
    ring.first = 0x80 | (is_binary() && !opt.asks ? OP_BINARY : OP_TEXT);
    if (opt.asks) ring.count = MAX_ASKS / opt.asks * opt.asks;
    if (opt.messages != NULL) {
        ring.count = load_payloads(opt.messages);
        ring.first |= RSV1;
    } else {
        ring.payloads = must(malloc(ring.count * opt.size + 1));
    }
    ring.frames = must(malloc((ring.count + opt.depth) * (opt.size + 14)));
    uint8_t *p = ring.frames;
    for (uint32_t i = 0; i < ring.count + opt.depth; i++) {
        uint8_t *payload = ring.payloads + (i % ring.count) * opt.size;
        if (i < ring.count && opt.asks)
            memcpy(payload, opt.ask[i % opt.asks], opt.size);
        else if (i < ring.count && opt.messages == NULL)
            fill_payload(payload, opt.size, opt.payload);
        if (i < ring.count)
            ring.frame_size = put_frame(p, ring.first, payload, opt.size);
        else /* the same bytes: what was cut in the one may go on in the other */
            memcpy(p, ring.frames + (i % ring.count) * ring.frame_size, ring.frame_size);
        p += ring.frame_size;
    }
}

/* ---- sending ---- */

static void failed(struct conn *c, const char *what);

static ssize_t conn_send(struct conn *c, const void *data, size_t len) {
    return c->tls ? tls_send(c->tls, data, len) : send(c->fd, data, len, MSG_NOSIGNAL);
}

static ssize_t conn_recv(struct conn *c) {
    return c->tls ? tls_recv(c->tls, buffer, READ_SIZE) : recv(c->fd, buffer, READ_SIZE, 0);
}

static void watch_conn(struct conn *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(c - conns)};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event) != 0) die("epoll_ctl");
}

static void set_want_write(struct conn *c, bool want) {
    if (c->want_write == want) return;
    c->want_write = want;
    watch_conn(c, EPOLL_CTL_MOD, want ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Echo: sends what is due in one send(). */
static void pump(struct conn *c) {
    size_t len = c->to_send * ring.frame_size - c->sent;
    ssize_t n = conn_send(c, ring.frames + c->next_send * ring.frame_size + c->sent, len);
    if (n < 0) {
        if (errno != EAGAIN) {
            failed(c, "send");
            return;
        }
        n = 0;
    }
    uint32_t whole = c->to_send;
    if (LIKELY((size_t)n == len)) {
        c->sent = 0;
    } else {
        size_t done = c->sent + (size_t)n;
        whole = (uint32_t)(done / ring.frame_size);
        c->sent = done % ring.frame_size;
    }
    c->next_send = (c->next_send + whole) % ring.count;
    c->to_send -= whole;
    set_want_write(c, c->to_send > 0);
}

static void due(struct conn *c, uint32_t count, uint64_t now) {
    for (uint32_t i = 0; i < count; i++) {
        c->stamp[c->stamp_in] = now;
        if (++c->stamp_in == opt.depth) c->stamp_in = 0;
    }
    c->to_send += count;
    c->in_flight += count;
}

/* ---- open loop: message k of connection i is due at start + (k * connections + i) / rate ---- */

static struct {
    uint64_t start, next; /* next: messages of all connections that have become due */
    double gap;           /* nanoseconds between two of them */
} schedule;

static uint64_t due_time(uint64_t message) { return schedule.start + (uint64_t)((double)message * schedule.gap); }

/* Puts in flight what is due on a connection, as far as --depth allows. */
static void issue(struct conn *c) {
    uint32_t before = c->to_send;
    while (c->issued < c->scheduled && c->in_flight < opt.depth) {
        due(c, 1, due_time(c->issued * opt.connections + (uint64_t)(c - conns)));
        c->issued++;
    }
    if (c->to_send != before && !c->want_write) pump(c);
}

/* Everything that is due by now. */
static void issue_all(uint64_t now) {
    while (due_time(schedule.next) <= now) {
        struct conn *c = &conns[schedule.next % opt.connections];
        histogram_add(&lateness, now - due_time(schedule.next));
        schedule.next++;
        if (c->fd < 0) continue;
        c->scheduled++;
        issue(c);
    }
}

/* Other modes: one or a few small frames, which must fit the socket's buffer. */
static void send_now(struct conn *c, const uint8_t *data, size_t len) {
    if (conn_send(c, data, len) != (ssize_t)len) failed(c, "send");
}

static void send_frame(struct conn *c, uint8_t opcode, const void *payload, size_t len) {
    uint8_t *frame = must(malloc(len + 14));
    send_now(c, frame, put_frame(frame, 0x80 | opcode, payload, len));
    free(frame);
}

/* ---- opening ---- */

static void close_conn(struct conn *c) {
    if (c->tls) tls_close(c->tls);
    close(c->fd); /* leaves the epoll set with it */
    free(c->spill);
    uint64_t *stamp = c->stamp;
    memset(c, 0, sizeof *c);
    c->stamp = stamp;
    c->fd = -1;
}

static void failed(struct conn *c, const char *what) {
    if (failures + lost < 3) fprintf(stderr, "load: connection %ld: %s: %s\n", (long)(c - conns), what,
                                     errno ? strerror(errno) : "-");
    if (c->state == UPGRADING || c->state == GREETING) {
        failures++;
        outstanding--;
    } else {
        lost++;
    }
    close_conn(c);
}

static void key_of(const struct conn *c, char key[25]) {
    uint64_t raw[2] = {c->nonce, ~c->nonce};
    base64((const uint8_t *)raw, 16, key);
}

static int add_header(char *request, size_t room, int n, const char *name, const char *value) {
    if (value == NULL || (size_t)n >= room) return n;
    return n + snprintf(request + n, room - (size_t)n, "%s: %s\r\n", name, value);
}

static void send_request(struct conn *c) {
    char request[4096], key[25];
    key_of(c, key);
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
                     "Sec-WebSocket-Version: 13\r\n",
                     opt.path, opt.host, key);
    n = add_header(request, sizeof request, n, "Sec-WebSocket-Extensions", opt.deflate);
    n = add_header(request, sizeof request, n, "Sec-WebSocket-Protocol", opt.subprotocol);
    n = add_header(request, sizeof request, n, "Origin", opt.origin);
    if (n + 3 > (int)sizeof request) {
        fprintf(stderr, "load: the request is longer than %zu bytes\n", sizeof request);
        exit(2);
    }
    memcpy(request + n, "\r\n", 2);
    n += 2;
    ssize_t sent = conn_send(c, request, (size_t)n);
    if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
        /* TLS shakes hands first: after its first message it is the server's turn. */
        set_want_write(c, c->tls == NULL || !c->connected);
        return;
    }
    if (sent != n) {
        failed(c, "sending the request");
        return;
    }
    c->requested = true;
    set_want_write(c, false);
}

/* The last --stalled connections. */
static bool is_stalled(const struct conn *c) { return (uint32_t)(c - conns) >= opt.connections - opt.stalled; }

static void start_conn(struct conn *c) {
    started++;
    outstanding++;
    c->state = UPGRADING;
    c->nonce = next_random();
    c->since = now_ns();
    int family = opt.address.ss_family;
    if ((c->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0) die("socket");
    no_delay(c->fd);
    if (opt.source_len) {
        int one = 1; /* the port is chosen by connect(), which knows both ends */
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&opt.source, opt.source_len) != 0) die("--source");
    }
    if (is_stalled(c)) { /* the kernel shall hold little of what is not read */
        int room = 4096, segment = 536;
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    if (opt.mode == HANDSHAKE) { /* reset instead of close: no socket is left in TIME_WAIT */
        struct linger reset = {1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    watch_conn(c, EPOLL_CTL_ADD, EPOLLIN);
    if (opt.tls) c->tls = tls_open(c->fd);
    if (connect(c->fd, (struct sockaddr *)&opt.address, opt.address_len) != 0 && errno != EINPROGRESS)
        failed(c, "connect");
    else if (opt.tls)
        set_want_write(c, true); /* OpenSSL takes "not connected yet" for a failure */
    else
        send_request(c);
}

static void start_more(void) {
    while (outstanding < opt.opening && started < opt.connections) start_conn(&conns[started]);
}

static void now_ready(struct conn *c) {
    c->state = OPEN;
    outstanding--;
    ready_count++;
    if (is_stalled(c) && epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL) != 0) die("epoll_ctl");
}

/* Handshake mode: all that was to be done on this connection is done. */
static void handshake_done(struct conn *c, uint64_t now) {
    handshakes++;
    histogram_add(&latency, now - c->since);
    outstanding--;
    close_conn(c);
}

static void on_upgraded(struct conn *c, uint64_t now) {
    opened++;
    if (opt.mode == HANDSHAKE && opt.ready == NULL) {
        handshake_done(c, now);
        return;
    }
    c->state = GREETING;
    if (opt.hellos) {
        size_t room = 0, n = 0;
        for (int i = 0; i < opt.hellos; i++) room += strlen(opt.hello[i]) + 14;
        uint8_t *frames = must(malloc(room));
        for (int i = 0; i < opt.hellos; i++)
            n += put_frame(frames + n, 0x80 | OP_TEXT, (const uint8_t *)opt.hello[i],
                           strlen(opt.hello[i]));
        send_now(c, frames, n);
        free(frames);
    }
    if (opt.ready == NULL && c->state == GREETING) now_ready(c);
}

static void spill(struct conn *c, const uint8_t *data, size_t len) {
    if (c->spill_len + len > c->spill_size) {
        c->spill_size = c->spill_len + len + 512;
        c->spill = must(realloc(c->spill, c->spill_size));
    }
    memcpy(c->spill + c->spill_len, data, len);
    c->spill_len += len;
}

static void forget_spill(struct conn *c) {
    free(c->spill);
    c->spill = NULL;
    c->spill_len = c->spill_size = 0;
}

/* Whether the server took the extension that was offered, if one was. */
static bool agreed(const char *value, size_t len) {
    static const char name[] = "permessage-deflate";
    if (opt.deflate == NULL || value == NULL) return opt.deflate == NULL && value == NULL;
    return len >= sizeof name - 1 && memcmp(value, name, sizeof name - 1) == 0;
}

/* Reads the response head. Returns how many of the new bytes belong to it, -1 when it is wrong. */
static ssize_t read_response(struct conn *c, const uint8_t *data, size_t len) {
    size_t before = c->spill_len, head, value_len;
    spill(c, data, len);
    if ((head = head_length(c->spill, c->spill_len)) == 0) return c->spill_len > 16384 ? -1 : (ssize_t)len;
    char key[25], accept[29];
    key_of(c, key);
    accept_of(key, accept);
    const char *text = (const char *)c->spill;
    const char *value = header_value(text, head, "Sec-WebSocket-Accept", &value_len);
    bool good = head > 12 && memcmp(text, "HTTP/1.1 101", 12) == 0 && value != NULL &&
                value_len == 28 && memcmp(value, accept, 28) == 0 &&
                agreed(header_value(text, head, "Sec-WebSocket-Extensions", &value_len), value_len);
    if (!good && failures == 0) fprintf(stderr, "load: response %.*s\n", (int)head, text);
    forget_spill(c);
    if (!good) return -1;
    c->state = GREETING;
    return (ssize_t)(head - before);
}

/* ---- receiving ---- */

static uint64_t round_start;

/* A whole message in any mode but echo. */
static void on_message(struct conn *c, const uint8_t *data, size_t len, uint64_t now) {
    if (opt.ping != NULL && len == strlen(opt.ping) && memcmp(data, opt.ping, len) == 0) {
        pings++;
        send_frame(c, OP_TEXT, opt.pong, strlen(opt.pong));
        return;
    }
    if (c->state == GREETING) {
        if (opt.ready == NULL || memmem(data, len, opt.ready, strlen(opt.ready)) == NULL) return;
        if (opt.mode == HANDSHAKE)
            handshake_done(c, now);
        else
            now_ready(c);
        return;
    }
    if (opt.mode != FANOUT || round_start == 0) return;
    uint32_t count = 1;
    if (opt.match != NULL) {
        size_t n = strlen(opt.match);
        const uint8_t *p = data, *end = data + len;
        for (count = 0; (p = memmem(p, (size_t)(end - p), opt.match, n)) != NULL; p += n) count++;
        if (count == 0) return;
    }
    received_bytes += len;
    messages += count;
    while (count--) histogram_add(&latency, now - round_start);
}

static void on_control(struct conn *c, const uint8_t *data, size_t len) {
    uint8_t opcode = c->frame.first & 15;
    if (opcode == OP_PING) {
        pings++;
        send_frame(c, OP_PONG, data, len);
    }
    if (opcode == OP_CLOSE) {
        last_close_code = len >= 2 ? data[0] << 8 | data[1] : 1005;
        errno = 0;
        failed(c, "closed by the server");
    }
}

static void frame_done(struct conn *c, const uint8_t *data, size_t len, uint64_t now) {
    if (c->frame.first & 8)
        on_control(c, data, len);
    else
        on_message(c, data, len, now);
}

/* Whether the frame that is coming answers a message of the ring: not control, not the greeting. */
static bool is_answer(const struct conn *c) {
    return opt.mode == ECHO && c->state == OPEN && !(c->frame.first & 8);
}

/* What a connection has to get next. */
static const uint8_t *expected_answer(const struct conn *c) {
    if (opt.asks) return (const uint8_t *)opt.answer[c->next_recv % opt.asks];
    return ring.payloads + c->next_recv * opt.size;
}

static size_t expected_size(const struct conn *c) {
    return opt.asks ? strlen(opt.answer[c->next_recv % opt.asks]) : opt.size;
}

/* Part of an echo, beginning at offset of its payload. */
static void check_echo(const struct conn *c, const uint8_t *data, size_t len, uint64_t offset) {
    static uint32_t turn;
    const uint8_t *expected = expected_answer(c) + offset;
    if (offset == 0 && ++turn >= opt.verify) turn = 0;
    if (turn != 0) len = offset ? 0 : len < 16 ? len : 16;
    if (UNLIKELY(memcmp(data, expected, len) != 0)) mismatches++;
}

/* Takes in what one read brought. Returns the number of echoes completed. */
static uint32_t consume(struct conn *c, const uint8_t *p, size_t n, uint64_t now) {
    uint32_t echoes = 0;
    const uint8_t *end = p + n;
    while (c->fd >= 0) {
        if (!c->in_frame) {
            if (p == end) break;
            const uint8_t *head = p;
            size_t have = (size_t)(end - p), old = c->head_len;
            if (UNLIKELY(old)) {
                size_t take = have < sizeof c->head - old ? have : sizeof c->head - old;
                memcpy(c->head + old, p, take);
                head = c->head;
                have = old + take;
            }
            int known = parse_frame_head(head, have, false, &c->frame);
            bool compressed = known > 0 && c->frame.first & RSV1;
            if (compressed && opt.deflate == NULL) known = -1;
            if (known == 0) {
                memmove(c->head, head, have);
                c->head_len = (uint8_t)have;
                break;
            }
            if (known < 0 || !(c->frame.first & 0x80)) {
                errno = EPROTO;
                failed(c, "unexpected frame");
                break;
            }
            p += c->frame.size - old;
            c->head_len = 0;
            c->left = c->frame.len;
            c->in_frame = true;
            if (is_answer(c) &&
                (c->frame.first != ring.first || (!compressed && c->frame.len != expected_size(c)))) {
                mismatches++;
                errno = EPROTO;
                failed(c, "an echo of another type or length");
                break;
            }
        }
        size_t have = (size_t)(end - p);
        size_t take = have < c->left ? have : (size_t)c->left;
        if (is_answer(c)) {
            if (!(c->frame.first & RSV1)) check_echo(c, p, take, c->frame.len - c->left);
            received_bytes += take;
            p += take;
            if ((c->left -= take) != 0) break;
            c->in_frame = false;
            echoes++;
            if (++c->next_recv == ring.count) c->next_recv = 0;
            histogram_add(&latency, now - c->stamp[c->stamp_out]);
            if (++c->stamp_out == opt.depth) c->stamp_out = 0;
            continue;
        }
        if (take < c->left || c->spill_len) spill(c, p, take);
        const uint8_t *payload = p;
        p += take;
        if ((c->left -= take) != 0) break;
        c->in_frame = false;
        if (c->spill_len) {
            frame_done(c, c->spill, c->spill_len, now);
            if (c->fd >= 0) forget_spill(c);
        } else {
            frame_done(c, payload, take, now);
        }
    }
    return echoes;
}

static void on_readable(struct conn *c) {
    if (UNLIKELY(c->tls != NULL && !c->requested)) {
        send_request(c); /* goes on with the TLS handshake */
        return;
    }
    ssize_t n = conn_recv(c);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        if (n == 0) errno = 0;
        failed(c, "connection lost");
        return;
    }
    uint64_t now = now_ns();
    const uint8_t *data = buffer;
    if (UNLIKELY(c->state == UPGRADING)) {
        ssize_t used = read_response(c, data, (size_t)n);
        if (used < 0) {
            errno = EPROTO;
            failed(c, "handshake refused");
            return;
        }
        if (c->state == UPGRADING) return;
        on_upgraded(c, now);
        if (c->fd < 0) return;
        data += used;
        n -= used;
    }
    uint32_t echoes = consume(c, data, (size_t)n, now);
    if (echoes && c->fd >= 0) {
        messages += echoes;
        c->in_flight -= echoes;
        if (opt.rate > 0) {
            issue(c);
            return;
        }
        due(c, echoes, now);
        if (!c->want_write) pump(c);
    }
}

/* ---- running ---- */

static bool input_seen;
static volatile sig_atomic_t interrupted;
static uint64_t next_progress;

static void on_interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}

static void progress(uint64_t now) {
    if (now < next_progress) return;
    if (next_progress)
        printf("{\"event\": \"progress\", \"count\": %llu}\n",
               (unsigned long long)(opt.mode == HANDSHAKE ? handshakes : opt.mode == IDLE ? pings : messages));
    fflush(stdout);
    next_progress = now + SECOND / 5;
}

/* Handles what happens within timeout nanoseconds, one batch of events. */
static void turn(uint64_t timeout) {
    struct epoll_event events[EVENTS];
    int wait_ms = (int)((timeout + 999999) / 1000000);
    if (opt.rate > 0 && schedule.start) { /* epoll_wait() would sleep whole milliseconds */
        struct pollfd waiting = {.fd = epoll_fd, .events = POLLIN};
        struct timespec limit = {.tv_sec = (time_t)(timeout / SECOND), .tv_nsec = (long)(timeout % SECOND)};
        ppoll(&waiting, 1, &limit, NULL);
        wait_ms = 0;
    }
    int n = epoll_wait(epoll_fd, events, EVENTS, wait_ms);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == STDIN) {
            input_seen = true;
            continue;
        }
        struct conn *c = &conns[events[i].data.u32];
        if (c->fd < 0) continue;
        if (c->want_write && (events[i].events & EPOLLOUT)) {
            c->connected = true;
            if (c->state == UPGRADING)
                send_request(c);
            else
                pump(c);
            if (c->fd < 0) continue;
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
    }
}

static void run_until(uint64_t deadline) {
    for (uint64_t now = now_ns(); now < deadline && !interrupted; now = now_ns()) {
        uint64_t until = deadline;
        if (opt.rate > 0 && schedule.start) {
            issue_all(now);
            if (due_time(schedule.next) < until) until = due_time(schedule.next);
            now = now_ns();
        }
        if (opt.control) {
            progress(now);
            if (next_progress < until) until = next_progress;
        }
        turn(until > now ? until - now : 0);
    }
}

/* What was due in an open loop and has no answer yet counts with its age. */
static void count_unanswered(uint64_t now) {
    for (uint32_t i = 0; i < opt.connections; i++) {
        struct conn *c = &conns[i];
        for (uint32_t k = 0, at = c->stamp_out; k < c->in_flight; k++, at = (at + 1) % opt.depth) {
            histogram_add(&latency, now - c->stamp[at]);
            unanswered++;
        }
        for (uint64_t k = c->issued; k < c->scheduled; k++) {
            histogram_add(&latency, now - due_time(k * opt.connections + i));
            unanswered++;
        }
    }
}

/* The other processes have to open their connections too; pings are answered meanwhile. */
static void wait_for_start(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = STDIN};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event) != 0) die("--control: standard input must be a pipe");
    while (!input_seen) turn(SECOND);
    input_seen = false;
    char line[64];
    if (read(0, line, sizeof line) <= 0) exit(1);
    if (opt.mode != IDLE && epoll_ctl(epoll_fd, EPOLL_CTL_DEL, 0, NULL) != 0) die("epoll_ctl");
    signal(SIGINT, on_interrupt);
}

static void open_all(void) {
    uint64_t begin = now_ns();
    while (ready_count < opt.connections) {
        start_more();
        turn(SECOND / 10);
        if (failures || lost) {
            fprintf(stderr, "load: only %u of %u connections could be opened\n", opened, opt.connections);
            exit(1);
        }
        if (now_ns() - begin > opt.timeout) {
            fprintf(stderr, "load: %u of %u connections open, %u ready after %.0f s\n", opened,
                    opt.connections, ready_count, (double)opt.timeout / 1e9);
            exit(1);
        }
    }
    if (opt.mode != ECHO || opt.control) {
        double seconds = (double)(now_ns() - begin) / 1e9;
        printf("{\"event\": \"ready\", \"connections\": %u, \"seconds\": %.3f}\n", ready_count, seconds);
        fflush(stdout);
    }
    if (opt.control) wait_for_start();
}

static void print_common(const char *mode, const char *unit, uint64_t count) {
    double n = count ? (double)count : 1;
    printf("{\"mode\": \"%s\", \"connections\": %u, \"seconds\": %.4f, \"%s\": %llu, "
           "\"per_second\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
           "\"max_us\": %.1f, \"load_cpu\": %.3f, \"load_saturated\": %s, \"load_cpu_us\": %.4f, "
           "\"waited\": %.3f, \"pings\": %llu, \"failures\": %llu, \"lost\": %llu, \"mismatches\": %llu",
           mode, opt.connections, window.seconds, unit, (unsigned long long)count,
           (double)count / window.seconds, histogram_us(&latency, 0.5), histogram_us(&latency, 0.99),
           histogram_us(&latency, 0.999), (double)latency.max / 1e3, window.load_share,
           window.load_share > 0.95 ? "true" : "false", window.load_share * window.seconds * 1e6 / n,
           window.waited_share, (unsigned long long)pings, (unsigned long long)failures, (unsigned long long)lost, (unsigned long long)mismatches);
    if (opt.servers)
        printf(", \"server_cpu\": %.3f, \"server_cpu_us\": %.4f", window.server_us / window.seconds / 1e6,
               window.server_us / n);
    if (last_close_code) printf(", \"close_code\": %d", last_close_code);
    if (opt.rate > 0)
        printf(", \"rate\": %.1f, \"unanswered\": %llu, \"late_p99_us\": %.1f", opt.rate,
               (unsigned long long)unanswered, histogram_us(&lateness, 0.99));
    if (opt.buckets) {
        printf(", \"buckets\": ");
        histogram_print(&latency);
    }
}

static void run_echo(void) {
    ring_setup();
    for (uint32_t i = 0; i < opt.connections; i++)
        conns[i].stamp = must(calloc(opt.depth, sizeof(uint64_t)));
    open_all();
    for (uint32_t i = 0; i < opt.connections; i++) {
        conns[i].next_send = conns[i].next_recv = i % ring.count;
        if (opt.rate > 0) continue;
        due(&conns[i], opt.depth, now_ns());
        pump(&conns[i]);
    }
    schedule.gap = opt.rate > 0 ? 1e9 / opt.rate : 0;
    schedule.start = now_ns();
    run_until(now_ns() + opt.warmup);
    window_open();
    run_until(now_ns() + opt.duration);
    window_close();
    if (opt.rate > 0) count_unanswered(now_ns());
    print_common("echo", "messages", messages);
    printf(", \"depth\": %u, \"size\": %zu, \"payload\": \"%s\", \"answer_bytes\": %.1f}\n", opt.depth, opt.size,
           opt.payload, messages ? (double)received_bytes / (double)messages : 0.0);
}

static void run_idle(void) {
    open_all();
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = STDIN};
    if (!opt.control && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event) != 0)
        die("standard input must be a pipe");
    window_open();
    uint64_t end = window.start + opt.duration;
    while (!input_seen && !interrupted && !(opt.control && now_ns() > end)) {
        turn(SECOND / 5);
        if (opt.control) progress(now_ns());
    }
    window_close();
    print_common("idle", "open", ready_count - lost);
    printf("}\n");
}

static void run_handshake(void) {
    if (opt.control) {
        printf("{\"event\": \"ready\", \"connections\": 0, \"seconds\": 0}\n");
        fflush(stdout);
        wait_for_start();
    }
    uint64_t begin = now_ns(), end = begin + opt.warmup + opt.duration;
    bool measured = false;
    for (uint64_t now = begin; now < end && !interrupted; now = now_ns()) {
        if (opt.control) progress(now);
        if (!measured && now >= begin + opt.warmup) {
            window_open();
            measured = true;
        }
        for (uint32_t i = 0; i < opt.opening; i++)
            if (conns[i].fd < 0) start_conn(&conns[i]);
        turn(end - now);
    }
    if (!measured) window_open();
    window_close();
    print_common("handshake", "handshakes", handshakes);
    printf(", \"opening\": %u}\n", opt.opening);
}

static int raw_fd = -1;

static uint8_t *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) die(path);
    uint8_t *data = must(malloc(1 << 20));
    *len = fread(data, 1, 1 << 20, file);
    fclose(file);
    return data;
}

/* Opens the connection of --publish-raw, says --publish-hello and returns what to publish. */
static uint8_t *raw_setup(size_t *len) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.publish_port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if ((raw_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) die("socket");
    no_delay(raw_fd);
    if (connect(raw_fd, (struct sockaddr *)&address, sizeof address) != 0) die("--publish-port");
    if (opt.publish_hello != NULL) {
        uint8_t *hello = read_file(opt.publish_hello, len);
        if (send(raw_fd, hello, *len, MSG_NOSIGNAL) != (ssize_t)*len) die("--publish-hello");
        free(hello);
        if (recv(raw_fd, buffer, READ_SIZE, 0) <= 0) die("--publish-hello");
    }
    return read_file(opt.publish_raw, len);
}

static void publish(const uint8_t *frames, size_t len) {
    if (raw_fd < 0) {
        send_now(&conns[0], frames, len);
        return;
    }
    while (recv(raw_fd, buffer, READ_SIZE, MSG_DONTWAIT) > 0) continue; /* answers to those before */
    for (uint32_t i = 0; i < opt.burst; i++)
        if (send(raw_fd, frames, len, MSG_NOSIGNAL) != (ssize_t)len) die("publishing");
}

/* One publication (or --burst of them in one send) and its way to everybody. It was due at begin. */
static bool run_round(const uint8_t *frames, size_t len, uint64_t begin) {
    uint64_t wanted = messages + (uint64_t)(ready_count - opt.stalled) * opt.burst;
    round_start = begin;
    uint64_t give_up = now_ns() + opt.timeout;
    publish(frames, len);
    while (messages < wanted && lost == 0) {
        turn(SECOND);
        if (now_ns() > give_up) break;
    }
    histogram_add(&last_arrival, now_ns() - round_start);
    if (messages < wanted) {
        fprintf(stderr, "load: %llu deliveries are missing\n", (unsigned long long)(wanted - messages));
        return false;
    }
    return true;
}

/* When the round after one that was due at that time is due. */
static uint64_t next_round(uint64_t at) { return opt.interval ? at + opt.interval : now_ns(); }

static void run_fanout(void) {
    size_t size = opt.publish ? strlen(opt.publish) : opt.size, len = 0;
    uint8_t *text = must(malloc(size + 1)), *frames = must(malloc((size + 14) * opt.burst));
    uint64_t at;
    uint8_t first = 0x80 | (opt.publish || !is_binary() ? OP_TEXT : OP_BINARY);
    if (opt.publish)
        memcpy(text, opt.publish, size);
    else
        fill_payload(text, size, opt.payload);
    for (uint32_t i = 0; i < opt.burst; i++) len += put_frame(frames + len, first, text, size);
    open_all();
    if (opt.publish_raw != NULL) {
        free(frames);
        frames = raw_setup(&len);
    }
    run_until(now_ns() + opt.warmup);
    bool complete = true;
    uint32_t rounds = 0;
    at = now_ns();
    for (uint32_t i = 0; i < opt.warmup_rounds && complete; i++) {
        complete = run_round(frames, len, at);
        run_until(at = next_round(at));
    }
    window_open();
    /* A slow server needs not all rounds for a figure; some it always needs. */
    while (complete && rounds < opt.rounds &&
           (rounds < 3 || now_ns() - window.start < opt.duration)) {
        complete = run_round(frames, len, at);
        rounds++;
        if (rounds < opt.rounds) run_until(at = next_round(at));
    }
    window_close();
    print_common("fanout", "deliveries", messages);
    printf(", \"rounds\": %u, \"burst\": %u, \"complete\": %s, \"bytes_per_delivery\": %.1f, "
           "\"last_p50_us\": %.1f, \"last_max_us\": %.1f, \"stalled\": %u}\n",
           rounds, opt.burst, complete ? "true" : "false",
           messages ? (double)received_bytes / (double)messages : 0.0, histogram_us(&last_arrival, 0.5),
           (double)last_arrival.max / 1e3, opt.stalled);
}

/* ---- command line ---- */

static uint64_t seconds_argument(const char *name, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (*text == 0 || *end != 0 || !(value >= 0 && value <= 86400)) {
        fprintf(stderr, "--%s: expected seconds, not '%s'\n", name, text);
        exit(2);
    }
    return (uint64_t)(value * 1e9);
}

static double rate_argument(const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (*text == 0 || *end != 0 || !(value > 0 && value <= 1e9)) {
        fprintf(stderr, "--rate: expected messages a second, not '%s'\n", text);
        exit(2);
    }
    return value;
}

static socklen_t parse_address(const char *name, const char *text, struct sockaddr_storage *address) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(text, NULL, &hints, &found) != 0) {
        fprintf(stderr, "--%s: expected an IP address, not '%s'\n", name, text);
        exit(2);
    }
    socklen_t len = found->ai_addrlen;
    memcpy(address, found->ai_addr, len);
    freeaddrinfo(found);
    return len;
}

static const struct option options[] = {
    {"mode", 1, NULL, 'm'},       {"port", 1, NULL, 'p'},     {"path", 1, NULL, 'P'},
    {"connections", 1, NULL, 'c'}, {"depth", 1, NULL, 'd'},    {"size", 1, NULL, 's'},
    {"payload", 1, NULL, 'k'},    {"warmup", 1, NULL, 'w'},   {"duration", 1, NULL, 't'},
    {"timeout", 1, NULL, 'T'},    {"opening", 1, NULL, 'o'},  {"verify", 1, NULL, 'v'},
    {"pid", 1, NULL, 'i'},        {"hello", 1, NULL, 'h'},    {"ready", 1, NULL, 'r'},
    {"match", 1, NULL, 'M'},      {"publish", 1, NULL, 'b'},  {"interval", 1, NULL, 'I'},
    {"burst", 1, NULL, 'B'},      {"rounds", 1, NULL, 'R'},   {"warmup-rounds", 1, NULL, 'W'},
    {"tls", 0, NULL, 'S'},        {"deflate", 1, NULL, 'D'},  {"messages", 1, NULL, 'F'},
    {"ask", 1, NULL, 'e'},        {"answer", 1, NULL, 'E'},
    {"address", 1, NULL, 'a'},    {"host", 1, NULL, 'H'},     {"rate", 1, NULL, 'q'},
    {"ca", 1, NULL, 'C'},         {"verify-tls", 0, NULL, 'V'}, {"control", 0, NULL, 'K'},
    {"buckets", 0, NULL, 'u'},    {"source", 1, NULL, 'O'},   {"stalled", 1, NULL, 'L'},
    {"ping", 1, NULL, 'g'},       {"pong", 1, NULL, 'G'},     {"publish-raw", 1, NULL, 'x'},
    {"publish-port", 1, NULL, 'X'}, {"publish-hello", 1, NULL, 'y'}, {"subprotocol", 1, NULL, 'U'}, {"origin", 1, NULL, 'Y'},
    {0}};

static void parse_mode(const char *text) {
    static const char *names[] = {"echo", "idle", "handshake", "fanout"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) != 0) continue;
        opt.mode = (enum mode)i;
        return;
    }
    fprintf(stderr, "--mode: echo, idle, handshake or fanout, not '%s'\n", text);
    exit(2);
}

static void parse_payload(const char *text) {
    static const char *names[] = {"binary", "ascii", "latin", "cjk", "emoji"};
    for (int i = 0; i < 5; i++)
        if (strcmp(text, names[i]) == 0) {
            opt.payload = names[i];
            return;
        }
    fprintf(stderr, "--payload: binary, ascii, latin, cjk or emoji, not '%s'\n", text);
    exit(2);
}

static void add_server(const char *text) {
    pid_t pid = (pid_t)number_argument("--pid", text, 1, 1 << 22);
    if (opt.servers == MAX_PIDS) die("too many --pid");
    if ((errno = clock_getcpuclockid(pid, &opt.server[opt.servers])) != 0) die("--pid");
    opt.server_pid[opt.servers++] = pid;
}

static void check_asks(void) {
    if (opt.asks != opt.answers) {
        fprintf(stderr, "--ask and --answer: as many of the one as of the other\n");
        exit(2);
    }
    if (opt.asks) opt.size = strlen(opt.ask[0]);
    for (uint32_t i = 0; i < opt.asks; i++) {
        if (strlen(opt.ask[i]) == opt.size && opt.size > 0) continue;
        fprintf(stderr, "--ask: all of one length\n");
        exit(2);
    }
}

static void parse_arguments(int argc, char **argv) {
    int option, index;
    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (option == '?') exit(2);
        const char *name = options[index].name;
        switch (option) {
        case 'm': parse_mode(optarg); break;
        case 'p': opt.port = (int)number_argument(name, optarg, 1, 65535); break;
        case 'P': opt.path = optarg; break;
        case 'c': opt.connections = (uint32_t)number_argument(name, optarg, 1, 1000000); break;
        case 'd': opt.depth = (uint32_t)number_argument(name, optarg, 1, 4096); break;
        case 's': opt.size = (size_t)number_argument(name, optarg, 0, 64 << 20); break;
        case 'k': parse_payload(optarg); break;
        case 'w': opt.warmup = seconds_argument(name, optarg); break;
        case 't': opt.duration = seconds_argument(name, optarg); break;
        case 'T': opt.timeout = seconds_argument(name, optarg); break;
        case 'o': opt.opening = (uint32_t)number_argument(name, optarg, 1, 10000); break;
        case 'v': opt.verify = (uint32_t)number_argument(name, optarg, 1, 1 << 30); break;
        case 'i': add_server(optarg); break;
        case 'h':
            if (opt.hellos == MAX_HELLO) die("too many --hello");
            opt.hello[opt.hellos++] = optarg;
            break;
        case 'r': opt.ready = optarg; break;
        case 'M': opt.match = optarg; break;
        case 'b': opt.publish = optarg; break;
        case 'I': opt.interval = seconds_argument(name, optarg); break;
        case 'B': opt.burst = (uint32_t)number_argument(name, optarg, 1, 1024); break;
        case 'R': opt.rounds = (uint32_t)number_argument(name, optarg, 1, 1000000); break;
        case 'S': opt.tls = true; break;
        case 'D': opt.deflate = optarg; break;
        case 'F': opt.messages = optarg; break;
        case 'e':
            if (opt.asks == MAX_ASKS) die("too many --ask");
            opt.ask[opt.asks++] = optarg;
            break;
        case 'E':
            if (opt.answers == MAX_ASKS) die("too many --answer");
            opt.answer[opt.answers++] = optarg;
            break;
        case 'a': opt.address_len = parse_address(name, optarg, &opt.address); break;
        case 'O': opt.source_len = parse_address(name, optarg, &opt.source); break;
        case 'H': opt.host = optarg; break;
        case 'q': opt.rate = rate_argument(optarg); break;
        case 'C': opt.ca = optarg; break;
        case 'V': opt.insecure = false; break;
        case 'K': opt.control = true; break;
        case 'u': opt.buckets = true; break;
        case 'L': opt.stalled = (uint32_t)number_argument(name, optarg, 0, 1000000); break;
        case 'g': opt.ping = optarg; break;
        case 'G': opt.pong = optarg; break;
        case 'x': opt.publish_raw = optarg; break;
        case 'y': opt.publish_hello = optarg; break;
        case 'X': opt.publish_port = (int)number_argument(name, optarg, 1, 65535); break;
        case 'U': opt.subprotocol = optarg; break;
        case 'Y': opt.origin = optarg; break;
        case 'W': opt.warmup_rounds = (uint32_t)number_argument(name, optarg, 0, 1000); break;
        }
    }
    check_asks();
    if (opt.verify == 0) opt.verify = opt.size <= 4096 ? 1 : 8;
    if (opt.mode == HANDSHAKE) opt.connections = opt.opening;
    if (opt.messages != NULL && opt.deflate == NULL) {
        fprintf(stderr, "--messages goes with --deflate\n");
        exit(2);
    }
    if ((opt.ping == NULL) != (opt.pong == NULL) || opt.stalled >= opt.connections ||
        (opt.publish_raw != NULL && opt.publish_port == 0)) {
        fprintf(stderr, "--ping goes with --pong, --publish-raw with --publish-port; "
                        "--stalled is less than --connections\n");
        exit(2);
    }
    static char host[32];
    if (opt.address_len == 0) opt.address_len = parse_address("--address", "127.0.0.1", &opt.address);
    if (opt.host == NULL) {
        snprintf(host, sizeof host, "127.0.0.1:%d", opt.port);
        opt.host = host;
    }
    /* The port is at the same place in both families. */
    ((struct sockaddr_in *)&opt.address)->sin_port = htons((uint16_t)opt.port);
    if (opt.tls) tls_setup(opt.host, !opt.insecure, opt.ca);
}

int main(int argc, char **argv) {
    parse_arguments(argc, argv);
    process_setup();
    struct timespec seed;
    clock_gettime(CLOCK_REALTIME, &seed);
    random_state ^= (uint64_t)seed.tv_nsec << 20 | (uint64_t)getpid();
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    conns = must(calloc(opt.connections, sizeof *conns));
    for (uint32_t i = 0; i < opt.connections; i++) conns[i].fd = -1;
    switch (opt.mode) {
    case ECHO: run_echo(); break;
    case IDLE: run_idle(); break;
    case HANDSHAKE: run_handshake(); break;
    case FANOUT: run_fanout(); break;
    }
    return 0;
}

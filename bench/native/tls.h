/* TLS of the load generator: OpenSSL on non-blocking sockets, with the manners of send() and recv().
 *
 * Without OpenSSL's headers (Debian: libssl-dev) --tls says so, and all else works.
 */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include "ws.h"

#ifdef HAVE_OPENSSL
#include <openssl/err.h>
#include <openssl/ssl.h>

typedef SSL tls_conn;
static SSL_CTX *tls_context;

static char tls_name[256]; /* of the server, without its port */
static bool tls_verify;

/* One context for all connections to a server called host, a name or address that may have a port.
 * Its certificate is checked if verify says so, against those in the file ca or the system's. */
static void tls_setup(const char *host, bool verify, const char *ca) {
    snprintf(tls_name, sizeof tls_name, "%s", *host == '[' ? host + 1 : host);
    char *end = *host == '[' ? strchr(tls_name, ']') : strrchr(tls_name, ':');
    if (end != NULL) *end = 0;
    tls_verify = verify;
    tls_context = must(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(tls_context, 1);
    SSL_CTX_set_session_cache_mode(tls_context, SSL_SESS_CACHE_OFF);
    if (!verify) return;
    SSL_CTX_set_verify(tls_context, SSL_VERIFY_PEER, NULL);
    if ((ca ? SSL_CTX_load_verify_locations(tls_context, ca, NULL)
            : SSL_CTX_set_default_verify_paths(tls_context)) != 1) {
        fprintf(stderr, "load: no certificates in %s\n", ca ? ca : "the system's store");
        exit(2);
    }
}

static tls_conn *tls_open(int fd) {
    SSL *tls = must(SSL_new(tls_context));
    SSL_set_fd(tls, fd);
    unsigned char address[16];
    bool is_address = inet_pton(AF_INET, tls_name, address) == 1 || inet_pton(AF_INET6, tls_name, address) == 1;
    if (!is_address) SSL_set_tlsext_host_name(tls, tls_name);
    if (tls_verify && is_address)
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), tls_name);
    else if (tls_verify)
        SSL_set1_host(tls, tls_name);
    SSL_set_connect_state(tls);
    return tls;
}

static void tls_close(tls_conn *tls) { SSL_free(tls); }

/* What a failed call means, as errno. */
static ssize_t tls_result(SSL *tls, int result) {
    switch (SSL_get_error(tls, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL:
        if (errno == 0) errno = EPIPE;
        return -1;
    default: ERR_print_errors_fp(stderr); errno = EPROTO; return -1;
    }
}

static ssize_t tls_send(tls_conn *tls, const void *data, size_t len) {
    size_t sent;
    ERR_clear_error();
    int result = SSL_write_ex(tls, data, len, &sent);
    return result > 0 ? (ssize_t)sent : tls_result(tls, result);
}

/* As much as there is: epoll does not know of what OpenSSL has read already. */
static ssize_t tls_recv(tls_conn *tls, uint8_t *data, size_t room) {
    size_t filled = 0, got;
    ERR_clear_error();
    while (filled < room) {
        int result = SSL_read_ex(tls, data + filled, room - filled, &got);
        if (result <= 0) {
            ssize_t code = tls_result(tls, result);
            return filled ? (ssize_t)filled : code;
        }
        filled += got;
        if (!SSL_has_pending(tls)) break;
    }
    return (ssize_t)filled;
}

#else

typedef void tls_conn;

__attribute__((noreturn)) static void tls_setup(const char *host, bool verify, const char *ca) {
    (void)host, (void)verify, (void)ca;
    fprintf(stderr, "load: built without OpenSSL (Debian: apt install libssl-dev), no --tls\n");
    exit(2);
}

static tls_conn *tls_open(int fd) { (void)fd; return NULL; }
static void tls_close(tls_conn *tls) { (void)tls; }
static ssize_t tls_send(tls_conn *tls, const void *data, size_t len) { (void)tls, (void)data, (void)len; return -1; }
static ssize_t tls_recv(tls_conn *tls, uint8_t *data, size_t room) { (void)tls, (void)data, (void)room; return -1; }

#endif
#endif

/* Latencies in nanoseconds, in logarithmic buckets: 64 to each power of two, so at most 1.6 % off. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct histogram {
    uint64_t count[59 * 64];
    uint64_t total, max;
};

static inline void histogram_add(struct histogram *h, uint64_t value) {
    uint32_t index = (uint32_t)value;
    if (value >= 64) {
        uint32_t exponent = 63 - (uint32_t)__builtin_clzll(value);
        index = (exponent - 5) * 64 + ((value >> (exponent - 6)) & 63);
    }
    h->count[index]++;
    h->total++;
    if (value > h->max) h->max = value;
}

/* Upper edge of a bucket, in nanoseconds. */
static inline uint64_t histogram_edge(uint32_t i) {
    return i < 64 ? i : ((uint64_t)(64 + (i & 63)) + 1) << (i / 64 - 1);
}

/* Upper edge of the bucket that holds the given share (0 to 1), in microseconds; 0 when empty. */
static inline double histogram_us(const struct histogram *h, double share) {
    uint64_t wanted = (uint64_t)(share * (double)h->total + 0.5), seen = 0;
    if (h->total == 0) return 0;
    if (wanted == 0) wanted = 1;
    for (uint32_t i = 0; i < sizeof h->count / sizeof h->count[0]; i++) {
        seen += h->count[i];
        if (seen < wanted) continue;
        uint64_t edge = histogram_edge(i);
        return (double)(edge < h->max ? edge : h->max) / 1e3;
    }
    return (double)h->max / 1e3;
}

/* [[upper edge in nanoseconds, count], ...] of the buckets that hold something. */
static inline void histogram_print(const struct histogram *h) {
    bool first = true;
    printf("[");
    for (uint32_t i = 0; i < sizeof h->count / sizeof h->count[0]; i++) {
        if (h->count[i] == 0) continue;
        printf("%s[%llu, %llu]", first ? "" : ", ", (unsigned long long)histogram_edge(i),
               (unsigned long long)h->count[i]);
        first = false;
    }
    printf("]");
}

static inline void histogram_clear(struct histogram *h) { memset(h, 0, sizeof *h); }

#endif

/* Which kernels this processor can run, and the one in use.

   A kernel is a table of functions for one instruction set.  The choice is made once, by
   fastws_kernels_init(), before any thread calls another function of this folder; until then the
   portable kernel is in use, so nothing here can be called too early. */
#ifndef FASTWS_CPU_H
#define FASTWS_CPU_H

#include "platform.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dst == src, or the two do not overlap.  key: four mask bytes in memory order. */
typedef void (*fastws_mask_fn)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key);
/* The same; non-zero when an unmasked byte was >= 0x80. */
typedef int (*fastws_mask_ascii_fn)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key);
/* 0 when the n bytes are whole, valid UTF-8, else -1. */
typedef int (*fastws_utf8_valid_fn)(const uint8_t *p, size_t n);
typedef void (*fastws_utf8_scan_fn)(const uint8_t *p, size_t n, size_t *code_points,
                                    uint8_t *max_byte);
/* 0 when the n bytes are valid UTF-8 of exactly out_len code points that fit, else -1. */
typedef int (*fastws_utf8_convert_fn)(const uint8_t *p, size_t n, void *out, size_t out_len);

typedef struct {
    const char *name;
    fastws_mask_fn mask;
    fastws_mask_ascii_fn mask_ascii;
    fastws_utf8_valid_fn utf8_valid;
    fastws_utf8_scan_fn utf8_scan;
    fastws_utf8_convert_fn utf8_to_latin1;
    fastws_utf8_convert_fn utf8_to_ucs2;
    fastws_utf8_convert_fn utf8_to_ucs4;
    int utf8_vectors; /* 0: its UTF-8 goes byte by byte, and CPython decodes long text faster */
} fastws_kernel;

/* The kernel in use; never NULL. */
extern const fastws_kernel *fastws_active_kernel;

#define FASTWS_KERNEL_OK 0
#define FASTWS_KERNEL_UNKNOWN (-1)     /* no kernel of that name exists */
#define FASTWS_KERNEL_UNSUPPORTED (-2) /* it exists, but not for this processor or this build */

/* Choose the kernel: by name, or the best one for NULL, "" and "auto".  A name that cannot be had
   is reported through the result, and the best kernel is in use all the same. */
int fastws_kernels_init(const char *force);

/* Name of the kernel in use: "portable", "sse2", "ssse3", "avx2", "avx512" or "neon". */
const char *fastws_kernel_name(void);

/* 1 when the kernel of that name can run here, else 0. */
int fastws_kernel_available(const char *name);

/* Names of the kernels that can run here, slowest first: writes at most `max` of them, returns how
   many there are. */
size_t fastws_kernel_list(const char **names, size_t max);

/* One kernel by name, or NULL when it cannot run here.  For tests and benchmarks. */
const fastws_kernel *fastws_kernel_by_name(const char *name);
fastws_mask_fn fastws_mask_by_name(const char *name);

#ifdef __cplusplus
}
#endif

#endif

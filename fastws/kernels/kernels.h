/* Internal: the functions that cpu.c puts into its tables. */
#ifndef FASTWS_KERNELS_H
#define FASTWS_KERNELS_H

#include "cpu.h"

#define FASTWS_MASK_FUNCTIONS(isa)                                                              \
    void fastws_mask_##isa(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key);           \
    int fastws_mask_ascii_##isa(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)

#define FASTWS_UTF8_FUNCTIONS(isa)                                                              \
    int fastws_utf8_valid_##isa(const uint8_t *p, size_t n);                                    \
    void fastws_utf8_scan_##isa(const uint8_t *p, size_t n, size_t *code_points,                \
                                uint8_t *max_byte);                                             \
    int fastws_utf8_to_latin1_##isa(const uint8_t *p, size_t n, void *out, size_t out_len);     \
    int fastws_utf8_to_ucs2_##isa(const uint8_t *p, size_t n, void *out, size_t out_len);       \
    int fastws_utf8_to_ucs4_##isa(const uint8_t *p, size_t n, void *out, size_t out_len)

FASTWS_MASK_FUNCTIONS(portable);
FASTWS_UTF8_FUNCTIONS(portable);
#if FASTWS_X86
FASTWS_MASK_FUNCTIONS(sse2);
FASTWS_MASK_FUNCTIONS(avx2);
FASTWS_UTF8_FUNCTIONS(ssse3);
FASTWS_UTF8_FUNCTIONS(avx2);
#endif
#if FASTWS_AVX512
FASTWS_MASK_FUNCTIONS(avx512);
FASTWS_UTF8_FUNCTIONS(avx512);
#endif
#if FASTWS_NEON
FASTWS_MASK_FUNCTIONS(neon);
FASTWS_UTF8_FUNCTIONS(neon);
#endif

#endif

/* UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef FASTWS_UTF8_H
#define FASTWS_UTF8_H

#include "cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Validator for text that comes in pieces cut anywhere (RFC 6455 8.1: across frames and reads). */
typedef struct {
    uint8_t need; /* continuation bytes that the open code point still wants, 0 to 3 */
    uint8_t low;  /* range of the next one: narrower than 80..BF after E0, ED, F0 and F4 */
    uint8_t high;
    uint8_t bad; /* invalid for good */
} fastws_utf8;

FASTWS_INLINE void fastws_utf8_init(fastws_utf8 *state)
{
    memset(state, 0, sizeof *state);
}

/* Add n bytes.  0 as long as the text can still become valid; -1 in the call that brings the first
   byte that makes it invalid, and in every call after that. */
int fastws_utf8_feed(fastws_utf8 *state, const uint8_t *p, size_t n);

/* 0 when the text so far is valid and ends at a code point, else -1. */
FASTWS_INLINE int fastws_utf8_finish(const fastws_utf8 *state)
{
    return state->bad || state->need ? -1 : 0;
}

/* One look at n bytes, valid or not: how many are not continuation bytes (in valid text: the number
   of code points) and the greatest byte (0 for n == 0).  In valid text a greatest byte below 0x80
   means ASCII, below 0xC4 Latin-1, below 0xF0 the BMP. */
FASTWS_INLINE void fastws_utf8_scan(const uint8_t *p, size_t n, size_t *code_points,
                                    uint8_t *max_byte)
{
    fastws_active_kernel->utf8_scan(p, n, code_points, max_byte);
}

/* Decode n bytes into out_len units of 1, 2 or 4 bytes, validating on the way.  0 when the text is
   valid and has exactly out_len code points, each of which fits a unit; else -1, with any content
   in `out`. Writes nothing outside `out`, which must be aligned to its unit. */
FASTWS_INLINE int fastws_utf8_to_latin1(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    return fastws_active_kernel->utf8_to_latin1(p, n, out, out_len);
}

FASTWS_INLINE int fastws_utf8_to_ucs2(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    return fastws_active_kernel->utf8_to_ucs2(p, n, out, out_len);
}

FASTWS_INLINE int fastws_utf8_to_ucs4(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    return fastws_active_kernel->utf8_to_ucs4(p, n, out, out_len);
}

/* Trailing bytes that begin a code point which they do not end, 0 to 3.  Looks at lead bytes only:
   what they lead may still be invalid. */
FASTWS_INLINE size_t fastws_utf8_open_tail(const uint8_t *p, size_t n)
{
    if (n >= 1 && p[n - 1] >= 0xC0)
        return 1;
    if (n >= 2 && p[n - 2] >= 0xE0)
        return 2;
    if (n >= 3 && p[n - 3] >= 0xF0)
        return 3;
    return 0;
}

#ifdef __cplusplus
}
#endif

#endif

/* Masking of frame payloads, RFC 6455 5.3: octet i of the payload is XORed with octet i % 4 of the
   key.

   Every function takes n >= 0 bytes at any alignment, reads and writes nothing beyond them, and
   needs dst == src or buffers that do not overlap.  `key` holds the four mask bytes in memory order
   (memcpy into a uint32_t), the first of them for src[0]; fastws_rotate_key() makes it so in
   mid-payload. */
#ifndef FASTWS_MASK_H
#define FASTWS_MASK_H

#include "cpu.h"

/* Below this many bytes the call through the kernel table costs more than it gains. */
#define FASTWS_MASK_SMALL 64

/* The key for a payload that goes on at byte `offset`. */
FASTWS_INLINE uint32_t fastws_rotate_key(uint32_t key, size_t offset)
{
    unsigned bits = (unsigned)(offset & 3) * 8;
#if FASTWS_BIG_ENDIAN
    return (key << bits) | (key >> ((32 - bits) & 31));
#else
    return (key >> bits) | (key << ((32 - bits) & 31));
#endif
}

/* For few bytes: words of 8, 4 and 1.  The last word is loaded before anything is stored and may
   overlap the one before it, so that no loop over single bytes is left, even in place.  Returns the
   OR of all unmasked bytes as a 64-bit word. */
FASTWS_INLINE uint64_t fastws_mask_words(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    uint64_t seen = 0;
    uint32_t end_key = fastws_rotate_key(key, n);
    if (n >= 8) {
        uint64_t key8 = (uint64_t)key << 32 | key;
        uint64_t last = fastws_load64(src + n - 8) ^ ((uint64_t)end_key << 32 | end_key);
        size_t i = 0;
        for (; i + 16 < n; i += 16) {
            uint64_t a = fastws_load64(src + i) ^ key8;
            uint64_t b = fastws_load64(src + i + 8) ^ key8;
            fastws_store64(dst + i, a);
            fastws_store64(dst + i + 8, b);
            seen |= a | b;
        }
        if (i + 8 < n) {
            uint64_t a = fastws_load64(src + i) ^ key8;
            fastws_store64(dst + i, a);
            seen |= a;
        }
        fastws_store64(dst + n - 8, last);
        return seen | last;
    }
    if (n >= 4) {
        uint32_t first = fastws_load32(src) ^ key;
        uint32_t last = fastws_load32(src + n - 4) ^ end_key;
        fastws_store32(dst, first);
        fastws_store32(dst + n - 4, last);
        return first | last;
    }
    {
        uint8_t bytes[4];
        memcpy(bytes, &key, 4);
        for (size_t i = 0; i < n; i++) {
            dst[i] = (uint8_t)(src[i] ^ bytes[i]);
            seen |= dst[i];
        }
    }
    return seen;
}

/* High bit of each byte of a word. */
#define FASTWS_HIGH_BITS UINT64_C(0x8080808080808080)

/* Mask or unmask n bytes. */
FASTWS_INLINE void fastws_mask(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < FASTWS_MASK_SMALL)
        (void)fastws_mask_words(dst, src, n, key);
    else
        fastws_active_kernel->mask(dst, src, n, key);
}

/* The same, and non-zero when a byte of the result is >= 0x80, that is, when the text is not
   ASCII. */
FASTWS_INLINE int fastws_mask_ascii(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < FASTWS_MASK_SMALL)
        return (fastws_mask_words(dst, src, n, key) & FASTWS_HIGH_BITS) != 0;
    return fastws_active_kernel->mask_ascii(dst, src, n, key);
}

/* Copy without a mask (a client's side); non-zero when a byte is >= 0x80. */
FASTWS_INLINE int fastws_copy_ascii(uint8_t *dst, const uint8_t *src, size_t n)
{
    return fastws_mask_ascii(dst, src, n, 0);
}

#endif

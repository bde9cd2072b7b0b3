/* Masking with NEON, in the shape that mask_x86.c describes. */
#include "kernels.h"
#include "mask.h"

#if FASTWS_NEON
#include <arm_neon.h>

/* n >= 16 */
FASTWS_INLINE uint8x16_t mask_or_neon(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const uint8x16_t k = vreinterpretq_u8_u32(vdupq_n_u32(key));
    const uint8x16_t end_key = vreinterpretq_u8_u32(vdupq_n_u32(fastws_rotate_key(key, n)));
    const uint8x16_t last = veorq_u8(vld1q_u8(src + n - 16), end_key);
    uint8x16_t seen = last;
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        uint8x16_t a = veorq_u8(vld1q_u8(src + i), k);
        uint8x16_t b = veorq_u8(vld1q_u8(src + i + 16), k);
        uint8x16_t c = veorq_u8(vld1q_u8(src + i + 32), k);
        uint8x16_t d = veorq_u8(vld1q_u8(src + i + 48), k);
        vst1q_u8(dst + i, a);
        vst1q_u8(dst + i + 16, b);
        vst1q_u8(dst + i + 32, c);
        vst1q_u8(dst + i + 48, d);
        seen = vorrq_u8(seen, vorrq_u8(vorrq_u8(a, b), vorrq_u8(c, d)));
    }
    for (; i + 16 < n; i += 16) {
        uint8x16_t a = veorq_u8(vld1q_u8(src + i), k);
        vst1q_u8(dst + i, a);
        seen = vorrq_u8(seen, a);
    }
    vst1q_u8(dst + n - 16, last);
    return seen;
}

void fastws_mask_neon(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < 16)
        (void)fastws_mask_words(dst, src, n, key);
    else
        (void)mask_or_neon(dst, src, n, key);
}

int fastws_mask_ascii_neon(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < 16)
        return fastws_mask_ascii_portable(dst, src, n, key);
    return vmaxvq_u8(mask_or_neon(dst, src, n, key)) >= 0x80;
}
#endif

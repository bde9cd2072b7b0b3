/* Masking with 64-bit words only. */
#include "kernels.h"
#include "mask.h"

void fastws_mask_portable(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    (void)fastws_mask_words(dst, src, n, key);
}

int fastws_mask_ascii_portable(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    return (fastws_mask_words(dst, src, n, key) & FASTWS_HIGH_BITS) != 0;
}

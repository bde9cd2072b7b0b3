/* Masking with SSE2, AVX2 and AVX-512.

   All three have one shape: whole vectors from the front, and a last vector that ends where the
   data ends. It overlaps its neighbour, so it is loaded before the first store, and its key is
   rotated to where it begins.  That leaves no byte loop and no masked store, which would delay the
   loads of the next frame. Each returns the OR of the result; the plain variants drop it, and the
   compiler with it. */
#include "kernels.h"
#include "mask.h"

#if FASTWS_X86
#include <immintrin.h>

#define AVX2 FASTWS_TARGET("avx2")
#define AVX512 FASTWS_TARGET("avx512f,avx512bw,avx512vl")

/* n >= 16 */
FASTWS_INLINE __m128i mask_or_sse2(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const __m128i k = _mm_set1_epi32((int)key);
    const __m128i end_key = _mm_set1_epi32((int)fastws_rotate_key(key, n));
    const __m128i last = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(src + n - 16)), end_key);
    __m128i seen = last;
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m128i a = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(src + i)), k);
        __m128i b = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(src + i + 16)), k);
        __m128i c = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(src + i + 32)), k);
        __m128i d = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(src + i + 48)), k);
        _mm_storeu_si128((__m128i *)(dst + i), a);
        _mm_storeu_si128((__m128i *)(dst + i + 16), b);
        _mm_storeu_si128((__m128i *)(dst + i + 32), c);
        _mm_storeu_si128((__m128i *)(dst + i + 48), d);
        seen = _mm_or_si128(seen, _mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d)));
    }
    for (; i + 16 < n; i += 16) {
        __m128i a = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(src + i)), k);
        _mm_storeu_si128((__m128i *)(dst + i), a);
        seen = _mm_or_si128(seen, a);
    }
    _mm_storeu_si128((__m128i *)(dst + n - 16), last);
    return seen;
}

void fastws_mask_sse2(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < 16)
        (void)fastws_mask_words(dst, src, n, key);
    else
        (void)mask_or_sse2(dst, src, n, key);
}

int fastws_mask_ascii_sse2(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < 16)
        return fastws_mask_ascii_portable(dst, src, n, key);
    return _mm_movemask_epi8(mask_or_sse2(dst, src, n, key)) != 0;
}

/* n >= 32 */
AVX2 FASTWS_INLINE __m256i mask_or_avx2(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const __m256i k = _mm256_set1_epi32((int)key);
    const __m256i end_key = _mm256_set1_epi32((int)fastws_rotate_key(key, n));
    const __m256i last =
        _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(src + n - 32)), end_key);
    __m256i seen = last;
    size_t i = 0;
    for (; i + 128 <= n; i += 128) {
        __m256i a = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(src + i)), k);
        __m256i b = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(src + i + 32)), k);
        __m256i c = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(src + i + 64)), k);
        __m256i d = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(src + i + 96)), k);
        _mm256_storeu_si256((__m256i *)(dst + i), a);
        _mm256_storeu_si256((__m256i *)(dst + i + 32), b);
        _mm256_storeu_si256((__m256i *)(dst + i + 64), c);
        _mm256_storeu_si256((__m256i *)(dst + i + 96), d);
        seen = _mm256_or_si256(seen, _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d)));
    }
    for (; i + 32 < n; i += 32) {
        __m256i a = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(src + i)), k);
        _mm256_storeu_si256((__m256i *)(dst + i), a);
        seen = _mm256_or_si256(seen, a);
    }
    _mm256_storeu_si256((__m256i *)(dst + n - 32), last);
    return seen;
}

AVX2 void fastws_mask_avx2(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < 32) {
        fastws_mask_sse2(dst, src, n, key);
        return;
    }
    (void)mask_or_avx2(dst, src, n, key);
    FASTWS_ZEROUPPER();
}

AVX2 int fastws_mask_ascii_avx2(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    int high;
    if (n < 32)
        return fastws_mask_ascii_sse2(dst, src, n, key);
    high = _mm256_movemask_epi8(mask_or_avx2(dst, src, n, key));
    FASTWS_ZEROUPPER();
    return high != 0;
}

#if FASTWS_AVX512
/* n >= 64 */
AVX512 FASTWS_INLINE __m512i mask_or_avx512(uint8_t *dst, const uint8_t *src, size_t n,
                                            uint32_t key)
{
    const __m512i k = _mm512_set1_epi32((int)key);
    const __m512i end_key = _mm512_set1_epi32((int)fastws_rotate_key(key, n));
    const __m512i last = _mm512_xor_si512(_mm512_loadu_si512(src + n - 64), end_key);
    __m512i seen = last;
    size_t i = 0;
    for (; i + 256 <= n; i += 256) {
        __m512i a = _mm512_xor_si512(_mm512_loadu_si512(src + i), k);
        __m512i b = _mm512_xor_si512(_mm512_loadu_si512(src + i + 64), k);
        __m512i c = _mm512_xor_si512(_mm512_loadu_si512(src + i + 128), k);
        __m512i d = _mm512_xor_si512(_mm512_loadu_si512(src + i + 192), k);
        _mm512_storeu_si512(dst + i, a);
        _mm512_storeu_si512(dst + i + 64, b);
        _mm512_storeu_si512(dst + i + 128, c);
        _mm512_storeu_si512(dst + i + 192, d);
        seen = _mm512_or_si512(seen, _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d)));
    }
    for (; i + 64 < n; i += 64) {
        __m512i a = _mm512_xor_si512(_mm512_loadu_si512(src + i), k);
        _mm512_storeu_si512(dst + i, a);
        seen = _mm512_or_si512(seen, a);
    }
    _mm512_storeu_si512(dst + n - 64, last);
    return seen;
}

AVX512 void fastws_mask_avx512(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < 64) {
        fastws_mask_avx2(dst, src, n, key);
        return;
    }
    (void)mask_or_avx512(dst, src, n, key);
    FASTWS_ZEROUPPER();
}

AVX512 int fastws_mask_ascii_avx512(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    int high;
    if (n < 64)
        return fastws_mask_ascii_avx2(dst, src, n, key);
    high = _mm512_movepi8_mask(mask_or_avx512(dst, src, n, key)) != 0;
    FASTWS_ZEROUPPER();
    return high;
}
#endif
#endif

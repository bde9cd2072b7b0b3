/* UTF-8 with 32-byte vectors of AVX2. */
#include "kernels.h"
#include "utf8.h"
#include "utf8_tables.h"

#if FASTWS_X86
#include <immintrin.h>

#define ISA avx2
#define NARROWER_ISA ssse3
#define TARGET FASTWS_TARGET("avx2")
#define WIDTH 32
#define LANES 2
typedef __m256i vec;

#define v_load(p) _mm256_loadu_si256((const __m256i *)(p))
#define v_zero() _mm256_setzero_si256()
#define v_splat(byte) _mm256_set1_epi8((char)(byte))
#define v_table16(bytes) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(bytes)))
#define v_and(a, b) _mm256_and_si256(a, b)
#define v_or(a, b) _mm256_or_si256(a, b)
#define v_xor(a, b) _mm256_xor_si256(a, b)
#define v_add(a, b) _mm256_add_epi8(a, b)
#define v_sub(a, b) _mm256_sub_epi8(a, b)
#define v_subs(a, b) _mm256_subs_epu8(a, b)
#define v_max_bytes(a, b) _mm256_max_epu8(a, b)
#define v_equal(a, b) _mm256_cmpeq_epi8(a, b)
#define v_is_continuation(v) _mm256_cmpgt_epi8(v_splat(0xC0), v) /* signed: 80..BF are the least */
#define v_lookup(table, v) _mm256_shuffle_epi8(table, v)
#define v_high_nibbles(v) v_and(_mm256_srli_epi16(v, 4), v_splat(0x0F))
/* alignr works within lanes: give it the lane before each */
#define v_back(now, before, k)                                                                  \
    _mm256_alignr_epi8(now, _mm256_permute2x128_si256(before, now, 0x21), 16 - (k))
#define v_any_high(v) (_mm256_movemask_epi8(v) != 0)
#define v_any(v) (!_mm256_testz_si256(v, v))
#define v_join(pairs) _mm256_maddubs_epi16(pairs, _mm256_set1_epi16(64 << 8 | 1))
#define v_join_low(a, b) v_join(_mm256_unpacklo_epi8(a, b))
#define v_join_high(a, b) v_join(_mm256_unpackhi_epi8(a, b))
#define v_top_low(c) _mm256_slli_epi16(_mm256_unpacklo_epi8(v_zero(), c), 4)
#define v_top_high(c) _mm256_slli_epi16(_mm256_unpackhi_epi8(v_zero(), c), 4)

TARGET FASTWS_INLINE uint64_t v_high_bits(const vec *v)
{
    return (uint64_t)(uint32_t)_mm256_movemask_epi8(v[1]) << 32 |
           (uint32_t)_mm256_movemask_epi8(v[0]);
}

TARGET FASTWS_INLINE size_t v_sum_bytes(vec v)
{
    const vec sums = _mm256_sad_epu8(v, v_zero());
    const __m128i s =
        _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return (size_t)_mm_cvtsi128_si32(s) + (size_t)_mm_cvtsi128_si32(_mm_srli_si128(s, 8));
}

TARGET FASTWS_INLINE uint8_t v_greatest(vec v)
{
    __m128i m = _mm_max_epu8(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu8(m, _mm_srli_si128(m, 8));
    m = _mm_max_epu8(m, _mm_srli_si128(m, 4));
    m = _mm_max_epu8(m, _mm_srli_si128(m, 2));
    m = _mm_max_epu8(m, _mm_srli_si128(m, 1));
    return (uint8_t)_mm_cvtsi128_si32(m);
}

#define GROUP(bits, group) ((bits) >> (8 * (group)) & 0xFF)

/* Shuffle that moves the selected bytes of a group to the front; for 16-bit units, bytes 2i and 2i
   + 1. */
TARGET FASTWS_INLINE __m128i byte_shuffle(uint64_t mask, int group)
{
    return _mm_loadl_epi64((const __m128i *)&fastws_compress8[GROUP(mask, group)]);
}

TARGET FASTWS_INLINE vec unit_shuffle(uint64_t mask, int group)
{
    const vec both = _mm256_inserti128_si256(_mm256_castsi128_si256(byte_shuffle(mask, group)),
                                             byte_shuffle(mask, group + 2), 1);
    const vec even = v_add(both, both);
    return _mm256_unpacklo_epi8(even, v_or(even, v_splat(1)));
}

TARGET FASTWS_INLINE void put_bytes_of_lane(uint8_t *out, __m128i v, uint64_t mask,
                                            uint64_t offsets, int group)
{
    const __m128i low = _mm_shuffle_epi8(v, byte_shuffle(mask, group));
    const __m128i high = _mm_shuffle_epi8(_mm_srli_si128(v, 8), byte_shuffle(mask, group + 1));
    _mm_storel_epi64((__m128i *)(out + GROUP(offsets, group)), low);
    _mm_storel_epi64((__m128i *)(out + GROUP(offsets, group + 1)), high);
}

TARGET FASTWS_INLINE void v_put_bytes(uint8_t *out, vec v, uint64_t mask, uint64_t offsets,
                                      int group)
{
    put_bytes_of_lane(out, _mm256_castsi256_si128(v), mask, offsets, group);
    put_bytes_of_lane(out, _mm256_extracti128_si256(v, 1), mask, offsets, group + 2);
}

TARGET FASTWS_INLINE void store_lane(uint8_t *out, vec v, int lane)
{
    if (lane == 0)
        _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(v));
    else
        _mm_storeu_si128((__m128i *)out, _mm256_extracti128_si256(v, 1));
}

TARGET FASTWS_INLINE void v_put_units2(uint8_t *out, vec low, vec high, uint64_t mask,
                                       uint64_t offsets, int group)
{
    low = v_lookup(low, unit_shuffle(mask, group));
    high = v_lookup(high, unit_shuffle(mask, group + 1));
    store_lane(out + 2 * GROUP(offsets, group), low, 0);
    store_lane(out + 2 * GROUP(offsets, group + 1), high, 0);
    store_lane(out + 2 * GROUP(offsets, group + 2), low, 1);
    store_lane(out + 2 * GROUP(offsets, group + 3), high, 1);
}

typedef struct {
    vec first, second; /* units 0 to 3 and 4 to 7 of a group per lane */
} units4;

TARGET FASTWS_INLINE units4 join4(vec v, vec top, uint64_t mask, int group)
{
    const vec shuffle = unit_shuffle(mask, group);
    const vec weights = _mm256_set1_epi32(4096 << 16 | 1);
    units4 u;
    v = v_lookup(v, shuffle);
    top = v_lookup(top, shuffle);
    u.first = _mm256_madd_epi16(_mm256_unpacklo_epi16(v, top), weights);
    u.second = _mm256_madd_epi16(_mm256_unpackhi_epi16(v, top), weights);
    return u;
}

TARGET FASTWS_INLINE void store_units4(uint8_t *out, units4 u, int lane)
{
    store_lane(out, u.first, lane);
    store_lane(out + 16, u.second, lane);
}

TARGET FASTWS_INLINE void v_put_units4(uint8_t *out, vec low, vec low_top, vec high, vec high_top,
                                       uint64_t mask, uint64_t offsets, int group)
{
    const units4 a = join4(low, low_top, mask, group);
    const units4 b = join4(high, high_top, mask, group + 1);
    store_units4(out + 4 * GROUP(offsets, group), a, 0);
    store_units4(out + 4 * GROUP(offsets, group + 1), b, 0);
    store_units4(out + 4 * GROUP(offsets, group + 2), a, 1);
    store_units4(out + 4 * GROUP(offsets, group + 3), b, 1);
}

TARGET FASTWS_INLINE void v_widen2(uint8_t *out, vec v)
{
    const __m128i low = _mm256_castsi256_si128(v), high = _mm256_extracti128_si256(v, 1);
    _mm256_storeu_si256((__m256i *)out, _mm256_cvtepu8_epi16(low));
    _mm256_storeu_si256((__m256i *)(out + 32), _mm256_cvtepu8_epi16(high));
}

TARGET FASTWS_INLINE void v_widen4(uint8_t *out, vec v)
{
    const __m128i low = _mm256_castsi256_si128(v), high = _mm256_extracti128_si256(v, 1);
    _mm256_storeu_si256((__m256i *)out, _mm256_cvtepu8_epi32(low));
    _mm256_storeu_si256((__m256i *)(out + 32), _mm256_cvtepu8_epi32(_mm_srli_si128(low, 8)));
    _mm256_storeu_si256((__m256i *)(out + 64), _mm256_cvtepu8_epi32(high));
    _mm256_storeu_si256((__m256i *)(out + 96), _mm256_cvtepu8_epi32(_mm_srli_si128(high, 8)));
}

#include "utf8_vector.h"
#endif

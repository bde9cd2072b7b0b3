/* UTF-8 with 16-byte vectors of SSSE3. */
#include "kernels.h"
#include "utf8.h"
#include "utf8_tables.h"

#if FASTWS_X86
#include <tmmintrin.h>

#define ISA ssse3
#define NARROWER_ISA portable
#define TARGET FASTWS_TARGET("ssse3")
#define WIDTH 16
#define LANES 1
typedef __m128i vec;

#define v_load(p) _mm_loadu_si128((const __m128i *)(p))
#define v_zero() _mm_setzero_si128()
#define v_splat(byte) _mm_set1_epi8((char)(byte))
#define v_table16(bytes) v_load(bytes)
#define v_and(a, b) _mm_and_si128(a, b)
#define v_or(a, b) _mm_or_si128(a, b)
#define v_xor(a, b) _mm_xor_si128(a, b)
#define v_add(a, b) _mm_add_epi8(a, b)
#define v_sub(a, b) _mm_sub_epi8(a, b)
#define v_subs(a, b) _mm_subs_epu8(a, b)
#define v_max_bytes(a, b) _mm_max_epu8(a, b)
#define v_equal(a, b) _mm_cmpeq_epi8(a, b)
#define v_is_continuation(v) _mm_cmpgt_epi8(v_splat(0xC0), v) /* signed: 80..BF are the least */
#define v_lookup(table, v) _mm_shuffle_epi8(table, v)
#define v_high_nibbles(v) v_and(_mm_srli_epi16(v, 4), v_splat(0x0F))
#define v_back(now, before, k) _mm_alignr_epi8(now, before, 16 - (k))
#define v_any_high(v) (_mm_movemask_epi8(v) != 0)
#define v_any(v) (_mm_movemask_epi8(v_equal(v, v_zero())) != 0xFFFF)
#define v_join(pairs) _mm_maddubs_epi16(pairs, _mm_set1_epi16(64 << 8 | 1))
#define v_join_low(a, b) v_join(_mm_unpacklo_epi8(a, b))
#define v_join_high(a, b) v_join(_mm_unpackhi_epi8(a, b))
#define v_top_low(c) _mm_slli_epi16(_mm_unpacklo_epi8(v_zero(), c), 4)
#define v_top_high(c) _mm_slli_epi16(_mm_unpackhi_epi8(v_zero(), c), 4)

TARGET FASTWS_INLINE uint64_t v_high_bits(const vec *v)
{
    const uint64_t low =
        (uint32_t)_mm_movemask_epi8(v[0]) | (uint32_t)_mm_movemask_epi8(v[1]) << 16;
    const uint64_t high =
        (uint32_t)_mm_movemask_epi8(v[2]) | (uint32_t)_mm_movemask_epi8(v[3]) << 16;
    return high << 32 | low;
}

TARGET FASTWS_INLINE size_t v_sum_bytes(vec v)
{
    const __m128i sums = _mm_sad_epu8(v, v_zero());
    return (size_t)_mm_cvtsi128_si32(sums) + (size_t)_mm_cvtsi128_si32(_mm_srli_si128(sums, 8));
}

TARGET FASTWS_INLINE uint8_t v_greatest(vec v)
{
    v = v_max_bytes(v, _mm_srli_si128(v, 8));
    v = v_max_bytes(v, _mm_srli_si128(v, 4));
    v = v_max_bytes(v, _mm_srli_si128(v, 2));
    v = v_max_bytes(v, _mm_srli_si128(v, 1));
    return (uint8_t)_mm_cvtsi128_si32(v);
}

#define GROUP(bits, group) ((bits) >> (8 * (group)) & 0xFF)

/* Shuffle that moves the selected bytes to the front. */
TARGET FASTWS_INLINE __m128i byte_shuffle(uint64_t mask, int group)
{
    return _mm_loadl_epi64((const __m128i *)&fastws_compress8[GROUP(mask, group)]);
}

/* The same for 16-bit units: bytes 2i and 2i + 1 for every i. */
TARGET FASTWS_INLINE __m128i unit_shuffle(uint64_t mask, int group)
{
    const __m128i even = _mm_slli_epi16(byte_shuffle(mask, group), 1);
    return _mm_unpacklo_epi8(even, v_or(even, v_splat(1)));
}

TARGET FASTWS_INLINE void v_put_bytes(uint8_t *out, vec v, uint64_t mask, uint64_t offsets,
                                      int group)
{
    const vec low = v_lookup(v, byte_shuffle(mask, group));
    const vec high = v_lookup(_mm_srli_si128(v, 8), byte_shuffle(mask, group + 1));
    _mm_storel_epi64((__m128i *)(out + GROUP(offsets, group)), low);
    _mm_storel_epi64((__m128i *)(out + GROUP(offsets, group + 1)), high);
}

TARGET FASTWS_INLINE void v_put_units2(uint8_t *out, vec low, vec high, uint64_t mask,
                                       uint64_t offsets, int group)
{
    low = v_lookup(low, unit_shuffle(mask, group));
    high = v_lookup(high, unit_shuffle(mask, group + 1));
    _mm_storeu_si128((__m128i *)(out + 2 * GROUP(offsets, group)), low);
    _mm_storeu_si128((__m128i *)(out + 2 * GROUP(offsets, group + 1)), high);
}

TARGET FASTWS_INLINE void put_group4(uint8_t *out, vec v, vec top, uint64_t mask, uint64_t offsets,
                                     int group)
{
    const vec shuffle = unit_shuffle(mask, group);
    const vec weights = _mm_set1_epi32(4096 << 16 | 1);
    v = v_lookup(v, shuffle);
    top = v_lookup(top, shuffle);
    out += 4 * GROUP(offsets, group);
    _mm_storeu_si128((__m128i *)out, _mm_madd_epi16(_mm_unpacklo_epi16(v, top), weights));
    _mm_storeu_si128((__m128i *)(out + 16), _mm_madd_epi16(_mm_unpackhi_epi16(v, top), weights));
}

TARGET FASTWS_INLINE void v_put_units4(uint8_t *out, vec low, vec low_top, vec high, vec high_top,
                                       uint64_t mask, uint64_t offsets, int group)
{
    put_group4(out, low, low_top, mask, offsets, group);
    put_group4(out, high, high_top, mask, offsets, group + 1);
}

TARGET FASTWS_INLINE void v_widen2(uint8_t *out, vec v)
{
    _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi8(v, v_zero()));
    _mm_storeu_si128((__m128i *)(out + 16), _mm_unpackhi_epi8(v, v_zero()));
}

TARGET FASTWS_INLINE void v_widen4(uint8_t *out, vec v)
{
    const vec low = _mm_unpacklo_epi8(v, v_zero());
    const vec high = _mm_unpackhi_epi8(v, v_zero());
    _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi16(low, v_zero()));
    _mm_storeu_si128((__m128i *)(out + 16), _mm_unpackhi_epi16(low, v_zero()));
    _mm_storeu_si128((__m128i *)(out + 32), _mm_unpacklo_epi16(high, v_zero()));
    _mm_storeu_si128((__m128i *)(out + 48), _mm_unpackhi_epi16(high, v_zero()));
}

/* No register of 32 bytes is touched here. */
#undef FASTWS_ZEROUPPER
#define FASTWS_ZEROUPPER() ((void)0)

#include "utf8_vector.h"
#endif

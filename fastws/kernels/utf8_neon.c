/* UTF-8 with 16-byte vectors of NEON (arm64). */
#include "kernels.h"
#include "utf8.h"
#include "utf8_tables.h"

#if FASTWS_NEON
#include <arm_neon.h>

#define ISA neon
#define NARROWER_ISA portable
#define TARGET
#define WIDTH 16
#define LANES 1
typedef uint8x16_t vec;

#define v_load(p) vld1q_u8(p)
#define v_zero() vdupq_n_u8(0)
#define v_splat(byte) vdupq_n_u8(byte)
#define v_table16(bytes) vld1q_u8(bytes)
#define v_and(a, b) vandq_u8(a, b)
#define v_or(a, b) vorrq_u8(a, b)
#define v_xor(a, b) veorq_u8(a, b)
#define v_add(a, b) vaddq_u8(a, b)
#define v_sub(a, b) vsubq_u8(a, b)
#define v_subs(a, b) vqsubq_u8(a, b)
#define v_max_bytes(a, b) vmaxq_u8(a, b)
#define v_equal(a, b) vceqq_u8(a, b)
#define v_is_continuation(v) vcltq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8(-64)) /* 80..BF */
#define v_lookup(table, v) vqtbl1q_u8(table, v)
#define v_high_nibbles(v) vshrq_n_u8(v, 4)
#define v_back(now, before, k) vextq_u8(before, now, 16 - (k))
#define v_any_high(v) (vmaxvq_u8(v) >= 0x80)
#define v_any(v) (vmaxvq_u8(v) != 0)
#define v_sum_bytes(v) ((size_t)vaddlvq_u8(v))
#define v_greatest(v) vmaxvq_u8(v)

/* Each byte gives one bit; pairwise sums then gather eight of them per byte. */
FASTWS_INLINE uint64_t v_high_bits(const vec *v)
{
    const vec bits = vreinterpretq_u8_u64(vdupq_n_u64(UINT64_C(0x8040201008040201)));
    const vec a = vandq_u8(vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(v[0]), 7)), bits);
    const vec b = vandq_u8(vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(v[1]), 7)), bits);
    const vec c = vandq_u8(vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(v[2]), 7)), bits);
    const vec d = vandq_u8(vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(v[3]), 7)), bits);
    const vec sums = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0);
}

/* Results of v_join and v_top are 16-bit units in a vector of bytes. */
FASTWS_INLINE vec join(uint8x8_t a, uint8x8_t b)
{
    return vreinterpretq_u8_u16(vorrq_u16(vmovl_u8(a), vshll_n_u8(b, 6)));
}

FASTWS_INLINE vec top(uint8x8_t c)
{
    return vreinterpretq_u8_u16(vshlq_n_u16(vmovl_u8(c), 12));
}

#define v_join_low(a, b) join(vget_low_u8(a), vget_low_u8(b))
#define v_join_high(a, b) join(vget_high_u8(a), vget_high_u8(b))
#define v_top_low(c) top(vget_low_u8(c))
#define v_top_high(c) top(vget_high_u8(c))

#define GROUP(bits, group) ((bits) >> (8 * (group)) & 0xFF)

/* Shuffle that moves the selected bytes of a group to the front; for 16-bit units, bytes 2i and 2i
   + 1. */
FASTWS_INLINE uint8x8_t byte_shuffle(uint64_t mask, int group)
{
    return vcreate_u8(fastws_compress8[GROUP(mask, group)]);
}

FASTWS_INLINE vec unit_shuffle(uint64_t mask, int group)
{
    const uint8x8_t even = vshl_n_u8(byte_shuffle(mask, group), 1);
    const uint8x8_t odd = vorr_u8(even, vdup_n_u8(1));
    return vcombine_u8(vzip1_u8(even, odd), vzip2_u8(even, odd));
}

FASTWS_INLINE void v_put_bytes(uint8_t *out, vec v, uint64_t mask, uint64_t offsets, int group)
{
    const uint8x8_t high = vadd_u8(byte_shuffle(mask, group + 1), vdup_n_u8(8));
    vst1_u8(out + GROUP(offsets, group), vqtbl1_u8(v, byte_shuffle(mask, group)));
    vst1_u8(out + GROUP(offsets, group + 1), vqtbl1_u8(v, high));
}

FASTWS_INLINE void v_put_units2(uint8_t *out, vec low, vec high, uint64_t mask, uint64_t offsets,
                                int group)
{
    low = v_lookup(low, unit_shuffle(mask, group));
    high = v_lookup(high, unit_shuffle(mask, group + 1));
    vst1q_u8(out + 2 * GROUP(offsets, group), low);
    vst1q_u8(out + 2 * GROUP(offsets, group + 1), high);
}

FASTWS_INLINE void put_group4(uint8_t *out, vec v, vec top_bits, uint64_t mask, uint64_t offsets,
                              int group)
{
    const vec shuffle = unit_shuffle(mask, group);
    const uint16x8_t low = vreinterpretq_u16_u8(v_lookup(v, shuffle));
    const uint16x8_t top = vreinterpretq_u16_u8(v_lookup(top_bits, shuffle));
    const uint32x4_t a =
        vorrq_u32(vmovl_u16(vget_low_u16(low)), vshll_n_u16(vget_low_u16(top), 12));
    const uint32x4_t b =
        vorrq_u32(vmovl_u16(vget_high_u16(low)), vshll_n_u16(vget_high_u16(top), 12));
    out += 4 * GROUP(offsets, group);
    vst1q_u8(out, vreinterpretq_u8_u32(a));
    vst1q_u8(out + 16, vreinterpretq_u8_u32(b));
}

FASTWS_INLINE void v_put_units4(uint8_t *out, vec low, vec low_top, vec high, vec high_top,
                                uint64_t mask, uint64_t offsets, int group)
{
    put_group4(out, low, low_top, mask, offsets, group);
    put_group4(out, high, high_top, mask, offsets, group + 1);
}

FASTWS_INLINE void v_widen2(uint8_t *out, vec v)
{
    vst1q_u8(out, vreinterpretq_u8_u16(vmovl_u8(vget_low_u8(v))));
    vst1q_u8(out + 16, vreinterpretq_u8_u16(vmovl_u8(vget_high_u8(v))));
}

FASTWS_INLINE void v_widen4(uint8_t *out, vec v)
{
    const uint16x8_t low = vmovl_u8(vget_low_u8(v)), high = vmovl_u8(vget_high_u8(v));
    vst1q_u8(out, vreinterpretq_u8_u32(vmovl_u16(vget_low_u16(low))));
    vst1q_u8(out + 16, vreinterpretq_u8_u32(vmovl_u16(vget_high_u16(low))));
    vst1q_u8(out + 32, vreinterpretq_u8_u32(vmovl_u16(vget_low_u16(high))));
    vst1q_u8(out + 48, vreinterpretq_u8_u32(vmovl_u16(vget_high_u16(high))));
}

#include "utf8_vector.h"
#endif

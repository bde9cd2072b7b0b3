/* UTF-8 with AVX-512 VBMI2: 64 bytes at a time, the last block under a mask, so there is no scalar
   tail.

   Decoding: every code point is gathered at the position of its last byte.  There, a vector of the
   bytes' own payload bits and vectors of those one, two and three positions back (zero where the
   code point does not reach so far) hold its groups of six bits.  They are compressed to those
   positions, widened to the unit, shifted and joined. */
#include "kernels.h"
#include "utf8.h"
#include "utf8_tables.h"

#if FASTWS_AVX512
#include <immintrin.h>

#define TARGET FASTWS_TARGET("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt")

#define BLOCK 64

TARGET FASTWS_INLINE __m512i table16(const uint8_t table[16])
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
}

/* Lowest `count` bits, 0 <= count <= 64. */
TARGET FASTWS_INLINE uint64_t low_bits(size_t count)
{
    return _bzhi_u64(~UINT64_C(0), (unsigned)count);
}

/* The last 128 bits of `before` and the first 384 of `now`: what _mm512_alignr_epi8 wants as its
   second operand to shift across its lanes. */
TARGET FASTWS_INLINE __m512i lanes_before(__m512i now, __m512i before)
{
    return _mm512_alignr_epi64(now, before, 6);
}

/* The high half of each byte. */
TARGET FASTWS_INLINE __m512i high_nibbles(__m512i v)
{
    return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(0x0F));
}

/* Errors of a block, as in utf8_tables.h: zero when there is none. */
TARGET FASTWS_INLINE __m512i errors_in(__m512i now, __m512i before)
{
    const __m512i lanes = lanes_before(now, before);
    const __m512i back1 = _mm512_alignr_epi8(now, lanes, 15);
    const __m512i back2 = _mm512_alignr_epi8(now, lanes, 14);
    const __m512i back3 = _mm512_alignr_epi8(now, lanes, 13);
    const __m512i a = _mm512_shuffle_epi8(table16(fastws_utf8_byte1_high), high_nibbles(back1));
    const __m512i b = _mm512_shuffle_epi8(table16(fastws_utf8_byte1_low),
                                          _mm512_and_si512(back1, _mm512_set1_epi8(0x0F)));
    const __m512i c = _mm512_shuffle_epi8(table16(fastws_utf8_byte2_high), high_nibbles(now));
    const __m512i pair = _mm512_ternarylogic_epi32(a, b, c, 0x80); /* a & b & c */
    /* bit 7 where E0..FF is two back or F0..FF three back */
    const __m512i third = _mm512_subs_epu8(back2, _mm512_set1_epi8(0xE0 - 0x80));
    const __m512i fourth = _mm512_subs_epu8(back3, _mm512_set1_epi8(0xF0 - 0x80));
    const __m512i wanted = _mm512_or_si512(third, fourth);
    return _mm512_xor_si512(pair, _mm512_and_si512(wanted, _mm512_set1_epi8((char)0x80)));
}

TARGET FASTWS_INLINE int any_bit(__m512i v)
{
    return _mm512_test_epi8_mask(v, v) != 0;
}

TARGET FASTWS_INLINE __m512i load_block(const uint8_t *p, size_t left)
{
    if (FASTWS_LIKELY(left >= BLOCK))
        return _mm512_loadu_si512(p);
    return _mm512_maskz_loadu_epi8(low_bits(left), p);
}

TARGET int fastws_utf8_valid_avx512(const uint8_t *p, size_t n)
{
    __m512i before = _mm512_setzero_si512();
    __m512i errors = _mm512_setzero_si512();
    size_t i = 0;
    if (fastws_utf8_open_tail(p, n))
        return -1;
    while (i < n) {
        __m512i now = load_block(p + i, n - i);
        if (_mm512_movepi8_mask(now)) {
            errors = _mm512_or_si512(errors, errors_in(now, before));
            before = now;
            i += BLOCK;
            continue;
        }
        if (fastws_utf8_open_tail(p, i))
            return -1;
        before = _mm512_setzero_si512();
        i += BLOCK;
        while (n - i >= 4 * BLOCK && i < n) { /* a long run of ASCII */
            __m512i a = _mm512_or_si512(_mm512_loadu_si512(p + i), _mm512_loadu_si512(p + i + 64));
            __m512i b =
                _mm512_or_si512(_mm512_loadu_si512(p + i + 128), _mm512_loadu_si512(p + i + 192));
            if (_mm512_movepi8_mask(_mm512_or_si512(a, b)))
                break;
            i += 4 * BLOCK;
        }
    }
    i = any_bit(errors);
    FASTWS_ZEROUPPER();
    return i ? -1 : 0;
}

TARGET void fastws_utf8_scan_avx512(const uint8_t *p, size_t n, size_t *code_points,
                                    uint8_t *max_byte)
{
    const __m512i last_continuation = _mm512_set1_epi8((char)0xBF);
    __m512i max = _mm512_setzero_si512();
    __m256i m256;
    __m128i m;
    size_t count = 0, i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        __m512i now = _mm512_loadu_si512(p + i);
        max = _mm512_max_epu8(max, now);
        count += (size_t)_mm_popcnt_u64(_mm512_cmpgt_epi8_mask(now, last_continuation));
    }
    if (i < n) {
        uint64_t valid = low_bits(n - i);
        __m512i now = _mm512_maskz_loadu_epi8(valid, p + i);
        max = _mm512_max_epu8(max, now);
        count += (size_t)_mm_popcnt_u64(_mm512_mask_cmpgt_epi8_mask(valid, now, last_continuation));
    }
    m256 = _mm256_max_epu8(_mm512_castsi512_si256(max), _mm512_extracti64x4_epi64(max, 1));
    m = _mm_max_epu8(_mm256_castsi256_si128(m256), _mm256_extracti128_si256(m256, 1));
    m = _mm_max_epu8(m, _mm_srli_epi16(m, 8)); /* in the low byte of each 16-bit unit */
    m = _mm_andnot_si128(m, _mm_set1_epi16(0xFF));
    m = _mm_minpos_epu16(m); /* there is no maxpos */
    *code_points = count;
    *max_byte = (uint8_t)~_mm_extract_epi16(m, 0);
    FASTWS_ZEROUPPER();
}

/* Latin-1 needs no tables: C2 and C3 are the only leads, each with one continuation, which already
   is the character after C2 and lacks 0x40 after C3. */
TARGET int fastws_utf8_to_latin1_avx512(const uint8_t *p, size_t n, void *out_, size_t out_len)
{
    uint8_t *out = (uint8_t *)out_;
    uint64_t wrong = 0, lead_before = 0, c3_before = 0;
    size_t left = out_len;
    for (size_t i = 0; i < n; i += BLOCK) {
        const __m512i now = load_block(p + i, n - i);
        const uint64_t inside = n - i >= BLOCK ? ~UINT64_C(0) : low_bits(n - i);
        const uint64_t high = _mm512_movepi8_mask(now);
        const uint64_t lead = _mm512_cmpge_epu8_mask(now, _mm512_set1_epi8((char)0xC0));
        const uint64_t c2 = _mm512_cmpeq_epi8_mask(now, _mm512_set1_epi8((char)0xC2));
        const uint64_t c3 = _mm512_cmpeq_epi8_mask(now, _mm512_set1_epi8((char)0xC3));
        const uint64_t keep = inside & ~lead;
        const size_t count = (size_t)_mm_popcnt_u64(keep);
        __m512i chars;
        wrong |= lead ^ (c2 | c3);
        wrong |= (high & ~lead) ^ (lead << 1 | lead_before);
        chars = _mm512_mask_add_epi8(now, c3 << 1 | c3_before, now, _mm512_set1_epi8(0x40));
        chars = _mm512_maskz_compress_epi8(keep, chars);
        lead_before = lead >> 63;
        c3_before = c3 >> 63;
        if (left >= BLOCK) {
            _mm512_storeu_si512(out, chars);
        } else {
            if (count > left)
                return -1;
            _mm512_mask_storeu_epi8(out, low_bits(count), chars);
        }
        out += count;
        left -= count;
    }
    FASTWS_ZEROUPPER();
    return wrong || lead_before || left ? -1 : 0;
}

/* What the decoders carry from block to block. */
typedef struct {
    __m512i bytes, payload, errors;
    uint64_t second, third; /* positions that are a 1st, or a 2nd, continuation at least */
} decoder;

/* The six-bit groups of a block's code points, compressed: groups[k] is k bytes before the last
   byte. */
typedef struct {
    __m512i groups[4];
    size_t count;
} gathered;

/* `inside`: the positions of the block that hold text; next_continues: whether its follower is a
   continuation byte. */
TARGET FASTWS_INLINE gathered gather(decoder *d, __m512i now, uint64_t inside, int next_continues,
                                     int width)
{
    gathered g;
    const uint64_t cont = _mm512_cmple_epi8_mask(now, _mm512_set1_epi8((char)0xBF));
    const uint64_t ends = inside & ~(cont >> 1 | (uint64_t)next_continues << 63);
    const __m512i payload = _mm512_and_si512(
        now, _mm512_shuffle_epi8(table16(fastws_utf8_payload_bits), high_nibbles(now)));
    const __m512i lanes = lanes_before(payload, d->payload);
    const uint64_t second = cont & (cont << 1 | d->second);
    const uint64_t third = second & (second << 1 | d->third);
    d->errors = _mm512_or_si512(d->errors, errors_in(now, d->bytes));
    g.count = (size_t)_mm_popcnt_u64(ends);
    g.groups[0] = _mm512_maskz_compress_epi8(ends, payload);
    g.groups[1] =
        _mm512_maskz_compress_epi8(ends, _mm512_maskz_alignr_epi8(cont, payload, lanes, 15));
    g.groups[2] =
        _mm512_maskz_compress_epi8(ends, _mm512_maskz_alignr_epi8(second, payload, lanes, 14));
    if (width == 4)
        g.groups[3] =
            _mm512_maskz_compress_epi8(ends, _mm512_maskz_alignr_epi8(third, payload, lanes, 13));
    else /* leads of four bytes do not fit two */
        d->errors = _mm512_or_si512(d->errors, _mm512_subs_epu8(now, _mm512_set1_epi8((char)0xEF)));
    d->bytes = now;
    d->payload = payload;
    d->second = cont >> 63;
    d->third = second >> 63;
    return g;
}

/* Between code points nothing is carried. */
TARGET FASTWS_INLINE void reset(decoder *d)
{
    d->bytes = d->payload = _mm512_setzero_si512();
    d->second = d->third = 0;
}

/* 32 units of two bytes, from the lower (0) or upper (1) half of a vector of groups. */
#define HALF(v, at) _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(v, at))
#define JOIN2(g, at)                                                                            \
    _mm512_or_si512(HALF((g)[0], at), _mm512_or_si512(_mm512_slli_epi16(HALF((g)[1], at), 6),   \
                                                      _mm512_slli_epi16(HALF((g)[2], at), 12)))
/* 16 units of four bytes, from one of the quarters. */
#define QUARTER(v, at) _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(v, at))
#define JOIN4(g, at)                                                                            \
    _mm512_or_si512(                                                                            \
        _mm512_or_si512(QUARTER((g)[0], at), _mm512_slli_epi32(QUARTER((g)[1], at), 6)),        \
        _mm512_or_si512(_mm512_slli_epi32(QUARTER((g)[2], at), 12),                             \
                        _mm512_slli_epi32(QUARTER((g)[3], at), 18)))

/* Store a whole vector where `left` units of room allow it, else no more than `count` units, >
   0. */
TARGET FASTWS_INLINE void store2(uint16_t *out, __m512i v, size_t count, size_t left)
{
    if (FASTWS_LIKELY(left >= 32))
        _mm512_storeu_si512(out, v);
    else
        _mm512_mask_storeu_epi16(out, (__mmask32)low_bits(count), v);
}

TARGET FASTWS_INLINE void store4(uint32_t *out, __m512i v, size_t count, size_t left)
{
    if (FASTWS_LIKELY(left >= 16))
        _mm512_storeu_si512(out, v);
    else
        _mm512_mask_storeu_epi32(out, (__mmask16)low_bits(count < 16 ? count : 16), v);
}

/* Store the `count` code points of a block, 0 < count <= left. */
TARGET FASTWS_INLINE void put2(uint16_t *out, const __m512i g[4], size_t count, size_t left)
{
    store2(out, JOIN2(g, 0), count, left);
    if (count > 32)
        store2(out + 32, JOIN2(g, 1), count - 32, left - 32);
}

TARGET FASTWS_INLINE void put4(uint32_t *out, const __m512i g[4], size_t count, size_t left)
{
    store4(out, JOIN4(g, 0), count, left);
    if (count > 16)
        store4(out + 16, JOIN4(g, 1), count - 16, left - 16);
    if (count > 32)
        store4(out + 32, JOIN4(g, 2), count - 32, left - 32);
    if (count > 48)
        store4(out + 48, JOIN4(g, 3), count - 48, left - 48);
}

TARGET FASTWS_INLINE void put_ascii2(uint16_t *out, __m512i v, size_t count, size_t left)
{
    store2(out, HALF(v, 0), count, left);
    if (count > 32)
        store2(out + 32, HALF(v, 1), count - 32, left - 32);
}

TARGET FASTWS_INLINE void put_ascii4(uint32_t *out, __m512i v, size_t count, size_t left)
{
    store4(out, QUARTER(v, 0), count, left);
    if (count > 16)
        store4(out + 16, QUARTER(v, 1), count - 16, left - 16);
    if (count > 32)
        store4(out + 32, QUARTER(v, 2), count - 32, left - 32);
    if (count > 48)
        store4(out + 48, QUARTER(v, 3), count - 48, left - 48);
}

/* `width`, 2 or 4 bytes, is a constant wherever this is inlined. */
TARGET FASTWS_INLINE int convert(const uint8_t *p, size_t n, void *out, size_t out_len, int width)
{
    uint16_t *out2 = (uint16_t *)out;
    uint32_t *out4 = (uint32_t *)out;
    size_t done = 0;
    decoder d;
    if (fastws_utf8_open_tail(p, n))
        return -1;
    reset(&d);
    d.errors = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += BLOCK) {
        const __m512i now = load_block(p + i, n - i);
        const uint64_t inside = n - i >= BLOCK ? ~UINT64_C(0) : low_bits(n - i);
        const size_t left = out_len - done;
        size_t count;
        if (!_mm512_movepi8_mask(now)) {
            count = n - i >= BLOCK ? BLOCK : n - i;
            if (fastws_utf8_open_tail(p, i) || count > left)
                return -1;
            reset(&d);
            if (width == 2)
                put_ascii2(out2 + done, now, count, left);
            else
                put_ascii4(out4 + done, now, count, left);
        } else {
            int next_continues = n - i > BLOCK && (p[i + BLOCK] & 0xC0) == 0x80;
            gathered g = gather(&d, now, inside, next_continues, width);
            count = g.count;
            if (count > left)
                return -1;
            if (width == 2)
                put2(out2 + done, g.groups, count, left);
            else
                put4(out4 + done, g.groups, count, left);
        }
        done += count;
    }
    return any_bit(d.errors) || done != out_len ? -1 : 0;
}

TARGET int fastws_utf8_to_ucs2_avx512(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    int result = convert(p, n, out, out_len, 2);
    FASTWS_ZEROUPPER();
    return result;
}

TARGET int fastws_utf8_to_ucs4_avx512(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    int result = convert(p, n, out, out_len, 4);
    FASTWS_ZEROUPPER();
    return result;
}
#endif

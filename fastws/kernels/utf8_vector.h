/* The UTF-8 kernels for vectors without compress instructions, written once and included by one
   file per instruction set, which defines beforehand:

   ISA, TARGET          suffix of the function names; attribute of every function
   NARROWER_ISA         the kernel for texts of less than one vector
   vec, WIDTH, LANES    a vector of WIDTH bytes; its lanes of 16 bytes, the first in memory first
   v_load, v_zero, v_splat(byte), v_table16(16 bytes, repeated in each lane)
   v_and, v_or, v_xor, v_add, v_sub, v_subs (unsigned, saturating), v_max_bytes (unsigned)
   v_equal, v_is_continuation      0xFF in each byte where it holds (80..BF)
   v_lookup(table, v)              16-entry look-up for each byte, which is < 16
   v_high_nibbles(v)               each byte >> 4
   v_back(now, before, k)          each byte replaced by the one k before it, 1 to 3, across vectors
   v_any(v), v_any_high(v)         whether any bit, any byte >= 0x80, is there
   v_high_bits(v[VECTORS])         bit i: byte i of the block is >= 0x80
   v_sum_bytes(v), v_greatest(v)   over all bytes
   v_join_low(a, b), v_join_high   16-bit units a + (b << 6) of the lower (upper) 8 bytes of a lane
   v_top_low(c), v_top_high        c << 12, likewise
   v_put_bytes(out, v, mask, offsets, group)
       of each 8 bytes, which are groups `group` and up of the block, store those that the 64 bits
       of `mask` select: those of group g at `out` + byte g of `offsets`
   v_put_units2(out, low, high, mask, offsets, group)
       the same for 16-bit units: `low` has those of the lower 8 bytes of each lane
   v_put_units4(out, low, low_top, high, high_top, mask, offsets, group)
       for 32-bit units, low + (low_top << 12)
   v_widen2(out, v), v_widen4      store WIDTH ASCII bytes as units of 2, of 4 bytes

   The store of a group writes 8 units, those beyond the selected ones undefined: groups are stored
   in order, and there is room for a whole block.

   A block is 64 bytes; the last one is copied to a buffer and padded with zeros.  Decoding: every
   code point is gathered at the position of its last byte.  There, vectors of payload bits, the
   bytes' own and those one, two and three positions back (zero where the code point does not reach
   so far), are joined to units; a shuffle per 8 positions moves the wanted units together. */

#define NAME2(name, isa) fastws_utf8_##name##_##isa
#define NAME1(name, isa) NAME2(name, isa)
#define NAME(name) NAME1(name, ISA)
#define NARROWER(name) NAME1(name, NARROWER_ISA)

#define BLOCK 64
#define VECTORS (BLOCK / WIDTH)

/* Byte i of the result: bits set in bytes 0 to i - 1 of the mask.  So the stores of a block need
   not wait for one another's counts. */
FASTWS_INLINE uint64_t counts_before(uint64_t mask, size_t *total)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t v = mask - (mask >> 1 & ones * 0x55);
    v = (v & ones * 0x33) + (v >> 2 & ones * 0x33);
    v = ((v + (v >> 4)) & ones * 0x0F) * ones; /* sums up to and with byte i, each <= 64 */
    *total = (size_t)(v >> 56);
    return v << 8;
}

/* Errors of a vector, as in utf8_tables.h: zero when there is none. */
TARGET FASTWS_INLINE vec errors_in(vec now, vec before)
{
    const vec back1 = v_back(now, before, 1);
    const vec a = v_lookup(v_table16(fastws_utf8_byte1_high), v_high_nibbles(back1));
    const vec b = v_lookup(v_table16(fastws_utf8_byte1_low), v_and(back1, v_splat(0x0F)));
    const vec c = v_lookup(v_table16(fastws_utf8_byte2_high), v_high_nibbles(now));
    /* bit 7 where E0..FF is two back or F0..FF three back */
    const vec third = v_subs(v_back(now, before, 2), v_splat(0xE0 - 0x80));
    const vec fourth = v_subs(v_back(now, before, 3), v_splat(0xF0 - 0x80));
    return v_xor(v_and(v_and(a, b), c), v_and(v_or(third, fourth), v_splat(0x80)));
}

typedef struct {
    vec v[VECTORS];
} block;

TARGET FASTWS_INLINE block load_block(const uint8_t *p)
{
    block b;
    for (int k = 0; k < VECTORS; k++)
        b.v[k] = v_load(p + k * WIDTH);
    return b;
}

TARGET FASTWS_INLINE int is_ascii(const block *b)
{
    vec seen = b->v[0];
    for (int k = 1; k < VECTORS; k++)
        seen = v_or(seen, b->v[k]);
    return !v_any_high(seen);
}

/* The block at p + i, or what is left there with zeros behind it, n >= 16.  Copies whole lanes
   only, the last one so that it ends where the text ends: the room before the block takes what is
   too much. */
#define PAD (16 + BLOCK)
FASTWS_INLINE const uint8_t *block_at(const uint8_t *p, size_t i, size_t n, uint8_t pad[PAD])
{
    const size_t left = n - i;
    if (FASTWS_LIKELY(left >= BLOCK))
        return p + i;
    memset(pad + 16, 0, BLOCK);
    for (size_t k = 0; k + 16 <= left; k += 16)
        memcpy(pad + 16 + k, p + i + k, 16);
    memcpy(pad + left, p + n - 16, 16);
    return pad + 16;
}

TARGET int NAME(valid)(const uint8_t *p, size_t n)
{
    uint8_t pad[PAD];
    vec before = v_zero(), errors = v_zero();
    int failed;
    if (n < WIDTH)
        return NARROWER(valid)(p, n);
    if (fastws_utf8_open_tail(p, n))
        return -1;
    for (size_t i = 0; i < n; i += BLOCK) {
        const block b = load_block(block_at(p, i, n, pad));
        if (is_ascii(&b)) {
            if (fastws_utf8_open_tail(p, i))
                return -1;
            before = v_zero();
            continue;
        }
        for (int k = 0; k < VECTORS; k++) {
            errors = v_or(errors, errors_in(b.v[k], before));
            before = b.v[k];
        }
    }
    failed = v_any(errors);
    FASTWS_ZEROUPPER();
    return failed ? -1 : 0;
}

TARGET void NAME(scan)(const uint8_t *p, size_t n, size_t *code_points, uint8_t *max_byte)
{
    vec max = v_zero(), counts, now;
    size_t continuations = 0, i = 0;
    if (n < WIDTH) {
        NARROWER(scan)(p, n, code_points, max_byte);
        return;
    }
    while (n - i >= WIDTH) {
        /* a counter per byte overflows after 255 vectors */
        size_t vectors = (n - i) / WIDTH < 255 ? (n - i) / WIDTH : 255;
        counts = v_zero();
        for (; vectors; vectors--, i += WIDTH) {
            now = v_load(p + i);
            max = v_max_bytes(max, now);
            counts = v_sub(counts, v_is_continuation(now)); /* minus -1 */
        }
        continuations += v_sum_bytes(counts);
    }
    if (i < n) { /* the last WIDTH bytes, those seen before as zeros */
        now = v_and(v_load(p + n - WIDTH), v_load(fastws_utf8_last_bytes + 32 - WIDTH + (n - i)));
        max = v_max_bytes(max, now);
        continuations += v_sum_bytes(v_and(v_is_continuation(now), v_splat(1)));
    }
    *code_points = n - continuations;
    *max_byte = v_greatest(max);
    FASTWS_ZEROUPPER();
}

/* The method of utf8_avx512.c: C2 and C3 are the only leads, each with one continuation. */
TARGET int NAME(to_latin1)(const uint8_t *p, size_t n, void *out_, size_t out_len)
{
    uint8_t pad[PAD], *out = (uint8_t *)out_;
    vec before = v_zero(), leads_before = v_zero(), wrong = v_zero();
    size_t left = out_len;
    int failed;
    if (n < WIDTH)
        return NARROWER(to_latin1)(p, n, out_, out_len);
    if (fastws_utf8_open_tail(p, n))
        return -1;
    for (size_t i = 0; i < n; i += BLOCK) {
        const uint8_t *at = block_at(p, i, n, pad);
        const size_t inside = n - i < BLOCK ? n - i : BLOCK;
        const block b = load_block(at);
        size_t count;
        if (is_ascii(&b)) {
            if (fastws_utf8_open_tail(p, i) || inside > left)
                return -1;
            before = leads_before = v_zero();
            memcpy(out, at, inside);
            count = inside;
        } else {
            block chars, leads;
            uint64_t drop, keep, offsets;
            for (int k = 0; k < VECTORS; k++) {
                const vec now = b.v[k];
                /* C0 and above, but only C2 and C3 may be there */
                const vec lead = v_equal(v_max_bytes(now, v_splat(0xC0)), now);
                const vec after_lead = v_back(lead, leads_before, 1);
                const vec after_c3 = v_equal(v_back(now, before, 1), v_splat(0xC3));
                wrong = v_or(wrong, v_xor(lead, v_equal(v_and(now, v_splat(0xFE)), v_splat(0xC2))));
                wrong = v_or(wrong, v_xor(after_lead, v_is_continuation(now)));
                chars.v[k] = v_add(now, v_and(after_c3, v_splat(0x40)));
                leads.v[k] = lead;
                leads_before = lead;
                before = now;
            }
            drop = v_high_bits(leads.v);
            keep = inside < BLOCK ? ~drop & ((UINT64_C(1) << inside) - 1) : ~drop;
            offsets = counts_before(keep, &count);
            if (FASTWS_LIKELY(left >= BLOCK)) {
                for (int k = 0; k < VECTORS; k++)
                    v_put_bytes(out, chars.v[k], keep, offsets, 2 * LANES * k);
            } else {
                uint8_t units[BLOCK];
                if (count > left)
                    return -1;
                for (int k = 0; k < VECTORS; k++)
                    v_put_bytes(units, chars.v[k], keep, offsets, 2 * LANES * k);
                memcpy(out, units, count);
            }
        }
        out += count;
        left -= count;
    }
    failed = v_any(wrong) || left;
    FASTWS_ZEROUPPER();
    return failed ? -1 : 0;
}

/* What the decoders carry from vector to vector. */
typedef struct {
    vec bytes, payload, back1, back2, errors;
} decoder;

/* Between code points nothing is carried. */
TARGET FASTWS_INLINE void reset(decoder *d)
{
    d->bytes = d->payload = d->back1 = d->back2 = v_zero();
}

/* Decode a block that is not ASCII: `ends` are the last bytes of its code points.  Writes up to
   BLOCK units, those beyond the code points undefined.  inside: bytes of the block that are
   text. */
TARGET FASTWS_INLINE void decode_block(decoder *d, void *out, const block *b, uint64_t ends,
                                       uint64_t offsets, size_t inside, int unit)
{
    for (int k = 0; k < VECTORS && (size_t)k * WIDTH < inside; k++) {
        const vec now = b->v[k];
        const vec continuation = v_is_continuation(now);
        const vec bits = v_lookup(v_table16(fastws_utf8_payload_bits), v_high_nibbles(now));
        const vec payload = v_and(now, bits);
        const vec back1 = v_and(v_back(payload, d->payload, 1), continuation);
        const vec back2 = v_and(v_back(back1, d->back1, 1), continuation);
        const int group = 2 * LANES * k;
        d->errors = v_or(d->errors, errors_in(now, d->bytes));
        if (!v_any_high(now)) { /* every byte is the last of its code point */
            uint8_t *to = (uint8_t *)out + (offsets >> (8 * group) & 0xFF) * (size_t)unit;
            if (unit == 2)
                v_widen2(to, now);
            else
                v_widen4(to, now);
            d->bytes = d->payload = now;
            d->back1 = d->back2 = v_zero();
            continue;
        }
        if (unit == 2) {
            /* leads of four bytes do not fit */
            d->errors = v_or(d->errors, v_subs(now, v_splat(0xEF)));
            v_put_units2(out, v_or(v_join_low(payload, back1), v_top_low(back2)),
                         v_or(v_join_high(payload, back1), v_top_high(back2)), ends, offsets,
                         group);
        } else {
            const vec back3 = v_and(v_back(back2, d->back2, 1), continuation);
            v_put_units4(out, v_join_low(payload, back1), v_join_low(back2, back3),
                         v_join_high(payload, back1), v_join_high(back2, back3), ends, offsets,
                         group);
        }
        d->bytes = now;
        d->payload = payload;
        d->back1 = back1;
        d->back2 = back2;
    }
}

/* `unit`, 2 or 4 bytes, is a constant wherever this is inlined. */
TARGET FASTWS_INLINE int convert(const uint8_t *p, size_t n, uint8_t *out, size_t out_len, int unit)
{
    uint8_t pad[PAD];
    size_t left = out_len;
    decoder d;
    if (fastws_utf8_open_tail(p, n))
        return -1;
    reset(&d);
    d.errors = v_zero();
    for (size_t i = 0; i < n; i += BLOCK) {
        const uint8_t *at = block_at(p, i, n, pad);
        const size_t inside = n - i < BLOCK ? n - i : BLOCK;
        const block b = load_block(at);
        uint32_t units[BLOCK]; /* for the end, where `out` has no room for whole vectors */
        uint8_t *to = FASTWS_LIKELY(left >= BLOCK) ? out : (uint8_t *)units;
        size_t count;
        if (is_ascii(&b)) {
            count = inside;
            if (fastws_utf8_open_tail(p, i) || count > left)
                return -1;
            reset(&d);
            for (int k = 0; k < VECTORS; k++) {
                if (unit == 2)
                    v_widen2(to + k * WIDTH * 2, b.v[k]);
                else
                    v_widen4(to + k * WIDTH * 4, b.v[k]);
            }
        } else {
            block continuation;
            uint64_t ends, offsets;
            for (int k = 0; k < VECTORS; k++)
                continuation.v[k] = v_is_continuation(b.v[k]);
            ends = v_high_bits(continuation.v) >> 1;
            if (n - i > BLOCK)
                ends |= (uint64_t)((p[i + BLOCK] & 0xC0) == 0x80) << 63;
            ends = ~ends;
            if (inside < BLOCK)
                ends &= (UINT64_C(1) << inside) - 1;
            offsets = counts_before(ends, &count);
            if (count > left)
                return -1;
            decode_block(&d, to, &b, ends, offsets, inside, unit);
        }
        if (to != out)
            memcpy(out, units, count * (size_t)unit);
        out += count * (size_t)unit;
        left -= count;
    }
    return v_any(d.errors) || left ? -1 : 0;
}

TARGET int NAME(to_ucs2)(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    int result;
    if (n < WIDTH)
        return NARROWER(to_ucs2)(p, n, out, out_len);
    result = convert(p, n, (uint8_t *)out, out_len, 2);
    FASTWS_ZEROUPPER();
    return result;
}

TARGET int NAME(to_ucs4)(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    int result;
    if (n < WIDTH)
        return NARROWER(to_ucs4)(p, n, out, out_len);
    result = convert(p, n, (uint8_t *)out, out_len, 4);
    FASTWS_ZEROUPPER();
    return result;
}

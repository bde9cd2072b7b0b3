/* A message that refers to none before it, decompressed at once (RFC 1951, RFC 7692 7.2.2).

   What is unusual is not told apart from what is wrong: the caller has a stream that takes it
   again from the start, or says what is the matter with it.  So nothing here is refused for good,
   and what is taken is what every reader takes: complete codes, blocks of which none is the last
   one, and the header of an empty one at the end. */
#ifndef FASTWS_INFLATE_H
#define FASTWS_INFLATE_H

#include "rfc1951.h"

#define INFLATE_LITERALS 288
#define INFLATE_DISTANCES 30
#define INFLATE_END 256
#define INFLATE_MAX_BITS 15
#define INFLATE_LITERAL_ROOT 10
#define INFLATE_DISTANCE_ROOT 8
#define INFLATE_LENGTH_ROOT 7
/* Entries of a table and those under it, at most: zlib's examples/enough.c says so for 288 symbols
   with a root of 10 bits, and for 30 with 8; checked all the same. */
#define INFLATE_LITERAL_ENTRIES 1334
#define INFLATE_DISTANCE_ENTRIES 402
#define INFLATE_LENGTH_ENTRIES 128

#define FASTWS_INFLATE_SLACK 16 /* bytes beyond the output that may be written */

/* An entry: what it means << 16 | kind | extra bits << 8 | bits of its code (those under a root:
   beyond the root's).  0 is none. */
#define INFLATE_LITERAL 0x1000u
#define INFLATE_BASE 0x2000u   /* of a length or distance */
#define INFLATE_STOP 0x4000u
#define INFLATE_BRANCH 0x8000u /* the entry of a table under this one, which takes `extra` bits */

typedef struct {
    uint32_t literals[INFLATE_LITERAL_ENTRIES];
    uint32_t distances[INFLATE_DISTANCE_ENTRIES];
    uint32_t lengths[INFLATE_LENGTH_ENTRIES];
    unsigned literal_root, distance_root;
} fastws_inflater;

/* What a symbol means, as an entry without its bits; 0 for one that must not occur. */
FASTWS_INLINE uint32_t inflate_literal_entry(unsigned symbol)
{
    if (symbol < INFLATE_END)
        return (uint32_t)symbol << 16 | INFLATE_LITERAL;
    if (symbol == INFLATE_END)
        return INFLATE_STOP;
    symbol -= 257;
    if (symbol >= 29)
        return 0;
    return (uint32_t)rfc1951_length_base[symbol] << 16 | INFLATE_BASE |
           (uint32_t)rfc1951_length_extra[symbol] << 8;
}

FASTWS_INLINE uint32_t inflate_distance_entry(unsigned symbol)
{
    unsigned extra = symbol < 4 ? 0 : symbol / 2 - 1;
    uint32_t base = symbol < 4 ? symbol + 1 : ((2 + (symbol & 1)) << extra) + 1;
    return base << 16 | INFLATE_BASE | (uint32_t)extra << 8;
}

FASTWS_INLINE uint32_t inflate_length_entry(unsigned symbol)
{
    return (uint32_t)symbol << 16 | INFLATE_LITERAL;
}

/* Repeat the first `filled` entries until there are 2 ** `bits`, 8 at a time: what is written beyond
   2 ** bits, if these are fewer, nobody looks at.  A memcpy of so few takes longer to begin. */
FASTWS_INLINE unsigned inflate_double(uint32_t *table, unsigned filled, unsigned bits)
{
    for (; filled < 1u << bits; filled *= 2) {
        unsigned i;
        for (i = 0; i < filled; i += 8) {
            uint64_t four[4];
            memcpy(four, table + i, sizeof four);
            memcpy(table + filled + i, four, sizeof four);
        }
    }
    return filled;
}

/* The table of the codes of these lengths (RFC 1951 3.2.2).  How many bits index it, `root` at
   most; 0 if they are not one complete set of codes.

   Codes are taken in their order, as the reader meets their bits: reversed.  The table doubles
   whenever they get a bit longer, so that an entry is written once and copied from then on. */
FASTWS_INLINE unsigned inflate_table(const uint8_t *lengths, unsigned symbols, unsigned root,
                                     uint32_t *table, unsigned entries,
                                     uint32_t (*entry_of)(unsigned))
{
    uint16_t occur[INFLATE_LITERALS + 1], sorted[INFLATE_LITERALS];
    unsigned count[INFLATE_MAX_BITS + 1] = {0}, start[INFLATE_MAX_BITS + 2];
    unsigned longest = INFLATE_MAX_BITS, used = 0, code = 0, i, length, at, filled;
    unsigned prefix = ~0u, under = 0, under_bits = 0;
    int left = 1;
    for (i = 0; i < symbols; i++) {
        occur[used] = (uint16_t)i;
        used += lengths[i] != 0;
    }
    for (i = 0; i < used; i++)
        count[lengths[occur[i]]]++;
    while (longest && !count[longest])
        longest--;
    start[1] = 0;
    for (length = 1; length <= INFLATE_MAX_BITS; length++) {
        left = 2 * left - (int)count[length];
        if (left < 0)
            return 0;
        start[length + 1] = start[length] + count[length];
    }
    if (left != 0)
        return 0;
    for (i = 0; i < used; i++)
        sorted[start[lengths[occur[i]]]++] = occur[i];
    if (root > longest)
        root = longest;
    for (length = 1; !count[length]; length++)
        ;
    filled = 1u << (length < root ? length : root);
    for (at = 0; at < used; at++) {
        uint32_t entry = entry_of(sorted[at]);
        while (!count[length])
            length++;
        if (length <= root) {
            filled = inflate_double(table, filled, length);
            table[code] = entry ? entry | length : 0;
        } else {
            unsigned step;
            filled = inflate_double(table, filled, root);
            if ((code & ((1u << root) - 1)) != prefix) {
                /* As many bits as the codes need that are left and begin like this one. */
                unsigned room = count[length];
                prefix = code & ((1u << root) - 1);
                under = under_bits ? under + (1u << under_bits) : 1u << root;
                under_bits = length - root;
                while (room < 1u << under_bits && root + under_bits < longest) {
                    under_bits++;
                    room = 2 * room + count[root + under_bits];
                }
                if (under + (1u << under_bits) > entries)
                    return 0;
                table[prefix] = under << 16 | INFLATE_BRANCH | under_bits << 8 | root;
            }
            for (step = code >> root; step < 1u << under_bits; step += 1u << (length - root))
                table[under + step] = entry ? entry | (length - root) : 0;
        }
        count[length]--;
        if (code != (1u << length) - 1) {
            unsigned bit = 1u << fastws_top_bit(code ^ ((1u << length) - 1));
            code = (code & (bit - 1)) | bit;
        }
    }
    inflate_double(table, filled, root);
    return root;
}

/* --- input */

typedef struct {
    uint64_t bits;
    unsigned count;  /* of the bits that are there */
    unsigned missing; /* bytes of them that the input does not have */
    const uint8_t *at, *end;
} inflate_reader;

/* At least 56 bits; those behind the end of the input are zeros.  0 if such were used. */
FASTWS_INLINE int inflate_fill(inflate_reader *in)
{
    if (FASTWS_LIKELY(in->end - in->at >= 8)) {
        uint64_t more = fastws_load64(in->at);
#if FASTWS_BIG_ENDIAN
        more = __builtin_bswap64(more);
#endif
        in->bits |= more << in->count;
        in->at += (63 - in->count) >> 3;
        in->count |= 56;
        return 1;
    }
    if (8 * in->missing > in->count)
        return 0;
    for (; in->count < 56; in->count += 8) {
        if (in->at < in->end)
            in->bits |= (uint64_t)*in->at++ << in->count;
        else
            in->missing++;
    }
    return 1;
}

FASTWS_INLINE unsigned inflate_take(inflate_reader *in, unsigned count)
{
    unsigned bits = (unsigned)(in->bits & ((1u << count) - 1));
    in->bits >>= count;
    in->count -= count;
    return bits;
}

FASTWS_INLINE uint32_t inflate_symbol(inflate_reader *in, const uint32_t *table, unsigned root)
{
    uint32_t entry = table[in->bits & ((1u << root) - 1)];
    if (FASTWS_UNLIKELY(entry & INFLATE_BRANCH)) {
        inflate_take(in, root);
        entry = table[(entry >> 16) + (in->bits & ((1u << (entry >> 8 & 0xF)) - 1))];
    }
    inflate_take(in, entry & 0xFF);
    return entry;
}

/* --- blocks */

/* RFC 1951 3.2.6 */
static int inflate_fixed_codes(fastws_inflater *work)
{
    uint8_t lengths[INFLATE_LITERALS];
    unsigned i;
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    work->literal_root = inflate_table(lengths, INFLATE_LITERALS, INFLATE_LITERAL_ROOT,
                                       work->literals, INFLATE_LITERAL_ENTRIES,
                                       inflate_literal_entry);
    for (i = 0; i < 32; i++) {
        unsigned reversed = (i & 1) << 4 | (i & 2) << 2 | (i & 4) | (i & 8) >> 2 | i >> 4;
        work->distances[reversed] = i < INFLATE_DISTANCES ? inflate_distance_entry(i) | 5 : 0;
    }
    work->distance_root = 5;
    return 1;
}

/* RFC 1951 3.2.7 */
static int inflate_own_codes(fastws_inflater *work, inflate_reader *in)
{
    uint8_t lengths[INFLATE_LITERALS + INFLATE_DISTANCES] = {0};
    uint8_t of_lengths[19] = {0};
    unsigned literals, distances, count, root, i;
    if (!inflate_fill(in))
        return 0;
    literals = inflate_take(in, 5) + 257;
    distances = inflate_take(in, 5) + 1;
    count = inflate_take(in, 4) + 4;
    if (literals > 286 || distances > INFLATE_DISTANCES)
        return 0;
    for (i = 0; i < count; i++) {
        if (i % 8 == 0 && !inflate_fill(in))
            return 0;
        of_lengths[rfc1951_code_order[i]] = (uint8_t)inflate_take(in, 3);
    }
    root = inflate_table(of_lengths, 19, INFLATE_LENGTH_ROOT, work->lengths, INFLATE_LENGTH_ENTRIES,
                         inflate_length_entry);
    if (!root)
        return 0;
    for (i = 0; i < literals + distances;) {
        unsigned symbol, run;
        uint8_t length = 0;
        if (!inflate_fill(in))
            return 0;
        symbol = inflate_symbol(in, work->lengths, root) >> 16;
        if (symbol < 16) {
            lengths[i++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16) {
            if (i == 0)
                return 0;
            length = lengths[i - 1];
            run = 3 + inflate_take(in, 2);
        } else {
            run = symbol == 17 ? 3 + inflate_take(in, 3) : 11 + inflate_take(in, 7);
        }
        if (run > literals + distances - i)
            return 0;
        memset(lengths + i, length, run);
        i += run;
    }
    if (!lengths[INFLATE_END])
        return 0;
    work->literal_root = inflate_table(lengths, literals, INFLATE_LITERAL_ROOT, work->literals,
                                       INFLATE_LITERAL_ENTRIES, inflate_literal_entry);
    work->distance_root = inflate_table(lengths + literals, distances, INFLATE_DISTANCE_ROOT,
                                        work->distances, INFLATE_DISTANCE_ENTRIES,
                                        inflate_distance_entry);
    return work->literal_root && work->distance_root;
}

/* The symbols of a block, to `out`, which begins the message at `first` and ends at `end`.  Where
   it got to; NULL if it is not to be had here. */
static uint8_t *inflate_block(const fastws_inflater *work, inflate_reader *from,
                              const uint8_t *first, uint8_t *out, const uint8_t *end)
{
    inflate_reader in = *from;
    const unsigned literal_root = work->literal_root, distance_root = work->distance_root;
    for (;;) {
        uint32_t entry;
        size_t length, distance;
        const uint8_t *source;
        if (!inflate_fill(&in))
            return NULL;
        entry = inflate_symbol(&in, work->literals, literal_root);
        if (entry & INFLATE_LITERAL) {
            /* The 56 bits hold three of them, and the slack of the output two too many. */
            if (out >= end)
                return NULL;
            *out++ = (uint8_t)(entry >> 16);
            entry = inflate_symbol(&in, work->literals, literal_root);
            if (entry & INFLATE_LITERAL) {
                *out++ = (uint8_t)(entry >> 16);
                entry = inflate_symbol(&in, work->literals, literal_root);
                if (entry & INFLATE_LITERAL) {
                    *out++ = (uint8_t)(entry >> 16);
                    if (out > end)
                        return NULL;
                    continue;
                }
            }
            if (out > end || !inflate_fill(&in))
                return NULL;
        }
        if (!(entry & INFLATE_BASE)) {
            *from = in;
            return entry & INFLATE_STOP && out <= end ? out : NULL; /* `out` may be two beyond */
        }
        /* The length has 5 bits besides its code at most, and the distance 28 with its own. */
        length = (entry >> 16) + inflate_take(&in, entry >> 8 & 0xF);
        entry = inflate_symbol(&in, work->distances, distance_root);
        if (!entry)
            return NULL;
        distance = (entry >> 16) + inflate_take(&in, entry >> 8 & 0xF);
        if (distance > (size_t)(out - first) || length > (size_t)(end - out))
            return NULL;
        source = out - distance;
        if (distance >= 8) {
            uint8_t *to = out;
            out += length;
            do {
                fastws_store64(to, fastws_load64(source));
                to += 8;
                source += 8;
            } while (to < out);
        } else {
            do
                *out++ = *source++;
            while (--length);
        }
    }
}

/* Decompress a message, less the four bytes that its sender left out, to `out`, which has `room`
   bytes and FASTWS_INFLATE_SLACK more.  Its size; -1 if a stream is to decide about it. */
static ptrdiff_t fastws_inflate(fastws_inflater *work, const uint8_t *data, size_t n, uint8_t *out,
                                size_t room)
{
    inflate_reader in = {0, 0, 0, data, data + n};
    uint8_t *const first = out, *const end = out + room;
    for (;;) {
        unsigned kind;
        if (!inflate_fill(&in))
            return -1;
        kind = inflate_take(&in, 3);
        if (kind == 0) {
            size_t length;
            if (8 * in.missing > in.count)
                return -1;
            in.at -= (in.count >> 3) - in.missing;
            in.bits = in.count = in.missing = 0;
            if (in.at == in.end)
                return out - first;
            if (in.end - in.at < 4)
                return -1;
            length = in.at[0] | (size_t)in.at[1] << 8;
            if ((length ^ (in.at[2] | (size_t)in.at[3] << 8)) != 0xFFFF)
                return -1;
            in.at += 4;
            if (length > (size_t)(in.end - in.at) || length > (size_t)(end - out))
                return -1;
            memcpy(out, in.at, length);
            in.at += length;
            out += length;
        } else if (kind == 2 || kind == 4) {
            if (!(kind == 2 ? inflate_fixed_codes(work) : inflate_own_codes(work, &in)))
                return -1;
            out = inflate_block(work, &in, first, out, end);
            if (out == NULL)
                return -1;
        } else {
            return -1; /* the last block of a stream, or none at all */
        }
    }
}

#endif

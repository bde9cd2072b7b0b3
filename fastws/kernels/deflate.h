/* A message compressed on its own (RFC 1951), for what a WebSocket sends many of: short texts.

   Of a kilobyte, the streams of zlib and its kin spend most of their time on what surrounds the
   search: tables to clear that are large enough for any stream, trees of symbols that do not occur,
   output in pieces.  Here the tables are as large as the message asks for, and the size of a block
   is known before a bit of it is written.  The search takes the last place where four bytes stood,
   as others do at their fastest levels. */
#ifndef FASTWS_DEFLATE_H
#define FASTWS_DEFLATE_H

#include "rfc1951.h"

/* Positions have 16 bits, and 0 is none. */
#define FASTWS_DEFLATE_MAX 65535

#define FASTWS_DEFLATE_SLACK 8 /* bytes beyond the output that may be written */

#define DEFLATE_LITERALS 286
#define DEFLATE_DISTANCES 30
#define DEFLATE_END 256
#define DEFLATE_LENGTH_CODES 19
#define DEFLATE_MAX_MATCH 258
#define DEFLATE_HASH_BITS 13
#define DEFLATE_TOKENS 16384

typedef struct {
    uint16_t head[1 << DEFLATE_HASH_BITS]; /* last position of a hash of four bytes, plus 1 */
    uint32_t tokens[DEFLATE_TOKENS];
    uint32_t literal_count[DEFLATE_LITERALS];
    uint32_t distance_count[DEFLATE_DISTANCES];
    uint16_t literal_code[DEFLATE_LITERALS];
    uint16_t distance_code[DEFLATE_DISTANCES];
    uint8_t literal_bits[DEFLATE_LITERALS];
    uint8_t distance_bits[DEFLATE_DISTANCES];
} fastws_deflater;

/* Of a length, less 3: its symbol, less 257 (RFC 1951 3.2.5). */
static const uint8_t deflate_length_symbol[256] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  8,  9,  9,  10, 10, 11, 11, 12, 12, 12, 12, 13, 13, 13, 13,
    14, 14, 14, 14, 15, 15, 15, 15, 16, 16, 16, 16, 16, 16, 16, 16, 17, 17, 17, 17, 17, 17, 17, 17,
    18, 18, 18, 18, 18, 18, 18, 18, 19, 19, 19, 19, 19, 19, 19, 19, 20, 20, 20, 20, 20, 20, 20, 20,
    20, 20, 20, 20, 20, 20, 20, 20, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21,
    22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 23, 23, 23, 23, 23, 23,
    23, 23, 23, 23, 23, 23, 23, 23, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24,
    24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 25, 25, 25, 25, 25, 25, 25, 25,
    25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25,
    26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26, 26,
    26, 26, 26, 26, 26, 26, 26, 26, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27,
    27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 27, 28,
};

FASTWS_INLINE uint32_t deflate_distance_symbol(uint32_t less_1, unsigned *extra)
{
    unsigned top;
    *extra = 0;
    if (less_1 < 4)
        return less_1;
    top = fastws_top_bit(less_1);
    *extra = top - 1;
    return 2 * top + (less_1 >> (top - 1) & 1);
}

/* --- the search */

/* A token: this, the length less 3 << 16, the distance less 1; or a byte. */
#define DEFLATE_MATCH UINT32_C(0x80000000)

FASTWS_INLINE uint32_t deflate_hash(uint32_t four, unsigned shift)
{
    return four * UINT32_C(2654435761) >> shift; /* 2 ** 32 by the golden ratio (Knuth, 6.4) */
}

/* How many bytes of at most `most` are the same; the first four are. */
FASTWS_INLINE size_t deflate_match_length(const uint8_t *a, const uint8_t *b, size_t most)
{
    size_t length = 4;
    while (length + 8 <= most) {
        uint64_t differ = fastws_load64(a + length) ^ fastws_load64(b + length);
        if (differ) {
#if FASTWS_GNU && !FASTWS_BIG_ENDIAN
            return length + ((size_t)__builtin_ctzll(differ) >> 3);
#else
            break;
#endif
        }
        length += 8;
    }
    while (length < most && a[length] == b[length])
        length++;
    return length;
}

/* Tokens from position `at` on, until there is no room for more or the message has ended; where
   that was.  Counts their symbols. */
static size_t deflate_search(fastws_deflater *work, const uint8_t *data, size_t at, size_t n,
                             unsigned hash_bits, size_t window, size_t *found)
{
    uint32_t *token = work->tokens;
    uint32_t *const last = work->tokens + DEFLATE_TOKENS;
    const unsigned shift = 32 - hash_bits;
    memset(work->literal_count, 0, sizeof work->literal_count);
    memset(work->distance_count, 0, sizeof work->distance_count);
    work->literal_count[DEFLATE_END] = 1;
    while (at + 4 <= n && token < last) {
        uint32_t four = fastws_load32(data + at);
        uint32_t hash = deflate_hash(four, shift);
        size_t before = work->head[hash];
        work->head[hash] = (uint16_t)(at + 1);
        if (before && at + 1 - before <= window && fastws_load32(data + before - 1) == four) {
            size_t most = n - at < DEFLATE_MAX_MATCH ? n - at : DEFLATE_MAX_MATCH;
            size_t length = deflate_match_length(data + at, data + before - 1, most);
            uint32_t distance = (uint32_t)(at - before);
            unsigned extra;
            size_t end = at + length;
            *token++ = DEFLATE_MATCH | (uint32_t)(length - 3) << 16 | distance;
            work->literal_count[257 + deflate_length_symbol[length - 3]]++;
            work->distance_count[deflate_distance_symbol(distance, &extra)]++;
            /* Every other place within it will do to find it again. */
            if (end + 4 <= n)
                for (at++; at < end; at += 2)
                    work->head[deflate_hash(fastws_load32(data + at), shift)] = (uint16_t)(at + 1);
            at = end;
        } else {
            work->literal_count[data[at]]++;
            *token++ = data[at++];
        }
    }
    for (; at < n && token < last; at++) {
        work->literal_count[data[at]]++;
        *token++ = data[at];
    }
    *found = (size_t)(token - work->tokens);
    return at;
}

/* --- Huffman codes (RFC 1951 3.2.2) */

#define DEFLATE_DEPTH 32 /* of a tree without a limit: its counts would be Fibonacci's */
#define DEFLATE_SORTED 64

/* Sort the symbols that occur, `used` in order, by their counts: the rarest first, each as
   count << 16 | symbol. */
static void deflate_sort(const uint32_t *count, const uint16_t *used, unsigned n, uint32_t *sorted)
{
    unsigned start[DEFLATE_SORTED + 1] = {0};
    unsigned frequent, at, i;
    for (i = 0; i < n; i++)
        start[count[used[i]] < DEFLATE_SORTED ? count[used[i]] : DEFLATE_SORTED]++;
    for (at = 0, i = 1; i <= DEFLATE_SORTED; i++) {
        unsigned here = start[i];
        start[i] = at;
        at += here;
    }
    frequent = start[DEFLATE_SORTED];
    for (i = 0; i < n; i++) {
        uint32_t times = count[used[i]];
        sorted[start[times < DEFLATE_SORTED ? times : DEFLATE_SORTED]++] = times << 16 | used[i];
    }
    for (i = frequent + 1; i < n; i++) {
        uint32_t moved = sorted[i];
        for (at = i; at > frequent && sorted[at - 1] > moved; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = moved;
    }
}

/* Lengths of codes by counts in ascending order, in place (Moffat and Katajainen, 1995). */
static void deflate_depths(uint32_t *a, int n)
{
    int root = 0, leaf = 2, next, available = 1, used = 0;
    uint32_t depth = 0;
    a[0] += a[1];
    for (next = 1; next < n - 1; next++) {
        if (leaf >= n || a[root] < a[leaf]) {
            a[next] = a[root];
            a[root++] = (uint32_t)next;
        } else {
            a[next] = a[leaf++];
        }
        if (leaf >= n || (root < next && a[root] < a[leaf])) {
            a[next] += a[root];
            a[root++] = (uint32_t)next;
        } else {
            a[next] += a[leaf++];
        }
    }
    a[n - 2] = 0;
    for (next = n - 3; next >= 0; next--)
        a[next] = a[a[next]] + 1;
    root = n - 2;
    next = n - 1;
    while (available > 0) {
        while (root >= 0 && a[root] == depth) {
            used++;
            root--;
        }
        while (available > used) {
            a[next--] = depth;
            available--;
        }
        available = 2 * used;
        depth++;
        used = 0;
    }
}

/* One code alone would be incomplete, which not every reader takes. */
static void deflate_two(uint32_t *count, unsigned symbols)
{
    unsigned used = 0, i;
    for (i = 0; i < symbols && used < 2; i++)
        used += count[i] != 0;
    for (i = 0; used < 2; i++)
        if (!count[i]) {
            count[i] = 1;
            used++;
        }
}

/* A code as it is sent: from its highest bit on (RFC 1951 3.1.1). */
FASTWS_INLINE uint16_t deflate_reverse(unsigned code, unsigned bits)
{
    code = (code & 0x5555) << 1 | (code >> 1 & 0x5555);
    code = (code & 0x3333) << 2 | (code >> 2 & 0x3333);
    code = (code & 0x0F0F) << 4 | (code >> 4 & 0x0F0F);
    code = (code & 0x00FF) << 8 | (code >> 8 & 0x00FF);
    return (uint16_t)(code >> (16 - bits));
}

/* Codes of at most `limit` bits for the symbols that occur. */
static void deflate_codes(uint32_t *count, unsigned symbols, unsigned limit, uint8_t *bits,
                          uint16_t *codes)
{
    uint32_t sorted[DEFLATE_LITERALS], depths[DEFLATE_LITERALS];
    unsigned of_length[DEFLATE_DEPTH + 1] = {0};
    uint16_t used_symbols[DEFLATE_LITERALS + 1];
    unsigned next[16];
    unsigned used = 0, i, length, code, at;
    deflate_two(count, symbols);
    for (i = 0; i < symbols; i++) {
        used_symbols[used] = (uint16_t)i;
        used += count[i] != 0;
    }
    deflate_sort(count, used_symbols, used, sorted);
    for (i = 0; i < used; i++)
        depths[i] = sorted[i] >> 16;
    deflate_depths(depths, (int)used);
    for (i = 0; i < used; i++)
        of_length[depths[i] < limit ? depths[i] : limit]++;
    if (depths[0] > limit) {
        uint32_t total = 0;
        for (length = 1; length <= limit; length++)
            total += of_length[length] << (limit - length);
        for (; total > 1u << limit; total--) {
            of_length[limit]--;
            for (length = limit - 1; of_length[length] == 0; length--)
                ;
            of_length[length]--;
            of_length[length + 1] += 2;
        }
    }
    memset(bits, 0, symbols);
    for (at = 0, length = limit; length > 0; length--)
        for (i = of_length[length]; i; i--)
            bits[sorted[at++] & 0xFFFF] = (uint8_t)length;
    for (code = 0, length = 1; length <= limit; length++) {
        next[length] = code;
        code = (code + of_length[length]) << 1;
    }
    for (i = 0; i < used; i++) {
        unsigned symbol = used_symbols[i];
        codes[symbol] = deflate_reverse(next[bits[symbol]]++, bits[symbol]);
    }
}

/* The codes that need no header (RFC 1951 3.2.6). */
FASTWS_INLINE unsigned deflate_fixed_bits(unsigned symbol)
{
    return symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8;
}

static void deflate_fixed_codes(fastws_deflater *work)
{
    unsigned i;
    for (i = 0; i < DEFLATE_LITERALS; i++) {
        unsigned bits = deflate_fixed_bits(i);
        unsigned code = i < 144 ? 48 + i : i < 256 ? 256 + i : i < 280 ? i - 256 : i - 88;
        work->literal_bits[i] = (uint8_t)bits;
        work->literal_code[i] = deflate_reverse(code, bits);
    }
    for (i = 0; i < DEFLATE_DISTANCES; i++) {
        work->distance_bits[i] = 5;
        work->distance_code[i] = deflate_reverse(i, 5);
    }
}

/* --- output */

typedef struct {
    uint64_t bits;
    unsigned count; /* below 8 after deflate_flush() */
    uint8_t *at;
} deflate_writer;

FASTWS_INLINE void deflate_put(deflate_writer *out, uint64_t bits, unsigned count)
{
    out->bits |= bits << out->count;
    out->count += count;
}

FASTWS_INLINE void deflate_flush(deflate_writer *out)
{
#if FASTWS_BIG_ENDIAN
    fastws_store64(out->at, __builtin_bswap64(out->bits));
#else
    fastws_store64(out->at, out->bits);
#endif
    out->at += out->count >> 3;
    out->bits >>= out->count & ~7u;
    out->count &= 7;
}

/* The header of a block with codes of its own (RFC 1951 3.2.7). */
typedef struct {
    uint8_t runs[DEFLATE_LITERALS + DEFLATE_DISTANCES]; /* symbols, and what follows them */
    uint8_t more[DEFLATE_LITERALS + DEFLATE_DISTANCES];
    unsigned count, literals, distances, lengths;
    uint8_t bits[DEFLATE_LENGTH_CODES];
    uint16_t codes[DEFLATE_LENGTH_CODES];
} deflate_header;

static const uint8_t deflate_run_bits[3] = {2, 3, 7}; /* of the symbols 16, 17 and 18 */

/* Its size in bits. */
static size_t deflate_describe(const fastws_deflater *work, deflate_header *header)
{
    uint8_t all[DEFLATE_LITERALS + DEFLATE_DISTANCES];
    uint32_t count[DEFLATE_LENGTH_CODES] = {0};
    unsigned total, at, i;
    size_t size;
    header->literals = DEFLATE_LITERALS;
    while (!work->literal_bits[header->literals - 1]) /* the end of the block occurs */
        header->literals--;
    header->distances = DEFLATE_DISTANCES;
    while (!work->distance_bits[header->distances - 1])
        header->distances--;
    total = header->literals + header->distances;
    memcpy(all, work->literal_bits, header->literals);
    memcpy(all + header->literals, work->distance_bits, header->distances);
    header->count = 0;
    for (at = 0; at < total;) {
        uint8_t length = all[at];
        unsigned run = 1, symbol = length, more = 0;
        while (at + run < total && all[at + run] == length)
            run++;
        if (length == 0 && run >= 3) {
            if (run > 138)
                run = 138;
            symbol = run < 11 ? 17 : 18;
            more = run - (run < 11 ? 3 : 11);
        } else if (at > 0 && all[at - 1] == length && run >= 3) {
            if (run > 6)
                run = 6;
            symbol = 16;
            more = run - 3;
        } else {
            run = 1;
        }
        header->runs[header->count] = (uint8_t)symbol;
        header->more[header->count++] = (uint8_t)more;
        count[symbol]++;
        at += run;
    }
    deflate_codes(count, DEFLATE_LENGTH_CODES, 7, header->bits, header->codes);
    header->lengths = DEFLATE_LENGTH_CODES;
    while (!header->bits[rfc1951_code_order[header->lengths - 1]])
        header->lengths--;
    size = 5 + 5 + 4 + 3 * header->lengths;
    for (i = 0; i < DEFLATE_LENGTH_CODES; i++)
        size += count[i] * (header->bits[i] + (i < 16 ? 0u : deflate_run_bits[i - 16]));
    return size;
}

static void deflate_write_header(const deflate_header *header, deflate_writer *out)
{
    unsigned i;
    deflate_put(out, header->literals - 257, 5);
    deflate_put(out, header->distances - 1, 5);
    deflate_put(out, header->lengths - 4, 4);
    deflate_flush(out);
    for (i = 0; i < header->lengths; i++) {
        deflate_put(out, header->bits[rfc1951_code_order[i]], 3);
        if (i == 15)
            deflate_flush(out);
    }
    deflate_flush(out);
    for (i = 0; i < header->count; i++) {
        unsigned symbol = header->runs[i];
        deflate_put(out, header->codes[symbol], header->bits[symbol]);
        if (symbol >= 16)
            deflate_put(out, header->more[i], deflate_run_bits[symbol - 16]);
        deflate_flush(out);
    }
}

/* Bits of the codes of all tokens. */
static size_t deflate_size(const fastws_deflater *work)
{
    size_t size = 0;
    unsigned i;
    for (i = 0; i < DEFLATE_LITERALS; i++)
        size += (size_t)work->literal_count[i] * work->literal_bits[i];
    for (i = 0; i < DEFLATE_DISTANCES; i++)
        size += (size_t)work->distance_count[i] * work->distance_bits[i];
    return size;
}

/* What they would be with the fixed codes. */
static size_t deflate_fixed_size(const fastws_deflater *work)
{
    size_t size = 0;
    unsigned i;
    for (i = 0; i < DEFLATE_LITERALS; i++)
        size += (size_t)work->literal_count[i] * deflate_fixed_bits(i);
    for (i = 0; i < DEFLATE_DISTANCES; i++)
        size += (size_t)work->distance_count[i] * 5;
    return size;
}

/* Bits besides their codes. */
static size_t deflate_extra_bits(const fastws_deflater *work)
{
    size_t size = 0;
    unsigned i;
    for (i = 0; i < 29; i++)
        size += (size_t)work->literal_count[257 + i] * rfc1951_length_extra[i];
    for (i = 4; i < DEFLATE_DISTANCES; i++)
        size += (size_t)work->distance_count[i] * (i / 2 - 1);
    return size;
}

static void deflate_write_tokens(const fastws_deflater *work, size_t count, deflate_writer *out)
{
    deflate_writer here = *out;
    size_t i;
    for (i = 0; i < count; i++) {
        uint32_t token = work->tokens[i];
        if (token & DEFLATE_MATCH) {
            uint32_t length = token >> 16 & 0xFF, distance = token & 0x7FFF;
            unsigned symbol = deflate_length_symbol[length], extra;
            deflate_put(&here, work->literal_code[257 + symbol], work->literal_bits[257 + symbol]);
            deflate_put(&here, length + 3 - rfc1951_length_base[symbol], rfc1951_length_extra[symbol]);
            symbol = deflate_distance_symbol(distance, &extra);
            deflate_put(&here, work->distance_code[symbol], work->distance_bits[symbol]);
            deflate_put(&here, distance & ((1u << extra) - 1), extra);
        } else {
            deflate_put(&here, work->literal_code[token], work->literal_bits[token]);
        }
        deflate_flush(&here);
    }
    deflate_put(&here, work->literal_code[DEFLATE_END], work->literal_bits[DEFLATE_END]);
    deflate_flush(&here);
    *out = here;
}

/* Bytes that suffice for any message of n: a byte takes no more than the 9 bits that it may have
   with the fixed codes (RFC 1951 3.2.6), as ours are the best ones.  The rest is for the headers,
   one for every DEFLATE_TOKENS bytes or more. */
static inline size_t fastws_deflate_room(size_t n)
{
    return n + n / 8 + 600 * (1 + n / DEFLATE_TOKENS);
}

/* Compress a message of at most FASTWS_DEFLATE_MAX bytes on its own, as RFC 7692 7.2.1 has it: a
   sync flush without its last four bytes.  The size of what is at `out`, which has `room` bytes and
   FASTWS_DEFLATE_SLACK more; 0 if it would not fit, which cannot be in fastws_deflate_room(n).
   Nothing refers back more than `window` bytes. */
static size_t fastws_deflate(fastws_deflater *work, const uint8_t *data, size_t n, uint8_t *out,
                             size_t room, size_t window)
{
    deflate_writer writer = {0, 0, out};
    deflate_header header;
    unsigned hash_bits = 8;
    size_t at = 0, tokens, fixed, own, size;
    while (hash_bits < DEFLATE_HASH_BITS && (size_t)1 << hash_bits < n)
        hash_bits++;
    memset(work->head, 0, sizeof work->head[0] << hash_bits);
    while (at < n) {
        at = deflate_search(work, data, at, n, hash_bits, window, &tokens);
        fixed = deflate_fixed_size(work);
        deflate_codes(work->literal_count, DEFLATE_LITERALS, 15, work->literal_bits,
                      work->literal_code);
        deflate_codes(work->distance_count, DEFLATE_DISTANCES, 15, work->distance_bits,
                      work->distance_code);
        own = deflate_describe(work, &header) + deflate_size(work);
        size = 3 + deflate_extra_bits(work) + (fixed <= own ? fixed : own);
        /* with the header of the empty block */
        if ((size_t)(writer.at - out) + (writer.count + size + 3 + 7) / 8 > room)
            return 0;
        deflate_put(&writer, (fixed <= own ? 1 : 2) << 1, 3); /* not the last one */
        if (fixed <= own)
            deflate_fixed_codes(work);
        else
            deflate_write_header(&header, &writer);
        deflate_write_tokens(work, tokens, &writer);
    }
    deflate_put(&writer, 0, 3);
    deflate_flush(&writer);
    return (size_t)(writer.at - out) + (writer.count != 0);
}

#endif

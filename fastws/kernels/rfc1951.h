/* What compressing and decompressing have in common: tables of RFC 1951. */
#ifndef FASTWS_RFC1951_H
#define FASTWS_RFC1951_H

#include "platform.h"

/* 3.2.5: of a symbol, less 257, the first of its lengths, and its extra bits. */
static const uint16_t rfc1951_length_base[29] = {3,  4,  5,  6,  7,  8,  9,  10,  11,  13,
                                                 15, 17, 19, 23, 27, 31, 35, 43,  51,  59,
                                                 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t rfc1951_length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
/* 3.2.7: the order in which the lengths of the codes of lengths come. */
static const uint8_t rfc1951_code_order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                               11, 4,  12, 3, 13, 2, 14, 1, 15};

/* The highest bit that is set in a value above 0. */
FASTWS_INLINE unsigned fastws_top_bit(uint32_t value)
{
#if FASTWS_GNU
    return 31 - (unsigned)__builtin_clz(value);
#else
    unsigned bit = 0;
    while (value >>= 1)
        bit++;
    return bit;
#endif
}

#endif

/* Tables of the vector UTF-8 kernels.

   Validation follows J. Keiser and D. Lemire, "Validating UTF-8 in less than one instruction per
   byte" (2021).  Every error in UTF-8, but a missing third or fourth byte, shows in the first 12
   bits of two neighbouring bytes: the two halves of the first and the high half of the second.
   Each of the three indexes a table of sixteen sets of errors that it allows; an error in all three
   sets is one. */
#ifndef FASTWS_UTF8_TABLES_H
#define FASTWS_UTF8_TABLES_H

#include "platform.h"

enum {
    TOO_SHORT = 1 << 0,    /* lead, then no continuation */
    TOO_LONG = 1 << 1,     /* ASCII, then continuation */
    OVERLONG_3 = 1 << 2,   /* E0, then 80..9F */
    TOO_LARGE = 1 << 3,    /* F4, then 90..BF, or F5..FF, then 90..BF */
    SURROGATE = 1 << 4,    /* ED, then A0..BF */
    OVERLONG_2 = 1 << 5,   /* C0 or C1, then continuation */
    OVERLONG_4 = 1 << 6,   /* F0, then 80..8F */
    TOO_LARGE_80 = 1 << 6, /* F5..FF, then 80..8F; shares the bit: the low halves tell them apart */
    /* Two continuations: right after a lead of three or four bytes two or three bytes back, and
       there only.  The one bit that the check of distant leads inverts. */
    TWO_CONTINUATIONS = 1 << 7,
    ANY_LOW = TOO_SHORT | TOO_LONG | TWO_CONTINUATIONS /* whatever the low half of the first byte */
};

extern const uint8_t fastws_utf8_byte1_high[16];
extern const uint8_t fastws_utf8_byte1_low[16];
extern const uint8_t fastws_utf8_byte2_high[16];

/* By the high half of a byte: its bits that belong to the code point. */
extern const uint8_t fastws_utf8_payload_bits[16];

/* Zeros, then ones: loaded from 32 - width + k, a vector that selects its last k bytes. */
extern const uint8_t fastws_utf8_last_bytes[64];

/* Shuffles that move the bytes selected by an 8-bit mask to the front.  As bytes: little-endian
   only. */
extern const uint64_t fastws_compress8[256];

#endif

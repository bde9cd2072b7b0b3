/* UTF-8 one code point at a time, with a skip over runs of ASCII. */
#include "kernels.h"
#include "mask.h"

/* One code point at p, with at least one byte before `end`.  Its length, or 0 when it is
   invalid. */
FASTWS_INLINE size_t decode_one(const uint8_t *p, const uint8_t *end, uint32_t *code_point)
{
    uint32_t a = p[0], b, c, d;
    size_t left = (size_t)(end - p);
    if (a < 0x80) {
        *code_point = a;
        return 1;
    }
    if (a < 0xC2 || a > 0xF4 || left < 2)
        return 0;
    b = p[1] ^ 0x80u; /* a continuation byte becomes its six bits, any other is > 0x3F */
    if (b > 0x3F)
        return 0;
    if (a < 0xE0) {
        *code_point = (a & 0x1F) << 6 | b;
        return 2;
    }
    if (left < 3 || (c = p[2] ^ 0x80u) > 0x3F)
        return 0;
    if (a < 0xF0) {
        uint32_t v = (a & 0x0F) << 12 | b << 6 | c;
        *code_point = v;
        return v < 0x800 || (v & 0xF800) == 0xD800 ? 0 : 3;
    }
    if (left < 4 || (d = p[3] ^ 0x80u) > 0x3F)
        return 0;
    *code_point = (a & 0x07) << 18 | b << 12 | c << 6 | d;
    return *code_point < 0x10000 || *code_point > 0x10FFFF ? 0 : 4;
}

int fastws_utf8_valid_portable(const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n;
    while (p < end) {
        uint32_t code_point;
        size_t length;
        while (end - p >= 8 && !(fastws_load64(p) & FASTWS_HIGH_BITS))
            p += 8;
        if (p == end)
            break;
        length = decode_one(p, end, &code_point);
        if (length == 0)
            return -1;
        p += length;
    }
    return 0;
}

void fastws_utf8_scan_portable(const uint8_t *p, size_t n, size_t *code_points, uint8_t *max_byte)
{
    size_t count = 0;
    uint8_t max = 0;
    for (size_t i = 0; i < n; i++) {
        count += (p[i] & 0xC0) != 0x80;
        max = p[i] > max ? p[i] : max;
    }
    *code_points = count;
    *max_byte = max;
}

/* One function for the three widths of a unit: `width` is a constant wherever it is inlined. */
FASTWS_INLINE int convert(const uint8_t *p, size_t n, void *out, size_t out_len, int width)
{
    const uint8_t *end = p + n;
    const uint32_t limit = width == 1 ? 0xFF : width == 2 ? 0xFFFF : 0x10FFFF;
    size_t done = 0;
    while (p < end) {
        uint32_t code_point;
        size_t length;
        while (end - p >= 8 && out_len - done >= 8 && !(fastws_load64(p) & FASTWS_HIGH_BITS)) {
            for (int i = 0; i < 8; i++) {
                if (width == 1)
                    ((uint8_t *)out)[done + i] = p[i];
                else if (width == 2)
                    ((uint16_t *)out)[done + i] = p[i];
                else
                    ((uint32_t *)out)[done + i] = p[i];
            }
            p += 8;
            done += 8;
        }
        if (p == end)
            break;
        length = decode_one(p, end, &code_point);
        if (length == 0 || code_point > limit || done == out_len)
            return -1;
        if (width == 1)
            ((uint8_t *)out)[done] = (uint8_t)code_point;
        else if (width == 2)
            ((uint16_t *)out)[done] = (uint16_t)code_point;
        else
            ((uint32_t *)out)[done] = code_point;
        p += length;
        done++;
    }
    return done == out_len ? 0 : -1;
}

int fastws_utf8_to_latin1_portable(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    return convert(p, n, out, out_len, 1);
}

int fastws_utf8_to_ucs2_portable(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    return convert(p, n, out, out_len, 2);
}

int fastws_utf8_to_ucs4_portable(const uint8_t *p, size_t n, void *out, size_t out_len)
{
    return convert(p, n, out, out_len, 4);
}

/* The target "kernels" for libFuzzer: any bytes at any address into every kernel of this processor, and into the code for
 * compressed messages.
 *
 * In C alone, because it then runs a hundred times as many inputs as with Python in between. targets/kernels.py runs
 * the same inputs beside Python's own UTF-8, and says what their bytes mean.
 */
#include "kernels/cpu.h"
#include "kernels/deflate.h"
#include "kernels/inflate.h"
#include "kernels/mask.h"
#include "kernels/utf8.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE_OF(what, holds) \
    do { \
        if (!(holds)) { \
            fprintf(stderr, "%s:%d: not so for %s: %s\n", __FILE__, __LINE__, what, #holds); \
            abort(); \
        } \
    } while (0)
#define REQUIRE(holds) REQUIRE_OF(kernel->name, holds)

/* The code points of valid UTF-8 (RFC 3629 section 4), one at a time; -1 if it is not valid. */
static long decode(const uint8_t *p, size_t n, uint32_t *out)
{
    size_t at = 0, count = 0, more;
    while (at < n) {
        uint32_t c = p[at++], least;
        if (c < 0x80) {
            out[count++] = c;
            continue;
        }
        if (c >= 0xC0 && c < 0xE0) {
            c &= 0x1F, more = 1, least = 0x80;
        } else if (c >= 0xE0 && c < 0xF0) {
            c &= 0x0F, more = 2, least = 0x800;
        } else if (c >= 0xF0 && c < 0xF8) {
            c &= 0x07, more = 3, least = 0x10000;
        } else {
            return -1;
        }
        for (; more; more--) {
            if (at == n || (p[at] & 0xC0) != 0x80)
                return -1;
            c = c << 6 | (p[at++] & 0x3F);
        }
        if (c < least || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
            return -1;
        out[count++] = c;
    }
    return (long) count;
}

static void *exactly(size_t size)
{
    void *memory = malloc(size); /* so that AddressSanitizer sees what goes beyond */
    if (memory == NULL)
        abort();
    return memory;
}

static void convert(const fastws_kernel *kernel, const uint8_t *p, size_t n, size_t room, const uint32_t *points,
                    long count)
{
    static const struct {
        size_t unit;
        uint32_t limit;
    } kinds[] = {{1, 0xFF}, {2, 0xFFFF}, {4, 0x10FFFF}};
    const fastws_utf8_convert_fn functions[] = {kernel->utf8_to_latin1, kernel->utf8_to_ucs2, kernel->utf8_to_ucs4};
    for (int kind = 0; kind < 3; kind++) {
        uint8_t *out = exactly(room * kinds[kind].unit);
        int fits = count == (long) room;
        for (long i = 0; i < count; i++)
            fits = fits && points[i] <= kinds[kind].limit;
        REQUIRE((functions[kind](p, n, out, room) == 0) == fits);
        for (long i = 0; fits && i < count; i++) {
            uint32_t point = kind == 0   ? out[i]
                             : kind == 1 ? ((uint16_t *) (void *) out)[i]
                                         : ((uint32_t *) (void *) out)[i];
            REQUIRE(point == points[i]);
        }
        free(out);
    }
}

static void mask(const fastws_kernel *kernel, const uint8_t *p, size_t n, uint32_t key, const uint8_t *expected)
{
    uint8_t *out = exactly(n);
    int high = 0;
    for (size_t i = 0; i < n; i++)
        high |= expected[i] >= 0x80;
    kernel->mask(out, p, n, key);
    REQUIRE(memcmp(out, expected, n) == 0);
    memset(out, 0, n);
    REQUIRE((kernel->mask_ascii(out, p, n, key) != 0) == high);
    REQUIRE(memcmp(out, expected, n) == 0);
    memcpy(out, p, n);
    kernel->mask(out, out, n, key);
    REQUIRE(memcmp(out, expected, n) == 0);
    free(out);
}

static void in_steps(const fastws_kernel *kernel, const uint8_t *p, size_t n, size_t step, int valid)
{
    fastws_utf8 state;
    int good = 1;
    fastws_active_kernel = kernel;
    fastws_utf8_init(&state);
    for (size_t at = 0; at < n; at += step) {
        size_t size = n - at < step ? n - at : step;
        uint8_t *piece = exactly(size);
        memcpy(piece, p + at, size);
        good = fastws_utf8_feed(&state, piece, size) == 0;
        free(piece);
        if (!good)
            break;
    }
    REQUIRE((good && fastws_utf8_finish(&state) == 0) == valid);
}

/* What is compressed comes back, if there is room for it; and of any bytes, nothing goes beyond the room. */
static void compressed(const uint8_t *p, size_t n, size_t room, size_t window)
{
    static fastws_deflater deflater; /* as they were left by what came before */
    static fastws_inflater inflater;
    size_t most = fastws_deflate_room(n), size;
    uint8_t *small = exactly(most + FASTWS_DEFLATE_SLACK), *out = exactly(n + FASTWS_INFLATE_SLACK);
    size = fastws_deflate(&deflater, p, n, small, most, window);
    REQUIRE_OF("deflate", size > 0 && size <= most);
    REQUIRE_OF("inflate", fastws_inflate(&inflater, small, size, out, n) == (ptrdiff_t) n && memcmp(out, p, n) == 0);
    free(out);
    if (room < n) {
        out = exactly(room + FASTWS_INFLATE_SLACK);
        REQUIRE_OF("inflate", fastws_inflate(&inflater, small, size, out, room) == -1);
        free(out);
    }
    free(small);
    out = exactly(room + FASTWS_INFLATE_SLACK);
    REQUIRE_OF("inflate", fastws_inflate(&inflater, p, n, out, room) <= (ptrdiff_t) room);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    const char *names[16];
    size_t n, offset, kernels, code_points = 0, count;
    uint8_t *memory, *data, *masked, greatest = 0, most;
    uint32_t key, *points;
    long valid;
    if (size < 5)
        return 0;
    n = size - 5;
    offset = input[0] & 63;
    memcpy(&key, input + 1, 4);
    memory = exactly(offset + n);
    memset(memory, 0, offset);
    data = memory + offset;
    memcpy(data, input + 5, n);
    masked = exactly(n);
    points = exactly((n + 1) * sizeof *points);
    valid = decode(data, n, points);
    for (size_t i = 0; i < n; i++) {
        masked[i] = data[i] ^ input[1 + i % 4];
        code_points += (data[i] & 0xC0) != 0x80;
        greatest = data[i] > greatest ? data[i] : greatest;
    }
    kernels = fastws_kernel_list(names, 16);
    for (size_t i = 0; i < kernels; i++) {
        const fastws_kernel *kernel = fastws_kernel_by_name(names[i]);
        REQUIRE((kernel->utf8_valid(data, n) == 0) == (valid >= 0));
        kernel->utf8_scan(data, n, &count, &most);
        REQUIRE(count == code_points && most == greatest);
        convert(kernel, data, n, code_points, points, valid);
        convert(kernel, data, n, input[0], points, valid); /* seldom the right number */
        mask(kernel, data, n, key, masked);
        in_steps(kernel, data, n, 1 + input[1] % 100, valid >= 0);
    }
    compressed(data, n, 4 * input[0], (size_t) 512 << input[1] % 7);
    free(points);
    free(masked);
    free(memory);
    return 0;
}

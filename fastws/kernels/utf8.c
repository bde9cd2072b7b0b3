/* The incremental validator: kernels for what lies inside a piece, one byte at a time where pieces
   meet. */
#include "utf8.h"

/* RFC 3629 4, one row of the grammar: what may follow a lead byte.  0 for a byte that leads
   nothing. */
static int begin(fastws_utf8 *state, uint8_t lead)
{
    state->low = 0x80;
    state->high = 0xBF;
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    if (lead < 0xE0) {
        state->need = 1;
    } else if (lead < 0xF0) {
        state->need = 2;
        if (lead == 0xE0)
            state->low = 0xA0; /* else overlong */
        else if (lead == 0xED)
            state->high = 0x9F; /* else a surrogate */
    } else {
        state->need = 3;
        if (lead == 0xF0)
            state->low = 0x90; /* else overlong */
        else if (lead == 0xF4)
            state->high = 0x8F; /* else above U+10FFFF */
    }
    return 1;
}

static int step(fastws_utf8 *state, uint8_t byte)
{
    if (state->need == 0)
        return begin(state, byte);
    if (byte < state->low || byte > state->high)
        return 0;
    state->need--;
    state->low = 0x80;
    state->high = 0xBF;
    return 1;
}

int fastws_utf8_feed(fastws_utf8 *state, const uint8_t *p, size_t n)
{
    size_t i = 0, inner;
    if (state->bad)
        return -1;
    while (i < n && state->need)
        if (!step(state, p[i++]))
            goto invalid;
    inner = n - i - fastws_utf8_open_tail(p + i, n - i);
    if (inner && fastws_active_kernel->utf8_valid(p + i, inner) != 0)
        goto invalid;
    for (i += inner; i < n; i++)
        if (!step(state, p[i]))
            goto invalid;
    return 0;
invalid:
    state->bad = 1;
    return -1;
}

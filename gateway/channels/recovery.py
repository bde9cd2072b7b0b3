"""Whether a client that was away can be given all that it missed.

Said truthfully: None means that something may be missing, and the client has to load its state
anew. An empty list means that nothing was published meanwhile.
"""

from __future__ import annotations

from gateway.model import Publication, StreamPosition


def recover_stream(
    since: StreamPosition, kept: list[Publication], top: StreamPosition
) -> list[Publication] | None:
    """All publications after ``since``.

    ``kept`` are those of the history after it, oldest first and cut off at some limit; ``top`` is
    the newest position at that time.
    """
    if since.epoch and since.epoch != top.epoch:
        return None  # offsets have started anew since
    if not kept:
        return [] if since.offset == top.offset else None
    if kept[0].offset != since.offset + 1 or kept[-1].offset != top.offset:
        return None  # the oldest are gone, or there are more than the limit
    return list(kept)


def recover_cache(
    since: StreamPosition, newest: list[Publication], top: StreamPosition
) -> list[Publication] | None:
    """The newest publication, unless the client has it. ``newest`` holds it if it is kept."""
    has_it = since.offset > 0 and since == top
    if has_it:
        return []
    if not newest or newest[0].offset != top.offset:
        return None
    return list(newest)

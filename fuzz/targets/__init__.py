"""One module per target: ``run(data)`` takes one input, and raises if the library fails it.

With ``thorough`` it does what is too slow for millions of inputs; without, it does that for those
which a checksum picks. ``seeds()`` gives inputs to begin with. A target needs fastws, the reference
in ``tests/fastws`` and the standard library, so that it runs under libFuzzer and in ordinary tests.
"""

from __future__ import annotations

import itertools
import zlib

NAMES = ("codec", "kernels", "handshake", "deflate", "connection")


# More cuts than these show nothing new, and cost time.
MAX_CUTS = 12


def pieces(data: bytes, first: int, step: int) -> list[bytes]:
    """``data`` in pieces: ``first`` bytes, then a few of ``step`` bytes each, then the rest."""
    cuts = [first, *range(first + step, len(data), step)[:MAX_CUTS]] if step else [first]
    bounds = [0, *cuts, max(len(data), first)]
    return [data[begin:end] for begin, end in itertools.pairwise(bounds)]


def picked(data: bytes) -> bool:
    """One input in 64, and always the same ones."""
    return zlib.crc32(data) & 63 == 0

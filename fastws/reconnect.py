"""When ``async for ws in connect(…)`` connects again."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator

from .exceptions import InvalidMessage, InvalidStatus

__all__ = ["STEADY", "backoff", "process_exception"]

# Seconds: a connection that ended before, unless we closed it, counts as a failed attempt, so that
# a server that drops everyone at once is asked less and less often.
STEADY = 5.0


def backoff(initial: float = 5.0, factor: float = 2.0, maximum: float = 60.0) -> Iterator[float]:
    """Seconds to wait before each attempt: exponential, with full jitter (RFC 6455 7.2.3).

    Each is drawn evenly from 0 up to ``initial`` seconds, and that bound grows by ``factor`` up to
    ``maximum``: clients that lost their server together do not come back together.
    """
    bound = initial
    while True:
        yield random.uniform(0, min(bound, maximum))
        bound = min(bound * factor, maximum)


def process_exception(error: Exception) -> Exception | None:
    """Whether a failure to connect is final: ``None`` to try again, or what to raise.

    Tried again: network errors and time-outs, a connection that was lost during the handshake, and
    the statuses 500, 502, 503 and 504. A certificate that is not to be trusted is final.
    """
    if isinstance(error, ssl.SSLCertVerificationError):  # an OSError too
        return error
    if isinstance(error, OSError):  # TimeoutError is one
        return None
    if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError | OSError):
        return None
    if isinstance(error, InvalidStatus) and error.response.status_code in (500, 502, 503, 504):
        return None
    return error

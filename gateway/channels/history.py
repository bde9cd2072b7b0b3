"""How much of what was published a channel keeps."""

from __future__ import annotations

from msgspec import Struct

from gateway.config import ChannelOptions


class HistorySettings(Struct, frozen=True):
    """How much history a channel keeps: ``size`` publications, each for ``ttl`` seconds.

    Its position is known for ``meta_ttl`` seconds after the last one, 0 for what is usual.
    """

    size: int
    ttl: float
    meta_ttl: float = 0.0


def history_settings(options: ChannelOptions) -> HistorySettings | None:
    """What the options of a channel say of it; None where it keeps nothing."""
    if options.history_size and options.history_ttl:
        return HistorySettings(options.history_size, options.history_ttl, options.history_meta_ttl)
    return None

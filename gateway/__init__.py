"""A realtime gateway: client connections, channels, and messages between clients and backends."""

from fastws._version import __version__

__all__ = ["__version__"]

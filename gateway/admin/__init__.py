"""The admin page: charts of the process, clients and channels, and what can be done."""

from gateway.admin.panel import Admin

__all__ = ["Admin"]

"""Engines: broker, history and presence behind one interface."""

from gateway.channels.history import HistorySettings
from gateway.engines.base import Engine, Events, HistoryQuery, Immediate, Once
from gateway.engines.memory import MemoryEngine

__all__ = [
    "Engine",
    "Events",
    "HistoryQuery",
    "HistorySettings",
    "Immediate",
    "MemoryEngine",
    "Once",
]

"""Engines: broker, history and presence behind one interface."""

from gateway.engines.base import Engine, Events, HistoryQuery, HistorySettings, Once
from gateway.engines.memory import MemoryEngine

__all__ = ["Engine", "Events", "HistoryQuery", "HistorySettings", "MemoryEngine", "Once"]

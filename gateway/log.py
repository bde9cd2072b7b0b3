"""Structured logs on stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, NoReturn

import structlog

from gateway.config import Log

# Centrifugo's names and ours. Nothing here is less than debug.
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "none": logging.CRITICAL,
}
_PERIOD = 1.0  # seconds between lines of `Seldom`


def configure(settings: Log) -> None:
    """Set up structlog for the process, and let other libraries' warnings through as they are."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    processors: list[structlog.typing.Processor] = [
        *([_drop] if settings.level == "none" else []),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        processors.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=max(_LEVELS[settings.level], logging.WARNING))
    if settings.level == "none":
        logging.disable()


def _drop(logger: object, name: str, event: MutableMapping[str, object]) -> NoReturn:
    raise structlog.DropEvent


class Seldom:
    """Lines of a log that anyone could call forth without end: one a second for each event and key.

    The next one has the number of those left out as ``skipped``. Keys are kept: they must be names
    of ours, and nothing that a client says.
    """

    def __init__(self, log: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._last: dict[tuple[str, str], tuple[float, int]] = {}  # when, and how many since

    def info(self, event: str, key: str = "", **about: object) -> None:
        self._write("info", event, key, about)

    def warning(self, event: str, key: str = "", **about: object) -> None:
        self._write("warning", event, key, about)

    def _write(self, level: str, event: str, key: str, about: dict[str, object]) -> None:
        now = self._clock()
        last, skipped = self._last.get((event, key), (now - _PERIOD, 0))
        if now - last < _PERIOD:
            self._last[event, key] = last, skipped + 1
            return
        self._last[event, key] = now, 0
        if skipped:
            about["skipped"] = skipped
        getattr(self._log, level)(event, **about)

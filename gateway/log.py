"""Structured logs on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import NoReturn

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

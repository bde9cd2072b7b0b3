"""Names for annotations, those of ``websockets``."""

from __future__ import annotations

import http
import logging
from typing import Any

from .client_handshake import HeadersLike

__all__ = ["Data", "HeadersLike", "LoggerLike", "Origin", "StatusLike", "Subprotocol"]

Data = str | bytes
"""A message, or a fragment of one."""

LoggerLike = logging.Logger | logging.LoggerAdapter[Any]

StatusLike = http.HTTPStatus | int
"""A status of HTTP."""

# Functions take and give str: Origin("…") in a program is the str itself.
Origin = str
Subprotocol = str

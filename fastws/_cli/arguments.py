"""The command line."""

from __future__ import annotations

import argparse
import enum
import math
import ssl
from pathlib import Path
from typing import Any

from .._version import __version__

__all__ = ["Exit", "connect_options", "parse_arguments"]


class Exit(enum.IntEnum):
    """What the command returns."""

    OK = 0
    NOT_OPENED = 1
    USAGE = 2  # argparse's
    LOST = 3
    INTERRUPTED = 130  # 128 + SIGINT, as a shell says


DESCRIPTION = """\
A WebSocket client.

In a terminal, what you type is sent, and these commands are understood:
  /ping [TEXT]             measure the round trip
  /send-file FILE          send a file as a binary message
  /close [CODE [REASON]]   close, by default with 1000; so does Ctrl-D
  /help                    say this
A line that begins with // is sent with one slash less.

In a pipe, each line of the input is sent as a message, and each message that comes is written to
the output as a line, and nothing else is: what else there is to say goes to the error output.
"""

EPILOG = """\
exit status:
  0    the connection was closed in order (1000, 1001, or without a code)
  1    it could not be opened
  2    the command line is wrong
  3    it was lost, or closed with another code
  130  interrupted by Ctrl-C
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Exits with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m fastws",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("url", metavar="URL", help="ws://… or wss://…")
    add(
        "-H",
        "--header",
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        type=_header,
        help="add a header to the request; may be repeated",
    )
    add("--origin", help="value of the Origin header")
    add(
        "--subprotocol",
        metavar="NAME",
        action="append",
        help="offer a subprotocol; may be repeated, the most wanted first",
    )
    add("--proxy", metavar="URL", help="http, https or socks; by default the environment's")
    add("--no-proxy", action="store_true", help="connect directly, whatever the environment says")
    add("--insecure", action="store_true", help="trust any certificate")
    add("--json", action="store_true", help="indent messages that are JSON")
    add(
        "--binary-file",
        metavar="FILE",
        type=Path,
        help="send this file first, as a binary message",
    )
    add(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        default=1.0,
        help="how long to receive after the end of a piped input; inf: until the server closes "
        "(default: 1)",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=10.0,
        help="for connecting (default: 10)",
    )
    add(
        "--max-size",
        metavar="BYTES",
        type=int,
        default=2**24,
        help="of a message that comes; 0: no limit (default: 16777216)",
    )
    add(
        "--history",
        metavar="FILE",
        type=Path,
        help="keep what is typed for the next time; by default it is not kept",
    )
    add("-q", "--quiet", action="store_true", help="say nothing about the connection")
    add("--version", action="version", version=f"fastws {__version__}")
    return parser.parse_args(arguments)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} has no colon")
    return name.strip(), value.strip()


def _seconds(text: str) -> float:
    seconds = float(text)
    if math.isnan(seconds) or seconds < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time")
    return seconds


def connect_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """For ``connect``."""
    options: dict[str, Any] = {
        "additional_headers": arguments.header,
        "origin": arguments.origin,
        "subprotocols": arguments.subprotocol,
        "open_timeout": arguments.timeout if 0 < arguments.timeout < math.inf else None,
        "max_size": arguments.max_size or None,
    }
    if arguments.no_proxy:
        options["proxy"] = None
    elif arguments.proxy is not None:
        options["proxy"] = arguments.proxy
    if arguments.insecure and arguments.url.lower().startswith("wss:"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        options["ssl"] = context
    return options

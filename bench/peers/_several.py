"""Several processes of a gateway as one server, each on a port of its own."""

import os
import subprocess
from collections.abc import Callable
from typing import NoReturn

from bench.dialects import port_beside


def become(count: int, port: int, command: Callable[[int], list[str]]) -> NoReturn:
    """Starts `command(port)` for all ports but the first, and becomes the one for that."""
    for index in range(1, count):
        subprocess.Popen(command(port_beside(port, index)))
    first = command(port)
    os.execv(first[0], first)

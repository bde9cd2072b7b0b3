"""Several processes of a gateway, on successive ports, as one server."""

import os
import subprocess
from collections.abc import Callable
from typing import NoReturn


def become(count: int, port: int, command: Callable[[int], list[str]]) -> NoReturn:
    """Starts `command(port)` for all ports but the first, and becomes the one for that."""
    for other in range(port + 1, port + count):
        subprocess.Popen(command(other))
    first = command(port)
    os.execv(first[0], first)

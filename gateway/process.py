"""What the system says of this process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

STARTED_AT = time.time()  # as near as it can be told everywhere

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_DESCRIPTORS = Path("/proc/self/fd")


def memory() -> int:
    """Resident memory of the process in bytes; where nobody tells, the most it has had, or 0."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        pass
    if sys.platform != "win32":
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return 0


def descriptors() -> int:
    """Open descriptors; 0 where nobody tells."""
    try:
        # Linux 6.2 and newer say how many at once: listing tens of thousands takes a while.
        return _DESCRIPTORS.stat().st_size or len(os.listdir(_DESCRIPTORS))
    except OSError:
        return 0


def descriptor_limit() -> int:
    """How many there may be; 0 where nobody tells, or for no limit."""
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 0 if most == resource.RLIM_INFINITY else most

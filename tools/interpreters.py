"""Prints the CPython interpreters of this machine that fastws supports: name and path, one a line.

    python tools/interpreters.py [--except PYTHON]

One of each minor version, the newest, and free-threaded builds beside the others (``3.13t``). It
looks on the PATH and among pyenv's versions. ``--except``: not the version of that interpreter.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OLDEST = (3, 11)

ASK = """
import platform, sys, sysconfig
final = sys.version_info.releaselevel == "final"
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(platform.python_implementation(), *sys.version_info[:3], final, free)
"""

Version = tuple[int, int, int]


def candidates() -> Iterator[Path]:
    folders = [Path(folder) for folder in os.get_exec_path()]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders += sorted(root.glob("versions/*/bin"))
    for folder in folders:
        for program in sorted(folder.glob("python3*")):
            if re.fullmatch(r"python3(\.\d+t?)?(\.exe)?", program.name):
                yield program


def ask(python: str | Path) -> tuple[str, Version] | None:
    """Name and version, if it is a released CPython that we support."""
    try:
        done = subprocess.run(
            [python, "-c", ASK], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None  # one of pyenv's shims, for a version that is not chosen
    kind, *parts = done.stdout.split()
    major, minor, micro = map(int, parts[:3])
    if kind != "CPython" or (major, minor) < OLDEST or parts[3] != "True":
        return None
    return f"{major}.{minor}{''.join(parts[4:])}", (major, minor, micro)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--except", dest="left_out", metavar="PYTHON")
    options = parser.parse_args()
    known = ask(options.left_out) if options.left_out else None
    found: dict[str, tuple[Version, Path]] = {}
    for program in candidates():
        answer = ask(program)
        if answer is None or answer == known or (known and answer[0] == known[0]):
            continue
        name, version = answer
        if name not in found or version > found[name][0]:
            found[name] = version, program
    for name, (_, program) in sorted(found.items(), key=lambda item: item[1][0]):
        print(name, program)


if __name__ == "__main__":
    sys.exit(main())

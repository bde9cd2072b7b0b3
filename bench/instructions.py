"""Counts the instructions of our compiled modules per message: `python -m bench.instructions`.

valgrind's callgrind counts; `bench/scenarios.py` is what is run. Compared with `instructions.json`
beside this file, a rise over 3% fails. `--update` writes what was counted there, for a change that
is meant and explained.

A count is of the instructions within fastws' own extension modules, not of the interpreter, the C
library or the kernel, so that it depends on our code, Cython and the compiler, and hardly on the
machine: kernels are the portable ones (`FASTWS_KERNEL=portable`), whatever the processor has.
Counts are kept for each combination of interpreter, Cython and compiler; on another one there is
nothing to compare with, which is said and is no failure unless `--strict`. The gateway is Python:
its count is of the interpreter as well, and may rise by 6%.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fastws
from bench.machine import describe
from bench.native import NoCompiler, library

BASELINE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03
GATEWAY_TOLERANCE = 0.06
"""Its count is of Python code as well, and of the ticks of timers in between."""
_OURS = str(Path(fastws.__file__).parent) + os.sep
_COST = re.compile(r"^(?:\+|-|\*|\d)\S* (\d+)")
_NAME = re.compile(r"\((\d+)\)(?: (.*))?")


class CountError(Exception):
    """Instructions could not be counted."""


def key() -> str:
    """What counts depend on besides our code."""
    try:
        cython = version("Cython")
    except PackageNotFoundError:
        cython = "unknown"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    compiler = re.sub(r"^\S+ ", "", str(describe()["compiler"]))
    built = platform.python_compiler()
    return f"{python} by {built}, Cython {cython}, modules by {compiler}, {platform.machine()}"


def own_cost(lines: Iterable[str]) -> tuple[str, Counter[str]]:
    """Reads a file of callgrind's: what triggered it, and instructions by object file.

    A line of cost belongs to the object named last by `ob=`. One after `calls=` is what a call cost
    in all, which those called have counted themselves.
    """
    trigger, current = "", ""
    names: dict[str, str] = {}
    cost: Counter[str] = Counter()
    skip = False
    for line in lines:
        if line.startswith("desc: Trigger:"):
            trigger = line.partition("Trigger:")[2].strip().removeprefix("Client Request: ")
        elif line.startswith(("ob=", "cob=")):
            if match := _NAME.search(line):
                number, name = match.groups()
                if name is not None:
                    names[number] = name
                if line.startswith("ob="):
                    current = names[number]
        elif line.startswith("calls="):
            skip = True
        elif match := _COST.match(line):
            if not skip:
                cost[current] += int(match.group(1))
            skip = False
    return trigger, cost


def _counts(folder: Path) -> dict[str, float]:
    """Instructions per message of every scenario in a folder of callgrind's files."""
    found: dict[str, float] = {}
    for file in sorted(folder.glob("out.*")):
        with file.open(errors="replace") as lines:
            trigger, cost = own_cost(lines)
        name, bar, messages = trigger.partition("|")
        if not bar:
            continue
        ours = sum(count for path, count in cost.items() if path.startswith(_OURS))
        if name.startswith("gateway"):
            ours += sum(count for path, count in cost.items() if "python" in Path(path).name)
        found[name] = round(ours / int(messages), 1)
    return found


def count() -> dict[str, float]:
    """Runs the scenarios under callgrind. Raises CountError."""
    if not shutil.which("valgrind"):
        raise CountError("there is no valgrind (Debian: apt install valgrind)")
    counting = library("callgrind")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            "-m",
            "bench.scenarios",
            counting,
        ]
        told = {"FASTWS_KERNEL": "portable", "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"}
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **told}, check=False
        )
        if done.returncode != 0:
            raise CountError(done.stderr.strip()[-2000:])
        found = _counts(Path(folder))
    if not found:
        raise CountError("callgrind counted nothing")
    return found


def compare(found: Mapping[str, float], wanted: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Lines of a table, and those of them that are a failure."""
    lines, failures = [], []
    for name in sorted({*found, *wanted}):
        if name not in found or name not in wanted:
            where = "the baseline" if name in found else "this run"
            lines.append(f"{name:34} is not in {where}: --update")
            failures.append(lines[-1])
            continue
        change = found[name] / wanted[name] - 1
        lines.append(f"{name:34} {wanted[name]:12,.1f} {found[name]:12,.1f} {change:+8.2%}")
        if change > (GATEWAY_TOLERANCE if name.startswith("gateway") else TOLERANCE):
            failures.append(lines[-1])
    return lines, failures


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns 1 for a rise, 2 when nothing could be counted."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="keep what is counted now")
    parser.add_argument("--strict", action="store_true", help="fail where there is no baseline")
    options = parser.parse_args(arguments)
    known: dict[str, dict[str, float]] = {}
    if BASELINE.exists():
        known = json.loads(BASELINE.read_text())
    mine = key()
    print(f"instructions per message: {mine}")
    try:
        found = count()
    except (CountError, NoCompiler) as error:
        print(f"instructions: {error}", file=sys.stderr)
        return 2
    if options.update:
        known[mine] = found
        BASELINE.write_text(json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    if mine not in known:
        for name, value in found.items():
            print(f"{name:34} {value:12,.1f}")
        print("no baseline for this interpreter and compiler: --update makes one")
        return int(options.strict)
    lines, failures = compare(found, known[mine])
    print(f"{'':34} {'baseline':>12} {'now':>12} {'change':>8}", *lines, sep="\n")
    if failures:
        print(
            "too many more, or not comparable; if that is meant, run with --update and "
            "say why in the commit:",
            *failures,
            sep="\n",
            file=sys.stderr,
        )
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())

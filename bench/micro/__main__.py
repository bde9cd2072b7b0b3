"""Runs the micro-benchmarks and prints a table of medians: `python -m bench.micro [-k mask]`."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import describe

RESULTS = Path(__file__).parent.parent / "results"


def summarise(benchmarks: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table: median of the rounds, the middle half of them, rate, and ratio to ours.

    A ratio over 1 says how many times as long as fastws it takes.
    """
    medians: dict[str, dict[str, float]] = {}
    for one in benchmarks:
        of_group = medians.setdefault(one["group"], {})
        of_group[one["extra_info"]["library"]] = float(np.median(one["stats"]["data"]))
    lines = [
        "| what | library | median ns | middle half ns | GB/s | x fastws |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for one in benchmarks:
        times = np.asarray(one["stats"]["data"]) * 1e9
        low, middle, high = np.percentile(times, [25, 50, 75])
        library, size = one["extra_info"]["library"], one["extra_info"]["bytes"]
        ours = medians[one["group"]].get("fastws")
        ratio = f"{middle / 1e9 / ours:.2f}" if ours else "-"
        lines.append(
            f"| {one['group']} | {library} | {middle:,.0f} | {low:,.0f} - {high:,.0f} "
            f"| {size / middle:.2f} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    parser.add_argument("-k", metavar="EXPRESSION", help="which, as for pytest")
    parser.add_argument("--seconds", type=float, default=0.1, help="at most, for each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            str(Path(__file__).parent),
            *("--benchmark-only", "--benchmark-save-data", f"--benchmark-json={raw}"),
            *("--benchmark-disable-gc", "--benchmark-warmup=off", "--benchmark-min-rounds=5"),
            *(f"--benchmark-max-time={options.seconds}", "--benchmark-quiet"),
            *(["-k", options.k] if options.k else []),
        ]
        done = subprocess.run(command, stdout=sys.stderr, env={**os.environ})
        if done.returncode != 0 or not raw.exists():
            return done.returncode or 1
        benchmarks = json.loads(raw.read_text())["benchmarks"]
    RESULTS.mkdir(exist_ok=True)
    machine = describe()
    text = (
        f"# Functions\n\n{machine['cpu']}, {machine['python']}, {machine['compiler']}.\n\n"
        f"{summarise(benchmarks)}\n"
    )
    (RESULTS / "micro.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

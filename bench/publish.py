"""Publishes a run: `python -m bench.publish [RESULTS.json]`, by default the newest.

Writes tables and plots to `docs/benchmarks/`, with the raw results compressed beside them, and the
short table of the README.
"""

import argparse
import json
import lzma
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.goals import GOALS
from bench.plots import draw
from bench.process import BenchError
from bench.report import figures, labels_of, markdown, middle, preamble, select

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
_SHORT = (
    ("lockstep", "server_cpu_us", "CPU us/message, one in flight", 2),
    ("pipelined", "per_second", "messages/s, 16 in flight", 0),
    ("memory", "pss_per_connection", "bytes per idle connection", 0),
    ("fanout-10k-burst", "server_cpu_us", "CPU us/delivery, fan-out to 10,000", 2),
)


def newest() -> Path:
    """The results written last. Raises BenchError when there are none."""
    found = sorted(RESULTS.glob("*.json"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise BenchError("there are no results yet: python -m bench")
    return found[-1]


def short_table(data: Mapping[str, Any]) -> str:
    """The table of the README: servers that were measured in echo."""
    runs = data["runs"]
    labels = labels_of(runs)
    chosen = [
        (case, key, heading, digits)
        for case, key, heading, digits in _SHORT
        if any(figures(select(runs, case, peer), key) for peer in labels)
    ]
    if not chosen:
        raise BenchError("there is no case of the README's table in these results")
    lines = [
        f"| server | {' | '.join(heading for _, _, heading, _ in chosen)} |",
        f"| --- |{' ---: |' * len(chosen)}",
    ]
    for peer, label in labels.items():
        values = [middle(select(runs, case, peer), key) for case, key, _, _ in chosen]
        if not any(values):
            continue
        cells = [
            "-" if value is None else f"{value:,.{digits}f}"
            for value, (_, _, _, digits) in zip(values, chosen, strict=True)
        ]
        name = f"**{label}**" if "fastws" in peer else label
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def readme(text: str, data: Mapping[str, Any]) -> str:
    """The README with the table and the machine between its marks. Raises BenchError."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"README.md has no '{BEGIN}' and '{END}'")
    machine = data["machine"]
    said = (
        f"{machine['cpu']}, {machine['cores']} cores{' (virtual)' if machine['virtual'] else ''}, "
        f"{machine['python']}; each server on one core and the load on another, 100 connections, "
        f"128-byte messages; medians of {data['rounds']} rounds of {data['started'][:10]}."
    )
    return f"{before}{BEGIN}\n{said}\n\n{short_table(data)}\n{END}{after}"


def page(data: Mapping[str, Any], plots: list[str]) -> str:
    """The page with plots first and all tables after them."""
    text = markdown(data, GOALS)
    title, _, tables = text.partition("\n\n")
    tables = tables.removeprefix("\n\n".join(preamble(data))).lstrip()
    pictures = "\n\n".join(f"![{name.replace('-', ' ')}]({name}.svg)" for name in plots)
    return "\n\n".join(
        [
            title,
            "Written by `python -m bench.publish`. How it was measured is in "
            "[../benchmarks.md](../benchmarks.md); the raw results are `results.json.xz`.",
            *preamble(data),
            pictures,
            tables,
        ]
    )


def publish(source: Path, root: Path) -> list[Path]:
    """Writes everything below `root`; returns the files. Raises BenchError."""
    data = json.loads(source.read_text())
    folder = root / "docs" / "benchmarks"
    new_readme = readme((root / "README.md").read_text(), data)
    plots = list(draw(data["runs"], folder))
    for old in (*folder.glob("*.svg"), *folder.glob("*.png")):
        if old.stem not in plots:
            old.unlink()
    (folder / "README.md").write_text(page(data, plots))
    raw = json.dumps(data, separators=(",", ":")).encode()
    (folder / "results.json.xz").write_bytes(lzma.compress(raw, preset=9))
    (root / "README.md").write_text(new_readme)
    return [root / "README.md", *sorted(folder.iterdir())]


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.publish", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path)
    options = parser.parse_args()
    try:
        for file in publish(options.results or newest(), ROOT):
            print(file.relative_to(ROOT))
    except BenchError as error:
        print(f"publish: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

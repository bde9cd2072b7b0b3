"""Turns raw results into Markdown tables."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.cases import CASES, Case, Column
from bench.goals import Goal
from bench.peers import LIMIT, PEERS

Runs = Sequence[Mapping[str, Any]]
DISTURBED = 0.05
"""Share of a run in which another process held its core, over which the run is marked."""


def figures(runs: Runs, key: str) -> list[float]:
    """The values of one figure in the rounds that succeeded."""
    return [run["result"][key] for run in runs if "result" in run and key in run["result"]]


def middle(runs: Runs, key: str) -> float | None:
    """Median over the rounds, None when no round has the figure."""
    values = figures(runs, key)
    return median(values) if values else None


def select(runs: Runs, case: str, peer: str) -> Runs:
    """The rounds of one server in one case."""
    return [run for run in runs if run["case"] == case and run["peer"] == peer]


def _cell(runs: Runs, column: Column) -> str:
    values = figures(runs, column.key)
    if not values:
        return "-"
    text = f"{median(values):,.{column.digits}f}"
    if len(values) > 1 and column.best:
        text += f" ({min(values):,.{column.digits}f} - {max(values):,.{column.digits}f})"
    return text


def _notes(runs: Runs) -> str:
    results = [run["result"] for run in runs if "result" in run]
    notes = sorted({run["error"] for run in runs if "error" in run})
    if any(result.get("load_saturated") for result in results):
        notes.append("load saturated")
    if any(result.get("waited", 0) > DISTURBED for result in results):
        notes.append("disturbed")
    return "; ".join(notes).replace("|", "/").replace("\n", "; ")


def table(runs: Runs, case: Case, labels: Mapping[str, str], base: str) -> str:
    """One case as a table: a row for each server, with ratios to the server `base`."""
    headings = ["server"]
    of = "limit" if base == LIMIT.name else labels[base]
    for column in case.columns:
        headings += [column.heading, f"/ {of}"] if column.best else [column.heading]
    lines = [_row([*headings, "notes"]), _row(["---", *["---:"] * (len(headings) - 1), "---"])]
    for peer, label in labels.items():
        mine = select(runs, case.name, peer)
        if not mine:
            continue
        cells = [label]
        for column in case.columns:
            cells.append(_cell(mine, column))
            if column.best:
                value, limit = (
                    middle(mine, column.key),
                    middle(select(runs, case.name, base), column.key),
                )
                cells.append("-" if value is None or not limit else f"{value / limit:.3g}")
        lines.append(_row([*cells, _notes(mine)]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def goal_table(runs: Runs, goals: Sequence[Goal], labels: Mapping[str, str]) -> str:
    """The goals whose servers were measured, and whether they were reached."""
    lines = [_row(["goal", "wanted", "measured", ""]), _row(["---", "---:", "---:", "---"])]
    for goal in goals:
        value = middle(select(runs, goal.case, goal.peer), goal.key)
        if value is not None and goal.against:
            other = middle(select(runs, goal.case, goal.against), goal.key)
            value = value / other if other else None
        if value is not None and goal.over:
            less = middle(select(runs, goal.over, goal.peer), goal.key)
            value = None if less is None else value - less
        if value is None:
            continue
        sign = "<=" if goal.at_most else ">="
        reached = value <= goal.bound if goal.at_most else value >= goal.bound
        unit = f"x {labels.get(goal.against, goal.against)}" if goal.against else goal.unit
        what = f"{goal.what}, {labels.get(goal.peer, goal.peer)}"
        wanted = f"{sign} {goal.bound:g} {unit}"
        lines.append(_row([what, wanted, f"{value:.3g}", "yes" if reached else "NO"]))
    return "\n".join(lines) if len(lines) > 2 else ""


_BASES = (LIMIT.name, "fastws_listener", "uvicorn_fastws", "gateway")


def base_of(runs: Runs, case: str) -> str:
    """The server that the others of a case are compared with: the limit, or else ours."""
    measured = [run["peer"] for run in runs if run["case"] == case]
    return next((base for base in _BASES if base in measured), measured[0])


def preamble(data: Mapping[str, Any]) -> list[str]:
    """The machine, the versions and the method in short, as paragraphs."""
    machine = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(data["versions"].items()))
    rounds = data["rounds"]
    spread = f"Medians of {rounds} interleaved rounds (least - most)" if rounds > 1 else "One round"
    return [
        f"{machine['cpu']}, {machine['cores']} cores{' (virtual)' if machine['virtual'] else ''}, "
        f"{machine['kernel']}, {machine['python']}, {machine['compiler']}; {versions}. "
        f"{spread}, {data['seconds']:g} s each; server on one core, load on another. CPU is the "
        "server's, user and system.",
        f"*disturbed*: other processes held a core for over {DISTURBED:.0%} of a run, so that "
        "rates and latencies count for little. *load saturated*: the load generator was the limit, "
        "so that a rate is a lower bound. CPU figures suffer least from either.",
    ]


def labels_of(runs: Runs) -> dict[str, str]:
    """Names in tables of the servers of a run, in the order of `peers/__init__.py`."""
    measured = {run["peer"] for run in runs}
    return {name: peer.label for name, peer in PEERS.items() if name in measured}


def markdown(data: Mapping[str, Any], goals: Sequence[Goal]) -> str:
    """The whole report of one run."""
    runs = data["runs"]
    labels = labels_of(runs)
    parts = [f"# Benchmark, {data['started']}", *preamble(data)]
    for name in (case for case in CASES if any(run["case"] == case for run in runs)):
        parts += [f"## {CASES[name].title}", table(runs, CASES[name], labels, base_of(runs, name))]
    if text := goal_table(runs, goals, labels):
        parts += ["## Goals", text]
    return "\n\n".join(parts) + "\n"

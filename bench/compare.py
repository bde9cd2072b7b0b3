"""Runs servers side by side: every case and server, round by round, each in a fresh process."""

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from bench.cases import CASES, Case
from bench.goals import GOALS
from bench.machine import describe
from bench.native import program
from bench.peers import PEERS, Peer
from bench.process import BenchError, free_port, peer_command, server, wait_for_upgrade
from bench.report import DISTURBED, markdown

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Plan:
    """What one run of the benchmark does."""

    name: str
    cases: Sequence[Case]
    peers: Sequence[Peer]
    rounds: int
    seconds: float
    """Length of each measured window."""


def choose(table: Mapping[str, T], names: str) -> list[T]:
    """Entries of a table by comma-separated names. Raises BenchError for an unknown one."""
    for name in names.split(","):
        if name not in table:
            raise BenchError(f"there is no '{name}'; there are {', '.join(table)}")
    return [table[name] for name in names.split(",")]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _summary(case: Case, result: Mapping[str, Any]) -> str:
    parts = [
        f"{result[column.key]:,.{column.digits}f} {column.heading}"
        for column in case.columns
        if column.best and column.key in result
    ]
    if result.get("waited", 0) > DISTURBED:
        parts.append(f"disturbed {result['waited']:.0%}")
    return ", ".join(parts)


def measure(case: Case, peer: Peer, seconds: float) -> dict[str, Any]:
    """One server in one case: its result, or the reason why there is none."""
    entry: dict[str, Any] = {"case": case.name, "peer": peer.name}
    if reason := peer.missing():
        return {**entry, "error": reason}
    port = free_port()
    log = RESULTS / f"{peer.name}.log"
    try:
        if case.role == "sweep":
            return {**entry, "result": dict(case.run(peer, 0, 0, seconds))}
        more = case.server_arguments()
        command = peer_command(peer.name, port, case.role, case.features, *more)
        with server(command, port, log) as pid:
            if "tls" not in case.features:
                wait_for_upgrade(port, peer.dialect.path)
            entry["result"] = dict(case.run(peer, port, pid, seconds))
    except BenchError as error:
        entry["error"] = str(error)
    return entry


def _turns(plan: Plan) -> Iterable[tuple[int, Case, Peer]]:
    """Each round begins with another server, so that none always follows the same one."""
    for round_ in range(plan.rounds):
        shift = round_ % len(plan.peers)
        for case in plan.cases:
            if round_ and case.once:
                continue
            for peer in (*plan.peers[shift:], *plan.peers[:shift]):
                if case.wants(peer):
                    yield round_, case, peer


def execute(plan: Plan) -> int:
    """Runs a plan, prints its report, keeps the raw results. Returns 1 when a server failed.

    An interrupt ends it early, with the report of what was measured.
    """
    program("load")  # an early word when there is no compiler
    RESULTS.mkdir(exist_ok=True)
    versions: dict[str, str] = {}
    for peer in plan.peers:
        if not peer.missing():
            versions.update(peer.versions())
    started = datetime.now(UTC)
    data: dict[str, Any] = {
        "name": plan.name,
        "started": started.strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe(),
        "versions": versions,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "runs": [],
    }
    begin = time.monotonic()
    try:
        for round_, case, peer in _turns(plan):
            entry = {"round": round_, **measure(case, peer, plan.seconds)}
            data["runs"].append(entry)
            result = entry.get("result")
            text = f"FAILED: {entry['error']}" if result is None else _summary(case, result)
            _say(f"{time.monotonic() - begin:5.0f} s  {case.name:15} {peer.label:18} {text}")
    except KeyboardInterrupt:
        if not data["runs"]:
            raise
        _say("interrupted: the report is of what was measured")
    stem = RESULTS / f"{plan.name}-{started:%Y%m%d-%H%M%S}"
    stem.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    text = markdown(data, GOALS)
    stem.with_suffix(".md").write_text(text)
    print(text)
    _say(f"raw results: {stem.with_suffix('.json')}")
    return int(any("error" in run for run in data["runs"]))


def plan(name: str, cases: str, peers: str, rounds: int, seconds: float) -> Plan:
    """A plan over the cases and servers with the given names. Raises BenchError."""
    return Plan(name, choose(CASES, cases), choose(PEERS, peers), rounds, seconds)

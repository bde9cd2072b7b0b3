"""Several load processes against one server: started together, measured as one.

The processes are `native/load.c`. Each opens its share of the connections; when all are open, all
start, and their counts and histograms are added up.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.native import program
from bench.process import BenchError

SATURATED = 0.95
"""Share of its core from which on a load process counts as the limit itself."""
LATE_US = 1000
"""In an open loop, a process that comes to its messages so late is not the server's fault."""

_Lines = queue.SimpleQueue[tuple[int, bytes]]


@dataclass(frozen=True)
class Share:
    """What one process does: command-line arguments of `load`, and the core that it stays on."""

    arguments: Sequence[str]
    core: int | None = None


@dataclass
class Outcome:
    """Results of all processes, in `load`'s own words, and their sum."""

    results: list[dict[str, Any]] = field(default_factory=list)

    def total(self, key: str) -> float:
        """Sum of one figure."""
        return float(sum(result.get(key, 0) for result in self.results))

    def greatest(self, key: str) -> float:
        """Greatest of one figure."""
        return float(max(result.get(key, 0) for result in self.results))

    def buckets(self) -> Counter[int]:
        """Histogram of latencies: upper edge in nanoseconds, and how many."""
        merged: Counter[int] = Counter()
        for result in self.results:
            merged.update(dict(result.get("buckets", ())))
        return merged

    def saturated(self) -> bool:
        """Whether a process, not the server, was the limit."""
        return self.greatest("load_cpu") > SATURATED or self.greatest("late_p99_us") > LATE_US


def percentile(buckets: Counter[int], share: float) -> float:
    """Latency in microseconds that `share` (0 to 1) of all are at or under; 0 without any."""
    wanted = max(1.0, share * buckets.total())
    seen = 0
    for edge in sorted(buckets):
        seen += buckets[edge]
        if seen >= wanted:
            return edge / 1e3
    return 0.0


class _Process:
    """One process; `lines` gets its number and each line it prints, and an empty one at its end."""

    def __init__(self, number: int, share: Share, lines: _Lines) -> None:
        def in_child() -> None:
            if share.core is not None:
                os.sched_setaffinity(0, {share.core})
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it measures; see load.c

        self.popen = subprocess.Popen(
            [program("load"), "--control", "--buckets", *share.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=in_child,  # noqa: PLW1509  threads of this module take no locks
        )
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self._input, output, errors = self.popen.stdin, self.popen.stdout, self.popen.stderr
        self._said = b""

        def read_output() -> None:
            for line in output:
                lines.put((number, line))
            lines.put((number, b""))

        def read_errors() -> None:
            self._said = errors.read()

        self._threads = [
            threading.Thread(target=read, daemon=True) for read in (read_output, read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self) -> None:
        """Lets it measure."""
        self._input.write(b"\n")
        self._input.flush()

    def why(self) -> str:
        """What it complained of before it ended."""
        self._threads[1].join(5)
        said = self._said.decode(errors="replace").strip()
        return said or f"load ended with {self.popen.wait()}"

    def end(self) -> None:
        """Ends it."""
        self.popen.kill()
        self.popen.wait()
        for thread in self._threads:
            thread.join(5)
        for stream in (self._input, self.popen.stdout, self.popen.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


def run(
    shares: Sequence[Share],
    on_open: Callable[[int, float], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Runs the processes to their end; one interrupt (Ctrl-C) ends the measurement early.

    `on_open` gets the number of connections and the seconds that opening took, `on_progress` what
    has been counted so far, some five times a second. Raises BenchError when a process fails.
    """
    program("load")  # compiled once, not by each
    lines: _Lines = queue.SimpleQueue()
    processes: list[_Process] = []
    ready: dict[int, dict[str, Any]] = {}
    results: dict[int, dict[str, Any]] = {}
    counts = [0] * len(shares)
    try:
        processes += [_Process(number, share, lines) for number, share in enumerate(shares)]
        while len(results) < len(shares):
            try:
                number, text = lines.get()
            except KeyboardInterrupt:
                if len(ready) < len(shares):
                    raise
                for process in processes:
                    process.popen.send_signal(signal.SIGINT)
                continue
            if not text:
                if number in results:
                    continue
                raise BenchError(processes[number].why())
            line = json.loads(text)
            match line.get("event"):
                case "ready":
                    ready[number] = line
                    if len(ready) == len(shares):
                        if on_open:
                            opened = sum(one["connections"] for one in ready.values())
                            on_open(opened, max(one["seconds"] for one in ready.values()))
                        for process in processes:
                            process.begin()
                case "progress":
                    counts[number] = line["count"]
                    if on_progress:
                        on_progress(sum(counts))
                case _:
                    results[number] = line
    finally:
        for process in processes:
            process.end()
    return Outcome([results[number] for number in range(len(shares))])

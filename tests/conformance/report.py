"""Writes ``docs/conformance.md``: ``python -m tests.conformance.report``, from the root folder.

Runs the suite in every way that the library can run. Exits with 1 if a case had an outcome that is
not expected.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import itertools
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.conformance import autobahn
from tests.conformance.autobahn import GROUPS, Outcome, Variant

DOCUMENT = autobahn.ROOT / "docs" / "conformance.md"

CARRIERS = {"cython": ("reactor", "asyncio"), "python": ("asyncio",)}
MARKS = {"INFORMATIONAL": "i", "FAILED": "**failed**"}

TEMPLATE = """\
# Conformance

<!-- Written by `python -m tests.conformance.report`. Its words are in tests/conformance/. -->

[The Autobahn test suite]({suite}) sends a peer what it
should and what it should not get, and looks at what comes back. [`kosoku`]({kosoku})
runs its cases under Python 3. They run against an echo server and an echo client
(`tests/conformance/echo_server.py`, `echo_client.py`) on each codec, carrier and loop, and with
both kinds of handler. `make test` fails when an outcome is not the one below, when this page shows
another one, or when the server or client does not end well and silently.

## Results

{failed}
The numbers are cases that are "OK", by group; `i` counts informational ones, which look at what no
rule lays down.

### Server

{server}

### Client

{client}

### Groups

{groups}

{left_out}

## Informational cases

{explanations}

## Limits

Server and client allow {max_size} MiB in a message and {max_fragments:,} frames, which group 9
needs. The defaults of `serve` and `connect` are lower (`max_size`: 1 MiB, `max_fragments`: 4096),
because a peer that means harm makes the other one spend as much as they allow.

## Time

Seconds for all {total} cases against the server, {parallel} at once. Most of it is the suite's own:
it waits for a second in six of them.

{times}

{machine}
"""
SUITE = "https://github.com/crossbario/autobahn-testsuite"
KOSOKU = "https://pypi.org/project/kosoku/"


def variants() -> list[Variant]:
    """Every way to run the library."""
    return [
        Variant(codec, carrier, style, loop)
        for codec, carriers in CARRIERS.items()
        for carrier, style, loop in itertools.product(
            carriers, ("listener", "coroutine"), ("asyncio", "uvloop")
        )
    ]


def table(head: Iterable[object], rows: Iterable[str]) -> str:
    names = [str(column) for column in head]
    return "\n".join((line(names), line("---" for _ in names), *rows))


def line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def name(variant: Variant) -> tuple[str, str, str, str]:
    return variant.codec, variant.carrier, variant.style, variant.loop


def row(variant: Variant, outcomes: Mapping[str, Outcome]) -> str:
    """The line of the table of results."""
    return line((*name(variant), *(cell(outcomes.values(), group) for group in GROUPS)))


def cell(outcomes: Iterable[Outcome], group: int) -> str:
    counts = dict.fromkeys(("OK", *MARKS), 0)
    for outcome in outcomes:
        if outcome.group == group:
            counts[autobahn.verdict(outcome)] += 1
    marked = (f"{counts[verdict]} {mark}" for verdict, mark in MARKS.items() if counts[verdict])
    return " + ".join((str(counts["OK"]), *marked))


def explanations() -> str:
    """Every case that is not plain "OK", and why."""
    return table(("case", "what happens"), map(line, autobahn.INFORMATIONAL.items()))


def left_out() -> str:
    cases = ", ".join(f"{group} ({what})" for group, what in autobahn.LEFT_OUT.items())
    return (
        f"Not in the tables: groups {cases}. Of their 216 cases, which take minutes for each way "
        "to run the library, `tests/conformance/test_compression.py` runs those with messages of "
        "256 bytes, and of 1,024 bytes in fragments, on every test run, and says which it cannot. "
        "The suite has no groups 8 and 11."
    )


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    return next(models, platform.machine())


def machine() -> str:
    return (
        f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} with kosoku "
        f"{importlib.metadata.version('kosoku')}, {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.system()}, {os.cpu_count()} x {processor()}."
    )


def section(document: str, side: str) -> str:
    """The part of the document with the results of ``side``: "server" or "client"."""
    return document.partition(f"### {side.capitalize()}\n")[2].partition("\n###")[0]


def document(
    results: Mapping[str, Mapping[Variant, Mapping[str, Outcome]]],
    seconds: Mapping[Variant, float],
) -> str:
    failed = sum(
        autobahn.verdict(outcome) == "FAILED"
        for side in results.values()
        for outcomes in side.values()
        for outcome in outcomes.values()
    )
    columns = ("codec", "carrier", "handler", "loop")
    tables = {
        side: table(
            (*columns, *GROUPS), (row(variant, outcomes) for variant, outcomes in found.items())
        )
        for side, found in results.items()
    }
    return TEMPLATE.format(
        suite=SUITE,
        kosoku=KOSOKU,
        failed=f"**{failed} failed.**" if failed else "No case fails, and none is non-strict.",
        server=tables["server"],
        client=tables["client"],
        groups=table(
            ("group", "what it tests", "cases"),
            (line((group, autobahn.TITLES[group], count)) for group, count in GROUPS.items()),
        ),
        left_out=left_out(),
        explanations=explanations(),
        max_size=autobahn.MAX_SIZE // 2**20,
        max_fragments=autobahn.MAX_FRAGMENTS,
        total=sum(GROUPS.values()),
        parallel=autobahn.PARALLEL,
        times=table(
            (*columns, "s"),
            (line((*name(variant), f"{value:.1f}")) for variant, value in seconds.items()),
        ),
        machine=machine(),
    )


def main() -> int:
    results: dict[str, dict[Variant, dict[str, Outcome]]] = {"server": {}, "client": {}}
    seconds: dict[Variant, float] = {}
    unexpected = 0
    for variant, side in itertools.product(variants(), results):
        with tempfile.TemporaryDirectory() as folder:
            if side == "server":
                with autobahn.echo_server(variant) as port:
                    begin = time.perf_counter()
                    outcomes = autobahn.run(port, Path(folder))
                    seconds[variant] = time.perf_counter() - begin
            else:
                outcomes = autobahn.run_client(variant, Path(folder))
        results[side][variant] = outcomes
        print(side, row(variant, outcomes), flush=True)
        for outcome in outcomes.values():
            if autobahn.verdict(outcome) == "FAILED":
                unexpected += 1
                print("  unexpected:", outcome)
    DOCUMENT.write_text(document(results, seconds), encoding="utf-8")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes ``docs/conformance.md``: ``make conformance``.

Runs the suite in every way that the library can run; groups 12 and 13, which take minutes, on each
codec, carrier and side, and with ``--all`` on both loops and with both kinds of handler as well.
Exits with 1 if a case had an outcome that is not expected.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import itertools
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.conformance import autobahn
from tests.conformance.autobahn import GROUPS, Outcome, Variant

DOCUMENT = autobahn.ROOT / "docs" / "conformance.md"

CARRIERS = {"cython": ("reactor", "asyncio"), "python": ("asyncio",)}
MARKS = {"INFORMATIONAL": "i", "FAILED": "**failed**"}

TEMPLATE = """\
# Conformance

<!-- Written by `make conformance`. Its words are in tests/conformance/. -->

[The Autobahn test suite]({suite}) sends a peer what it
should and what it should not get, and looks at what comes back. [`kosoku`]({kosoku})
runs its cases under Python 3, with one fault of it mended (`tests/conformance/fuzzer.py`). They run
against an echo server and an echo client (`echo_server.py`, `echo_client.py` beside it) on each
codec, carrier and loop, and with both kinds of handler; groups 12 and 13, which take minutes, on
each codec and carrier. `make conformance` does all that and writes this page, `make conformance
CONFORMANCE_ARGS=--all` also leaves no cell empty.

`make test` takes groups 12 and 13 whole on the compiled codec and the reactor, and {quick} of their
cases on the others. It fails when an outcome is not the one below, when this page shows another
one, or when the server or client does not end well and silently.

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

{compressed}

## Informational cases

{explanations}

## Limits

Server and client allow {max_size} MiB in a message and {max_fragments:,} frames, which group 9
needs. The defaults of `serve` and `connect` are lower (`max_size`: 1 MiB, `max_fragments`: 4096),
because a peer that means harm makes the other one spend as much as they allow.

## The original

{original}

## Time

Groups 1 to 10 take four seconds for each way to run the library, {parallel} cases at once; most of
that is the suite's own, as it waits for a second in six of them. Groups 12 and 13 bring 11 GB of
messages each way, and take minutes.

{machine}
"""
# By hand: it needs Python 2.
ORIGINAL = """\
The suite itself, autobahntestsuite 25.10.1 under Python 2.7, was run by hand on 2026-11-24 against
the same echo server and client, on the compiled codec, the reactor and asyncio's loop, with
listeners. The server had all 517 cases: 514 are "OK", and the three above informational. The client
had groups 1 to 10 whole and 24 cases of groups 12 and 13 (messages of 1,024 bytes, and of 8,192 in
fragments), 325 in all: 322 are "OK", and the same three informational.\
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


def is_shown_whole(variant: Variant) -> bool:
    """Whether the document has groups 12 and 13 for it."""
    return (variant.style, variant.loop) == ("listener", "asyncio")


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
    text = " + ".join((str(counts["OK"]), *marked))
    return text if text != "0" else "-"


def explanations() -> str:
    """Every case that is not plain "OK", and why."""
    return table(("case", "what happens"), map(line, autobahn.INFORMATIONAL.items()))


def compressed() -> str:
    return (
        "The suite has no groups 8 and 11. In groups 12 and 13 our side compresses whatever gets "
        "shorter by it, however short it is. In group 12 the server has its defaults otherwise, "
        "so that no message refers to another; in group 13 it keeps context unless the client "
        "objects. The client has its defaults, with which it keeps context unless the server "
        "objects; in 13.2, 13.5 and 13.6 it offers `client_no_context_takeover`, without which the "
        "suite's server does not agree to compression at all."
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
        f"Run on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} with kosoku "
        f"{importlib.metadata.version('kosoku')}, {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.system()}, {os.cpu_count()} x {processor()}."
    )


def documented(side: str, variant: Variant) -> dict[int, str]:
    """The cells of the document, by group, for ``side``: "server" or "client"."""
    document = DOCUMENT.read_text(encoding="utf-8")
    section = document.partition(f"### {side.capitalize()}\n")[2].partition("\n###")[0]
    begin = line(name(variant)).removesuffix("|")
    [found] = [row for row in section.splitlines() if row.startswith(begin)]
    cells = found.removeprefix(begin).strip("| ").split(" | ")
    return dict(zip(GROUPS, cells, strict=True))


def document(results: Mapping[str, Mapping[Variant, Mapping[str, Outcome]]]) -> str:
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
        compressed=compressed(),
        explanations=explanations(),
        max_size=autobahn.MAX_SIZE // 2**20,
        max_fragments=autobahn.MAX_FRAGMENTS,
        quick=sum(autobahn.counts(autobahn.QUICK)[group] for group in autobahn.KINDS),
        parallel=autobahn.PARALLEL,
        original=ORIGINAL,
        machine=machine(),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="groups 12 and 13 in every way")
    options = parser.parse_args()
    results: dict[str, dict[Variant, dict[str, Outcome]]] = {"server": {}, "client": {}}
    unexpected = 0
    for variant, side in itertools.product(variants(), results):
        whole = options.all or is_shown_whole(variant)
        with tempfile.TemporaryDirectory() as folder:
            outcomes = autobahn.run(
                side, variant, Path(folder), autobahn.WHOLE if whole else autobahn.PLAIN
            )
        results[side][variant] = outcomes
        print(side, row(variant, outcomes), flush=True)
        for outcome in outcomes.values():
            if autobahn.verdict(outcome) == "FAILED":
                unexpected += 1
                print("  unexpected:", outcome)
    DOCUMENT.write_text(document(results), encoding="utf-8")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())

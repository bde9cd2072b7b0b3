"""Runs the cases of the Autobahn test suite against the echo server and client; knows what they
should give.

``kosoku`` runs the suite's own case files, started by ``fuzzer``: a process of its own, since it
replaces a function of ``binascii`` for the whole process.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What the server allows. Cases 9.1.6 and 9.2.6 send 16 MiB; 9.3.1 and 9.4.1 send 4 MiB in frames
# of 64 bytes; one more than that, for a runner that ends with an empty one.
MAX_SIZE = 16 * 2**20
MAX_FRAGMENTS = 65_537

# Cases per group, so that a run which leaves some out is not taken for a good one.
GROUPS = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
TITLES = {
    1: "Framing",
    2: "Pings and pongs",
    3: "Reserved bits",
    4: "Reserved opcodes",
    5: "Fragmentation",
    6: "UTF-8",
    7: "Closing",
    9: "Limits and performance",
    10: "Fragmenting by the sender",
    12: "Compression, by kind of message",
    13: "Compression, by parameters",
}
# Groups 12 and 13 have 18 cases of 1,000 messages for each kind of message, and for each set of
# parameters: minutes. A test run takes them all in one way to run the library, on both sides; on
# the other codec, carrier and kind of handler messages of 1,024 bytes, and of 8,192 bytes in
# fragments; and none on the other loop.
KINDS = {12: 5, 13: 7}
PLAIN = tuple(f"{group}.*" for group in GROUPS if group not in KINDS)
COMPRESSED = tuple(f"{group}.*" for group in KINDS)
WHOLE = PLAIN + COMPRESSED
QUICK = PLAIN + tuple(
    f"{group}.{kind}.{size}"
    for group, kinds in KINDS.items()
    for kind in range(1, kinds + 1)
    for size in (4, 11)
)

# Cases for which the echo server, or client, wants other settings than for the rest. Group 13 is
# about what the parameters say, so the server does as it is asked. A client that may have to forget
# must offer that (the RFC does not want it, but the suite does).
APART = {
    "server": ("--context", ("13.",)),
    "client": ("--forget", ("13.2.", "13.5.", "13.6.")),
}

# Cases at once. A few of them wait for a second, to see what does not happen.
PARALLEL = 4
TIME_LIMIT = 1800.0  # seconds for a run

# Cases whose outcome is not plain "OK", and why. For everything else nothing but "OK" will do.
INFORMATIONAL = {
    "7.1.6": "256 KiB of text, another message, a close frame and a ping at once. How much of it "
    "must come back is not laid down. Ours closes with 1000; the ping behind the close frame is "
    "ignored.",
    "7.13.1": "Close code 5000, beyond the ranges of RFC 6455 7.4.2. Refused: closed with 1002.",
    "7.13.2": "Close code 65535, likewise: closed with 1002.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the library: ``codec`` is the name that ``fastws.codec_name`` must have."""

    codec: str
    carrier: str
    style: str
    loop: str = "asyncio"


def tested(variant: Variant) -> Sequence[str]:
    """The cases that a test run takes."""
    if variant == Variant("cython", "reactor", "listener"):
        return WHOLE
    return QUICK if variant.loop == "asyncio" else PLAIN


def counts(cases: Sequence[str]) -> dict[int, int]:
    """How many of each group there are in ``WHOLE``, ``QUICK`` or ``PLAIN``."""
    if cases is WHOLE:
        return GROUPS
    quick = {group: 2 * kinds for group, kinds in KINDS.items()} if cases is QUICK else {}
    return {group: count for group, count in GROUPS.items() if group not in KINDS} | quick


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case."""

    case: str
    behavior: str  # OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED, FAILED or ERROR
    closing: str  # OK, INFORMATIONAL, FAILED BY CLIENT, WRONG CODE, UNCLEAN or FAILED
    code: int | None  # of the close frame that came back

    @property
    def group(self) -> int:
        return int(self.case.partition(".")[0])


def numeric(case: str) -> list[int]:
    """Sort key: 1.2.10 after 1.2.9."""
    return [int(part) for part in case.split(".")]


def verdict(outcome: Outcome) -> str:
    """``"OK"``, ``"INFORMATIONAL"``; ``"FAILED"`` for all that is not expected, also NON-STRICT."""
    expected = "INFORMATIONAL" if outcome.case in INFORMATIONAL else "OK"
    return expected if (outcome.behavior, outcome.closing) == (expected, expected) else "FAILED"


def environment_of(variant: Variant) -> dict[str, str]:
    return {**os.environ, "FASTWS_PURE": "1" if variant.codec == "python" else "0"}


def run(
    side: str, variant: Variant, report: Path, cases: Sequence[str] = WHOLE
) -> dict[str, Outcome]:
    """Run ``cases`` (globs) against the "server" or "client"; details go to ``report``.

    AssertionError if ours wrote to stderr or did not end well.
    """
    option, prefixes = APART[side]
    globs = expanded(cases)
    parts = {
        "most": ([case for case in globs if not case.startswith(prefixes)], ()),
        "apart": ([case for case in globs if case.startswith(prefixes)], (option,)),
    }

    def run_part(name: str) -> dict[str, Outcome]:
        chosen, options = parts[name]
        if not chosen:
            return {}
        if side == "client":
            return run_client(variant, report / name, chosen, *options)
        with echo_server(variant, *options) as port:
            return run_server(port, report / name, chosen)

    # At once: kosoku keeps one processor busy, and has others wait for it.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        most, apart = pool.map(run_part, parts)
    return {case: (most | apart)[case] for case in sorted(most | apart, key=numeric)}


def expanded(cases: Sequence[str]) -> list[str]:
    """The globs of whole groups 12 and 13 by their kinds, so that some can be run apart."""
    globs: list[str] = []
    for case in cases:
        group = case.removesuffix(".*")
        kinds = KINDS.get(int(group), 0) if group.isdecimal() else 0
        globs += [f"{group}.{kind}.*" for kind in range(1, kinds + 1)] or [case]
    return globs


# --- our server


@contextlib.contextmanager
def echo_server(variant: Variant, *options: str) -> Iterator[int]:
    """Run the server; gives its port. AssertionError if it wrote to stderr or did not end well."""
    environment = environment_of(variant)
    command = [
        sys.executable, "-m", "tests.conformance.echo_server",
        "--carrier", variant.carrier, "--style", variant.style, "--loop", variant.loop,
        "--max-size", str(MAX_SIZE), "--max-fragments", str(MAX_FRAGMENTS), *options,
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            port, _, codec = process.stdout.readline().strip().partition(" ")
            if port:
                assert codec == variant.codec, f"the codec is {codec}, not {variant.codec}"
                yield int(port)
            errors = process.communicate(timeout=30)[1]  # closes its standard input first
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0 and not errors, (
        f"the server ended with {process.returncode}: {errors}"
    )
    assert port, "the server ended before it listened"


def run_server(port: int, report: Path, cases: Sequence[str]) -> dict[str, Outcome]:
    """Run ``cases`` against what listens on ``port``."""
    command = [*fuzzer(report, cases), "--parallelism", str(PARALLEL), f"127.0.0.1:{port}"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT)
    return outcomes_in(report, process.returncode, process.stderr)


# --- our client


def run_client(
    variant: Variant, report: Path, cases: Sequence[str], *options: str
) -> dict[str, Outcome]:
    """Let the client run ``cases`` against a server that fuzzes it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    client = [
        sys.executable, "-m", "tests.conformance.echo_client", f"ws://{address}",
        "--carrier", variant.carrier, "--style", variant.style, "--loop", variant.loop, *options,
    ]  # fmt: skip
    with subprocess.Popen(
        [*fuzzer(report, cases), "--mode", "fuzzingserver", address],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            wait_until_it_listens(address)
            process = subprocess.run(
                client,
                cwd=ROOT,
                env=environment_of(variant),
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
            )
            errors = server.communicate(timeout=30)[1]  # it ends behind the last case
        except BaseException:
            server.kill()
            raise
    assert process.returncode == 0 and not process.stderr, (
        f"the client ended with {process.returncode}: {process.stderr}"
    )
    assert process.stdout.strip() == variant.codec
    return outcomes_in(report, server.returncode, errors)


def wait_until_it_listens(address: str) -> None:
    host, _, port = address.partition(":")
    for _ in range(200):
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"nobody listens on {address}")


# --- both


def fuzzer(report: Path, cases: Sequence[str]) -> list[str]:
    """The command, for ``cases`` (globs)."""
    command = [sys.executable, "-m", "tests.conformance.fuzzer", "--outdir", str(report)]
    for case in cases:
        command += ["--include", case]
    return command


def outcomes_in(report: Path, status: int, errors: str) -> dict[str, Outcome]:
    """What kosoku wrote before it ended."""
    index = report / "index.json"
    # 1 says that a case failed; we look for ourselves.
    if status not in (0, 1) or not index.exists():
        raise RuntimeError(f"kosoku ended with {status}: {errors}")
    # By agent; a case that ended before the handshake has none, but an address.
    return {
        case: Outcome(
            case,
            entry["behavior"],
            entry["behaviorClose"],
            entry["remoteCloseCode"],
        )
        for found in json.loads(index.read_text()).values()
        for case, entry in found.items()
    }

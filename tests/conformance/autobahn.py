"""Runs the cases of the Autobahn test suite against the echo server and client; knows what they
should give.

``kosoku`` runs the suite's own case files. It is started as a command, not imported: it replaces a
function of ``binascii`` for the whole process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What the server allows. Cases 9.1.6 and 9.2.6 send 16 MiB; 9.3.1 and 9.4.1 send 4 MiB in frames
# of 64 bytes; one more than that, for a runner that ends with an empty one.
MAX_SIZE = 16 * 2**20
MAX_FRAGMENTS = 65_537

# Cases per group, so that a run which leaves some out is not taken for a good one.
GROUPS = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1}
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
}
# Of these, test_compression.py takes some: they have 1,000 messages each, and time limits.
LEFT_OUT = {12: "compression, by kind of message", 13: "compression, by parameters"}

# Cases at once. A few of them wait for a second, to see what does not happen.
PARALLEL = 4
TIME_LIMIT = 300.0  # seconds for a run

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


def run(port: int, report: Path, cases: Sequence[str] = ()) -> dict[str, Outcome]:
    """Run ``cases`` against ``port``; details go to ``report``."""
    command = [*kosoku(report, cases), "--parallelism", str(PARALLEL), f"127.0.0.1:{port}"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    return outcomes_in(report, process.returncode, process.stderr)


def run_client(variant: Variant, report: Path, cases: Sequence[str] = ()) -> dict[str, Outcome]:
    """Let the client run ``cases`` against a server that fuzzes it; details go to ``report``.

    AssertionError if the client wrote to stderr or did not end well.
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    client = [
        sys.executable, "-m", "tests.conformance.echo_client", f"ws://{address}",
        "--carrier", variant.carrier, "--style", variant.style, "--loop", variant.loop,
    ]  # fmt: skip
    with subprocess.Popen(
        [*kosoku(report, cases), "--mode", "fuzzingserver", address],
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


def kosoku(report: Path, cases: Sequence[str]) -> list[str]:
    """The command, for ``cases`` (globs; by default all groups)."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("kosoku", path=scripts) or shutil.which("kosoku")
    if found is None:
        raise FileNotFoundError("the command kosoku: pip install kosoku")
    command = [found, "--outdir", str(report)]
    for case in cases or [f"{group}.*" for group in GROUPS]:
        command += ["--include", case]
    return command


def outcomes_in(report: Path, status: int, errors: str) -> dict[str, Outcome]:
    """What kosoku wrote before it ended."""
    index = report / "index.json"
    # 1 says that a case failed; we look for ourselves.
    if status not in (0, 1) or not index.exists():
        raise RuntimeError(f"kosoku ended with {status}: {errors}")
    [found] = json.loads(index.read_text()).values()  # by agent: there is one
    outcomes = {
        case: Outcome(
            case,
            entry["behavior"],
            entry["behaviorClose"],
            entry["remoteCloseCode"],
        )
        for case, entry in found.items()
    }
    return {case: outcomes[case] for case in sorted(outcomes, key=numeric)}

"""Nothing is left behind: ``leaks.py`` with numbers that a test run has time for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

MESSAGES = 20_000
CONNECTIONS = 3_000

# What allocators keep, and what Python counts as its own, moves a little; an object left for each
# connection would be thousands.
KIB = 3_000
OBJECTS = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="counts what /proc shows"),
]


@pytest.mark.parametrize("style", ["coroutine", "listener"])
def test_messages_and_connections_of_every_kind_leave_nothing_behind(
    carrier: str, style: str
) -> None:
    before, after = run(carrier, style)
    assert after["descriptors"] == before["descriptors"]
    assert after["tasks"] == before["tasks"] == 1
    assert after["connections"] == before["connections"] == 0
    assert after["objects"] - before["objects"] < OBJECTS
    assert after["KiB"] - before["KiB"] < KIB


def run(carrier: str, style: str) -> tuple[dict[str, int], dict[str, int]]:
    """In a process of its own, in which nothing else allocates."""
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.fastws.leaks", "--carrier", carrier, "--style", style,
            "--messages", str(MESSAGES), "--connections", str(CONNECTIONS),
        ],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["messages"] >= MESSAGES and result["connections"] >= CONNECTIONS
    return result["before"], result["after"]

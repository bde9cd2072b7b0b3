"""The regression guard reads callgrind's files rightly, and fails when it should."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import instructions
from bench.native import library

# A function of ours calls one of the C library's, which costs 1,000 in all.
_FILE = """desc: Trigger: Client Request: echo|10
fl=(1) codec.c
ob=(1) /x/fastws/_codec.so
fn=(1) decode
12 300
+3 20
cob=(2) /lib/libc.so.6
cfn=(2) memcpy
calls=5 40
+1 1000
* 30

ob=(2)
fn=(2)
40 1000
ob=(1)
fn=(3) encode
-7 50
"""


def test_costs_are_of_the_object_that_executes_them() -> None:
    trigger, cost = instructions.own_cost(_FILE.splitlines())
    assert trigger == "echo|10"
    assert cost == {"/x/fastws/_codec.so": 400, "/lib/libc.so.6": 1000}


@pytest.mark.parametrize(
    ("now", "fails"), [(100.0, False), (102.9, False), (103.1, True), (50.0, False)]
)
def test_a_rise_over_three_percent_fails(now: float, fails: bool) -> None:
    _, failures = instructions.compare({"echo": now}, {"echo": 100.0})
    assert bool(failures) == fails


def test_what_can_not_be_compared_fails() -> None:
    assert len(instructions.compare({"new": 1.0}, {"old": 1.0})[1]) == 2


def test_the_baseline_is_complete() -> None:
    known = json.loads(instructions.BASELINE.read_text())
    assert len({tuple(sorted(counts)) for counts in known.values()}) == 1


def test_without_a_baseline_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instructions, "BASELINE", tmp_path / "none.json")
    monkeypatch.setattr(instructions, "count", lambda: {"echo": 100.0})
    assert instructions.main([]) == 0
    assert "no baseline" in capsys.readouterr().out
    assert instructions.main(["--strict"]) == 1
    assert instructions.main(["--update"]) == 0
    monkeypatch.setattr(instructions, "count", lambda: {"echo": 104.0})
    assert instructions.main([]) == 1
    assert "+4.00%" in capsys.readouterr().err


def test_the_scenarios_run_without_callgrind_too() -> None:
    if not Path("/usr/include/valgrind/callgrind.h").exists() or not shutil.which("cc"):
        pytest.skip("no headers of valgrind")
    command = [sys.executable, "-m", "bench.scenarios", library("callgrind")]
    subprocess.run(command, check=True, timeout=60)

"""The micro-benchmarks run, and their table says what the figures say."""

import subprocess
import sys

from bench.micro.__main__ import summarise


def _one(library: str, times: list[float]) -> dict[str, object]:
    extra = {"library": library, "bytes": 1000}
    return {"group": "mask", "extra_info": extra, "stats": {"data": times}}


def test_the_table_has_medians_and_ratios() -> None:
    text = summarise([_one("fastws", [1e-6, 2e-6, 9e-6]), _one("other", [3e-6, 4e-6, 5e-6])])
    assert "| mask | fastws | 2,000 | 1,500 - 5,500 | 0.50 | 1.00 |" in text
    assert "| mask | other | 4,000 | 3,500 - 4,500 | 0.25 | 2.00 |" in text


def test_they_run() -> None:
    command = [sys.executable, "-m", "bench.micro", "-k", "mask and 125", "--seconds", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "| mask, 125 B | fastws |" in done.stdout

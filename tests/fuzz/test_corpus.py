"""What libFuzzer found worth keeping, on every test run: see ``fuzz/README.md``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import NAMES
from tests.conftest import available_codecs

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "fuzz" / "corpus"


@pytest.mark.parametrize("implementation", available_codecs())
@pytest.mark.parametrize("target", NAMES)
def test_every_kept_input_is_handled_as_the_target_says(target: str, implementation: str) -> None:
    """In a process of its own: one target sets the time."""
    pure = "1" if implementation == "python" else "0"
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "replay", target],
        cwd=ROOT,
        env=os.environ | {"FASTWS_PURE": pure},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    name, count = done.stdout.split()
    assert (name, int(count) > len(list((CORPUS / target).iterdir()))) == (target, True)


def test_the_corpus_is_small() -> None:
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < 300_000


def test_every_target_is_described() -> None:
    text = (ROOT / "fuzz" / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"| `{name}` |" in text

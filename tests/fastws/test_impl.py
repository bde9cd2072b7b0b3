"""Which implementation is chosen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fastws

PACKAGE = Path(fastws.__file__).parent


def codec_name(folder: Path, **environment: str) -> str:
    """What ``fastws.codec_name`` is for the package in ``folder``."""
    kept = {name: value for name, value in os.environ.items() if name != "FASTWS_PURE"}
    return subprocess.run(
        # Without site: an editable install would find the missing modules in its own folder.
        [sys.executable, "-S", "-c", "import fastws; print(fastws.codec_name)"],
        env={**kept, "PYTHONPATH": str(folder), **environment},
        cwd=folder,
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout.strip()


def test_without_extensions_the_pure_codec_runs(tmp_path: Path) -> None:
    names = shutil.ignore_patterns("*.so", "*.pyd", "*.c", "__pycache__", "kernels")
    shutil.copytree(PACKAGE, tmp_path / "fastws", ignore=names)
    assert codec_name(tmp_path) == "python"


def test_the_environment_chooses_the_pure_codec() -> None:
    assert codec_name(PACKAGE.parent, FASTWS_PURE="1") == "python"


def test_zero_does_not_choose_the_pure_codec() -> None:
    assert codec_name(PACKAGE.parent, FASTWS_PURE="0") == codec_name(PACKAGE.parent)

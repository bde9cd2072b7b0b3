"""What FASTWS_BUILD promises, with and without a compiler that works."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NOTE = "built without its C extensions"

# The smallest tree that builds: one extension, so that each build takes a second.
COPIED = ("setup.py", "pyproject.toml", "LICENSE", "tools/build_backend.py", "fastws/_version.py")
EXTENSION = """
cdef extern from "kernels/one.h":
    int one()

def get():
    return one()
"""
HEADER = "int one(void);\n"
KERNEL = '#include "one.h"\nint one(void) { return 1; }\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in COPIED:
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    (tree / "README.md").touch()
    (tree / "gateway").mkdir()
    (tree / "fastws/kernels").mkdir()
    for package in ("fastws", "gateway"):
        (tree / package / "__init__.py").touch()
    (tree / "fastws/_codec.pyx").write_text(EXTENSION)
    (tree / "fastws/kernels/one.h").write_text(HEADER)
    (tree / "fastws/kernels/one.c").write_text(KERNEL)
    return tree


class Build:
    """One run of the build backend's `build_wheel`."""

    def __init__(self, tree: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTWS_")}
        done = subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(tree)],
            env={**kept, **environment},
            capture_output=True,
            text=True,
        )
        self.status = done.returncode
        self.output = done.stdout + done.stderr
        self.wheels = list((tree / "dist").glob("*.whl"))

    def notes(self) -> list[str]:
        return [line for line in self.output.splitlines() if NOTE in line]

    def assert_pure(self) -> None:
        assert self.status == 0, self.output
        [wheel] = self.wheels
        assert wheel.name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            [metadata] = (name for name in names if name.endswith("/WHEEL"))
            assert "Root-Is-Purelib: true" in archive.read(metadata).decode()
        assert not [name for name in names if name.endswith((".so", ".pyd"))]

    def assert_compiled(self) -> None:
        assert self.status == 0, self.output
        [wheel] = self.wheels
        assert "none-any" not in wheel.name
        with zipfile.ZipFile(wheel) as archive:
            assert [name for name in archive.namelist() if name.startswith("fastws/_codec.c")]


NO_COMPILER = {"CC": "false", "CXX": "false"}


def compiler_works() -> bool:
    """Asks the build backend itself."""
    spec = importlib.util.spec_from_file_location("backend", ROOT / "tools/build_backend.py")
    assert spec is not None
    assert spec.loader is not None
    backend = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    works: bool = backend.compiler_works()
    return works


needs_compiler = pytest.mark.skipif(not compiler_works(), reason="no working C compiler")


def break_kernel(tree: Path) -> None:
    (tree / "fastws/kernels/one.c").write_text("#error broken\n")


@needs_compiler
def test_compiles_where_a_compiler_works(tree: Path) -> None:
    build = Build(tree)
    build.assert_compiled()
    assert build.notes() == []


def test_without_a_compiler_the_wheel_is_pure_and_one_line_says_so(tree: Path) -> None:
    build = Build(tree, **NO_COMPILER)
    build.assert_pure()
    [note] = build.notes()
    assert "no working C compiler" in note


@needs_compiler
def test_source_that_does_not_compile_gives_a_pure_wheel_and_one_line(tree: Path) -> None:
    break_kernel(tree)
    build = Build(tree)
    build.assert_pure()
    [note] = build.notes()
    assert "compiling them failed" in note


def test_pure_neither_needs_a_compiler_nor_mentions_one(tree: Path) -> None:
    build = Build(tree, FASTWS_BUILD="pure", **NO_COMPILER)
    build.assert_pure()
    assert build.notes() == []


def test_pure_needs_no_cython(tree: Path) -> None:
    # A module of this name that cannot be imported stands before the real one.
    (tree / "hidden").mkdir()
    (tree / "hidden/Cython.py").write_text("raise ImportError('hidden by the test')")
    build = Build(tree, FASTWS_BUILD="pure", PYTHONPATH=str(tree / "hidden"))
    build.assert_pure()


def test_require_fails_without_a_compiler(tree: Path) -> None:
    build = Build(tree, FASTWS_BUILD="require", **NO_COMPILER)
    assert build.status != 0
    assert build.wheels == []


@needs_compiler
def test_require_fails_on_source_that_does_not_compile(tree: Path) -> None:
    break_kernel(tree)
    build = Build(tree, FASTWS_BUILD="require")
    assert build.status != 0
    assert build.wheels == []


def test_an_unknown_mode_is_refused_by_name(tree: Path) -> None:
    build = Build(tree, FASTWS_BUILD="maybe")
    assert build.status != 0
    assert "FASTWS_BUILD=maybe: it must be pure, require or unset" in build.output


@needs_compiler
def test_warnings_are_errors_on_request(tree: Path) -> None:
    (tree / "fastws/kernels/one.c").write_text(KERNEL + "static int unused;\n")
    assert Build(tree, FASTWS_BUILD="require").status == 0
    shutil.rmtree(tree / "build")
    assert Build(tree, FASTWS_BUILD="require", FASTWS_WERROR="1").status != 0

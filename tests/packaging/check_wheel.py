"""Proves that what we publish works where it lands.

    python tests/packaging/check_wheel.py [--output DIR] [PYTEST ARGUMENT ...]

Builds an sdist, builds a wheel from that sdist and nothing else, and looks at what is inside. Then
installs the wheel in an empty environment where no compiler is to be found, and runs the library's
tests there, on the compiled codec and on the pure one. The tests are the sdist's own copy.

Needs the package `build` and a package index. `make wheel` and `.ci/run` call it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
ATTEMPTS = 3  # of everything that downloads

# What the names of compilers start with, when no compiler shall be found.
COMPILERS = ("cc", "gcc", "g++", "c++", "cpp", "c89", "c99", "clang", "tcc", "icc", "icx", "cl.exe")

LIBRARY_WITHOUT_DEPENDENCIES = """
import importlib.metadata, sys
import fastws
installed = {distribution.name for distribution in importlib.metadata.distributions()}
others = installed - {"fastws-gateway", "pip", "setuptools"}
assert not others, f"fastws brought {others}"
assert importlib.metadata.version("fastws-gateway") == fastws.__version__
assert "site-packages" in fastws.__file__, fastws.__file__
assert fastws.codec_name == sys.argv[1], fastws.codec_name
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Build sdist and wheel, and test the wheel.")
    parser.add_argument("--output", type=Path, help="keep the two files in this folder")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastws-wheel-") as temporary:
        work = Path(temporary)
        sdist, wheel = build(work / "dist")
        check_sdist(sdist)
        check_wheel(wheel)
        test(wheel, sdist, work, arguments.pytest)
        if arguments.output:
            arguments.output.mkdir(parents=True, exist_ok=True)
            for file in (sdist, wheel):
                shutil.copy(file, arguments.output)


def build(output: Path) -> tuple[Path, Path]:
    """`python -m build` makes the sdist from the checkout and the wheel from the sdist."""
    say("building the sdist, and the wheel from it")
    log = output.with_suffix(".log")
    environment = {**os.environ, "FASTWS_BUILD": "require"}
    with log.open("w") as stream:
        for attempt in range(ATTEMPTS):
            command = [sys.executable, "-m", "build", "--outdir", str(output), str(ROOT)]
            done = subprocess.run(command, env=environment, stdout=stream, stderr=stream)
            if done.returncode == 0:
                break
            time.sleep(attempt * 3)
        else:
            fail(f"the build failed:\n{log.read_text()[-4000:]}")
    [sdist] = output.glob("*.tar.gz")
    [wheel] = output.glob("*.whl")
    return sdist, wheel


def check_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expect(names, *wanted_sources("fastws", "*.py", "*.pyx", "*.pxd", "*.pyi"))
    expect(names, *wanted_sources("fastws/_pure", "*.py"))
    expect(names, *wanted_sources("fastws/kernels", "*.[ch]"))
    expect(names, "LICENSE", "README.md", "setup.py", "tools/build_backend.py", "tests/conftest.py")
    refuse(names, lambda name: name.endswith((".so", ".pyd", ".pyc")), "built files")
    refuse(names, lambda name: "node_modules" in name, "installed packages")
    refuse(names, lambda name: name.startswith("fastws/_") and name.endswith(".c"), "generated C")


def check_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expect(names, *wanted_sources("fastws", "*.py", "*.pxd", "*.pyi"))
    expect(names, *wanted_sources("fastws/_pure", "*.py"), *wanted_sources("fastws/kernels", "*.h"))
    expect(names, *wanted_sources("fastws/_cli", "*.py"))
    expect(names, *wanted_sources("gateway", "**/*.py", "static/**/*"))
    expect(names, "fastws/py.typed", "gateway/py.typed")
    for source in wanted_sources("fastws", "*.pyx"):
        module = source.removesuffix(".pyx") + "."
        if not any(name.startswith(module) and name.endswith((".so", ".pyd")) for name in names):
            fail(f"the wheel lacks the compiled {source}")
    refuse(names, lambda name: name.endswith((".c", ".pyx", ".pyc")), "sources")
    refuse(names, lambda name: name.split("/")[0] in ("tests", "bench", "tools"), "other folders")


def wanted_sources(folder: str, *patterns: str) -> list[str]:
    """Files of the checkout that match, as paths with slashes."""
    found = {file for pattern in patterns for file in (ROOT / folder).glob(pattern)}
    files = (file for file in found if file.is_file() and "__pycache__" not in file.parts)
    return sorted(file.relative_to(ROOT).as_posix() for file in files)


def test(wheel: Path, sdist: Path, work: Path, pytest_arguments: list[str]) -> None:
    say("installing the wheel in an empty environment without a compiler")
    home = work / "venv"
    venv.create(home, with_pip=True)
    python = str(home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    compiled = without_compiler(work / "path")
    for variable in ("FASTWS_BUILD", "FASTWS_PURE", "FASTWS_WERROR"):
        compiled.pop(variable, None)
    pure = {**compiled, "FASTWS_PURE": "1"}

    tree = work / "tree"  # holds no fastws: what is imported is what was installed
    unpack(sdist, tree, "tests/", "docs/", "examples/", "pyproject.toml")
    arguments = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]

    download([*arguments, str(wheel)], tree, compiled)
    run([python, "-c", LIBRARY_WITHOUT_DEPENDENCIES, "cython"], tree, compiled)
    run([python, "-c", LIBRARY_WITHOUT_DEPENDENCIES, "python"], tree, pure)

    download([*arguments, f"{wheel}[test]"], tree, compiled)
    command = [python, "-m", "pytest", "tests/fastws", *pytest_arguments]
    say("the library's tests on the installed wheel, compiled codec")
    run(command, tree, compiled)
    say("the library's tests on the installed wheel, pure codec")
    run(command, tree, pure)


def unpack(sdist: Path, target: Path, *prefixes: str) -> None:
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            path = member.name.partition("/")[2]
            if member.isfile() and path.startswith(prefixes):
                content = archive.extractfile(member)
                assert content is not None
                file = target / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.read())


def without_compiler(folder: Path) -> dict[str, str]:
    """The environment, with a PATH that leads to every program but the compilers."""
    folder.mkdir()
    for directory in map(Path, os.get_exec_path()):
        if not directory.is_dir():
            continue
        for program in directory.iterdir():
            name = program.name.removeprefix("x86_64-linux-gnu-").removeprefix("aarch64-linux-gnu-")
            link = folder / program.name
            if not name.startswith(COMPILERS) and not link.is_symlink():
                link.symlink_to(program)
    # Were something to be compiled all the same, this is what it would call.
    return {**os.environ, "PATH": str(folder), "CC": "false", "CXX": "false"}


def download(command: list[str], directory: Path, environment: dict[str, str]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        done = subprocess.run(command, cwd=directory, env=environment, check=False)
        if done.returncode == 0:
            return
        time.sleep(attempt * 3)
    fail(f"{ATTEMPTS} times in vain: {' '.join(command)}")


def run(command: list[str], directory: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=directory, env=environment, check=False)
    if done.returncode:
        fail(f"status {done.returncode} from: {' '.join(command[:3]).splitlines()[0]} …")


def expect(names: set[str], *wanted: str) -> None:
    if missing := sorted(set(wanted) - names):
        fail(f"missing: {', '.join(missing)}")


def refuse(names: set[str], unwanted: Callable[[str], bool], what: str) -> None:
    if found := sorted(filter(unwanted, names)):
        fail(f"{what} that do not belong there: {', '.join(found)}")


def say(text: str) -> None:
    print(f"wheel: {text}", flush=True)


def fail(text: str) -> NoReturn:
    sys.exit(f"wheel: {text}")


if __name__ == "__main__":
    main()

"""``python -m fuzz``: builds the library for libFuzzer, and runs its targets.

    python -m fuzz run codec --runs 1000000     from the kept corpus on, for so many inputs
    python -m fuzz run all --seconds 60         every target, for so long each
    python -m fuzz run connection --fast        without sanitizers: several times as many inputs
    python -m fuzz minimise codec               keeps of all inputs found the few that cover as much
    python -m fuzz replay                       the kept corpus without libFuzzer, on any build
    python -m fuzz replay codec FILE            one input, likewise

clang and its run-time libraries must be there; ``make fuzz`` sees to it. What is built and found is
in ``build/fuzz``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from fuzz.targets import NAMES

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "fuzz" / "corpus"
WORK = ROOT / "build" / "fuzz"
SANITIZERS = "address,undefined"

# Longest input: longer ones take longer and show nothing that shorter ones do not.
MAX_LENGTH = {"codec": 400, "kernels": 300, "handshake": 700, "deflate": 300, "connection": 100}
# Of a target's corpus in the repository.
KEPT_BYTES = 50_000
KEPT_FILES = 250


class Build:
    """A copy of the library that clang compiles for libFuzzer, and the programs that run it."""

    def __init__(self, sanitizers: str) -> None:
        self.sanitizers = sanitizers
        self.folder = WORK / ("sanitized" if sanitizers else "fast")
        self.harness = self.folder / "harness"  # with Python in it
        self.kernels = self.folder / "kernels"  # in C alone
        self.compiler = os.environ.get("FUZZ_CC", "clang")

    def flags(self, coverage: str) -> list[str]:
        instruments = ",".join(filter(None, (coverage, self.sanitizers)))
        return [f"-fsanitize={instruments}", "-fno-sanitize-recover=all"]

    def make(self) -> None:
        """Compile it, unless that has been done."""
        sources = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "fastws", "tools")
        stale = [copy_changed(ROOT / name, self.folder / name) for name in sources]
        stale += [
            copy_changed(ROOT / name, self.folder / name) for name in ("fuzz", "tests/fastws")
        ]
        if not any(stale) and self.harness.exists():
            return
        self.harness.unlink(missing_ok=True)
        self.compile_modules()
        self.compile_kernels()
        self.link_harness()

    def compile_modules(self) -> None:
        flags = self.flags("fuzzer-no-link")
        environment = os.environ | {
            "CC": self.compiler,
            "CFLAGS": " ".join(("-O1" if self.sanitizers else "-O2", "-g", *flags)),
            "FASTWS_SANITIZE": flags[0].partition("=")[2],
            "FASTWS_WERROR": "0",  # warnings are for the compiler that makes the wheels
        }
        for command in (
            ["setup.py", "-q", "build_ext", "--inplace"],
            ["-m", "Cython.Build.Cythonize", "-q", "-i", "-f", "fuzz/targets/_cuts.pyx"],
        ):
            subprocess.run([sys.executable, *command], cwd=self.folder, env=environment, check=True)

    def compile_kernels(self) -> None:
        sources = [ROOT / "fuzz" / "kernels.c", *(ROOT / "fastws" / "kernels").glob("*.c")]
        command = [
            self.compiler, "-g", "-O2", "-Wall", "-Wextra", *self.flags("fuzzer"),
            f"-I{ROOT / 'fastws'}", *map(str, sources), "-o", str(self.kernels),
        ]  # fmt: skip
        subprocess.run(command, check=True)

    def link_harness(self) -> None:
        values = sysconfig.get_config_vars()
        folder = values["LIBDIR"]
        command = [
            self.compiler, "-g", "-O1", "-Wall", "-Wextra", *self.flags("fuzzer"),
            f"-I{sysconfig.get_path('include')}", str(ROOT / "fuzz" / "harness.c"),
            "-o", str(self.harness), f"-L{folder}", f"-Wl,-rpath,{folder}",
            f"-lpython{values['LDVERSION']}", "-rdynamic",
            *values["LIBS"].split(), *values["SYSLIBS"].split(),
        ]  # fmt: skip
        subprocess.run(command, check=True)

    def fuzz(self, target: str, folders: Sequence[Path], *options: str) -> int:
        """Run libFuzzer; its exit status. What it finds is left in a file that it names."""
        environment = os.environ | {
            "FASTWS_FUZZ_TARGET": target,
            "FASTWS_FUZZ_PYTHON": sys.executable,
            "PYTHONPATH": str(self.folder),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:malloc_context_size=4"
            ":quarantine_size_mb=16:max_malloc_fill_size=256:handle_abort=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        if self.sanitizers:
            # Python's own pools would hide a read behind the end of a small object.
            environment["PYTHONMALLOC"] = "malloc"
        command = [
            str(self.kernels if target == "kernels" else self.harness), "-timeout=20",
            "-rss_limit_mb=2048", f"-max_len={MAX_LENGTH[target]}",
            f"-artifact_prefix={WORK / target}-", *options, *map(str, folders),
        ]  # fmt: skip
        return subprocess.run(command, env=environment, cwd=self.folder, check=False).returncode


def copy_changed(source: Path, target: Path) -> bool:
    """Copy a file, or a folder's sources, where newer; whether there is something to compile."""
    compiled = {".pyx", ".pxd", ".c", ".h"}
    generated = {path.with_suffix(".c") for path in source.glob("*.pyx")}
    stale = False
    for path in [source] if source.is_file() else source.rglob("*"):
        copy = target / path.relative_to(source)
        wanted = path.suffix in compiled | {".py", ".pyi", ".toml"} or path == source
        if not wanted or path in generated or not path.is_file():
            continue
        if not copy.exists() or copy.stat().st_mtime < path.stat().st_mtime:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
            stale |= path.suffix in compiled or path.name == "setup.py"
    return stale


def run(build: Build, target: str, runs: int, seconds: int) -> int:
    (WORK / "found" / target).mkdir(parents=True, exist_ok=True)
    write_seeds(target)
    limits = [f"-runs={runs}"] if runs else []
    if seconds:
        limits.append(f"-max_total_time={seconds}")
    return build.fuzz(target, folders_of(target), *limits, "-print_final_stats=1")


def write_seeds(target: str) -> None:
    folder = WORK / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT))
    for index, seed in enumerate(importlib.import_module(f"fuzz.targets.{target}").seeds()):
        (folder / f"{index:03}").write_bytes(seed)


def folders_of(target: str) -> list[Path]:
    """Where inputs are: new ones go into the first."""
    folders = [WORK / "found" / target, KEPT / target, WORK / "seeds" / target]
    return [folder for folder in folders if folder.is_dir()]


def minimise(build: Build, target: str) -> int:
    """Make the kept corpus anew from all that was found, small inputs first."""
    merged = WORK / "merged" / target
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    status = build.fuzz(target, [merged, *folders_of(target)], "-set_cover_merge=1")
    if status:
        return status
    kept = KEPT / target
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    room = KEPT_BYTES
    found = sorted(merged.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    for path in found[:KEPT_FILES]:
        room -= path.stat().st_size
        if room < 0:
            break
        shutil.copyfile(path, kept / path.name[:12])
    return 0


def replay(target: str, files: Sequence[Path]) -> int:
    """Run inputs in this interpreter, all that are kept if none is named; how many there were."""
    module = importlib.import_module(f"fuzz.targets.{target}")
    inputs = [path.read_bytes() for path in files or sorted((KEPT / target).iterdir())]
    if not files:
        inputs += module.seeds()
    for data in inputs:
        try:
            module.run(data, thorough=True)
        except BaseException as error:
            error.add_note(f"{target}: {data!r}")
            raise
    return len(inputs)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["build", "run", "minimise", "replay"])
    parser.add_argument(
        "targets", nargs="*", metavar="target", help=f"all (the default), or {', '.join(NAMES)}"
    )
    parser.add_argument("--runs", type=int, default=0, help="inputs for each target")
    parser.add_argument("--seconds", type=int, default=0, help="time for each target")
    parser.add_argument("--fast", action="store_true", help="without sanitizers")
    options = parser.parse_args()
    targets = [name for name in options.targets if name in NAMES]
    files = [Path(name) for name in options.targets if name not in (*NAMES, "all")]
    if files and (options.command != "replay" or len(targets) != 1):
        parser.error(f"no such target: {files[0]}")
    targets = targets or list(NAMES)
    if options.command == "replay":
        for target in targets:
            print(target, replay(target, files))
        return 0
    build = Build("" if options.fast else SANITIZERS)
    build.make()
    if options.command == "build":
        return 0
    for target in targets:
        if options.command == "minimise":
            status = minimise(build, target)
        else:
            status = run(build, target, options.runs, options.seconds)
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())

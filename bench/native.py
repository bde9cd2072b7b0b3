"""Builds the C programs of the benchmark when they are needed."""

import os
import shutil
import subprocess
from pathlib import Path

_SOURCES = Path(__file__).parent / "native"
_BUILD = Path(__file__).parent / "build"
_FLAGS = ["-std=gnu11", "-O3", "-march=native", "-Wall", "-Wextra"]
# Programs that can do without OpenSSL, and say so when they are asked for TLS.
_WITH_TLS = ("load",)


class NoCompiler(Exception):
    """There is no C compiler, or it could not build a program of the benchmark."""


def program(name: str) -> str:
    """Path of the program built from `native/<name>.c`, compiled when its sources are newer.

    The compiler is `$CC`, else `cc`. Raises NoCompiler with a message for the user.
    """
    return _built(name, _BUILD / name, [])


def library(name: str) -> str:
    """The same of a shared library."""
    return _built(name, _BUILD / f"{name}.so", ["-shared", "-fPIC"])


def _built(name: str, target: Path, flags: list[str]) -> str:
    source = _SOURCES / f"{name}.c"
    newest = max(file.stat().st_mtime for file in (source, *_SOURCES.glob("*.h")))
    if target.exists() and target.stat().st_mtime > newest:
        return str(target)
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise NoCompiler(
            f"the benchmark's load generator is written in C, and there is no '{compiler}': "
            "install a compiler (Debian: apt install gcc libc6-dev) or set CC"
        )
    _BUILD.mkdir(exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")
    command = [compiler, *_FLAGS, *flags, "-o", str(unfinished), str(source)]
    if name in _WITH_TLS and _has_openssl(compiler):
        command += ["-DHAVE_OPENSSL", "-lssl", "-lcrypto"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise NoCompiler(f"{' '.join(command)} failed:\n{result.stderr}")
    unfinished.replace(target)
    return str(target)


def _has_openssl(compiler: str) -> bool:
    """Whether the compiler finds OpenSSL's headers."""
    command = [compiler, "-E", "-include", "openssl/ssl.h", "-x", "c", "/dev/null"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0

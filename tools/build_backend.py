"""PEP 517 backend: setuptools', plus one decision: what to do when the extensions do not compile.

FASTWS_BUILD chooses:

unset      compile; if that is impossible, build a pure-Python wheel and say so in one line
"pure"     a pure-Python wheel; neither Cython nor a compiler is looked for
"require"  compile, and fail if that fails

The decision stands above setuptools rather than inside it, because a pure wheel differs by more
than its missing files: its tag, its directories and `Root-Is-Purelib` are fixed before the first
file is compiled. So a build that fails is thrown away and done again from the start as a pure one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from setuptools import Distribution, Extension, build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

CYTHON = "Cython>=3.1"
VARIABLE = "FASTWS_BUILD"

# Does nothing, but needs a compiler, a linker and Python's headers.
PROBE = """
#include <Python.h>
PyMODINIT_FUNC PyInit_probe(void) { return NULL; }
"""

Config = dict[str, Any] | None


def mode() -> str:
    """ "", "pure" or "require"; any other value ends the build."""
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "pure", "require"):
        raise SystemExit(f"{VARIABLE}={value}: it must be pure, require or unset")
    return value


def get_requires_for_build_wheel(config_settings: Config = None) -> list[str]:
    return build_meta.get_requires_for_build_wheel(config_settings) + requires_cython()


def get_requires_for_build_editable(config_settings: Config = None) -> list[str]:
    return build_meta.get_requires_for_build_editable(config_settings) + requires_cython()


def requires_cython() -> list[str]:
    """Cython, unless it would be installed for nothing."""
    if mode() == "pure" or (mode() == "" and not compiler_works()):
        return []
    return [CYTHON]


def build_wheel(
    wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None
) -> str:
    return compiled_or_pure(
        lambda: build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    )


def build_editable(
    wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None
) -> str:
    return compiled_or_pure(
        lambda: build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    )


def compiled_or_pure(build: Callable[[], str]) -> str:
    """Calls `build`; where that is impossible and FASTWS_BUILD allows it, again for a pure one."""
    if mode():
        return build()
    fault = "no working C compiler with Python's headers was found"
    if compiler_works():
        try:
            return build()
        except ImportError as error:
            fault = str(error)
        except (Exception, SystemExit):  # distutils reports a failed compiler with SystemExit
            fault = "compiling them failed, the output above says where"
    with pure_build():
        result = build()
    print(
        f"fastws-gateway: built without its C extensions, so it runs slower: {fault}. "
        f"{VARIABLE}=require makes this an error.",
        file=sys.stderr,
        flush=True,
    )
    return result


@contextlib.contextmanager
def pure_build() -> Iterator[None]:
    os.environ[VARIABLE] = "pure"
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def compiler_works() -> bool:
    """Whether extensions can be compiled here. Costs a fraction of a second."""
    with tempfile.TemporaryDirectory() as directory, quiet():
        source = Path(directory, "probe.c")
        source.write_text(PROBE)
        distribution = Distribution({"ext_modules": [Extension("probe", [str(source)])]})
        command = distribution.get_command_obj("build_ext")
        command.build_lib = command.build_temp = directory
        try:
            command.ensure_finalized()
            command.run()
        except (Exception, SystemExit):
            return False
    return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends descriptors 1 and 2, which the compiler writes to, to the null device."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        os.dup2(null, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(saved, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(null)

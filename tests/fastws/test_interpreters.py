"""Sub-interpreters and free threading: what the compiled modules declare, and what comes of it.

They declare neither: state of a module is in C variables, and the hot path relies on the GIL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import fastws

# Runs fastws in a sub-interpreter with the old, shared GIL and in an isolated one, if there are two
# kinds, by whatever name this version has for the module.
SCRIPT = """
import importlib, os, sys
FIRST = {first!r}
for name in ("_interpreters", "_xxsubinterpreters"):
    try:
        interpreters = importlib.import_module(name)
        break
    except ModuleNotFoundError:
        pass
if FIRST:
    import fastws
code = '''
try:
    import fastws
    fastws.Close(1000, "")
    print(fastws.codec_name)
except ImportError as error:
    print("ImportError:", error)
'''
ids = [interpreters.create()]
try:
    ids.append(interpreters.create("legacy"))
except (TypeError, ValueError):
    pass
for id in ids:
    failed = interpreters.run_string(id, code)
    if failed is not None:
        print(failed)
    sys.stdout.flush()
# Not their end: with OpenSSL loaded, CPython 3.12 may crash there.
os._exit(0)
"""


def in_sub_interpreters(*, first: bool, pure: bool) -> list[str]:
    """What importing says in each; ``first``: after the main interpreter has imported fastws."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(first=first)],
        env=os.environ
        | {
            "FASTWS_PURE": "1" if pure else "0",
            "PYTHONUNBUFFERED": "1",
            # The same modules for all: a second interpreter has no "" among its paths.
            "PYTHONPATH": str(Path(fastws.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_compiled_modules_refuse_a_second_interpreter_and_say_so() -> None:
    lines = in_sub_interpreters(first=True, pure=fastws.codec_name == "python")
    assert lines
    for line in lines:
        if fastws.codec_name == "python":
            assert line == "python"
        else:
            assert line.startswith("ImportError: "), line
            assert "interpreter" in line.lower(), line


def test_the_pure_library_works_in_a_sub_interpreter() -> None:
    assert set(in_sub_interpreters(first=False, pure=True)) == {"python"}


if sysconfig.get_config_var("Py_GIL_DISABLED"):

    def test_compiled_modules_turn_the_gil_back_on() -> None:
        script = "import sys, fastws; print(fastws.codec_name, sys._is_gil_enabled())"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        compiled = fastws.codec_name == "cython"
        assert done.stdout.split() == [fastws.codec_name, str(compiled)]
        assert ("The global interpreter lock (GIL) has been enabled" in done.stderr) == compiled

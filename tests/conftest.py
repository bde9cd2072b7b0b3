"""Fixtures, markers and rules that all tests share.

Fixtures multiply a test; name one as an argument or with ``pytest.mark.usefixtures``:

``codec``      the module to test: ``fastws._codec``, then its twin ``fastws._pure.codec``
``loop_kind``  ``"asyncio"``, then ``"uvloop"``: the loop under the test (a coroutine function)
``carrier``    ``"reactor"``, then ``"asyncio"``: for ``fastws.serve(…, carrier=carrier)``

A test that is a coroutine function runs in an event loop of its own, in debug mode; no plug-in
takes part. Without ``loop_kind`` it is asyncio's loop. The test fails

- after 30 seconds; ``@pytest.mark.time_limit(seconds)`` sets another limit;
- when something reached the loop's exception handler (a callback that raised, a task whose
  exception nobody looked at), unless the test set a handler with ``loop.set_exception_handler``;
- through pytest's filter for warnings (pyproject.toml), when it leaves a coroutine that was never
  awaited, or a socket or transport that was not closed.

Asynchronous fixtures do not exist: write an asynchronous context manager and enter it in the test.

Environment:

``FASTWS_PURE=1``         the library without its extensions: the Python codec, the asyncio carrier
``FASTWS_LOOP=asyncio``   tests of every loop run on that one only
``FASTWS_REQUIRE_ALL=1``  a skipped test is a failed one, and so is a missing extension. CI sets it
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import importlib.util
import inspect
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from types import ModuleType
from typing import Any

import hypothesis
import pytest

PURE = os.environ.get("FASTWS_PURE", "") not in ("", "0")
REQUIRE_ALL = os.environ.get("FASTWS_REQUIRE_ALL", "") not in ("", "0")
LOOPS = [only] if (only := os.environ.get("FASTWS_LOOP")) else ["asyncio", "uvloop"]
TIME_LIMIT = 30.0  # seconds for one asynchronous test

CODECS = {"cython": "fastws._codec", "python": "fastws._pure.codec"}

# No deadline per example: other programs share the machine. CI tries the same examples each time,
# so that a change is not blamed for what an unlucky draw found; developers draw new ones.
hypothesis.settings.register_profile(
    "fastws", deadline=None, derandomize=REQUIRE_ALL, print_blob=True
)
hypothesis.settings.load_profile("fastws")

MARKERS = [
    "time_limit(seconds): another limit than 30 s for an asynchronous test",
    "slow: takes more than a few seconds; leave it out with -m 'not slow'",
    "browser: drives Chromium",
    "node: drives a client from npm",
]


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in its background with SIGINT ignored, and programs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_report_header() -> str:
    kind = "pure Python" if PURE else "compiled" if extension_exists() else "pure Python: not built"
    return f"fastws: {kind}" + (", nothing may be skipped" if REQUIRE_ALL else "")


@functools.cache
def extension_exists() -> bool:
    """Whether the compiled codec is there; one that cannot be imported is an error, not absent."""
    return importlib.util.find_spec(CODECS["cython"]) is not None


def available_codecs() -> list[str]:
    if PURE:
        return ["python"]
    # Where nothing may be skipped, the import fails in the fixture and says why.
    return ["cython", "python"] if extension_exists() or REQUIRE_ALL else ["python"]


def available_carriers() -> list[str]:
    reactor = sys.platform == "linux" and "cython" in available_codecs()
    return ["reactor", "asyncio"] if reactor else ["asyncio"]


# Module scope: Hypothesis rejects function-scoped fixtures, which are not set up for each example.


@pytest.fixture(params=available_codecs(), scope="module")
def codec(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(CODECS[request.param])


@pytest.fixture(params=available_carriers(), scope="module")
def carrier(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(params=LOOPS, scope="module")
def loop_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    return kind


def loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop  # type: ignore[no-any-return, unused-ignore]
    return asyncio.new_event_loop


# Running asynchronous tests


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Puts a plain function in the place of a coroutine function; pytest goes on and calls that."""
    marker = pyfuncitem.get_closest_marker("time_limit")
    run = functools.partial(
        run_in_loop,
        kind=str(pyfuncitem.funcargs.get("loop_kind", "asyncio")),
        limit=float(marker.args[0]) if marker else TIME_LIMIT,
    )
    test = pyfuncitem.obj
    # Hypothesis calls the inner function once per example: each example gets its own loop.
    property_test = getattr(test, "hypothesis", None)
    if property_test is not None:
        if inspect.iscoroutinefunction(property_test.inner_test):
            property_test.inner_test = synchronous(property_test.inner_test, run)
    elif inspect.iscoroutinefunction(test):
        pyfuncitem.obj = synchronous(test, run)


def synchronous(
    test: Callable[..., Coroutine[Any, Any, None]], run: Callable[..., None]
) -> Callable[..., None]:
    @functools.wraps(test)
    def call(*args: Any, **kwargs: Any) -> None:
        run(lambda: test(*args, **kwargs))

    # Whoever follows __wrapped__ would find the coroutine function again.
    del call.__dict__["__wrapped__"]
    return call


def run_in_loop(start: Callable[[], Coroutine[Any, Any, None]], *, kind: str, limit: float) -> None:
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
        async with asyncio.timeout(limit) as timer:
            try:
                await start()
            except asyncio.CancelledError:
                if timer.expired():
                    raise AssertionError(f"not done within {limit:g} s") from None
                raise

    with asyncio.Runner(loop_factory=loop_factory(kind), debug=True) as runner:
        runner.run(main())
    gc.collect()  # what the test left behind shall complain now, not during another test
    for what in reported:
        error = what.get("exception")
        raise AssertionError(f"reached the loop's exception handler: {what}") from error


def pytest_collection_finish() -> None:
    """Keep what pytest and the imports made out of the collections that follow each test."""
    gc.collect()
    gc.freeze()


# Nothing may be skipped


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # An expected failure (xfail) is reported as skipped too, but it ran.
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        fail_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if REQUIRE_ALL and report.skipped:
        fail_skipped(report)
    return report


def fail_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} was skipped while FASTWS_REQUIRE_ALL is set: {reason}"

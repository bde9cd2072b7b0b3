"""What tests of the C programs share."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from bench.native import program
from bench.process import free_port, server


class Limit(NamedTuple):
    """A running limit."""

    port: int
    pid: int


@pytest.fixture(scope="module")
def limit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limit]:
    """The limit, an echo server in C, one for the tests of a module."""
    port = free_port()
    log = tmp_path_factory.mktemp("bench") / "limit.log"
    with server([program("echo_limit"), "--port", str(port)], port, log) as pid:
        yield Limit(port, pid)

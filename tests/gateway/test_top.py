"""``fastws-gateway top``: on a terminal, in a pipe, and against who is no gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from gateway import top
from gateway.server import Gateway
from gateway.top import TopError, Watch, draw, fit, printable, sparkline
from tests.gateway.test_admin import HOSTILE, PASSWORD, running
from tests.gateway.test_gateway import client

ENVIRON = {key: value for key, value in os.environ.items() if not key.startswith("FASTWS_")}


@contextlib.asynccontextmanager
async def watched(**changes: Any) -> AsyncIterator[tuple[Gateway, str]]:
    async with running(**changes) as (gateway, _):
        assert gateway.admin is not None
        gateway.admin.recorder.sample()
        yield gateway, f"http://127.0.0.1:{gateway.port}"


async def run(*arguments: str, password: str = PASSWORD) -> tuple[int, str, str]:
    """Status, output and errors of the command, in a pipe."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        "top",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**ENVIRON, **({"FASTWS_ADMIN_PASSWORD": password} if password else {})},
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_in_a_pipe_it_prints_once() -> None:
    async with watched() as (gateway, url), await client(gateway, "lobby"):
        gateway.admin.recorder.sample()  # type: ignore[union-attr]
        status, text, errors = await run(url, "--once")
        assert (status, errors) == (0, "")
        assert "\x1b" not in text
        lines = text.splitlines()
        assert lines[0].startswith("fastws-gateway")
        assert lines[2].split()[:2] == ["Connections", "1"]
        assert lines[-1].split() == ["lobby", "1"]


async def test_json_is_a_line_for_each_look() -> None:
    async with watched() as (gateway, url), await client(gateway, HOSTILE[3]):
        status, text, _ = await run(f"{url}/admin/", "--once", "--json")
        assert (status, text.count("\n")) == (0, 1)
        told = json.loads(text)
        assert told["top_channels"] == [{"name": HOSTILE[3], "subscribers": 1}]
        assert told["memory"] > 0
        assert told["uid"] == gateway.node.uid


@pytest.mark.parametrize(
    ("arguments", "password", "status", "said"),
    [
        (["--once"], "wrong password", 2, "this is not the password"),
        (["--once"], "", 2, "set FASTWS_ADMIN_PASSWORD"),
        (["--interval", "0"], PASSWORD, 2, "0.1"),
    ],
)
async def test_what_is_wrong_is_one_line(
    arguments: list[str], password: str, status: int, said: str
) -> None:
    async with watched() as (_, url):
        result = await run(url, *arguments, password=password)
        assert (result[0], result[1]) == (status, "")
        assert said in result[2]
        assert "Traceback" not in result[2]


async def test_a_gateway_without_the_page_says_what_is_missing() -> None:
    async with running(admin__enabled=False) as (gateway, _):
        status, _, errors = await run(f"127.0.0.1:{gateway.port}", "--once")
        assert (status, errors.count("\n")) == (1, 1)
        assert "admin.enabled" in errors


async def test_nobody_there_is_one_line() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    status, _, errors = await run(f"http://127.0.0.1:{port}", "--once")
    assert (status, errors.count("\n")) == (1, 1)
    assert "does not answer" in errors
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("url", ["ftp://host/", "http://", "http://host:99999", "file:///x", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(TopError) as refused:
        Watch(url)
    assert refused.value.status == 2


# -- on a terminal


class Terminal:
    """The command on a pseudo-terminal."""

    def __init__(self, url: str) -> None:
        import pty

        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            environ = {**ENVIRON, "FASTWS_ADMIN_PASSWORD": PASSWORD, "TERM": "xterm"}
            command = [sys.executable, "-m", "gateway", "top", url, "--interval", "0.2"]
            os.execve(command[0], command, {**environ, "COLUMNS": "80", "LINES": "24"})
        self.seen = b""
        self.status: int | None = None

    def _step(self) -> bool:
        """Read what there is. False at the end."""
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:
            data = b""
        self.seen += data
        return data != b""

    async def until(self, condition: Callable[[bytes], bool]) -> None:
        while not condition(self.seen):
            assert await asyncio.to_thread(self._step), self.seen

    async def end(self) -> int:
        while await asyncio.to_thread(self._step):
            pass
        _, status = await asyncio.to_thread(os.waitpid, self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def kill(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)


@contextlib.contextmanager
def terminal(url: str) -> Iterator[Terminal]:
    made = Terminal(url)
    try:
        yield made
    finally:
        made.kill()


# A process that has threads is forked, and starts another program at once.
pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "ctrl-c"])
async def test_on_a_terminal_it_goes_on_until_a_key_ends_it(key: bytes) -> None:
    async with watched() as (gateway, url):
        with terminal(url) as screen:
            await screen.until(lambda seen: b"Connections" in seen)
            async with await client(gateway, "lobby"):
                await screen.until(lambda seen: b"lobby" in seen)
            await screen.until(lambda seen: seen.count(top.CLEAR.encode()) > 2)
            os.write(screen.descriptor, key)
            assert await screen.end() == 0
            assert screen.seen.endswith(b"\x1b[?25h\x1b[?1049l"), "the screen is as it was"
            assert b"Traceback" not in screen.seen


# -- how it is drawn


@pytest.mark.parametrize("name", HOSTILE)
def test_names_can_not_command_the_terminal(name: str) -> None:
    assert all(char.isprintable() for char in printable(name))
    watch = Watch("http://host")
    stats = {"version": "1", "uptime": 100000.0}
    channels = {"rows": [{"name": name, "subscribers": 12345}], "total": 1}
    picture = draw(watch, stats, channels, (40, 24), colour=False)
    assert all(char.isprintable() or char == "\n" for char in picture)
    assert picture.splitlines()[-1].endswith("       12,345")


@pytest.mark.parametrize(
    ("text", "width", "fitted"),
    [
        ("room", 6, "room  "),
        ("room", 4, "room"),
        ("rooms", 4, "roo…"),
        ("部屋部屋", 5, "部屋…"),
        ("部屋", 3, "部…"),
        ("部屋", 2, "… "),
        ("e\u0301e", 2, "e\u0301e"),
        ("x", 0, ""),
    ],
)
def test_names_are_cut_to_the_cells_there_are(text: str, width: int, fitted: str) -> None:
    assert fit(text, width) == fitted


def test_a_picture_fits_its_terminal() -> None:
    watch = Watch("http://host")
    columns = [column for _, column, _, _ in top._LINES]
    watch.rows = [dict.fromkeys(columns, 999.0) for _ in range(600)]
    rows = [{"name": f"room-{number}" * 20, "subscribers": 10**9} for number in range(100)]
    stats = {"version": "1" * 50, "uptime": 1e9}
    for size in ((20, 4), (80, 24), (300, 100)):
        lines = draw(watch, stats, {"rows": rows, "total": 10**9}, size, colour=False).split("\n")
        assert len(lines) <= size[1]
        assert max(map(len, lines)) <= max(size[0], 27)


def test_a_sparkline_shows_the_newest_at_the_right() -> None:
    assert sparkline([0, 0, 10], 5, 1) == "  ▁▁█"
    assert sparkline(list(range(100)), 3, 1) == "███"
    assert sparkline([0.5], 2, 1.0) in (" ▄", " ▅")
    assert sparkline([1], 0, 1) == ""

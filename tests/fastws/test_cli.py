"""``python -m fastws``: in pipes, in a terminal, and the line editor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies

import fastws
from fastws._cli.editor import END_OF_INPUT, LineEditor, visible
from fastws._cli.indent import indented
from fastws._cli.pipe import Pipe
from tests.fastws.certificates import server_context
from tests.fastws.client import echo, url
from tests.fastws.raw_server import PROXY_VARIABLES

TIMEOUT = 20.0

ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in PROXY_VARIABLES}
ENVIRONMENT |= {"TERM": "xterm", "PYTHONUNBUFFERED": "1"}


def serve(handler: Any = echo, **options: Any) -> Any:
    return fastws.serve(handler, "127.0.0.1", 0, **options)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fastws", *map(str, arguments)]


async def run(
    *arguments: object, given: bytes = b"", redirection: str = ""
) -> tuple[int | None, bytes, str]:
    """Exit status, output and error output of the command in pipes, or where a shell puts them."""
    shell = ("/bin/sh", "-c", f'exec "$0" "$@" {redirection}') if redirection else ()
    process = await asyncio.create_subprocess_exec(
        *shell,
        *command(*arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    async with asyncio.timeout(TIMEOUT):
        out, errors = await process.communicate(given)
    return process.returncode, out, errors.decode()


# --- in pipes


async def test_lines_are_sent_and_messages_are_written_as_lines() -> None:
    async with serve() as server:
        given = "hello\n\n/ping\nw\xf6rld \N{SNOWMAN}\r\nlast".encode()
        status, out, errors = await run(url(server), given=given)
        assert (status, out) == (0, given.replace(b"\r", b"") + b"\n")
        assert errors.splitlines() == [
            f"connected to {url(server)}",
            "closed: sent 1000 (normal closure); then received 1000 (normal closure)",
        ]


async def test_what_is_not_utf_8_is_sent_as_binary() -> None:
    async def kinds(ws: fastws.ServerConnection) -> None:
        async for message in ws:
            await ws.send(type(message).__name__)

    async with serve(kinds) as server:
        _, out, _ = await run(url(server), given=b"text\n\xff\xfe\n")
        assert out == b"str\nbytes\n"


async def test_binary_messages_are_written_as_they_came() -> None:
    async def handler(ws: fastws.ServerConnection) -> None:
        await ws.send(b"\x00\xff\n")
        await ws.recv()

    async with serve(handler) as server:
        status, out, errors = await run(url(server), "--quiet", given=b"go")
        assert (status, out, errors) == (0, b"\x00\xff\n\n", "")


async def test_a_hundred_thousand_lines_go_through() -> None:
    count = 100_000

    async def handler(ws: fastws.ServerConnection) -> None:
        for _ in range(count):
            await ws.send(await ws.recv())

    async with serve(handler) as server:
        given = b"".join(b"line %d\n" % number for number in range(count))
        status, out, _ = await run(url(server), "--wait", "inf", given=given)
        assert status == 0
        assert out == given


async def test_it_receives_for_a_while_after_the_end_of_the_input() -> None:
    async def late(ws: fastws.ServerConnection) -> None:
        await asyncio.sleep(0.3)
        await ws.send("late")
        await ws.wait_closed()

    async with serve(late) as server:
        assert (await run(url(server), "--wait", "0"))[1] == b""
        assert (await run(url(server), "--wait", "3"))[1] == b"late\n"


async def test_with_wait_inf_it_receives_until_the_server_closes() -> None:
    async def handler(ws: fastws.ServerConnection) -> None:
        await asyncio.sleep(0.2)
        await ws.send("the end")
        await ws.close(1001, "enough")

    async with serve(handler) as server:
        status, out, errors = await run(url(server), "--wait", "inf")
        assert (status, out) == (0, b"the end\n")
        assert "received 1001 (going away) enough" in errors


async def test_json_is_indented_and_nothing_else() -> None:
    async with serve() as server:
        given = '{"a": [1, "\xfc"]}\nno {json}\n'.encode()
        _, out, _ = await run(url(server), "--json", given=given)
        assert out.decode() == '{\n  "a": [\n    1,\n    "\xfc"\n  ]\n}\nno {json}\n'


async def test_json_that_is_half_a_surrogate_pair_is_written_as_it_came() -> None:
    async with serve() as server:
        status, out, _ = await run(url(server), "--json", given=b'["\\ud800", "\\u00fc"]\n')
        assert (status, out.decode()) == (0, '[\n  "\\ud800",\n  "\xfc"\n]\n')


async def test_a_file_is_sent_first(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\0\n\xff" * 1000)
    async with serve() as server:
        _, out, _ = await run(url(server), "--binary-file", path, given=b"then\n")
        assert out == b"\0\n\xff" * 1000 + b"\nthen\n"
        status, _, errors = await run(url(server), "--binary-file", tmp_path / "missing")
        assert status == 2
        assert "No such file" in errors


async def test_the_request_says_what_the_arguments_do() -> None:
    async def tell(ws: fastws.ServerConnection) -> None:
        for name in ("X-Token", "Cookie", "Origin"):
            await ws.send(f"{name}={ws.request.headers[name]}")
        await ws.close()

    async with serve(tell, subprotocols=["b"]) as server:
        status, out, errors = await run(
            *(url(server), "-H", "X-Token: a:b", "--header", "Cookie:c=d"),
            *("--origin", "https://example.org", "--subprotocol", "a", "--subprotocol", "b"),
            *("--wait", "inf", "--no-proxy"),
        )
    assert (status, out) == (0, b"X-Token=a:b\nCookie=c=d\nOrigin=https://example.org\n")
    assert ", subprotocol b\n" in errors


async def test_certificates_are_checked_unless_told_not_to() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # a handshake broken off
    async with serve(ssl=server_context()) as server:
        uri = url(server).replace("ws://", "wss://")
        status, _, errors = await run(uri)
        assert status == 1
        assert "certificate" in errors
        assert (await run(uri, "--insecure", given=b"hello"))[:2] == (0, b"hello\n")


async def test_a_refusal_is_shown_with_its_body() -> None:
    def refuse(ws: fastws.ServerConnection, request: fastws.Request) -> fastws.Response:
        return ws.respond(403, "not \x1b[31myou\n")

    async with serve(process_request=refuse) as server:
        status, out, errors = await run(url(server))
    assert (status, out) == (1, b"")
    text = "fastws: the server refused the WebSocket: HTTP 403 Forbidden\nnot \\x1b[31myou\n"
    assert errors == text


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("ws://127.0.0.1:1/",), 1, "Connection refused"),
        (("http://127.0.0.1/",), 2, "the scheme is not ws or wss"),
        ((), 2, "usage:"),
        (("ws://h/", "-H", "nonsense"), 2, "has no colon"),
        (("ws://h/", "-H", "Connection: close"), 2, "is the handshake's own"),
        (("ws://h/", "--wait", "-1"), 2, "is not a time"),
        (("ws://h/", "--subprotocol", "a b"), 2, "is not a token"),
        (("ws://h/", "--proxy", "nonsense"), 1, "is not a proxy"),
    ],
)
async def test_what_cannot_be_is_one_clear_line(
    arguments: tuple[str, ...], status: int, text: str
) -> None:
    returned, out, errors = await run(*arguments)
    assert (returned, out) == (status, b"")
    assert text in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("code", [1000, 1011, 4000])
async def test_the_status_tells_how_the_connection_ended(code: int) -> None:
    async def handler(ws: fastws.ServerConnection) -> None:
        await ws.close(code)

    async with serve(handler) as server:
        status, _, errors = await run(url(server), "--wait", "inf")
    assert status == (0 if code == 1000 else 3)
    assert str(code) in errors


@pytest.mark.parametrize("closed", [False, True], ids=["waiting", "loop closed"])
def test_a_reader_of_lines_ends_silently_with_the_command(
    closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it waits for room for more lines at that moment, or comes with them behind it."""
    failures: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    path = tmp_path / "lines"
    path.write_bytes(b"a line\n" * 100_000)  # more than are read ahead
    before = set(threading.enumerate())
    go_on = threading.Event()
    read = os.read

    def read_late(descriptor: int, size: int) -> bytes:
        if closed:
            go_on.wait(TIMEOUT)
        return read(descriptor, size)

    async def one_line() -> None:
        lines = Pipe(quiet=True).lines()
        first = asyncio.ensure_future(anext(lines))
        if not closed:
            await first
            await asyncio.sleep(0.05)  # there is no room by then
        else:
            await asyncio.sleep(0)

    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        monkeypatch.setattr("fastws._cli.pipe.os.read", read_late)
        asyncio.run(one_line())
        go_on.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
    assert failures == []


@pytest.mark.parametrize(
    ("redirection", "written", "said"),
    [
        ("<&-", b"hello\n", True),
        (">&-", b"", True),
        ("2>&-", b"hello\n", False),
        ("<&- >&- 2>&-", b"", False),
    ],
)
async def test_streams_that_are_closed_are_as_if_empty(
    redirection: str, written: bytes, said: bool
) -> None:
    async def handler(ws: fastws.ServerConnection) -> None:
        await ws.send("hello")
        await ws.close()

    async with serve(handler) as server:
        status, out, errors = await run(url(server), "--wait", "inf", redirection=redirection)
    assert (status, out) == (0, written)
    assert ("closed: received 1000" in errors) is said
    assert "Traceback" not in errors


async def test_whoever_reads_the_output_may_go() -> None:
    async def flood(ws: fastws.ServerConnection) -> None:
        with contextlib.suppress(fastws.ConnectionClosed):
            while True:
                await ws.send("x" * 1000)

    async with serve(flood) as server:
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", '"$0" "$@" </dev/null | head -n 1'),
            *command(url(server), "--wait", "inf"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
        )
        async with asyncio.timeout(TIMEOUT):
            out, errors = await process.communicate()
    assert out == b"x" * 1000 + b"\n"
    assert b"Traceback" not in errors and b"Exception" not in errors


async def test_interrupting_is_130() -> None:
    connected = asyncio.Event()

    async def handler(ws: fastws.ServerConnection) -> None:
        connected.set()
        await ws.wait_closed()

    async with serve(handler) as server:
        process = await asyncio.create_subprocess_exec(
            *command(url(server), "--wait", "inf"),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
        )
        await connected.wait()
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(TIMEOUT):
            _, errors = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in errors


# --- in a terminal


class Screen:
    """The command in a pseudo-terminal: what is typed, and what has been written."""

    def __init__(self, descriptor: int, process: asyncio.subprocess.Process) -> None:
        self.descriptor = descriptor
        self.process = process
        self.written = ""
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # nobody has the other end open any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.descriptor)
        self.written += data.decode()
        self._more.set()

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    async def shows(self, text: str) -> None:
        """Wait until ``text`` has been written."""
        async with asyncio.timeout(TIMEOUT):
            while text not in self.written:
                self._more.clear()
                await self._more.wait()

    async def stands(self, *rows: str, below: int) -> None:
        """Wait until ``rows`` are all that stands on the screen below its first ones."""
        async with asyncio.timeout(TIMEOUT):
            while self.rows()[below:] != list(rows):
                self._more.clear()
                await self._more.wait()

    async def status(self) -> int:
        async with asyncio.timeout(TIMEOUT):
            return await self.process.wait()

    def rows(self) -> list[str]:
        """What stands in each row, as the control sequences that we use leave it."""
        rows, column = [""], 0
        for token in re.findall(r"\x1b\[\d*[KC]|\r|\n|[^\x1b\r\n]+", self.written):
            if token == "\r":
                column = 0
            elif token == "\n":
                rows.append("")
                column = 0
            elif token.endswith("K") and token.startswith("\x1b"):
                rows[-1] = rows[-1][:column]
            elif token.endswith("C") and token.startswith("\x1b"):
                column += int(token[2:-1])
            else:
                rows[-1] = rows[-1][:column] + token + rows[-1][column + len(token) :]
                column += len(token)
        return rows


@contextlib.asynccontextmanager
async def screen(*arguments: object) -> AsyncIterator[Screen]:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT
        )
    finally:
        os.close(theirs)
    found = Screen(ours, process)
    try:
        yield found
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_is_typed_is_sent_and_messages_stand_above_it() -> None:
    connections: asyncio.Queue[fastws.ServerConnection] = asyncio.Queue()

    async def handler(ws: fastws.ServerConnection) -> None:
        connections.put_nowait(ws)
        await echo(ws)

    async with serve(handler) as server, screen(url(server)) as terminal:
        ws = await connections.get()
        await terminal.shows("connected to")
        terminal.type("hel")
        await terminal.shows("> hel")
        await ws.send("while you type \x1b[2J")
        await terminal.shows("while you type")
        await ws.send(b"\x00\x01")
        await terminal.shows("2 bytes")
        await terminal.stands(
            "< while you type \\x1b[2J", "< binary, 2 bytes: 00 01", "> hel", below=1
        )
        terminal.type("lo\n")
        await terminal.shows("< hello")
        await terminal.stands("> hello", "< hello", "> ", below=3)
        terminal.type("\x04")
        assert await terminal.status() == 0
        await terminal.shows("closed: sent 1000")
        assert "while you type \x1b[2J" not in terminal.written


async def test_keys_edit_the_line_and_bring_old_ones_back() -> None:
    async with serve() as server, screen(url(server)) as terminal:
        await terminal.shows("connected to")
        terminal.type("wrld\x1b[D\x1b[D\x1b[Do\x01\x1bOC\x1b[C\x05!\n")
        await terminal.shows("< world!")
        terminal.type("second\n")
        await terminal.shows("< second")
        terminal.type("\x1b[A\x1b[A")
        terminal.type("?\n")
        await terminal.shows("< world!?")
        terminal.type("\N{SNOWMAN}\xfc\x7f\n")
        await terminal.shows("< \N{SNOWMAN}")


async def test_commands(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(bytes(300))
    async with serve() as server, screen(url(server)) as terminal:
        await terminal.shows("connected to")
        terminal.type("/ping\n")
        await terminal.shows("* pong after ")
        terminal.type(f"/send-file {path}\n")
        await terminal.shows("* sent 300 bytes")
        await terminal.shows("< binary, 300 bytes: 00 00")
        terminal.type(f"/send-file {tmp_path}/missing\n")
        await terminal.shows("No such file")
        terminal.type("/nonsense\n")
        await terminal.shows("* there is no /nonsense")
        terminal.type("/help\n")
        await terminal.shows("* /close [CODE [REASON]]")
        terminal.type("//slash\n")
        await terminal.shows("< /slash")
        for wrong in ("x", "1005", "99999", f"1000 {'r' * 124}"):
            terminal.type(f"/close {wrong}\n")
        await terminal.shows("* invalid literal")
        await terminal.shows("* close code 1005 is not allowed")
        await terminal.shows("* close code 99999")
        await terminal.shows("* close reason of 124 bytes")
        terminal.type("/close 4321 that is it\n")
        assert await terminal.status() == 3
        await terminal.shows("sent 4321 (private use) that is it")


async def test_ctrl_c_leaves_the_terminal_as_it_was() -> None:
    termios = pytest.importorskip("termios")
    async with serve() as server, screen(url(server)) as terminal:
        await terminal.shows("connected to")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.status() == 130
        assert "Traceback" not in terminal.written
        local = termios.tcgetattr(terminal.descriptor)[3]
        assert local & termios.ECHO and local & termios.ICANON


async def test_history_is_kept_for_the_next_time_if_it_is_asked_to_be(tmp_path: Path) -> None:
    path = tmp_path / "history"
    async with serve() as server:
        for _ in range(2):
            async with screen(url(server), "--history", path) as terminal:
                await terminal.shows("connected to")
                terminal.type("\x1b[Ax\n")
                await terminal.shows("< x")
                terminal.type("\x04")
                await terminal.status()
    assert path.read_text() == "x\nxx\n"
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_history_that_cannot_be_kept_is_said_and_no_more(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "history"
    async with serve() as server:
        for path, text in ((missing, "is not kept: "), (tmp_path, "is not read: ")):
            async with screen(url(server), "--history", path, "--json") as terminal:
                await terminal.shows("connected to")
                terminal.type('"\\ud800"\n')
                await terminal.shows('< "\\ud800"')
                terminal.type("/close 4001\n")
                assert await terminal.status() == 3
                await terminal.shows(f"fastws: the history {text}")
                assert "Traceback" not in terminal.written


async def test_it_ends_when_the_server_closes_while_a_line_is_typed() -> None:
    async def handler(ws: fastws.ServerConnection) -> None:
        await ws.recv()
        await ws.close(1001, "going")

    async with serve(handler) as server, screen(url(server)) as terminal:
        await terminal.shows("connected to")
        terminal.type("bye\nhalf a l")
        assert await terminal.status() == 0
        await terminal.shows("* closed: received 1001 (going away) going")


# --- JSON


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        ('{"a":1.10,"b":1e400,"a":2}', ["{", '  "a": 1.10,', '  "b": 1e400,', '  "a": 2', "}"]),
        ("[]", ["[]"]),
        ('[ { } , [ ],"[,:]"]', ["[", "  {},", "  [],", '  "[,:]"', "]"]),
        ('[[-0,true],"\\"\\\\"]', ["[", "  [", "    -0,", "    true", "  ],", '  "\\"\\\\"', "]"]),
        ('"\\u00e9\\ud83d\\ude00\\/"', ['"\xe9\N{GRINNING FACE}/"']),
        ('"\\ud800 \\u00e9"', ['"\\ud800 \\u00e9"']),
        (b'{"a":"\xc3\xa9"}', ["{", '  "a": "\xe9"', "}"]),
        ("9" * 5000, ["9" * 5000]),
    ],
)
def test_json_is_laid_out_and_not_changed(message: str | bytes, lines: list[str]) -> None:
    assert indented(message) == "\n".join(lines)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no",
        "[1,]",
        '"a\nb"',
        "[" * 100_000,
        "[" * 200 + "]" * 200,
        b'"\xff"',
        b'"\xed\xa0\x80"',
    ],
)
def test_what_is_no_json_or_nests_too_deep_is_left_alone(message: str | bytes) -> None:
    assert indented(message) is message


@given(
    strategies.recursive(
        strategies.none()
        | strategies.booleans()
        | strategies.integers()
        | strategies.floats(allow_nan=False)
        | strategies.text(),
        lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
    )
)
def test_it_is_laid_out_as_by_json(value: Any) -> None:
    expected = json.dumps(value, indent=2, ensure_ascii=False)
    for ascii_only in (True, False):
        assert indented(json.dumps(value, ensure_ascii=ascii_only)) == expected


# --- the line editor


def edited(*keys: str, history: list[str] | None = None) -> list[str]:
    editor = LineEditor(history)
    return [line for key in keys for line in editor.feed(key)]


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        ("a\rb\n", ["a", "b"]),
        ("\x04", [END_OF_INPUT]),
        ("ab\x02\x04\r", ["a"]),
        ("ab\x02\x02\x06c\r", ["acb"]),
        ("abc\x1b[H\x1b[3~\x1b[Fd\r", ["bcd"]),
        ("abc\x02\x0b\r", ["ab"]),
        ("abc\x02\x15\r", ["c"]),
        ("one two  \x17\r", ["one "]),
        ("\x7f\x1b[Da\x1b[C\x1b[Cb\r", ["ab"]),
        ("a\x00\x1b[200~b\x1b[201~\x1bx\x07c\td\r", ["abc\td"]),
        ("\x1b\x1b[Aa\r", ["a"]),
        ("1\r2\r2\r\x1b[A\x1b[A\r", ["1", "2", "2", "1"]),
        ("1\rtyped\x1b[A\x1b[Bx\r", ["1", "typedx"]),
        ("1\r\x10\x10\x0e\x0e\x0e\r", ["1", ""]),
    ],
)
def test_keys(typed: str, lines: list[str]) -> None:
    assert edited(typed) == lines
    assert edited(*typed) == lines  # however the sequences are cut


def test_the_window_follows_the_cursor() -> None:
    editor = LineEditor()
    editor.feed("0123456789")
    assert editor.render(20) == ("0123456789", 10)
    assert editor.render(5) == ("6789", 4)
    editor.feed("\x01")
    assert editor.render(5) == ("0123", 0)
    editor.feed("\x06" * 5)
    text, column = editor.render(5)
    assert text[column:] == "" and text == "1234"


def test_wide_and_combining_characters_take_their_columns() -> None:
    editor = LineEditor()
    editor.feed("\u6f22\u5b57e\u0301")
    assert editor.render(20) == ("\u6f22\u5b57e\u0301", 5)
    assert editor.render(4) == ("\u5b57e\u0301", 3)


def test_history_is_bounded() -> None:
    editor = LineEditor([str(number) for number in range(5000)])
    editor.feed("last\r")
    assert len(editor.history) == 1000
    assert editor.history[-1] == "last"


def test_control_characters_are_spelt_out() -> None:
    assert visible("a\tb\nc \xe9\N{SNOWMAN}") == "a\tb\nc \xe9\N{SNOWMAN}"
    assert visible("\x1b[2J\x07\x9b\x7f") == "\\x1b[2J\\x07\\x9b\\x7f"

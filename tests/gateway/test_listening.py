"""Unix sockets, and what systemd hands over and is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from websockets.asyncio.client import unix_connect
from websockets.sync.client import connect

from gateway import systemd
from gateway.config import ConfigError
from gateway.listening import UnixSocket
from gateway.server import Gateway
from tests.gateway.test_cli import ENVIRON, read_until
from tests.gateway.test_gateway import Client, make


def on(path: Path, **flags: object) -> Gateway:
    return make(http_server__address=f"unix:{path}", **flags)


@pytest.mark.usefixtures("loop_kind")
async def test_a_unix_socket_has_its_mode_and_is_gone_at_the_end(
    tmp_path: Path, loop_kind: str
) -> None:
    path = tmp_path / "gateway.sock"
    async with on(path, http_server__unix_socket_mode="0600") as gateway:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert gateway.port == 0
        ws = await unix_connect(str(path), "ws://x/connection/websocket", compression=None)
        async with Client(ws) as client:
            assert "connect" in await client.ask({"connect": {}})
        connector = aiohttp.UnixConnector(str(path))
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.get("http://x/health") as response,
        ):
            assert response.status == 200
    assert list(tmp_path.iterdir()) == []


async def test_a_new_process_takes_the_path_over_and_the_old_one_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    old = on(path)
    await old.start()
    async with on(path):
        await old.stop()
        async with await unix_connect(str(path), "ws://x/connection/websocket"):
            pass


async def test_a_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(OSError, match="is there and is no socket"):
        await on(path).start()
    assert path.read_text() == "x"
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "x", tmp_path / ("x" * 200)):
        with pytest.raises(OSError):
            UnixSocket(str(path), 0o600)


# --- systemd


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listening socket as the first that systemd has passed."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        first = os.dup(sock.fileno())
        monkeypatch.setattr(systemd, "_FIRST_FD", first)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        yield sock


def test_sockets_of_systemd_have_names(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_FDNAMES", "internal")
    found = systemd.listening_sockets()
    [sock] = found["internal"]
    with sock:
        assert sock.getsockname() == listening.getsockname()
        assert not sock.get_inheritable()
    assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & set(os.environ)


def test_what_is_for_another_process_is_not_taken(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    assert systemd.listening_sockets() == {}
    os.close(systemd._FIRST_FD)


def test_what_is_no_listening_socket_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as idle, open(os.devnull) as file:
        for fd in (idle.fileno(), file.fileno()):
            copy = os.dup(fd)
            monkeypatch.setattr(systemd, "_FIRST_FD", copy)
            monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
            monkeypatch.setenv("LISTEN_FDS", "1")
            with pytest.raises(ConfigError, match=f"LISTEN_FDS: descriptor {copy}"):
                systemd.listening_sockets()


def activated(
    sockets: dict[str, socket.socket], *arguments: str, **environ: str
) -> subprocess.Popen[str]:
    """The gateway as systemd starts it: sockets from descriptor 3 up, and its own process id."""
    moves = " ".join(f"{3 + n}<&{100 + n}" for n in range(len(sockets)))
    script = f'exec {moves}; LISTEN_PID=$$ exec "$@"'
    for number, sock in enumerate(sockets.values()):
        os.dup2(sock.fileno(), 100 + number)
    try:
        return subprocess.Popen(
            ["bash", "-c", script, "-", sys.executable, "-m", "gateway", "serve", *arguments],
            pass_fds=[100 + number for number in range(len(sockets))],
            stderr=subprocess.PIPE,
            text=True,
            env={
                **ENVIRON,
                "LISTEN_FDS": str(len(sockets)),
                "LISTEN_FDNAMES": ":".join(sockets),
                **environ,
            },
        )
    finally:
        for number in range(len(sockets)):
            os.close(100 + number)


def test_systemd_opens_the_ports_and_is_told_how_the_service_is(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("dev = true\n")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        socket.create_server(("127.0.0.1", 0)) as clients,
        socket.create_server(("127.0.0.1", 0)) as internal,
    ):
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(10)
        process = activated(
            {"clients": clients, "internal": internal},
            "--config",
            str(config),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
            WATCHDOG_USEC="200000",
        )
        with process:
            started = json.loads(read_until(process, "listening")[-1])
            assert started["sockets"] == [f"127.0.0.1:{clients.getsockname()[1]}"]
            assert started["internal"] == [f"127.0.0.1:{internal.getsockname()[1]}"]
            assert {notify.recv(4096), notify.recv(4096)} == {b"READY=1", b"WATCHDOG=1"}
            begin = time.monotonic()
            assert notify.recv(4096) == b"WATCHDOG=1"
            assert time.monotonic() - begin < 2
            with connect(f"ws://127.0.0.1:{clients.getsockname()[1]}/connection/websocket") as ws:
                ws.send('{"id":1,"connect":{}}')
                assert "connect" in str(ws.recv(timeout=10))
            config.write_text("nonsense = 1\n")
            process.send_signal(signal.SIGHUP)
            assert said(notify).startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert said(notify).startswith("STATUS=The last reload was refused: ")
            assert said(notify) == "READY=1"
            process.send_signal(signal.SIGTERM)
            assert said(notify) == "STOPPING=1"
            assert process.wait(timeout=10) == 0


def said(notify: socket.socket) -> str:
    """The next message but for signs of life."""
    while (message := notify.recv(4096)) == b"WATCHDOG=1":
        pass
    return message.decode()


def test_an_abstract_notify_socket_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"fastws-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.Notifier().ready()
        assert notify.recv(100) == b"READY=1"


def test_a_systemd_that_is_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.Notifier().ready()

"""The command: how it starts, what it says, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ENVIRON = {key: value for key, value in os.environ.items() if not key.startswith("FASTWS_HTTP")}


@contextmanager
def gateway(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRON, **environ},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    """Lines of stderr up to the one with this word."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError(f"{word!r} was not said, but {lines}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: int) -> None:
    with gateway("serve", "--dev", "--port", "0") as process:
        lines = read_until(process, "listening")
        assert "dev mode" in lines[0]
        port = json.loads(lines[-1])["port"]
        with connect(f"ws://127.0.0.1:{port}/connection/websocket") as ws:
            ws.send('{"id":1,"connect":{}}')
            ws.recv(timeout=10)
            process.send_signal(number)
            with pytest.raises(ConnectionClosed) as end:
                ws.recv(timeout=10)
            assert end.value.rcvd is not None
            assert (end.value.rcvd.code, end.value.rcvd.reason) == (3001, "shutdown")
        assert process.wait(timeout=10) == 0


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**ENVIRON, **environ},
    )


def test_a_wrong_key_ends_it_with_one_line_and_status_2(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[http_server]\nprot = 1\n")
    ended = run("serve", "--config", str(file))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"fastws-gateway: {file}: unknown key 'http_server.prot', "
        "did you mean 'http_server.port'?\n"
    )


def test_several_workers_are_refused_without_a_shared_engine() -> None:
    ended = run("serve", "--workers", "2")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "http_server.workers = 2" in ended.stderr


def test_a_port_in_use_is_one_line_and_status_1() -> None:
    with gateway("serve", "--port", "0") as process:
        port = json.loads(read_until(process, "listening")[-1])["port"]
        ended = run("serve", FASTWS_HTTP_SERVER_PORT=str(port))
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert re.search("cannot listen.*in use", last)


def test_the_version_is_told() -> None:
    ended = run("version")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", ended.stdout)


def test_it_says_when_nobody_can_connect() -> None:
    with gateway("serve", "--port", "0") as process:
        assert any("nobody can connect" in line for line in read_until(process, "nobody"))
    with gateway("serve", "--port", "0", FASTWS_CLIENT_TOKEN_HMAC_SECRET_KEY="x" * 32) as process:
        read_until(process, "listening")
        process.send_signal(signal.SIGTERM)
        assert not any("nobody" in line for line in read_until(process, "stopped"))


def test_an_unusable_key_ends_it_with_one_line_and_status_2() -> None:
    ended = run("serve", FASTWS_CLIENT_TOKEN_RSA_PUBLIC_KEY="garbage")
    assert ended.returncode == 2
    assert "client.token.rsa_public_key: not a usable public key" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_application_is_named_on_the_command_line() -> None:
    arguments = ["serve", "--port", "0", "--config", "examples/chat_app.toml"]
    with gateway(*arguments, "--app", "examples.chat_app:Chat") as process:
        port = json.loads(read_until(process, "listening")[-1])["port"]
        with connect(f"ws://127.0.0.1:{port}/connection/websocket") as ws:
            ws.send('{"id":1,"connect":{"data":{"name":"ann"}}}')
            assert "room:lobby" in json.loads(ws.recv(timeout=10))["connect"]["subs"]


@pytest.mark.parametrize("name", ["nowhere:app", "examples.chat_app:Nobody", "json:dumps"])
def test_an_application_that_is_none_is_one_line_and_status_2(name: str) -> None:
    ended = run("serve", "--app", name)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"fastws-gateway: --app {name}: ")
    assert ended.stderr.count("\n") == 1

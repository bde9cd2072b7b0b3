"""`python -m bench.load`: what it measures, and what it says when it can't."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.certificate import certificate
from bench.generator import percentile
from bench.load import main
from bench.process import BenchError, free_port, peer_command, run_load, server
from bench.tests.conftest import Limit

_QUICK = ["--seconds", "0.4", "--warmup", "0.1", "--quiet", "--timeout", "5"]


def _measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*arguments, *_QUICK, "--json"]) == 0
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return told


def _complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, *_QUICK]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("kind", ["binary", "ascii", "latin", "cjk", "emoji"])
def test_it_counts_echoes_of_every_kind(
    kind: str, limit: Limit, capsys: pytest.CaptureFixture[str]
) -> None:
    url, pid = f"ws://127.0.0.1:{limit.port}/", str(limit.pid)
    told = _measured(capsys, url, "-k", kind, "-c", "7", "-n", "3", "--pid", pid)
    assert told["count"] > 100  # type: ignore[operator]
    assert (told["mismatches"], told["lost"], told["failures"]) == (0, 0, 0)
    assert told["server_cpu_us"] > 0  # type: ignore[operator]


def test_several_processes_share_connections_and_rate(
    limit: Limit, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"ws://127.0.0.1:{limit.port}/"
    told = _measured(capsys, url, "-c", "11", "-p", "3", "-r", "900")
    assert told["processes"] == len(told["load_cpu"]) == 3  # type: ignore[arg-type]
    assert told["per_second"] == pytest.approx(900, rel=0.15)
    assert told["loop"] == "open"


_PAUSES = """
import asyncio, sys, time
from websockets.asyncio.server import serve

async def echo(ws):
    count = 0
    async for message in ws:
        count += 1
        if count == 300:
            time.sleep(0.3)
        await ws.send(message)

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), compression=None):
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def _script(text: str, log: Path, *arguments: str) -> Iterator[tuple[int, int]]:
    pytest.importorskip("websockets")
    port = free_port()
    with server([sys.executable, "-c", text, str(port), *arguments], port, log) as pid:
        yield port, pid


def test_an_open_loop_does_not_omit_what_was_due_while_the_server_stalled(tmp_path: Path) -> None:
    """300 ms of 1.2 s stall: a quarter of all messages waited, 3 % for over 250 ms."""
    arguments = ["--connections", "1", "--depth", "4", "--warmup", "0", "--duration", "1.2"]
    with _script(_PAUSES, tmp_path / "log") as (port, pid):
        result = run_load(port, pid, [*arguments, "--rate", "1000", "--buckets"], 30)
    slow = sum(count for edge, count in result["buckets"] if edge > 150e6)
    assert slow > 100  # with --depth 4 in flight, a closed loop would have seen 4
    assert result["messages"] > 1000


def test_what_is_unanswered_at_the_end_counts(tmp_path: Path) -> None:
    arguments = ["--connections", "2", "--depth", "2", "--warmup", "0", "--duration", "0.5"]
    with _script(_PAUSES, tmp_path / "log") as (port, pid):
        result = run_load(port, pid, [*arguments, "--rate", "500000", "--buckets"], 30)
    assert result["unanswered"] > result["messages"]
    total = sum(count for _, count in result["buckets"])
    assert total == result["unanswered"] + result["messages"]


def test_it_says_when_it_is_the_limit_itself(
    limit: Limit, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _measured(capsys, f"ws://127.0.0.1:{limit.port}/", "-r", "20000000")
    assert told["load_saturated"] is True


def test_handshakes_and_idle_connections(limit: Limit, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"ws://127.0.0.1:{limit.port}/"
    assert _measured(capsys, url, "-m", "handshake", "-c", "8")["count"] > 10  # type: ignore[operator]
    assert _measured(capsys, url, "-m", "idle", "-c", "8")["lost"] == 0


def test_tls_checks_the_certificate_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    url = f"wss://localhost:{port}/"
    command = peer_command("fastws_listener", port, features=("tls",))
    with server(command, port, tmp_path / "log"):
        assert "--insecure" in _complaint(capsys, url)
        assert _measured(capsys, url, "--insecure")["count"] > 10  # type: ignore[operator]
        authority = str(Path(certificate()).with_name("authority.pem"))
        assert _measured(capsys, url, "--ca", authority)["count"] > 10  # type: ignore[operator]
        arguments = ["--tls", "--verify-tls", "--ca", authority, "--host", "elsewhere.test"]
        with pytest.raises(BenchError):
            run_load(port, 1, [*arguments, "--duration", "0.1"], 10)


def test_deflate_needs_a_server_that_agrees(
    tmp_path: Path, limit: Limit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "deflate" in _complaint(capsys, f"ws://127.0.0.1:{limit.port}/", "--deflate")
    port = free_port()
    command = peer_command("fastws_listener", port, features=("deflate",))
    with server(command, port, tmp_path / "log"):
        told = _measured(capsys, f"ws://127.0.0.1:{port}/", "--deflate", "-s", "1k")
    assert told["count"] > 10  # type: ignore[operator]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1/", "not a WebSocket URI"),
        ("ws://127.0.0.1:1/", "connection refused: nobody listens"),
        ("ws://no-such-host.invalid/", "no address for 'no-such-host.invalid'"),
    ],
)
def test_a_bad_address_is_said_clearly(
    url: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in _complaint(capsys, url)


_UPPER = _PAUSES.replace("time.sleep(0.3)", "pass").replace("ws.send(message)", "ws.send('NO')")


def test_a_server_that_does_not_echo_is_said_clearly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _script(_UPPER, tmp_path / "log") as (port, _):
        complaint = _complaint(capsys, f"ws://127.0.0.1:{port}/")
    assert "not an echo" in complaint
    assert "'NO' came back" in complaint


def test_a_web_page_is_no_websocket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with server(command, port, tmp_path / "log"):
        assert "is not a WebSocket" in _complaint(capsys, f"ws://127.0.0.1:{port}/")


def test_an_interrupt_ends_early_and_reports(limit: Limit) -> None:
    command = [
        sys.executable,
        "-m",
        "bench.load",
        f"ws://127.0.0.1:{limit.port}/",
        "-t",
        "60",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert 0.1 < json.loads(output)["seconds"] < 20


def test_stalled_connections_are_not_waited_for(tmp_path: Path) -> None:
    port = free_port()
    arguments = ["--mode", "fanout", "--connections", "50", "--stalled", "3", "--rounds", "20"]
    with server(peer_command("fastws_listener", port, "broadcast"), port, tmp_path / "log") as pid:
        result = run_load(port, pid, [*arguments, "--size", "4000"], 30)
    assert result["deliveries"] == 47 * 20


def test_percentiles_are_upper_edges() -> None:
    buckets = Counter({1000: 90, 2000: 9, 5000: 1})
    assert [percentile(buckets, share) for share in (0.5, 0.9, 0.99, 1)] == [1, 1, 2, 5]
    assert percentile(Counter(), 0.5) == 0
